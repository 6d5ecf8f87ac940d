"""Of the calls that a backend may be called in a day, those that reads make.

A process takes some of them at a time, counted from then on, so that no two together make
more than there are; what one has taken and not used when it ends counts as used.
"""

from typing import Final

from svsync.domain.federation import BackendSpec
from svsync.domain.ids import BackendId, TenantId
from svsync.store import proxied_calls as store
from svsync.store import queue
from svsync.store.database import Database, Transaction

_PARTS: Final = 100
_LEAST: Final = 8
_MOST: Final = 1_000
"""Calls that are taken at a time: a hundredth of the budget, within these bounds."""


def per_day_of(spec: BackendSpec) -> int | None:
    """Calls that a backend's budget allows in 24 hours; None: it has none."""
    per_day = spec.call_budget.get("per_day")
    return per_day if isinstance(per_day, int) else None


async def made(tx: Transaction, backend: BackendId) -> int:
    """Calls of the last 24 hours: those of runs that ended, and those that reads were given."""
    return await queue.calls_of_last_day(tx, backend) + await store.made(tx, backend)


class CallBudgets:
    """The budgets of every tenant's backends."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def take(self, tenant: TenantId, spec: BackendSpec) -> int:
        """So many calls may be made now; 0: none.

        Raises StoreError: nobody knows.
        """
        per_day = per_day_of(spec)
        if per_day is None:
            return 0
        wanted = max(_LEAST, min(_MOST, per_day // _PARTS))
        async with self._db.transaction(tenant) as tx:
            # Counted first: whoever takes at the same time waits for this row.
            await store.count(tx, spec.id, wanted)
            beyond = min(wanted, max(0, await made(tx, spec.id) - per_day))
            if beyond:
                await store.count(tx, spec.id, -beyond)
            await store.forget_old(tx)
        return wanted - beyond
