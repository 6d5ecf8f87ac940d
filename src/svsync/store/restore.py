"""What a restored database has to forget: who held a lease, and what was under way.

PostgreSQL tells on which server and timeline a database is. Another one than was
remembered means a restore, or a promoted standby that may lack the last commits. A
snapshot of the disk that is put back in place changes neither, and is not noticed.
"""

from dataclasses import dataclass

from svsync.domain.errors import StoreError
from svsync.domain.ids import TenantId
from svsync.store.database import Database, Row, Transaction


@dataclass(frozen=True, slots=True)
class Home:
    """The server (by its system identifier) and the timeline of a database."""

    system: str
    timeline: int


async def home(db: Database) -> Home | None:
    """Where the database is now; None where our role may not know."""
    try:
        [row] = await db.fetch_global("restore.home")
    except StoreError:
        return None
    return Home(row["system"], row["timeline"])


async def has_moved(db: Database) -> bool:
    """Is the database elsewhere than it was when that was last remembered?"""
    now, rows = await home(db), await db.fetch_global("restore.remembered")
    return bool(now and rows) and now != Home(rows[0]["system"], rows[0]["timeline"])


async def remember(db: Database, *, only_first: bool = False) -> None:
    """Where the database is now is where it belongs (`only_first`: if nothing is known)."""
    now = await home(db)
    known = only_first and await db.fetch_global("restore.remembered")
    if now is not None and not known:
        await db.fetch_global("restore.remember", now.system, now.timeline)


async def tenants(db: Database) -> list[TenantId]:
    return [TenantId(row["tenant_id"]) for row in await db.fetch_global("restore.tenants")]


async def end_running(tx: Transaction) -> list[Row]:
    """End the runs that were under way; their rows, for their events."""
    return await tx.fetch("restore.end_running", tx.tenant)


async def raise_fences(tx: Transaction) -> int:
    """Nobody who held a lease of any backend holds one now; how many there are."""
    return await tx.execute("restore.raise_fences", tx.tenant)


async def raise_epochs(tx: Transaction) -> None:
    """No process goes by rights or backends that it remembers from after the backup."""
    await tx.execute("restore.raise_epochs", tx.tenant)


async def ask_pushes(tx: Transaction) -> int:
    """Make unfinished pushes overdue, so that they are asked about; how many there are."""
    return await tx.execute("restore.ask_pushes", tx.tenant)
