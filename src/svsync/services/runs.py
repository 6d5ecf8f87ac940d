"""Runs from beginning to end: claimed, worked, and ended with exactly one event.

The row, the health of the backend and the event of a run's end are written in one
transaction under its fence, and the lease is given back in it. A run that lost its
lease writes none of that: whoever took over has ended it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    DeniedError,
    FenceLostError,
    GuardError,
    KeyServiceError,
    LoginError,
    NotFoundError,
    StoreError,
    SvsyncError,
)
from svsync.domain.federation import BackendSpec, Mode
from svsync.domain.globs import Glob
from svsync.domain.guards import Allow
from svsync.domain.ids import BackendId, RunId, TenantId
from svsync.domain.mapping import RuleSet
from svsync.domain.runs import (
    Report,
    RunError,
    RunKind,
    RunResult,
    RunState,
    Skipped,
    SkipReason,
    Stage,
    Trigger,
)
from svsync.domain.runs import Run as RunRecord
from svsync.observe.meter import SILENT, Meter
from svsync.ports import Backend
from svsync.services.lost_runs import tell_lost
from svsync.services.run_rows import record_of, run_of
from svsync.services.sealing import Sealing
from svsync.services.sync.context import Planned, Progress, Run
from svsync.services.sync.cycle import cycle
from svsync.services.sync.lease import held_lease
from svsync.store import conflicts, federation, outbox, pairs, queue, staging
from svsync.store.database import Database, Row, Transaction
from svsync.store.federation import RunEnd, StoredBackend
from svsync.store.outbox import Event
from svsync.store.pairs import Mapping
from svsync.store.queue import Claimed, Ending

_ALLOW_NOTHING: Final = Allow()


class OpenBackend(Protocol):
    """A backend ready to be called, with its own count of calls."""

    @property
    def backend(self) -> Backend: ...

    def calls(self) -> dict[str, int]: ...

    def throttled(self) -> int: ...


class Backends(Protocol):
    """What the registry offers the services: types of backends, opened on demand."""

    def rules(self, spec: BackendSpec) -> tuple[RuleSet, Mapping]:
        """The compiled rules, and the hash under which pairs are attached."""
        ...

    def mapping(self, spec: BackendSpec) -> RuleSet:
        """The compiled rules alone, also of a backend that cannot be used here."""
        ...

    def open(
        self, spec: BackendSpec, tenant: TenantId, *, calls_left: int | None = None
    ) -> AbstractAsyncContextManager[OpenBackend]:
        """The backend, open until the block ends.

        `calls_left`: so many calls may go out, logins too, and the next one raises a
        BackendError with code `call_budget_spent`; None: as many as are made.
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


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that came to its end, with what a dry one would have done."""

    record: RunRecord
    report: Report
    plan: tuple[Planned, ...]
    conflicts_open: int
    cause: SvsyncError | None

    def to_json(self) -> dict[str, object]:
        """The run as the API gives it; a dry one with its plan."""
        found = self.report.to_run_json(self.record)
        if self.record.kind is RunKind.DRY:
            found["plan"] = [
                {
                    "path": p.path,
                    "remote_path": p.remote_path,
                    "action": p.action,
                    "detail": p.detail,
                }
                for p in self.plan
            ]
        return found


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
    ) -> None:
        """`holder` names this process to others; `ids` draws an id with a prefix."""
        self._db = db
        self._sealing = sealing
        self._backends = backends
        self._holder = holder
        self._ids = ids
        self._random = random
        self._meter = meter

    async def run(self, tenant: TenantId, request: Request, progress: Progress) -> Ended:
        """Claim a run, work it, and end it.

        Raises:
            BackendBusyError: somebody else runs this backend now.
            NotFoundError: there is no such backend.
            FenceLostError: the run was taken over or reconfigured while it worked.
        """
        keys = await self._sealing.for_tenant(tenant)
        stored, (rules, mapping), claimed, first, calls_left = await self._claim(tenant, request)
        began = time.monotonic()
        run = Run(
            db=self._db,
            claimed=claimed,
            spec=stored.spec,
            rules=rules,
            mapping=mapping,
            keys=keys,
            allow=request.allow,
            ids=self._ids,
            now=lambda: claimed.started_at + timedelta(seconds=time.monotonic() - began),
            random=self._random,
            progress=progress,
            dry=request.dry,
            first=first,
        )
        try:
            error = await self._work(run, stored, request.paths, calls_left)
            return await self._end(run, error)
        except FenceLostError:
            await self._superseded(run)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._end(run, _INTERRUPTED))
            raise
        except SvsyncError:
            raise  # the store is away: whoever takes over ends this run
        except Exception as bug:
            await self._end(run, _unexpected(bug))
            raise

    async def _usable(self, tx: Transaction, backend: BackendId) -> StoredBackend:
        """The backend as it is configured now, under the lease that was just taken."""
        stored = await federation.get(tx, backend)
        if stored.state != "active":
            raise ConfigError(
                f"the backend {stored.spec.id} is {stored.state}: name it in the configuration"
                " file again, or resume it",
                code="backend_paused",
            )
        rules = [stored.spec.for_rule(rule) for rule in stored.spec.rules if not rule.exclude]
        if all(rule.mode is Mode.PROXY for rule in rules):
            raise ConfigError(
                f"the backend {stored.spec.id} is in proxy mode, so there is nothing to run:"
                " set `mode: sync`",
                code="not_synced",
            )
        return stored

    async def _claim(
        self, tenant: TenantId, request: Request
    ) -> tuple[StoredBackend, tuple[RuleSet, Mapping], Claimed, bool, int | None]:
        """Backend, its rules, the run as claimed; whether no pair has a base yet; and how
        many calls its budget leaves the run (None: it has none).

        The configuration is read behind the lease: a change that was made before is
        seen, and one that is made later takes the fence away.
        """
        kind = RunKind.DRY if request.dry else RunKind.FULL
        if request.paths is not None and not request.dry:
            kind = RunKind.TARGETED
        allow = request.allow
        async with self._db.transaction(tenant) as tx:
            backend = (await federation.get(tx, request.backend)).spec.id
            claimed, lost = await queue.claim(
                tx,
                backend,
                RunId(self._ids("run")),
                kind=str(kind),
                trigger=str(request.trigger),
                holder=self._holder,
                allow=[
                    name
                    for name, given in (
                        ("mass_delete", allow.mass_delete),
                        ("mass_overwrite", allow.mass_overwrite),
                        ("mass_regression", allow.regression),
                    )
                    if given
                ],
                paths=None if request.paths is None else [g.text for g in request.paths],
            )
            stored = await self._usable(tx, backend)
            compiled = self._backends.rules(stored.spec)
            for row in lost:
                await tell_lost(tx, stored.spec, row, ids=self._ids)
            first = not await pairs.any_settled(tx, backend)
            calls_left = None
            per_day = stored.spec.call_budget.get("per_day")
            if isinstance(per_day, int):
                calls_left = max(0, per_day - await queue.calls_of_last_day(tx, backend))
        for row in lost:
            self._measure(stored.spec, record_of(backend, row, RunState.FAILED), Report())
        return stored, compiled, claimed, first, calls_left

    async def _work(
        self,
        run: Run,
        stored: StoredBackend,
        paths: Sequence[Glob] | None,
        calls_left: int | None,
    ) -> SvsyncError | None:
        """Run the cycle; the error that ended it, if any."""
        opened: OpenBackend | None = None
        try:
            async with (
                held_lease(self._db, run.claimed, time.monotonic) as run.lease_left,
                self._backends.open(
                    run.spec, run.claimed.held.tenant, calls_left=calls_left
                ) as opened,
            ):
                run.backend = opened.backend
                await cycle(run, stored, paths)
        except FenceLostError:
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

    async def _end(self, run: Run, error: SvsyncError | None) -> Ended:
        failure = None if error is None else RunError.of(error, run.failed_in or Stage.CONNECT)
        result, failure = run.report.result(failure, run.spec.max_error_ratio)
        failed = result is RunResult.FAILED
        ending = Ending(
            state=str(RunState.FAILED if failed else RunState.COMPLETED),
            result=str(result),
            stage=str(failure.stage if failure else Stage.EMIT),
            counts=run.report.counts(),
            calls=run.report.api_calls(),
            stages_ms={str(stage): round(ms) for stage, ms in run.report.stages_ms.items()},
            error=None if failure is None else (failure.code, failure.stage, failure.message),
            skips=[(s.remote_path, str(s.reason), s.detail) for s in run.report.skipped],
        )
        async with run.transaction() as tx:
            times = await queue.finish(tx, run.claimed.run_id, ending)
            record = RunRecord(
                run_id=run.claimed.run_id,
                backend_id=run.spec.id,
                kind=RunKind(run.claimed.kind),
                trigger=Trigger(run.claimed.trigger),
                state=RunState(ending.state),
                result=result,
                started_at=times["started_at"],
                ended_at=times["ended_at"],
                error=failure,
            )
            waiting = await conflicts.count_open(tx, run.spec.id)
            if not run.dry:
                await self._settle(
                    tx, run, failed=failed, error=error, code=failure, waiting=waiting
                )
                await self._emit(tx, run.spec, record, run.report)
            await queue.release(tx, run.claimed.held)
        # The run has ended; its work rows are of no use, and the next run clears them too.
        with suppress(StoreError):
            async with self._db.transaction(run.claimed.held.tenant) as tx:
                await staging.drop(tx, run.claimed.run_no)
        self._measure(run.spec, record, run.report)
        return Ended(record, run.report, tuple(run.plan), waiting, error)

    def _measure(self, spec: BackendSpec, record: RunRecord, report: Report) -> None:
        """Whoever ends a cycle counts it, a lost one too; a dry run or a probe is no cycle."""
        if record.kind in (RunKind.FULL, RunKind.TARGETED):
            counts = {str(count): n for count, n in report.numbers.items()}
            self._meter.run_ended(
                spec.tenant, spec.id, spec.type, str(record.result),
                (record.duration_ms or 0) / 1000, counts | {"skipped": report.skips},
            )  # fmt: skip

    async def _settle(
        self,
        tx: Transaction,
        run: Run,
        *,
        failed: bool,
        error: SvsyncError | None,
        code: RunError | None,
        waiting: int,
    ) -> None:
        """What `status` shows, in the transaction that ends the run."""
        full = run.claimed.kind == RunKind.FULL
        if not failed and full and not run.blocked:
            await federation.set_applied(tx, run.spec.id, run.mapping)
            if run.listed_all:
                await federation.set_initial(tx, run.spec.id, ())
        counts = await pairs.counts(tx, run.spec.id)
        await federation.run_ended(
            tx,
            run.spec.id,
            RunEnd(
                run_id=run.claimed.run_id,
                full=full,
                succeeded=not failed,
                status=_health(run, error),
                error=None if code is None else code.code,
                next_in_s=run.spec.sync_interval * (1 - 0.1 * self._random()),
                synced=counts["synced"],
                diverged=counts["diverged"],
                quarantined=counts["quarantined"],
                retained=counts["retained"],
                conflicts=waiting,
                skipped=run.report.skips if full else None,
                calls=sum(run.report.api_calls().values()) if full and not failed else None,
                latency_ms=run.connection.latency_ms if run.connection else None,
            ),
        )

    async def _emit(
        self, tx: Transaction, spec: BackendSpec, record: RunRecord, report: Report
    ) -> None:
        """The one event that closes a cycle. `sequence` is set where it is stored."""
        data = report.to_event(record, backend_name=spec.name, tenant=spec.tenant, sequence=0)
        ended = "failed" if record.result is RunResult.FAILED else "completed"
        event = Event(f"federation.sync.{ended}", data)
        await outbox.add(tx, spec.id, [event], event_ids=lambda: self._ids("evt"))

    async def _superseded(self, run: Run) -> None:
        """Nothing of the run's end is written: who took over, or configured anew, has ended
        it, or will, with its event."""
        async with self._db.transaction(run.claimed.held.tenant) as tx:
            await staging.drop(tx, run.claimed.run_no)

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


def _health(run: Run, error: SvsyncError | None) -> str | None:
    """The backend's status as this run saw it; None where it learned nothing of it.

    An error is never `healthy`: a backend that answers nonsense, or whose listing
    fails, is `degraded` until a run has gone through.
    """
    match error:
        case BackendError(code="call_budget_spent"):
            return None  # refused here, before the backend was asked
        case BackendUnreachableError():
            return "unreachable"
        case LoginError() | DeniedError():
            return "denied"
        case BackendError():
            return "degraded"
        case ConfigError() | KeyServiceError() | StoreError():
            return None
    if error is None and run.claimed.kind != RunKind.FULL:
        return None
    unseen = run.report.reasons[SkipReason.DENIED] + run.report.reasons[SkipReason.UNLISTED]
    connected = run.connection.status if run.connection else None
    return "degraded" if unseen and connected == "healthy" else connected


def _unexpected(bug: Exception) -> SvsyncError:
    """A defect of ours, by its class alone: its text may hold anything."""
    return SvsyncError(
        f"svsync failed in a way it should not ({type(bug).__name__}): please report it; what"
        " was committed stands, the next run goes on",
        code="internal",
    )


_INTERRUPTED = SvsyncError("the run was interrupted; the next one goes on", code="interrupted")
