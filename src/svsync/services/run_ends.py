"""How runs end, each in one transaction under its fence.

The row, the health of the backend, and the events of a run's end are written together,
and the lease is given back with them. A run that lost its lease writes none of that:
whoever took over has ended it. A worker that is to end gives its run back instead.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from svsync.domain.cycles import QuietCycle, passing
from svsync.domain.decide import PushKind
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    DeniedError,
    FenceLostError,
    KeyServiceError,
    LoginError,
    StoreError,
    StoreUnavailableError,
    SvsyncError,
)
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import BackendId, RemotePath, RunId
from svsync.domain.runs import (
    Count,
    Report,
    RunError,
    RunKind,
    RunResult,
    RunState,
    SkipReason,
    Stage,
    Trigger,
)
from svsync.domain.runs import Run as RunRecord
from svsync.observe.meter import Meter
from svsync.services.lost_runs import measure
from svsync.services.secrets import time_of
from svsync.services.sync.context import Planned, Run
from svsync.store import conflicts, federation, outbox, pairs, queue, schedule, staging
from svsync.store.database import Database, Transaction
from svsync.store.federation import RunEnd
from svsync.store.outbox import Event
from svsync.store.queue import Ending

PROBE_FIRST_S: Final = 5.0
PROBE_LONGEST_S: Final = 60.0
"""Seconds until a backend that could not be reached is looked at again, doubling in between."""
_FEW: Final = 1_000
"""Work rows that are dropped with the run's end; more of them would hold up what waits for it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that came to its end, with what a dry one would have done."""

    record: RunRecord
    report: Report
    plan: tuple[Planned, ...]
    conflicts_open: int
    cause: SvsyncError | None

    def to_json(self) -> dict[str, object]:
        """The run as the API gives it; a dry one with its plan, and what following it would
        cost: the calls that it made, and one for each push."""
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
            calls = Counter(self.report.api_calls())
            calls.update(
                "delete" if p.detail == PushKind.DELETE else "write"
                for p in self.plan
                if p.action == "push"
            )
            prices = self.report.prices
            found["would_cost"] = None if prices is None else prices.of_calls_json(calls)
        return found


