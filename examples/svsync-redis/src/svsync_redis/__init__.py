"""Secrets in a Redis or Valkey server as a backend of svsync: type `redis-hash`."""
