"""After the database was restored from a backup: what makes it safe to go on.

Base and local side are of one moment, so the next runs compare them with the backends as
they are now, and the table is right. Three things are not of that moment: workers of
after the backup may still hold fences, runs that the backup shows as running are not, and
pushes that it shows as unfinished may have been made. Events may be sent a second time,
under the same id.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from svsync.domain.audit import Actor, Decision, Entry
from svsync.services.lost_runs import tell_lost
from svsync.services.recording import Recorder
from svsync.store import federation
from svsync.store import restore as store
from svsync.store.database import Database


@dataclass(slots=True)
class Restored:
    """How much was of another moment."""

    fences: int = 0
    runs: int = 0
    pushes: int = 0


async def after_restore(
    db: Database, recorder: Recorder, *, by: Actor, ids: Callable[[str], str]
) -> Restored:
    """Raise every fence and epoch, end what was running, ask about pushes, tenant by tenant. Doing
    it again does no harm. Each tenant's log has a row of it, with the server that it is on now:
    what was recorded after the backup, and is gone, lies before that row.

    Raises:
        StoreError: what was done for other tenants stands.
        AuditUnavailableError: likewise; of this tenant nothing was done.
    """
    done = Restored()
    home = await store.home(db)
    detail = None if home is None else json.dumps(asdict(home))
    for tenant in await store.tenants(db):
        await recorder.record(Entry(tenant, *by, "store.restored", Decision.ALLOW, detail=detail))
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
