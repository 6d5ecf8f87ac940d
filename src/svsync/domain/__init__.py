"""What svsync decides, without doing any of it.

Pure values and functions: no I/O, no clock, no randomness. Everything that
could lose a write or leak a value is decided here, where it can be enumerated.
"""
