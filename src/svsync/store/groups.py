"""Groups of identities, as they were last told."""

from collections.abc import Sequence

from svsync.store.database import Row, Transaction


async def set_groups(tx: Transaction, identity: str, names: Sequence[str]) -> None:
    """In place of those that were known; none: nothing is kept."""
    if names:
        await tx.execute("groups.set", tx.tenant, identity, list(names))
    else:
        await tx.execute("groups.forget", tx.tenant, identity)


async def groups_of(tx: Transaction, identity: str) -> list[str]:
    found = await tx.fetchval("groups.of", tx.tenant, identity)
    return list(found or ())


async def list_groups(tx: Transaction) -> list[Row]:
    return await tx.fetch("groups.list", tx.tenant)
