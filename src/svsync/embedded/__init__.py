"""Real servers from Python wheels, for the laptop, the demonstration and the tests.

Nothing here is installed system-wide, needs root, or outlives its owner: each
server is a child process with its files in one folder, on a loopback port that
was free, ended by its own process id.
"""
