"""What can be said, by what is stored, of secrets that are to be deleted at their source."""

from collections.abc import Sequence
from datetime import datetime

from svsync.domain.audit import LOOK
from svsync.domain.ids import BackendId, LocalPath
from svsync.store.columns import columns
from svsync.store.database import Row, Transaction


async def pairs(
    tx: Transaction, after: str, prefix: str, backend: BackendId | None, limit: int
) -> list[Row]:
    """Active pairs by local path, a page at a time; None: of every backend."""
    return await tx.fetch("retirement.pairs", tx.tenant, after, prefix, backend, limit)


async def copies(
    tx: Transaction, equal: Sequence[tuple[LocalPath, bytes, int]]
) -> list[tuple[LocalPath, LocalPath]]:
    """For paths with fingerprint and its key: each with paths of no backend that have the same
    value."""
    if not equal:
        return []
    rows = await tx.fetch("retirement.copies", tx.tenant, *columns(equal, 3))
    return [(LocalPath(row["path"]), LocalPath(row["copy"])) for row in rows]


async def last_reads(
    tx: Transaction, paths: Sequence[LocalPath], since: datetime
) -> dict[LocalPath, Row]:
    """`at` and `identity_id` of the last read of each path by an application; those without one
    are missing."""
    rows = await tx.fetch("retirement.last_reads", tx.tenant, list(paths), since, LOOK)
    return {LocalPath(row["path"]): row for row in rows}


async def looked_at(tx: Transaction) -> dict[BackendId, Row]:
    """Of each backend's last full run that succeeded: `seconds_ago` since it ended, and when it
    `began_at`; both None where there was none."""
    rows = await tx.fetch("retirement.looked_at", tx.tenant)
    return {BackendId(row["backend_id"]): row for row in rows}
