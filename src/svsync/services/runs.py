"""Runs: claimed, worked, and brought to exactly one end (`run_ends.py`)."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from svsync.domain.costs import Terms
from svsync.domain.cycles import QuietCycle
from svsync.domain.errors import (
    ConfigError,
    FenceLostError,
    GuardError,
    HandedOverError,
    NotFoundError,
    SvsyncError,
)
from svsync.domain.federation import BackendSpec, Mode
from svsync.domain.globs import Glob
from svsync.domain.guards import Allow
from svsync.domain.ids import BackendId, RemotePath, RunId, TenantId
from svsync.domain.mapping import RuleSet
from svsync.domain.runs import (
    Report,
    RunKind,
    RunState,
    Skipped,
    SkipReason,
    Stage,
    Trigger,
)
from svsync.observe.logs import get_logger, log_context
from svsync.observe.meter import SILENT, Meter
from svsync.observe.tracer import UNTRACED, Tracer
from svsync.ports import Backend
from svsync.services.call_budgets import RunBudget, ShortBudgetError, per_day_of
from svsync.services.lost_runs import measure, tell_lost
from svsync.services.run_ends import Ended, RunEnds
from svsync.services.run_rows import record_of, run_of
from svsync.services.sealing import Sealing, TenantKeys
from svsync.services.sync.context import Progress, Run, Stopping, Targets, never
from svsync.services.sync.cycle import connect, cycle
from svsync.services.sync.lease import held_lease
from svsync.store import federation, pairs, queue, schedule
from svsync.store.database import Database, Row, Transaction
from svsync.store.federation import StoredBackend
from svsync.store.pairs import Mapping
from svsync.store.queue import Claimed, Wanted

_ALLOW_NOTHING: Final = Allow()


class OpenBackend(Protocol):
    """A backend ready to be called, with its own count of calls."""

    @property
    def backend(self) -> Backend: ...

    def calls(self) -> dict[str, int]: ...

    def throttled(self) -> int: ...

    def calls_left(self) -> int | None:
        """How many may still go out; None: as many as are made."""
        ...

    def allow(self, calls: int) -> None:
        """Let so many more go out."""
        ...


class Backends(Protocol):
    """What the registry offers the services: types of backends, opened on demand."""

    def rules(self, spec: BackendSpec) -> tuple[RuleSet, Mapping]:
        """The compiled rules, and the hash under which pairs are attached."""
        ...

    def mapping(self, spec: BackendSpec) -> RuleSet:
        """The compiled rules alone, also of a backend that cannot be used here."""
        ...

    def terms(self, spec: BackendSpec) -> Terms:
        """Quotas and prices that the backend's provider publishes, as far as they are known."""
        ...

    def open(
        self,
        spec: BackendSpec,
        tenant: TenantId,
        *,
        calls_left: int | None = None,
        more: Callable[[], Awaitable[int]] | None = None,
        patience: float | None = None,
        trial: bool = False,
    ) -> AbstractAsyncContextManager[OpenBackend]:
        """The backend, open until the block ends.

        `trial`: it is not stored yet, and whoever opens it was authorised just now. Else a
        backend of the API has to be what somebody authorised: `authorisation_changed`.

        `calls_left`: so many calls may go out, logins too, and the next one raises a
        BackendError with code `call_budget_spent`; None: as many as are made. `more` is asked
        before that: so many more may, until it says 0. `patience`:
        seconds after which no call is tried again; None: as long as a run has time for.
        """
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks a run to do."""

    backend: str
    trigger: Trigger = Trigger.RUN_ONCE
    paths: tuple[Glob, ...] | None = None
    dry: bool = False
    allow: Allow = _ALLOW_NOTHING

    def wanted(self) -> Wanted:
        kind = RunKind.FULL if self.paths is None else RunKind.TARGETED
        names = {
            "mass_delete": self.allow.mass_delete,
            "mass_overwrite": self.allow.mass_overwrite,
            "mass_regression": self.allow.regression,
        }
        return Wanted(
            kind=str(RunKind.DRY if self.dry else kind),
            trigger=str(self.trigger),
            allow=[name for name, given in names.items() if given],
            paths=None if self.paths is None else [glob.text for glob in self.paths],
        )


@dataclass(frozen=True, slots=True)
class _Begun:
    """A claimed run and what it works by.

    Attributes:
        first: no pair of the backend has a base yet.
        budget: of its calls, and how many it was given to begin with; None: it has none.
        targets: None: everything.
        named: the paths that change feeds had named, each with the number of its notice.
        lost: runs of dead workers that this one ended.
    """

    claimed: Claimed
    stored: StoredBackend
    rules: RuleSet
    mapping: Mapping
    allow: Allow
    first: bool
    budget: tuple[RunBudget, int] | None
    targets: Targets | None
    named: dict[RemotePath, int]
    lost: Sequence[Row]


class Runs:
    """Runs of one tenant's backends, worked in this process."""

    def __init__(
        self,
        db: Database,
        sealing: Sealing,
        backends: Backends,
        *,
        holder: str,
        ids: Callable[[str], str],
        random: Callable[[], float],
        meter: Meter = SILENT,
        tracer: Tracer = UNTRACED,
        unreachable_after: int = 3,
    ) -> None:
        """`holder` names this process to others; `ids` draws an id with a prefix.

        `unreachable_after`: connection failures in a row until the backend is told of.
        """
        self._db = db
        self._sealing = sealing
        self._backends = backends
        self._holder = holder
        self._ids = ids
        self._random = random
        self._tracer = tracer
        self._meter = meter
        self._ends = RunEnds(
            db, ids=ids, random=random, meter=meter, unreachable_after=unreachable_after
        )

    async def run(self, tenant: TenantId, request: Request, progress: Progress) -> Ended:
        """Queue a run, claim it, work it, and end it.

        Raises:
            BackendBusyError: somebody else runs this backend now.
            NotFoundError: there is no such backend.
            FenceLostError: the run was taken over or reconfigured while it worked.
        """
        keys = await self._sealing.for_tenant(tenant)
        async with self._db.transaction(tenant) as tx:
            backend = (await federation.get(tx, request.backend)).spec.id
            claimed, lost = await queue.claim(
                tx, backend, RunId(self._ids("run")), request.wanted(), holder=self._holder
            )
            begun = await self._begin(tx, claimed, lost)
        self._measure_lost(begun)
        return await self._see_through(begun, keys, progress, never)

    async def work(self, tenant: TenantId, run: RunId, stopping: Stopping) -> Ended | None:
        """Claim a run that waits, work it, and end it; None where somebody else has it by
        now, its backend has nothing to run any more, or its calls are not in the budget now,
        so that it waits on.

        Where `stopping` turns true the run is given back between two batches.

        Raises:
            BackendBusyError: its backend is being run by somebody else.
            ConfigError: this process cannot use its backend; the run waits on.
            HandedOverError: it was given back.
            FenceLostError: the run was taken over or reconfigured while it worked.
        """
        keys = await self._sealing.for_tenant(tenant)
        try:
            async with self._db.transaction(tenant) as tx:
                found = await queue.claim_queued(tx, run, holder=self._holder)
                if found is None:
                    return None
                begun = await self._begin(tx, *found, waits=True)
        except ShortBudgetError as short:
            async with self._db.transaction(tenant) as tx:
                await queue.put_off(
                    tx, run, short.code, short.until, rev=short.rev, asked_for=short.asked_for
                )
            return None
        except ConfigError as problem:
            if problem.code == "backend_paused":
                return None  # it waits on
            if problem.code != "not_synced":
                raise  # this process cannot use the backend; another one may
            async with self._db.transaction(tenant) as tx:
                await queue.withdraw(tx, run)
            return None
        self._measure_lost(begun)
        return await self._see_through(begun, keys, _untold, stopping)

    async def _see_through(
        self, begun: "_Begun", keys: TenantKeys, progress: Progress, stopping: Stopping
    ) -> Ended:
        """Work a claimed run, and write its end."""
        claimed = begun.claimed
        began = time.monotonic()
        run = Run(
            db=self._db,
            claimed=claimed,
            spec=begun.stored.spec,
            rules=begun.rules,
            mapping=begun.mapping,
            keys=keys,
            allow=begun.allow,
            ids=self._ids,
            now=lambda: claimed.started_at + timedelta(seconds=time.monotonic() - began),
            random=self._random,
            progress=progress,
            dry=claimed.kind == RunKind.DRY,
            first=begun.first,
            stopping=stopping,
        )
        run.report.prices = self._backends.terms(run.spec).prices
        if claimed.left is not None:
            run.report.go_on_from(claimed.left.counts)
            run.report.calls.update(claimed.left.calls)
        spec = run.spec
        with (
            log_context(tenant=spec.tenant, backend_id=spec.id, run_id=claimed.run_id),
            self._tracer.run(
                spec.tenant,
                spec.id,
                spec.type,
                run_id=claimed.run_id,
                run_kind=claimed.kind,
                trigger=claimed.trigger,
            ) as run.span,
        ):
            return await self._work_and_end(run, begun)

    async def _work_and_end(self, run: Run, begun: "_Begun") -> Ended:
        try:
            error = await self._work(run, begun)
            return await self._ends.end(run, error, _seen(run, begun))
        except HandedOverError:
            await self._ends.hand_over(run)
            raise
        except FenceLostError:
            await self._ends.superseded(run)
            raise
        except asyncio.CancelledError:
            ending = asyncio.ensure_future(self._stopped(run))
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                ending.add_done_callback(_left_alone)
                raise
            raise
        except SvsyncError:
            raise  # the store is away: whoever takes over ends this run
        except Exception as bug:
            await self._ends.end(run, _unexpected(bug))
            raise

    def _measure_lost(self, begun: "_Begun") -> None:
        spec = begun.stored.spec
        for row in begun.lost:
            measure(self._meter, spec, record_of(spec.id, row, RunState.FAILED), Report())

    async def _stopped(self, run: Run) -> None:
        """Stopped in the middle of something: given back where this worker is to end, ended
        where a person interrupted it."""
        if run.stopping() and not run.dry:
            await self._ends.hand_over(run)
        else:
            await self._ends.end(run, _INTERRUPTED)

    async def _usable(self, tx: Transaction, backend: BackendId, *, probe: bool) -> StoredBackend:
        """The backend as it is configured now, under the lease that was just taken."""
        stored = await federation.get(tx, backend)
        if stored.state != "active":
            raise ConfigError(
                f"the backend {stored.spec.id} is {stored.state}: name it in the configuration"
                " file again, or resume it",
                code="backend_paused",
            )
        rules = [stored.spec.for_rule(rule) for rule in stored.spec.rules if not rule.exclude]
        if not probe and all(rule.mode is Mode.PROXY for rule in rules):
            raise ConfigError(
                f"the backend {stored.spec.id} is in proxy mode, so there is nothing to run:"
                " set `mode: sync`",
                code="not_synced",
            )
        return stored

    async def _begin(
        self, tx: Transaction, claimed: Claimed, lost: Sequence[Row], *, waits: bool = False
    ) -> "_Begun":
        """What a run works by, in the transaction that claimed it. With `waits` it can do so
        until there are calls for it, and is not begun in vain.

        The configuration is read behind the lease: a change that was made before is
        seen, and one that is made later takes the fence away.
        """
        backend = claimed.held.backend
        stored = await self._usable(tx, backend, probe=claimed.kind == RunKind.PROBE)
        rules, mapping = self._backends.rules(stored.spec)
        for row in lost:
            await tell_lost(tx, stored.spec, row, ids=self._ids)
        budget = None
        if per_day_of(stored.spec) is not None:
            of_run = RunBudget(stored, claimed)
            if waits and not lost:  # whoever ends a dead worker's run goes on for it
                health = await federation.health(tx, backend)
                known = json.loads(health["cycle"]) if health["cycle"] else None
                await of_run.refuse_short(tx, QuietCycle.from_json(known))
            budget = (of_run, await of_run.take(tx))
        named = {} if claimed.kind == RunKind.DRY else await schedule.dirty(tx, backend)
        targets = None
        if claimed.kind == RunKind.TARGETED or claimed.paths is not None:
            targets = Targets(tuple(Glob(text) for text in claimed.paths or ()), tuple(named))
        return _Begun(
            claimed=claimed,
            stored=stored,
            rules=rules,
            mapping=mapping,
            allow=Allow(
                mass_delete="mass_delete" in claimed.allow,
                mass_overwrite="mass_overwrite" in claimed.allow,
                regression="mass_regression" in claimed.allow,
            ),
            first=not await pairs.any_settled(tx, backend),
            budget=budget,
            targets=targets,
            named=named,
            lost=lost,
        )

    async def _work(self, run: Run, begun: "_Begun") -> SvsyncError | None:
        """Run the cycle, or the probe; the error that ended it, if any."""
        opened: OpenBackend | None = None
        held = run.claimed.held
        budget, calls_left = begun.budget or (None, None)
        more = None if budget is None else _more_calls(run, budget)
        try:
            async with (
                held_lease(self._db, held, run.claimed.holder, time.monotonic) as run.lease_left,
                self._backends.open(
                    run.spec, held.tenant, calls_left=calls_left, more=more
                ) as opened,
            ):
                run.backend = opened.backend
                if run.claimed.kind == RunKind.PROBE:
                    await connect(run, begun.stored)
                else:
                    await cycle(run, begun.stored, begun.targets)
        except (FenceLostError, HandedOverError):
            raise
        except GuardError as error:
            run.report.plan = error.plan
            return error
        except SvsyncError as error:
            return error
        finally:
            if opened is not None:
                run.report.calls.update(opened.calls())
                run.report.throttled = opened.throttled()
        return None

    # --- looking back -------------------------------------------------------------

    async def recent(self, tenant: TenantId, backend: str, limit: int) -> list[dict[str, object]]:
        """The backend's last runs, newest first, without their skipped paths."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            stored = await federation.get(tx, backend)
            rows = await queue.recent(tx, stored.spec.id, limit)
        return [run_of(row, []) for row in rows]

    async def show(self, tenant: TenantId, run: str) -> dict[str, object]:
        """One run with its skipped paths. Raises NotFoundError."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            row = await queue.get(tx, RunId(run))
            if row is None:
                raise NotFoundError(
                    f"there is no run {run!r}: `svsync runs list` shows those there are",
                    code="run_not_found",
                )
            skips = await queue.skips(tx, RunId(run))
        skipped = [
            Skipped(s["remote_path"], SkipReason.of(s["reason"]), s["detail"]) for s in skips
        ]
        return run_of(row, skipped)

    async def holder_of(self, tenant: TenantId, backend: BackendId) -> Row | None:
        async with self._db.transaction(tenant, read_only=True) as tx:
            return await tx.fetchrow("queue.holder", tx.tenant, backend)


