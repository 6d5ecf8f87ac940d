"""Decide, seal, commit: what was fetched becomes rows, or stays as it is.

A decision holds only for the local state it was made for. The commit locks each
local row on condition that it still stands where it was seen; what was overtaken
is read again, with a new point read, and decided again, three times at most.
Then it is left to the next run. Nothing here deletes a value.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from svsync.domain.changes import (
    BaseKind,
    Fetched,
    PairStatus,
    RemoteGone,
    RemoteValue,
)
from svsync.domain.decide import BaseMove, Effect, PushKind
from svsync.domain.errors import FenceLostError, HandedOverError, StoreError, StoreUnavailableError
from svsync.domain.federation import Writes
from svsync.domain.ids import PushId
from svsync.domain.pushes import REMOTE_CHANGED, PushState
from svsync.domain.runs import FAILURES, Count, SkipReason, Stage, quarantine_delay
from svsync.services.pushes import Made
from svsync.services.sending import deliver
from svsync.services.sync.commit import commit
from svsync.services.sync.context import PLAN_LIMIT, Planned, Run
from svsync.services.sync.fetch import fetch_batch
from svsync.services.sync.judge import Outcome, judge, unpushed, unstorable
from svsync.services.sync.pairing import reload
from svsync.store import pairs, pushes
from svsync.store.pairs import SkipRow
from svsync.store.pushes import LateCall

TRIES: Final = 3
"""How often an overtaken path is decided again within one run."""


async def apply(run: Run, batches: AsyncIterator[list[Fetched]]) -> None:
    """Bring every batch to its end, in order.

    Raises:
        HandedOverError: this process is to end; what is committed stands.
        FenceLostError: the run is somebody else's now.
        StoreError, BackendError: what concerns the store or the backend as a whole.
    """
    first, done = run.first and not run.dry, 0
    async for fetched in batches:
        async with run.deciding:
            await apply_batch(run, fetched)
        done += len(fetched)
        run.progress(Stage.COMMIT, done, max(done, run.todo))
        if first:
            async with run.transaction() as tx:
                await tx.learn_sizes()
            first = False
        if run.stopping() and not run.dry:
            raise HandedOverError("this worker is to end: another one goes on with the run")


async def apply_batch(run: Run, fetched: Sequence[Fetched]) -> None:
    """Decide and commit one batch, again for what was overtaken."""
    overtaken: list[Outcome] = []
    made: _Committed
    for _ in range(TRIES + 1):
        if overtaken:
            paths = [(o.pair.remote_path, o.pair.local_path, o.pair.rule) for o in overtaken]
            fetched = await fetch_batch(run, await reload(run, paths))
        with run.spending(Stage.DECIDE):
            outcomes = await judged(run, fetched)
        if run.dry:
            _plan(run, outcomes)
            return
        skipped = [o for o in outcomes if o.decision.skip_reason is not None]
        moving = [o for o in outcomes if o.decision.skip_reason is None and _moves(o)]
        for idle in outcomes:
            if idle.decision.skip_reason is None and not _moves(idle):
                count(run, idle)
        made = await _commit_or_halve(run, await _undamped(run, moving))
        left = {id(o.fetched) for o in (*made.overtaken, *made.refused)}
        for done in moving:
            if id(done.fetched) not in left:
                count(run, done)
        await _record_skips(run, [*skipped, *made.refused])
        overtaken = [*made.overtaken, *await _push(run, made.planned)]
        if not overtaken:
            return
    for late in overtaken:
        run.skip(late.pair.remote_path, SkipReason.OVERTAKEN)


async def judged(run: Run, fetched: Sequence[Fetched]) -> list[Outcome]:
    """A decision for each, by what is known now."""
    return await _knowing_late_calls(run, [judge(run, one, run.now()) for one in fetched])


async def _knowing_late_calls(run: Run, outcomes: list[Outcome]) -> list[Outcome]:
    """What looks like somebody's write may be a call of our own that arrived after its push
    was given up: then it is where both sides stood, and the local side goes out again."""
    suspects = [o for o in outcomes if _may_be_ours(run, o)]
    if not suspects:
        return outcomes
    async with run.transaction(lookups=True) as tx:
        late = await pushes.late(tx, run.spec.id, [o.pair.local_path for o in suspects])
    ours = {
        id(o)
        for o in suspects
        if any(_is_late(call, o) for call in late.get(o.pair.local_path, ()))
    }
    return [_as_ours(run, o) if id(o) in ours else o for o in outcomes]


def _is_late(call: LateCall, o: Outcome) -> bool:
    """Told by the id that the version has, or by its number and value."""
    remote = o.fetched.remote
    if not isinstance(remote, RemoteValue):
        return False
    numbered = remote.order is not None and remote.order == call.order
    return remote.made_by[:1] == (call.push_id,) or (numbered and o.fingerprint == call.fingerprint)


def _may_be_ours(run: Run, o: Outcome) -> bool:
    through = run.settings_of(o.pair.rule).writes is Writes.WRITE_THROUGH
    changed = o.decision.conflict is not None or o.decision.effect is Effect.PULL
    return through and changed and o.fingerprint is not None and not o.pair.conflict_open


def _as_ours(run: Run, o: Outcome) -> Outcome:
    """Decide again, with the late value for base. Nobody has settled on it here."""
    remote, pair = o.fetched.remote, o.pair
    assert isinstance(remote, RemoteValue)
    base = replace(
        pair.base,
        kind=BaseKind.VALUE,
        fingerprint=o.fingerprint,
        fingerprint_key=run.keys.fingerprint_key,
        value_token=None,
        settled_version=None,
    )
    change = replace(o.fetched.change, pair=replace(pair, base=base))
    return judge(run, replace(o.fetched, change=change, history=()), run.now())


def _moves(o: Outcome) -> bool:
    """Is there anything to write? A second run on a still backend writes nothing."""
    pair, decision = o.pair, o.decision
    if pair.base.kind is BaseKind.NONE and decision.base_move is BaseMove.KEEP:
        known = pair.status is not PairStatus.INITIAL or pair.recheck or pair.failures > 0
        return known or decision.conflict is not None or decision.push is not None
    return (
        decision.effect is not Effect.NOTHING
        or o.base != pair.base
        or decision.conflict is not None
        or decision.conflict_state is not None
        or (decision.status is not None and decision.status is not pair.status)
        or o.tags is not None
        or pair.failures > 0
        or pair.recheck
    )


async def _undamped(run: Run, outcomes: list[Outcome]) -> list[Outcome]:
    """Where a backend takes no more than so many writes of one name, a push that comes
    too soon waits: the path stays as it is, and the latest value goes out later."""
    seconds = run.backend.features.push_interval_s
    due = [o.pair.local_path for o in outcomes if o.decision.push is not None]
    if not seconds or not due:
        return outcomes
    async with run.transaction(lookups=True) as tx:
        soon = await pushes.recent(tx, run.spec.id, due, seconds)
    for o in outcomes:
        if o.decision.push is not None and o.pair.local_path in soon:
            run.skip(o.pair.remote_path, SkipReason.PUSH_THROTTLED)
    return [o for o in outcomes if o.decision.push is None or o.pair.local_path not in soon]


async def _push(run: Run, planned: dict[PushId, Outcome]) -> list[Outcome]:
    """Make the pushes that were planned; those that the remote side overtook come back.

    Raises:
        BackendError: it concerns the backend as a whole; how each ended is kept.
    """
    if not planned:
        return []
    with run.spending(Stage.PUSH):
        made = await deliver(run.sender, list(planned))
    overtaken, failed = [], []
    for m in made:
        o = planned[m.push.push_id]
        if m.state is PushState.LANDED:
            count_landed(run, m)
        elif m.reason == REMOTE_CHANGED:
            overtaken.append(o)
        else:
            failed.append(unpushed(o, SkipReason.of(m.reason), m.detail))
    await _record_skips(run, failed)
    for m in made:
        if m.error is not None:
            raise m.error
    return overtaken


def count_landed(run: Run, made: Made) -> None:
    """Count a push that landed, with the versions of others that it went over."""
    run.report.add(Count.CONFLICTS, len(made.foreign))
    if made.push.kind is PushKind.METADATA:
        run.report.add(Count.METADATA_PUSHED)
    else:
        run.report.add(Count.PUSHED)
    if made.landed is not None and made.landed.tags_refused:
        run.report.add(Count.METADATA_REFUSED)


@dataclass(frozen=True, slots=True)
class _Committed:
    """What became of a batch: overtaken meanwhile, refused by the database, and the
    pushes that were planned for the rest."""

    overtaken: list[Outcome] = field(default_factory=list)
    refused: list[Outcome] = field(default_factory=list)
    planned: dict[PushId, Outcome] = field(default_factory=dict)

    def and_then(self, other: "_Committed") -> "_Committed":
        return _Committed(
            self.overtaken + other.overtaken,
            self.refused + other.refused,
            self.planned | other.planned,
        )


async def _commit_or_halve(run: Run, outcomes: list[Outcome]) -> _Committed:
    """Commit. Where the database refuses a batch, that is halved until the one path
    that it refuses is alone. So one odd secret stops no other.
    """
    if not outcomes:
        return _Committed()
    try:
        overtaken, planned = await commit(run, outcomes)
        return _Committed(overtaken, planned=planned)
    except (FenceLostError, StoreUnavailableError):
        raise
    except StoreError as refused:
        if len(outcomes) == 1:
            return _Committed(refused=[unstorable(outcomes[0], refused.message)])
        middle = len(outcomes) // 2
        first = await _commit_or_halve(run, outcomes[:middle])
        return first.and_then(await _commit_or_halve(run, outcomes[middle:]))


def count(run: Run, o: Outcome) -> None:
    """Count what was done."""
    report, decision = run.report, o.decision
    if decision.count is not None:
        report.add(decision.count)
    if o.rolled_back:
        report.add(Count.ROLLED_BACK)
    if decision.base_move is BaseMove.RETOKEN and o.base.value_token != o.pair.base.value_token:
        report.add(Count.RETOKENED)
    if o.tags is not None and not o.writes_value:
        report.add(Count.METADATA_UPDATED)
    if o.writes_value:
        report.add(Count.IMPORTED_VERSIONS, len(o.fetched.history))
        remote = o.fetched.remote
        if isinstance(remote, RemoteValue):
            report.add(Count.FIELDS_DROPPED, len(remote.dropped_fields))


async def _record_skips(run: Run, skipped: Sequence[Outcome]) -> None:
    """Report what was left as it is, and remember it: what fails again and again waits
    longer each time."""
    rows = []
    for o in skipped:
        reason = o.decision.skip_reason
        assert reason is not None
        pair = o.pair
        run.skip(pair.remote_path, reason, o.detail)
        if reason is SkipReason.LOCAL_LOST:
            continue
        fails = reason in FAILURES and reason not in (SkipReason.DENIED, SkipReason.QUARANTINED)
        failures = pair.failures + 1 if fails else pair.failures
        delay = quarantine_delay(failures, run.random()) if fails else 0.0
        status = o.decision.status or pair.status
        if delay:
            status = PairStatus.QUARANTINED
        rows.append(
            SkipRow(
                remote_path=pair.remote_path,
                path=pair.local_path,
                rule=pair.rule,
                status=str(status),
                failures=failures,
                retry_s=delay or None,
                reason=str(reason),
            )
        )
    if rows:
        async with run.transaction(lookups=True) as tx:
            await pairs.skip(tx, run.spec.id, run.mapping, rows)


def _plan(run: Run, outcomes: Sequence[Outcome]) -> None:
    """What a dry run would do, counted as a run counts it."""
    for o in outcomes:
        decision, pair = o.decision, o.pair
        if decision.skip_reason is not None:
            run.skip(pair.remote_path, decision.skip_reason, o.detail)
            continue
        count(run, o)
        if decision.conflict is not None:
            run.report.add(Count.CONFLICTS)
        action = _action(o)
        if action is not None and len(run.plan) < PLAN_LIMIT:
            run.plan.append(Planned(pair.local_path, pair.remote_path, *action))


def _action(o: Outcome) -> tuple[str, str] | None:
    decision, remote = o.decision, o.fetched.remote
    if decision.conflict is not None:
        return "conflict", f"{decision.conflict} ({decision.conflict_state})"
    match decision.effect:
        case Effect.CREATE:
            kept = len(o.fetched.history)
            return "create", f"version {o.version}" + (f", {kept} earlier ones" if kept else "")
        case Effect.PULL:
            return "update", f"version {o.pair.local.version} to {o.version}"
        case Effect.TOMBSTONE:
            return "delete", "gone in the backend"
        case Effect.NOTHING:
            pass
    if isinstance(remote, RemoteGone) and decision.count is Count.RETAINED:
        return "retain", "gone in the backend, the local value stays"
    if decision.count is Count.ATTACHED:
        return "attach", "equal on both sides"
    if decision.push is not None:
        return "push", str(decision.push)
    if decision.status is PairStatus.DIVERGED:
        return "diverged", "changed here, not written through"
    if o.tags is not None:
        return "metadata", "tags changed"
    return None
