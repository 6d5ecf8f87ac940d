"""The names of things, as types, so that one kind is never taken for another."""

from typing import NewType

TenantId = NewType("TenantId", int)
"""Row identity of a tenant (`tenants.tenant_id`); the slug is what people type."""

BackendId = NewType("BackendId", str)
"""`fed_` and 12 base32 characters, or the id given in the configuration file."""

RunId = NewType("RunId", str)
"""`run_` and a UUIDv7 in hex: ids sort by the moment they were made."""

ConflictId = NewType("ConflictId", str)
"""`cfl_` and a UUIDv7 in hex."""

PushId = NewType("PushId", str)
"""`psh_` and a UUIDv7 in hex; the idempotency token where a backend takes one."""

EndpointId = NewType("EndpointId", str)
"""`whk_` and a UUIDv7 in hex: where webhooks of a tenant go."""

LocalPath = NewType("LocalPath", str)
"""A secret's name in ScaiVault, already checked by `paths.parse_local`."""

RemotePath = NewType("RemotePath", str)
"""A secret's name in its backend, in that backend's own path form."""

KeyId = NewType("KeyId", int)
"""Number of a data key within its tenant (`data_keys.key_id`)."""

SecretId = NewType("SecretId", int)
"""Row identity of a secret within its tenant (`secrets.secret_id`)."""

Fence = NewType("Fence", int)
"""Rises with each change of a lease's holder or of a backend's configuration."""
