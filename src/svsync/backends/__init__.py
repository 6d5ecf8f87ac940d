"""The remote stores, one package or module each, reached through the registry.

None knows another. `guarded` is what stands around every one of them.
"""
