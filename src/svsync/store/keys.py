"""Wrapped keys. What is unwrapped lives in `services/sealing.py`, in memory only."""

from svsync.domain.ids import KeyId, TenantId
from svsync.store.database import Database, Row, Transaction


async def root_keys(db: Database) -> list[Row]:
    """All root keys, newest first."""
    return await db.fetch_global("keys.root")


async def add_root(
    db: Database, ref: str, wrapped: bytes, ref_2: str | None, wrapped_2: bytes | None
) -> bool:
    """Keep the first boot's root key; False where another process was faster."""
    return bool(await db.fetch_global("keys.add_root", ref, wrapped, ref_2, wrapped_2))


async def rewrap_root(
    db: Database,
    root_id: int,
    seen: tuple[bytes, bytes | None],
    first: tuple[str, bytes],
    second: tuple[str, bytes] | None,
) -> None:
    """Store a root key as other key services wrapped it, each with its reference, in place
    of what was seen; where something else stands by now, that stays."""
    await db.fetch_global("keys.rewrap_root", root_id, *seen, *first, *(second or (None, None)))


async def replace_root(
    db: Database, old: int, first: tuple[str, bytes], second: tuple[str, bytes] | None
) -> int | None:
    """Make a root key, as each key service wrapped it, the one that wraps from now on; None:
    `old` does not wrap any more, and nothing was changed."""
    rows = await db.fetch_global("keys.replace_root", old, *first, *(second or (None, None)))
    return rows[0]["root_id"] if rows else None


async def remove_roots(tx: Transaction) -> list[int]:
    """Remove the old root keys that wrap nothing; `tx` sees every tenant's rows."""
    return [row["root_id"] for row in await tx.fetch("keys.remove_roots")]


async def lock_active_root(tx: Transaction) -> int:
    """The root key that wraps now; it stays until the transaction ends."""
    root: int = await tx.fetchval("keys.lock_active_root")
    return root


async def wrapped_by_others(tx: Transaction, root_id: int) -> list[Row]:
    """Data keys that another root key wraps, locked."""
    return await tx.fetch("keys.wrapped_by_others", tx.tenant, root_id)


async def wrap_anew(tx: Transaction, key: KeyId, root_id: int, wrapped: bytes | None) -> None:
    await tx.execute("keys.wrap_anew", tx.tenant, key, root_id, wrapped)


async def tenants(db: Database) -> dict[TenantId, str]:
    """All tenants that were not shredded, by their names; suspended ones too."""
    rows = await db.fetch_global("keys.tenants")
    return {TenantId(row["tenant_id"]): row["slug"] for row in rows if row["kept"]}


async def every_tenant(db: Database) -> list[TenantId]:
    """All tenants, shredded ones too."""
    return [TenantId(row["tenant_id"]) for row in await db.fetch_global("keys.tenants")]


async def data_keys(tx: Transaction) -> list[Row]:
    return await tx.fetch("keys.data_keys", tx.tenant)


async def data_key(tx: Transaction, key: KeyId) -> Row | None:
    return await tx.fetchrow("keys.data_key", tx.tenant, key)


async def active(tx: Transaction, purpose: str) -> Row | None:
    return await tx.fetchrow("keys.active", tx.tenant, purpose)


async def reserve(
    tx: Transaction, purpose: str, block: int, limit: int, max_age_s: float
) -> Row | None:
    """A block of sealings of the active key; None where there is none fit for use."""
    return await tx.fetchrow("keys.reserve", tx.tenant, purpose, block, limit, max_age_s)


async def lock_tenant(tx: Transaction) -> None:
    await tx.fetch("keys.lock_tenant", tx.tenant)


async def next_key_id(tx: Transaction) -> KeyId:
    return KeyId(await tx.fetchval("keys.next_key_id", tx.tenant))


async def replace_active(
    tx: Transaction, key: KeyId, purpose: str, root_id: int, wrapped: bytes, reserved: int
) -> None:
    """Make `key` the active one; the one before it only opens from now on."""
    await tx.execute("keys.retire", tx.tenant, purpose)
    await tx.execute("keys.add_data_key", tx.tenant, key, purpose, root_id, wrapped, reserved)
