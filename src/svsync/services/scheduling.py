"""What is due and why: the schedule, triggers, notices, and what nobody looks after.

Every process ticks once a second. A tick is one statement that turns backends that are
due into queued runs and moves their next due time with it, so that however many tick,
each is queued once. Whatever asks for a run, a person, a feed, the schedule, makes the
same row; where one of its kind waits already, that one is what was asked for.

All of it may be done by any process at any time, and by several at once.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from svsync.domain.errors import ConfigError, NotFoundError, SvsyncError
from svsync.domain.federation import Mode
from svsync.domain.globs import Glob
from svsync.domain.ids import BackendId, RemotePath, RunId, TenantId
from svsync.domain.runs import Report, RunKind, RunState, Trigger
from svsync.observe.logs import get_logger
from svsync.observe.meter import SILENT, Meter
from svsync.ports import Signals
from svsync.services.lost_runs import measure, tell_lost
from svsync.services.run_rows import record_of
from svsync.services.secrets import time_of
from svsync.store import federation, outbox, queue, schedule, tenants
from svsync.store.database import Database
from svsync.store.outbox import Event
from svsync.store.queue import Wanted

RUNS: Final = "runs"
"""The topic that is woken when a run waits."""
EVENTS: Final = "events"
"""The topic that is woken when there may be something to tell by webhooks."""
TICK_S: Final = 1.0
SOONEST_S: Final = 0.25
"""Seconds between two ticks of all processes together at least. Where there are many backends
the next one is always due, and each tick is work on rows that others lock as well."""
AT_ONCE: Final = 1_000
"""Backends that one tick makes runs for at most; the next tick takes the others."""
OVERDUE_S: Final = 5.0
"""Seconds after a push's deadline until a run is made to ask what became of it."""
FEEDS_APART_S: Final = 2.0
"""Seconds between the starts of two runs that change feeds asked for, of one backend,
unless `feed_min_interval` says otherwise."""


@dataclass(frozen=True, slots=True)
class Triggered:
    """The run that was asked for; `coalesced`: it waited already."""

    run_id: RunId
    coalesced: bool


