"""Checkpoints of the audit log: signed heads of its chains, and which places outside have them."""

from collections.abc import Sequence
from datetime import datetime

from svsync.domain.audit import Checkpoint, Head
from svsync.domain.ids import KeyId, TenantId
from svsync.store.database import Database, Row, Transaction


async def tenants(db: Database) -> dict[TenantId, str]:
    """All tenants that may have an audit log, with their names."""
    rows = await db.fetch_global("checkpoints.tenants")
    return {TenantId(row["tenant_id"]): row["slug"] for row in rows}


async def went_on(tx: Transaction, tenants: Sequence[TenantId]) -> dict[TenantId, int]:
    """Those that have rows under no checkpoint, and how many."""
    rows = await tx.fetch("checkpoints.went_on", list(tenants))
    return {TenantId(row["tenant_id"]): row["many"] for row in rows}


async def lock(tx: Transaction) -> None:
    """The next statement sees what whoever held it had committed."""
    await tx.fetch("checkpoints.lock", tx.tenant)


async def last(tx: Transaction) -> Row:
    """`n`, `at`, `hash` of the newest checkpoint, None where there is none; and `now`."""
    row = await tx.fetchrow("checkpoints.last", tx.tenant)
    assert row is not None
    return row


async def heads(tx: Transaction) -> list[Head]:
    """Of the chains that went on since the last checkpoint."""
    rows = await tx.fetch("checkpoints.heads", tx.tenant)
    return [Head(row["chain_id"], row["seq"], row["hash"]) for row in rows]


async def add(tx: Transaction, made: Checkpoint, heads: str, key: KeyId, signature: bytes) -> None:
    await tx.execute(
        "checkpoints.add", tx.tenant, made.n, made.at, heads, made.root, made.prev_hash, made.hash,
        key, signature,
    )  # fmt: skip


async def cover(tx: Transaction, heads: Sequence[Head], at: datetime) -> None:
    """Remember up to where the chains are under a checkpoint now."""
    chains = [head.chain for head in heads]
    await tx.execute("checkpoints.cover", tx.tenant, chains, [head.seq for head in heads], at)
    await tx.execute("checkpoints.settle", tx.tenant)


async def wake(tx: Transaction, tenants: Sequence[TenantId]) -> int:
    """Have chains at rest that went on all the same looked at again; how many."""
    return await tx.execute("checkpoints.wake", list(tenants))


async def behind(tx: Transaction, tenants: Sequence[TenantId], place: str) -> list[Row]:
    """Tenants of whose checkpoints a place lacks some: `newest`, and `last_n` that it has."""
    return await tx.fetch("checkpoints.behind", list(tenants), place)


async def page(tx: Transaction, after: int, limit: int) -> list[Row]:
    """The checkpoints that follow on a number, in order."""
    return await tx.fetch("checkpoints.page", tx.tenant, after, limit)


async def some(tx: Transaction, numbers: Sequence[int]) -> dict[int, Row]:
    """Those of these checkpoints that are there."""
    rows = await tx.fetch("checkpoints.some", tx.tenant, list(numbers))
    return {row["n"]: row for row in rows}


def checkpoint_of(tenant: TenantId, row: Row) -> Checkpoint:
    return Checkpoint(tenant, row["n"], row["at"], row["root"], row["prev_hash"])


async def before(tx: Transaction, moment: datetime) -> int:
    """The number of the last one that was made before a moment; 0 where none was."""
    return int(await tx.fetchval("checkpoints.before", tx.tenant, moment))


async def anchored(tx: Transaction, place: str, first: int, last: int) -> None:
    """A place has the checkpoints from `first` to `last`."""
    await tx.execute("checkpoints.anchored", tx.tenant, place, first, last)


async def span(tx: Transaction, place: str) -> tuple[int, int] | None:
    """The first and the last that a place was given, with all between; None: it has none."""
    row = await tx.fetchrow("checkpoints.span", tx.tenant, place)
    return None if row is None else (row["first_n"], row["last_n"])


async def late(
    tx: Transaction, tenants: Sequence[TenantId], places: Sequence[str], seconds: float
) -> list[Row]:
    """Places that lack a checkpoint older than so many seconds, and `since` when."""
    return await tx.fetch("checkpoints.late", list(tenants), list(places), seconds)


async def signing_keys(tx: Transaction) -> list[Row]:
    """The wrapped keys that checkpoints were signed with, oldest first."""
    return await tx.fetch("checkpoints.signing_keys", tx.tenant)
