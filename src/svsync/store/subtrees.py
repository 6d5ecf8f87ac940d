"""Secrets below a folder with what tells how far their migration is."""

from svsync.store.database import Row, Transaction


async def page(tx: Transaction, after: str, folder: str, limit: int) -> list[Row]:
    """Live secrets and active pairs below a folder (empty: all), by path, behind a path."""
    return await tx.fetch("subtrees.page", tx.tenant, after, folder, limit)
