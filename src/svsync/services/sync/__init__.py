"""One run of one backend: list, stage, diff, fetch, decide, seal, commit, emit.

`cycle.py` has these verbs in order; each stage has a module of its own.
"""