def _seen(run: Run, begun: _Begun) -> dict[RemotePath, int]:
    """Of what change feeds had named, what this run looked at: all where it was asked for by
    name, or listed now and whole. A stage that it took over may be older than a notice."""
    whole = run.listed_all and run.claimed.left is None
    return begun.named if begun.targets is not None or whole else {}


def _more_calls(run: Run, budget: RunBudget) -> Callable[[], Awaitable[int]]:
    """Takes more of the budget's calls, as long as the run holds its lease."""

    async def more() -> int:
        async with run.transaction() as tx:
            return await budget.take(tx)

    return more


def _left_alone(ending: "asyncio.Task[None]") -> None:
    """Nobody waits for it any more. Where it fails whoever takes over ends the run."""
    error = None if ending.cancelled() else ending.exception()
    if error is not None and not isinstance(error, SvsyncError):
        get_logger().error("run_end_failed_unexpectedly", exc_info=error)


def _unexpected(bug: Exception) -> SvsyncError:
    """A defect of ours, by its class alone: its text may hold anything."""
    return SvsyncError(
        f"svsync failed in a way it should not ({type(bug).__name__}): please report it; what"
        " was committed stands, the next run goes on",
        code="internal",
    )


_INTERRUPTED = SvsyncError("the run was interrupted; the next one goes on", code="interrupted")


def _untold(stage: Stage, done: int, total: int | None, /) -> None:
    """Nobody looks on while a worker works."""
