"""The API over HTTP: routes, identity, and errors as answers."""
