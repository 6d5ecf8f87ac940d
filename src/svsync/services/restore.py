"""After the database was restored from a backup: what makes it safe to go on.

Base and local side are of one moment, so the next runs compare them with the backends as
they are now, and the table is right. Three things are not of that moment: workers of
after the backup may still hold fences, runs that the backup shows as running are not, and
pushes that it shows as unfinished may have been made. Events may be sent a second time,
under the same id.
"""

from collections.abc import Callable
from dataclasses import dataclass

from svsync.services.lost_runs import tell_lost
from svsync.store import federation
from svsync.store import restore as store
from svsync.store.database import Database


@dataclass(slots=True)
class Restored:
    """How much was of another moment."""

    fences: int = 0
    runs: int = 0
    pushes: int = 0


async def after_restore(db: Database, *, ids: Callable[[str], str]) -> Restored:
    """Raise every fence and epoch, end what was running, ask about pushes, tenant by tenant. Doing
    it again does no harm.

    Raises:
        StoreError: what was done for other tenants stands.
    """
    done = Restored()
    for tenant in await store.tenants(db):
        async with db.transaction(tenant) as tx:
            await store.raise_epochs(tx)
            done.fences += await store.raise_fences(tx)
            specs = {b.spec.id: b.spec for b in await federation.list_backends(tx)}
            lost = await store.end_running(tx)
            for row in lost:
                await tell_lost(tx, specs[row["backend_id"]], row, ids=ids)
            done.runs += len(lost)
            done.pushes += await store.ask_pushes(tx)
    await store.remember(db)
    return done
