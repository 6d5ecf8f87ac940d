"""The command line: arguments in, one sentence or one table out, an exit code."""
