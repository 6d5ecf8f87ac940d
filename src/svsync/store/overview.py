"""What somebody who looks on wants to know at once: backends, runs, processes, and whether a
person has stopped all runs.

Each is one statement, and none reads a table that grows with the secrets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from svsync.domain.ids import BackendId
from svsync.store.database import Database, Row, Transaction
from svsync.store.schedule import LIVE_S


@dataclass(frozen=True, slots=True)
class Stopped:
    """No run of any tenant begins, `since` when (the database's clock) and `by` whom."""

    since: datetime
    by: str


async def backends(
    tx: Transaction,
    *,
    only: Sequence[BackendId] | None = None,
    after: str = "",
    limit: int | None = None,
) -> list[Row]:
    """Backends of the transaction's tenant, by id.

    Args:
        only: these, as far as they are there; None: every one.
        after: those behind this id.
        limit: so many at most; None: all.

    Raises StoreError where that takes more than seconds.
    """
    await tx.fetch("overview.hurry")
    named = None if only is None else list(only)
    return await tx.fetch("overview.backends", tx.tenant, named, after, limit)


async def runs(tx: Transaction) -> tuple[int, int]:
    """How many runs of the tenant are at work, and how many wait."""
    row = await tx.fetchrow("overview.runs", tx.tenant)
    assert row is not None
    return row["running"], row["waiting"]


async def processes(db: Database) -> list[Row]:
    """The processes that are up."""
    return await db.fetch_global("overview.processes", LIVE_S)


async def now(db: Database) -> tuple[datetime, Stopped | None]:
    """The database's time, and whether all runs are stopped."""
    [row] = await db.fetch_global("overview.stopped")
    return row["now"], None if row["stopped_at"] is None else _stopped(row)


async def stop(db: Database, by: str) -> Stopped:
    """No run begins any more, of any tenant; those under way end as ever. Where that is so
    already, whoever was first stays named."""
    [row] = await db.fetch_global("overview.stop", by)
    return _stopped(row)


async def go_on(db: Database) -> None:
    """Runs begin again."""
    await db.fetch_global("overview.go_on")


def _stopped(row: Row) -> Stopped:
    return Stopped(row["stopped_at"], row["stopped_by"])
