"""Wrapped keys. What is unwrapped lives in `services/sealing.py`, in memory only."""

from svsync.domain.ids import KeyId
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
