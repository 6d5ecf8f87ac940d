"""Key services: what wraps the root key, one module a provider."""
