"""Secrets below a folder with what tells how far their migration is."""

from datetime import datetime

from svsync.domain.audit import LOOK
from svsync.domain.ids import LocalPath
from svsync.store.database import Row, Transaction


async def page(tx: Transaction, after: str, folder: str, since: datetime, limit: int) -> list[Row]:
    """Live secrets and active pairs below a folder (empty: all), by path, behind a path;
    `read`: by an application, from a moment on."""
    return await tx.fetch("subtrees.page", tx.tenant, after, folder, limit, since, LOOK)


async def copies(tx: Transaction, folder: str, limit: int) -> list[tuple[LocalPath, LocalPath]]:
    """Pairs below a folder, each with a path of no backend that has the same value; at most so
    many."""
    rows = await tx.fetch("subtrees.copies", tx.tenant, folder, limit)
    return [(LocalPath(row["path"]), LocalPath(row["copy"])) for row in rows]
