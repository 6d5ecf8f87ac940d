"""Sessions with remote services: signing in, staying signed in, single calls.

Each is shared by whatever talks to its service: backend, key service, feed.
"""
