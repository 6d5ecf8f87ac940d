"""The chains of the audit log as they stand, and which places outside have their checkpoints."""

from svsync.store.database import Row, Transaction


async def page(tx: Transaction, before: int, limit: int) -> list[Row]:
    """Chains, newest first, of those begun before one; `seq`, `at` and `hash` are of its last
    row, None where none is left."""
    return await tx.fetch("audit_chains.page", tx.tenant, before, limit)


async def anchors(tx: Transaction) -> list[Row]:
    """By place, from which checkpoint to which one it has them all, and since when."""
    return await tx.fetch("audit_chains.anchors", tx.tenant)