class RunEnds:
    """Writes the ends of runs that this process worked."""

    def __init__(
        self,
        db: Database,
        *,
        ids: Callable[[str], str],
        random: Callable[[], float],
        meter: Meter,
        unreachable_after: int,
    ) -> None:
        """`unreachable_after`: connection failures in a row until the backend is told of."""
        self._db = db
        self._ids = ids
        self._random = random
        self._meter = meter
        self._unreachable_after = unreachable_after

    async def hand_over(self, run: Run) -> None:
        """Give the run back. Where another one of its kind was queued at the same moment, once
        more: now it is there to go on."""
        try:
            await self._hand_over(run)
        except (FenceLostError, StoreUnavailableError):
            raise
        except StoreError:
            await self._hand_over(run)

    async def _hand_over(self, run: Run) -> None:
        async with run.transaction() as tx:
            await queue.hand_over(
                tx,
                run.claimed.run_id,
                counts=run.report.counts(),
                calls=run.report.api_calls(),
                stages_ms={str(stage): round(ms) for stage, ms in run.report.stages_ms.items()},
                keep_stage=run.keeps_stage,
            )
            await queue.release(tx, run.claimed.held)
        run.span.ended("handed_over", {})

    async def end(
        self, run: Run, error: SvsyncError | None, seen: Mapping[RemotePath, int] | None = None
    ) -> Ended:
        """Write the run's end, with its event, and give the lease back.

        `seen`: what change feeds had named when it began, and it has looked at.
        """
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
        with run.span.stage(Stage.EMIT):
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
                    await self._settle(tx, run, record, failed=failed, error=error, waiting=waiting)
                    if not failed:
                        await schedule.clean(tx, run.spec.id, seen or {})
                await queue.release(tx, run.claimed.held)
                few = not failed and run.report.numbers[Count.LISTED] <= _FEW
                if few:
                    await staging.drop(tx, run.claimed.run_id, run.claimed.run_no)
        # The run has ended; its work rows are of no use, and the next run clears them too.
        if not few:
            with suppress(StoreError):
                async with self._db.transaction(run.claimed.held.tenant) as tx:
                    await staging.drop(tx, run.claimed.run_id, run.claimed.run_no)
        measure(self._meter, run.spec, record, run.report)
        numbers = {str(count): n for count, n in run.report.numbers.items()}
        run.span.ended(
            str(result),
            numbers | {"skipped": run.report.skips},
            "" if failure is None else failure.code,
        )
        return Ended(record, run.report, tuple(run.plan), waiting, error)

    async def _settle(
        self,
        tx: Transaction,
        run: Run,
        record: RunRecord,
        *,
        failed: bool,
        error: SvsyncError | None,
        waiting: int,
    ) -> None:
        """What `status` shows, and the events, in the transaction that ends the run."""
        spec = run.spec
        await self._connection_seen(tx, run, error)
        latency = run.connection.latency_ms if run.connection else None
        if record.kind is RunKind.PROBE:
            await federation.probe_ended(tx, spec.id, _health(run, error), latency)
            return
        full = record.kind is RunKind.FULL
        if not failed and full and not run.blocked:
            await federation.set_applied(tx, spec.id, run.mapping, listed_all=run.listed_all)
        counts = await pairs.counts(tx, spec.id)
        await federation.run_ended(
            tx,
            spec.id,
            RunEnd(
                run_id=record.run_id,
                started_at=run.claimed.started_at,
                full=full,
                succeeded=not failed,
                status=_health(run, error),
                error=None if record.error is None else record.error.code,
                next_in_s=spec.sync_interval * (1 - 0.1 * self._random()),
                synced=counts["synced"],
                diverged=counts["diverged"],
                quarantined=counts["quarantined"],
                retained=counts["retained"],
                conflicts=waiting,
                skipped=run.report.skips if full else None,
                cycle=_cycle(record, run) if full and not failed else None,
                quiet=run.report.quiet,
                latency_ms=latency,
                again_soon=isinstance(error, BackendUnreachableError)
                and run.connection is not None,
            ),
        )
        await self._emit(tx, spec, record, run.report)

    async def _connection_seen(self, tx: Transaction, run: Run, error: SvsyncError | None) -> None:
        """Count connection failures in a row; tell of the backend once when they persist,
        and once when it is back; look again soon, whatever the interval."""
        spec = run.spec
        lost = isinstance(error, BackendUnreachableError)
        away = lost and run.connection is None
        if lost and not away:  # it went away in the middle, or part of it is: look once more
            await self._probe(tx, spec.id, PROBE_FIRST_S)
            return
        if not away and run.connection is None and not isinstance(error, LoginError | DeniedError):
            return  # nothing was learned of it
        seen = await federation.connection_seen(
            tx, spec.id, connected=not away, tell_after=self._unreachable_after
        )
        about = {"backend_id": spec.id, "backend_name": spec.name, "tenant": spec.tenant}
        events = []
        if seen["told"] and not seen["had_told"]:
            assert error is not None
            events.append(
                Event(
                    "federation.backend.unreachable",
                    {
                        **about,
                        "since": time_of(seen["since"]),
                        "consecutive_failures": seen["failures"],
                        "error": {"code": error.code},
                    },
                )
            )
        if seen["had_told"] and not seen["told"]:
            since, down = time_of(seen["since"]), round(float(seen["down_for_s"]), 1)
            events.append(
                Event("federation.backend.recovered", {**about, "since": since, "down_for_s": down})
            )
        await outbox.add(tx, spec.id, events, event_ids=lambda: self._ids("evt"))
        if away:
            doubled = PROBE_FIRST_S * 2.0 ** min(10, seen["failures"] - 1)
            await self._probe(tx, spec.id, min(PROBE_LONGEST_S, doubled))

    async def _probe(self, tx: Transaction, backend: BackendId, after_s: float) -> None:
        await schedule.enqueue_probe(tx, backend, RunId(self._ids("run")), after_s=after_s)

    async def _emit(
        self, tx: Transaction, spec: BackendSpec, record: RunRecord, report: Report
    ) -> None:
        """The one event that closes a cycle. `sequence` is set where it is stored."""
        data = report.to_event(record, backend_name=spec.name, tenant=spec.tenant, sequence=0)
        ended = "failed" if record.result is RunResult.FAILED else "completed"
        event = Event(f"federation.sync.{ended}", data)
        await outbox.add(tx, spec.id, [event], event_ids=lambda: self._ids("evt"))

    async def superseded(self, run: Run) -> None:
        """Nothing of the run's end is written: who took over, or configured anew, has ended
        it, or will, with its event."""
        async with self._db.transaction(run.claimed.held.tenant) as tx:
            await staging.drop(tx, run.claimed.run_id, run.claimed.run_no)


def _cycle(record: RunRecord, run: Run) -> QuietCycle:
    calls = run.report.api_calls()
    changed = 0 if run.report.quiet else passing(calls, run.untold)
    return QuietCycle(calls, (record.duration_ms or 0) / 1000, changed)


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
    if error is None and run.claimed.kind == RunKind.TARGETED:
        return None
    unseen = run.report.reasons[SkipReason.DENIED] + run.report.reasons[SkipReason.UNLISTED]
    connected = run.connection.status if run.connection else None
    return "degraded" if unseen and connected == "healthy" else connected