class Scheduling:
    """Makes runs, of every tenant's backends."""

    def __init__(
        self,
        db: Database,
        signals: Signals,
        *,
        ids: Callable[[str], str],
        health_interval: float,
        meter: Meter = SILENT,
    ) -> None:
        """`health_interval`: seconds between two looks at a backend without cycles."""
        self._db = db
        self._signals = signals
        self._ids = ids
        self._health_interval = health_interval
        self._meter = meter

    # --- asked for ----------------------------------------------------------------

    async def trigger(
        self,
        tenant: TenantId,
        backend: str,
        *,
        paths: Sequence[str] | None = None,
        full: bool = False,
        allow: Sequence[str] = (),
    ) -> Triggered:
        """Ask for a run: of everything, or of local paths and globs.

        Raises:
            NotFoundError: there is no such backend.
            ConfigError: `backend_paused`, `not_synced`.
            UsageError: a path is no pattern.
        """
        globs = None if paths is None or full else sorted({Glob(text).text for text in paths})
        kind = RunKind.FULL if globs is None else RunKind.TARGETED
        async with self._db.transaction(tenant) as tx:
            stored = await federation.get(tx, backend)
            if stored.state != "active":
                raise ConfigError(
                    f"the backend {stored.spec.id} is {stored.state}: resume it first",
                    code="backend_paused",
                )
            rules = [stored.spec.for_rule(r) for r in stored.spec.rules if not r.exclude]
            if all(rule.mode is Mode.PROXY for rule in rules):
                raise ConfigError(
                    f"the backend {stored.spec.id} is in proxy mode, so there is nothing to run:"
                    " set `mode: sync`",
                    code="not_synced",
                )
            wanted = Wanted(str(kind), str(Trigger.API), allow=tuple(allow), paths=globs)
            run, waited = await queue.enqueue(tx, stored.spec.id, self._run_id(), wanted)
        await self._signals.wake(RUNS)
        return Triggered(run, waited)

    async def notice(
        self,
        tenant: TenantId,
        backend: BackendId,
        paths: Collection[RemotePath] | None,
        feed: str,
    ) -> None:
        """A change feed says that these remote paths changed; None: anything may have.

        A run that is under way leaves them to the next one.
        """
        async with self._db.transaction(tenant) as tx:
            found = await federation.find(tx, backend)
            if found is None:
                return
            # A paused backend keeps what it was told; of a shredded tenant nothing is kept.
            if found.state != "active" and await tenants.status(tx) == "shredded":
                return
            apart = found.spec.extra.get("feed_min_interval", FEEDS_APART_S)
            if paths:
                await schedule.add_dirty(tx, backend, paths, feed)
            kind = RunKind.FULL if paths is None else RunKind.TARGETED
            made = await schedule.enqueue_hinted(
                tx, backend, self._run_id(), str(kind), apart_s=float(str(apart))
            )
        if made:
            await self._signals.wake(RUNS)

    # --- due ----------------------------------------------------------------------

    async def tick(self, *, care: bool = True) -> float:
        """Make the runs that are due; seconds until the next tick is worth while.

        `care`: also look for what no run looks after.

        Raises StoreError: nothing was lost, the next tick does it.
        """
        tenants = await federation.active(self._db)
        async with self._db.transaction_of(tenants) as tx:
            due, seconds, looking = await schedule.next_due(tx)
            made = 0
            if due:
                ids = [self._run_id() for _ in range(min(due, AT_ONCE))]
                made = await schedule.enqueue_due(tx, ids, probe_every=self._health_interval)
        if care:
            made += await self._take_care(tenants)
        if made:
            await self._signals.wake(RUNS)
        return TICK_S if seconds is None else min(TICK_S, max(SOONEST_S * looking, seconds))

    async def _take_care(self, tenants: Sequence[TenantId]) -> int:
        """What no run looks after: runs of dead workers, pushes that nobody ended, backends
        that are older than they promise. How many runs that made."""
        async with self._db.transaction_of(tenants, read_only=True) as tx:
            abandoned = await schedule.abandoned(tx)
            overdue = await schedule.overdue_pushes(tx, OVERDUE_S)
            lost = await schedule.lost_at_rest(tx)
            stale = await schedule.stale(tx)
        for tenant, backend, syncs in abandoned:
            wanted = Wanted(str(RunKind.FULL), str(Trigger.SCHEDULE))
            if not syncs:
                wanted = Wanted(str(RunKind.PROBE), str(Trigger.PROBE))
            with suppress(NotFoundError):  # it was removed just now
                async with self._db.transaction(tenant) as tx:
                    await queue.enqueue(tx, backend, self._run_id(), wanted)
        for row in overdue:
            backend = BackendId(row["backend_id"])
            wanted = Wanted(str(RunKind.TARGETED), str(Trigger.SCHEDULE))
            with suppress(NotFoundError):
                async with self._db.transaction(TenantId(row["tenant_id"])) as tx:
                    await schedule.add_dirty(tx, backend, row["paths"], "pushes")
                    await queue.enqueue(tx, backend, self._run_id(), wanted)
        for tenant, backend in lost:
            await self._end_lost(tenant, backend)
        for tenant, backend in stale:
            await self._tell_stale(tenant, backend)
        return len(abandoned) + len(overdue)

    async def _end_lost(self, tenant: TenantId, backend: BackendId) -> None:
        async with self._db.transaction(tenant) as tx:
            found = await federation.find(tx, backend)
            if found is None:
                return
            rows = await queue.end_lost(tx, backend, holder="the schedule")
            for row in rows:
                await tell_lost(tx, found.spec, row, ids=self._ids)
        for row in rows:
            measure(self._meter, found.spec, record_of(backend, row, RunState.FAILED), Report())

    async def _tell_stale(self, tenant: TenantId, backend: BackendId) -> None:
        async with self._db.transaction(tenant) as tx:
            row = await schedule.tell_stale(tx, backend)
            if row is None:
                return
            found = await federation.find(tx, backend)
            assert found is not None
            event = Event(
                "federation.backend.stale",
                {
                    "backend_id": backend,
                    "backend_name": row["name"],
                    "tenant": found.spec.tenant,
                    "last_success_at": time_of(row["last_success_at"]),
                    "staleness_s": round(row["staleness_s"], 1),
                    "max_staleness_s": row["stale_after_s"],
                },
            )
            await outbox.add(tx, backend, [event], event_ids=lambda: self._ids("evt"))

    def _run_id(self) -> RunId:
        return RunId(self._ids("run"))


async def keep_schedule(scheduling: Scheduling) -> None:
    """Tick until cancelled: each second, and sooner where the next due time is nearer.

    A store that is away is waited for; it is told of once.
    """
    due, away = asyncio.Event(), False
    now, care_at = asyncio.get_running_loop().time, 0.0
    # In the loop itself: an event may not be set by a thread, and one that waits for a thread
    # when the schedule ends would be told as an error.
    clock = AsyncIOScheduler(
        timezone=UTC,
        executors={"default": DebugExecutor()},
        job_defaults={"misfire_grace_time": None},
    )
    clock.add_job(due.set, "interval", seconds=TICK_S)
    clock.start()
    try:
        while True:
            care = now() >= care_at
            if care:
                care_at = now() + TICK_S  # where many backends are due, there are more ticks
            try:
                wait = await scheduling.tick(care=care)
                if away:
                    get_logger().info("schedule_goes_on")
                away = False
            except SvsyncError as problem:
                wait = TICK_S
                if not away:
                    get_logger().warning("schedule_waits", error_code=problem.code)
                away = True
            if wait < TICK_S:
                clock.add_job(due.set, "date", run_date=datetime.now(UTC) + timedelta(seconds=wait))
            await due.wait()
            due.clear()
    finally:
        clock.shutdown(wait=False)
