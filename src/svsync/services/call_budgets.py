"""Of the calls that a backend may be called in a day, who makes how many.

Runs and reads take some of them at a time, counted from then on, so that no two together,
in whichever process, make more than there are. A run gives back what it took and did not
use when it ends; what a read's process took and did not use counts as used. Writes and
connection tests are refused none, and count as soon as they are made (`counted_calls`).

A tenth of the budget is kept for people: for reads that pass through, and for runs that
somebody asked for. What the schedule and change feeds begin does not touch it. Where less is
left to those than a quiet cycle takes, they are put off until enough calls are older than a
day. Where there is more to do than that, a run goes on as far as the budget does.
"""

from datetime import datetime
from typing import Final

from svsync.domain.cycles import QuietCycle
from svsync.domain.errors import StoreError, SvsyncError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import BackendId, TenantId
from svsync.domain.runs import RunKind
from svsync.observe.logs import get_logger
from svsync.store import proxied_calls as store
from svsync.store import queue
from svsync.store.database import Database, Transaction
from svsync.store.federation import StoredBackend
from svsync.store.queue import Claimed

SPENT: Final = "call_budget_spent"
_PARTS: Final = 100
_PARTS_OF_RUNS: Final = 20
_LEAST: Final = 8
_MOST: Final = 1_000
"""Calls that are taken at a time: a hundredth of the budget for reads, a twentieth for runs,
within these bounds."""
_KEPT: Final = 10
"""So many parts of the budget, one of which is kept for people."""


class ShortBudgetError(SvsyncError):
    """A run is put off: too few calls are left for it. `until`: when there may be enough;
    None: nobody can tell yet. `rev`, `asked_for`: the backend's revision, and whether a person
    wanted the run, when that was found."""

    code = SPENT

    def __init__(self, until: datetime | None, *, rev: int, asked_for: bool) -> None:
        super().__init__("too few of the calls that call_budget.per_day allows are left")
        self.until = until
        self.rev = rev
        self.asked_for = asked_for


def per_day_of(spec: BackendSpec) -> int | None:
    """Calls that a backend's budget allows in 24 hours; None: it has none."""
    per_day = spec.call_budget.get("per_day")
    return per_day if isinstance(per_day, int) else None


def for_schedule(spec: BackendSpec) -> int | None:
    """Those of them that the runs of the schedule and of change feeds may make."""
    per_day = per_day_of(spec)
    return None if per_day is None else per_day - per_day // _KEPT


async def made(tx: Transaction, backend: BackendId) -> int:
    """Calls of the last 24 hours: those of runs, which count as made from when they are given
    to one that is under way, and those that others were given or made."""
    return await queue.calls_of_last_day(tx, backend) + await store.made(tx, backend)


class RunBudget:
    """The calls of one run of a backend with a budget."""

    def __init__(self, stored: StoredBackend, claimed: Claimed) -> None:
        spec, per_day = stored.spec, per_day_of(stored.spec) or 0
        self._backend = spec.id
        self._rev = stored.rev
        self._claimed = claimed
        self._allowed = per_day if claimed.asked_for else for_schedule(spec) or 0
        self._portion = max(_LEAST, min(_MOST, per_day // _PARTS_OF_RUNS))

    async def refuse_short(self, tx: Transaction, cycle: QuietCycle | None) -> None:
        """Raise ShortBudgetError where too little is left to begin.

        A cycle that nobody asked for needs what a quiet one takes, as far as is known. Where
        the last one ran out of calls all the same, as it may in a store that grew, the next
        needs twice as many as that one made, for a day: it would run out as well, and tell of
        a failure each time. Anything else, and the first one, begins while there is one call.
        """
        needed = 1
        if not self._claimed.asked_for and self._claimed.kind == RunKind.FULL:
            quiet = 0 if cycle is None else cycle.least
            ran_out = await queue.calls_of_short_cycle(tx, self._backend)
            needed = max(1, min(max(quiet, 2 * ran_out), self._allowed))
        left = self._allowed - await made(tx, self._backend)
        if left < needed:
            free = await queue.calls_come_free(tx, self._backend, needed - left)
            raise ShortBudgetError(free, rev=self._rev, asked_for=self._claimed.asked_for)

    async def take(self, tx: Transaction) -> int:
        """So many more calls for this run; 0: none is left."""
        # Whoever takes at the same time waits for this row.
        await store.count(tx, self._backend, 0)
        given = min(self._portion, max(0, self._allowed - await made(tx, self._backend)))
        if given:
            await queue.grant(tx, self._claimed.run_id, given)
        return given


class CallBudgets:
    """The budgets of every tenant's backends, for what is no run."""

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

    async def note(self, tenant: TenantId, spec: BackendSpec, calls: int) -> None:
        """So many calls were made that nobody asked for before. Never raises: what they were
        made for is done, whether they are counted or not."""
        try:
            async with self._db.transaction(tenant) as tx:
                await store.count(tx, spec.id, calls)
                await store.forget_old(tx)
        except StoreError as problem:
            get_logger().warning(
                "calls_not_counted", backend_id=spec.id, calls=calls, error_code=problem.code
            )
