"""What svsync costs, beside the least that the same work can cost on this machine.

Every figure is a ratio against a floor measured in the same run. A floor is a
program in `bench/floors/`, as small as it can be; svsync is measured in a process
of its own too, so that its memory is its own.
"""
