"""Pushes: writing to a backend so that a lost answer loses nobody's write.

A push is planned in the transaction of the decision it follows from, marked as sent
in one of its own, made on the condition that the remote side is still what was
decided on, and settled in a third. Whoever finds one whose sender has had its time
does not repeat it but asks the backend what became of it (`healing.py`).

A run makes its pushes under its fence; a write by a person or program makes its own
without one. What keeps them apart is that a path has one unfinished push at most,
and that only the hand that holds it (`attempts`) may say how it ended.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from svsync.domain.changes import HistoricVersion, Pair, PairStatus, RemoteValue
from svsync.domain.decide import PushKind
from svsync.domain.envelope import Purpose
from svsync.domain.errors import BackendError, DeniedError, KeyServiceError, SvsyncError
from svsync.domain.federation import BackendSpec, ConflictPolicy, PathSettings
from svsync.domain.ids import (
    BackendId,
    Fence,
    KeyId,
    LocalPath,
    PushId,
    RemotePath,
    RunId,
    SecretId,
)
from svsync.domain.mapping import Mapped, RuleSet
from svsync.domain.pushes import (
    REMOTE_CHANGED,
    Landed,
    PushState,
    Ready,
    Refused,
    RemoteWrite,
    base_after,
)
from svsync.domain.runs import SkipReason
from svsync.domain.tags import MANAGED, after_push, pairs_to_push
from svsync.domain.values import Encoding, Payload, number_would_change
from svsync.ports import Backend
from svsync.services.overwritten import Foreign, record_overwritten
from svsync.services.sealing import Sealed, Sealer, TenantKeys
from svsync.store import outbox, pairs
from svsync.store import pushes as store
from svsync.store.database import Row, Transaction
from svsync.store.outbox import Event
from svsync.store.pushes import EndRow, PushRow, SettledPair

T = TypeVar("T")

CALL_S: Final = 10.0
"""Seconds that a push may take, the look before it included."""
HOLD_S: Final = 15.0
"""Seconds for which a push is its sender's alone: longer than its call may take."""
PLAN_S: Final = 60.0
"""The same for one that is planned and not sent yet."""
AT_ONCE: Final = 8
"""Pushes sent together, and under way at one time: none waits while its time runs out, and
a change of configuration, which takes the fence away, is met by the next few."""


class TransactionMaker(Protocol):
    """Transactions of one tenant; of a run, under its fence."""

    def __call__(self, *, lookups: bool = False) -> AbstractAsyncContextManager[Transaction]: ...


@dataclass(slots=True)
class Sender:
    """Who makes pushes, of which backend, with what.

    Attributes:
        base_pair: endpoint and namespace that this backend's bases speak of.
        time_left: seconds for which this process may still call out. A run's ends
            with its lease: what it sent later could not be told from a late call.
    """

    transaction: TransactionMaker
    spec: BackendSpec
    rules: RuleSet
    base_pair: str
    backend: Backend
    keys: TenantKeys
    now: Callable[[], datetime]
    ids: Callable[[str], str]
    time_left: Callable[[], float]
    run: RunId | None = None

    def settings_of(self, rule: int) -> PathSettings:
        return self.spec.for_rule(self.rules.spec(rule))

    def local_wins(self, rule: int) -> bool:
        """Of a tag or field that changed on both sides."""
        return self.settings_of(rule).conflict_resolution is not ConflictPolicy.BACKEND_WINS


@dataclass(frozen=True, slots=True)
class Push:
    """One push in hand, with the pair it concerns as that stood when it was taken;
    `mapped`: the rules still join its two paths."""

    push_id: PushId
    path: LocalPath
    kind: PushKind
    secret: SecretId
    version: int
    pending: bool
    metadata: dict[str, Any] | None
    expected_token: str | None
    expected_order: int | None
    target: bytes | None
    target_key: KeyId | None
    attempts: int
    sent: bool
    planned_rev: int
    pair: Pair
    mapped: bool
    sealed: Sealed | None
    encoding: str | None

    @property
    def remote_path(self) -> RemotePath:
        return self.pair.remote_path

    @property
    def numbered(self) -> tuple[SecretId, int]:
        return self.secret, self.version

    @property
    def makes_version(self) -> bool:
        """A version of ours becomes current by its landing."""
        return self.pending and self.kind is not PushKind.DELETE

    @property
    def local_tags(self) -> Sequence[str]:
        return self.pair.local.tags if self.metadata is None else self.metadata["tags"]

    @property
    def local_custom(self) -> dict[str, str]:
        text = self.pair.local.custom if self.metadata is None else self.metadata["custom"]
        custom: dict[str, str] = json.loads(text)
        return custom


@dataclass(frozen=True, slots=True)
class Made:
    """How one push ended, or did not.

    Attributes:
        state: landed, refused, withdrawn (surely not made), or unknown.
        reason: REMOTE_CHANGED or a skip reason, empty where it landed.
        error: what the backend raised, should it concern the backend as a whole.
        foreign: versions that somebody wrote between what was expected and ours.
    """

    push: Push
    state: PushState
    landed: Landed | None = None
    reason: str = ""
    detail: str = ""
    error: SvsyncError | None = None
    foreign: tuple[HistoricVersion, ...] = ()

    @property
    def took_tags(self) -> bool:
        return self.landed is not None and self.landed.tags is not None


# --- plan -------------------------------------------------------------------------


async def plan(
    tx: Transaction,
    backend: BackendId,
    rows: Sequence[PushRow],
    *,
    by: str,
    run: RunId | None = None,
    fence: Fence | None = None,
) -> None:
    """Write pushes down, in the transaction of the decision they follow from."""
    await store.plan(tx, backend, rows, fence=fence, run=run, by=by, seconds=PLAN_S)


# --- make -------------------------------------------------------------------------


async def deliver(sender: Sender, ids: Sequence[PushId]) -> list[Made]:
    """Send planned pushes, several at once, and settle them.

    Returns how each ended; one that somebody else took in hand meanwhile is missing.
    """
    ended: list[Made] = []
    for at in range(0, len(ids), AT_ONCE):
        until = time.monotonic() + HOLD_S
        async with sender.transaction(lookups=True) as tx:
            ours = await store.send(tx, ids[at : at + AT_ONCE], HOLD_S)
            held = await take_up(sender, tx, list(ours))
        works = [partial(_make, sender, push, until) for push in held]
        ended.extend(await settle(sender, await at_once(works)))
    return ended


async def take_up(sender: Sender, tx: Transaction, ids: Sequence[PushId]) -> list[Push]:
    """The pushes with the pairs they concern, without those whose pair is no more, or
    is one of another store than the one that answers now."""
    rows = await store.load(tx, ids)
    states = await pairs.load(tx, sender.spec.id, [r["remote_path"] for r in rows])
    here = {path: row for path, row in states.items() if row["base_pair"] == sender.base_pair}
    return [
        _push_of(row, pairs.pair_of(here[row["remote_path"]]), sender.rules)
        for row in rows
        if row["remote_path"] in here
    ]


def _push_of(row: Row, pair: Pair, rules: RuleSet) -> Push:
    """With the pair under the number that its rule has now: a push may be made before the
    run that maps the pairs anew."""
    now = rules.to_remote(pair.local_path)
    mapped = isinstance(now, Mapped) and now.remote == pair.remote_path
    if isinstance(now, Mapped):
        pair = replace(pair, rule=now.rule)
    sealed = None
    if row["sealed"] is not None:
        sealed = Sealed(row["key_id"], row["nonce"], row["sealed"])
    return Push(
        push_id=PushId(row["push_id"]),
        path=LocalPath(row["path"]),
        kind=PushKind(row["kind"]),
        secret=SecretId(row["pushed_secret"]),
        version=row["version"],
        pending=row["pending"],
        metadata=None if row["metadata"] is None else json.loads(row["metadata"]),
        expected_token=row["expected_token"],
        expected_order=row["expected_order"],
        target=row["target_fp"],
        target_key=row["target_fp_key"],
        attempts=row["attempts"],
        sent=row["sent_at"] is not None,
        planned_rev=row["planned_rev"],
        pair=pair,
        mapped=mapped,
        sealed=sealed,
        encoding=row["encoding"],
    )


async def _make(sender: Sender, push: Push, until: float) -> Made:
    """One call, on its condition, within its time. From `until` on (monotonic seconds)
    others may take it for given up: it is not begun where it could end after that."""
    payload: Payload | None = None
    if push.kind in (PushKind.PUT, PushKind.CREATE):
        try:
            payload = await _opened(sender, push)
        except KeyServiceError as problem:
            return Made(
                push, PushState.WITHDRAWN, reason=SkipReason.LOCAL_UNREADABLE, detail=problem.code
            )
        if sender.backend.features.json_doubles and (at := number_would_change(payload)):
            return Made(push, PushState.REFUSED, reason=SkipReason.NUMBER_WOULD_CHANGE, detail=at)
    order = RemoteWrite(
        push.push_id, push.remote_path, push.kind, push.expected_token, push.expected_order, payload
    )
    if min(sender.time_left(), until - time.monotonic()) < CALL_S:
        return Made(push, PushState.WITHDRAWN, reason=SkipReason.WRITE_IN_PROGRESS)
    call = _Call(sender, push, order)
    try:
        answer = await within(CALL_S, call.run())
    except BackendError as error:
        whole = error if concerns_all(error) else None
        if call.went_out and error.sent:
            reason = SkipReason.WRITE_OUTCOME_UNKNOWN
            return Made(push, PushState.UNKNOWN, reason=reason, error=whole)
        return Made(
            push,
            PushState.WITHDRAWN,
            reason=SkipReason.PUSH_REFUSED,
            detail=error.code,
            error=whole,
        )
    except SvsyncError as problem:  # of the credential's source, say
        state = PushState.UNKNOWN if call.went_out else PushState.WITHDRAWN
        return Made(push, state, reason=SkipReason.PUSH_REFUSED, detail=problem.code, error=problem)
    if answer is None:
        if call.went_out:
            return Made(push, PushState.UNKNOWN, reason=SkipReason.WRITE_OUTCOME_UNKNOWN)
        return Made(
            push, PushState.WITHDRAWN, reason=SkipReason.PUSH_REFUSED, detail="no answer in time"
        )
    if isinstance(answer, Refused):
        return Made(push, PushState.REFUSED, reason=answer.reason, detail=answer.detail)
    return Made(push, PushState.LANDED, landed=answer, foreign=call.foreign)


def concerns_all(error: BackendError) -> bool:
    """Does the error speak of the backend as a whole, not of the one path asked for?"""
    if isinstance(error, DeniedError):
        return False
    return error.status is None or error.status >= 500


@dataclass(slots=True)
class _Call:
    """The look and the write of one push; knows whether anything went out."""

    sender: Sender
    push: Push
    order: RemoteWrite
    went_out: bool = field(default=False, init=False)
    conditional: bool = field(default=True, init=False)
    foreign: tuple[HistoricVersion, ...] = field(default=(), init=False)

    async def run(self) -> Landed | Refused:
        backend = self.sender.backend
        ready = await backend.check(self.order)
        if isinstance(ready, Refused):
            return ready
        if not self._may_delete(ready):
            return Refused(SkipReason.NOT_OWNED)
        self.conditional = ready.conditional
        if ready.before is not None and not await self._may_replace(ready.before):
            return Refused(REMOTE_CHANGED)
        tags = self._tags(ready)
        self.went_out = True
        answer = await backend.write(self.order, ready, tags)
        if isinstance(answer, Landed) and not self.conditional:
            before = self.order.expected_order
            self.foreign = await between(self.sender.backend, self.push, before, answer.order)
        return answer

    def _may_delete(self, ready: Ready) -> bool:
        """With `delete_only_owned` a delete goes to what carries the mark of svsync alone."""
        if self.push.kind is not PushKind.DELETE:
            return True
        owned = (ready.tags or {}).get(MANAGED) == "true"
        return owned or not self.sender.spec.extra.get("delete_only_owned")

    async def _may_replace(self, before: RemoteValue) -> bool:
        """Without a condition and without history the value that goes is compared by
        itself, and kept sealed beside the push before it is overwritten."""
        keys, push = self.sender.keys, self.push
        if keys.fingerprint(before.payload) != push.pair.base.fingerprint:
            return False
        sealer = await keys.reserve(1)
        sealed = sealer.seal(
            Purpose.RAW, push.secret, push.path, 0, before.payload.reveal(), extra=push.push_id
        )
        async with self.sender.transaction() as tx:
            await store.keep_before(tx, push.push_id, sealed.key_id, sealed.nonce, sealed.sealed)
        return True

    def _tags(self, ready: Ready) -> dict[str, str] | None:
        """All the pairs the name is to hold: what is there, with what changed here."""
        push, rule = self.push, self.push.pair.rule
        if ready.tags is None or push.kind is PushKind.DELETE:
            return None
        base = push.pair.base.tags or {}
        wins = self.sender.local_wins(rule)
        transform = self.sender.rules.spec(rule).tags
        wanted = pairs_to_push(
            push.local_tags, push.local_custom, base, ready.tags, transform, local_wins=wins
        )
        wanted = dict(ready.tags) if wanted is None else wanted
        wanted[MANAGED] = "true"
        return None if wanted == dict(ready.tags) else wanted


async def between(
    backend: Backend, push: Push, before: int | None, ours: int | None
) -> tuple[HistoricVersion, ...]:
    """What others wrote between the version that was expected and ours.

    Without a condition somebody may have been faster. Raises BackendError where that
    cannot be asked: then the push is not at its end.
    """
    after = before or 0
    if not backend.features.history or ours is None or ours - after <= 1:
        return ()
    found = await backend.read_history(
        push.remote_path, above=after, below=ours, limit=ours - after
    )
    return tuple(found)


async def _opened(sender: Sender, push: Push) -> Payload:
    """The value of the pushed version. Raises KeyServiceError where it does not open."""
    if push.sealed is None or push.encoding is None:
        raise KeyServiceError(f"version {push.version} of {push.path} is gone", code="version_gone")
    data = await sender.keys.open(Purpose.VALUE, push.secret, push.path, push.version, push.sealed)
    return Payload.from_data(data, Encoding(push.encoding))


# --- settle -----------------------------------------------------------------------


async def settle(sender: Sender, made: Sequence[Made]) -> list[Made]:
    """Write how pushes ended, all in one transaction; those that were still ours to end.

    What landed moves base. What did not leaves the pair to be looked at again, and a
    version that was waiting for it is destroyed.
    """
    if not made:
        return []
    sealer = await sender.keys.reserve(sum(len(m.foreign) for m in made))
    async with sender.transaction(lookups=True) as tx:
        secrets = await store.lock_secrets(tx, [m.push.push_id for m in made])
        ended = await store.end(tx, [_end_row(m) for m in made])
        ours = [m for m in made if m.push.push_id in ended]
        landed = [m for m in ours if m.state is PushState.LANDED]
        lost = [m for m in ours if m.state in (PushState.REFUSED, PushState.WITHDRAWN)]
        events = await _land(sender, tx, landed, secrets, sealer)
        await store.destroy_pending(tx, [m.push.numbered for m in lost if m.push.makes_version])
        await store.look_again(tx, sender.spec.id, [m.push.remote_path for m in lost])
        await store.raise_revs(tx, [m.push.secret for m in (*landed, *lost)])
        await outbox.add(tx, sender.spec.id, events, event_ids=lambda: sender.ids("evt"))
    return ours


async def _land(
    sender: Sender,
    tx: Transaction,
    landed: Sequence[Made],
    secrets: dict[SecretId, Row],
    sealer: Sealer,
) -> list[Event]:
    """Both sides agree from here on; the events that tell of it."""
    pending = [m for m in landed if m.push.pending]
    await store.make_current(tx, [m.push.numbered for m in pending if m.push.makes_version])
    for m in pending:
        if m.push.metadata is not None:
            await store.describe(tx, m.push.secret, m.push.metadata)
    await store.bury_pending(tx, [m.push.secret for m in pending if m.push.kind is PushKind.DELETE])
    await store.set_metadata(
        tx, [_metadata_after(sender, m, secrets) for m in landed if m.took_tags]
    )
    await store.settle_pairs(
        tx, sender.spec.id, [_settled(sender, m, secrets[m.push.secret]) for m in landed]
    )
    foreign = [
        Foreign(m.push.pair, m.push.secret, m.push.version, m.foreign) for m in landed if m.foreign
    ]
    recorded = await record_overwritten(
        tx, sender.spec.id, sender.run, foreign, sender.keys, sealer, sender.ids
    )
    about = {
        "backend_id": sender.spec.id,
        "backend_name": sender.spec.name,
        "tenant": sender.spec.tenant,
        "run_id": sender.run,
    }
    events = [
        Event(
            "federation.conflict.detected",
            {
                **about,
                "conflict_id": row["conflict_id"],
                "path": row["path"],
                "kind": row["kind"],
                "state": row["state"],
            },
        )
        for row in recorded
    ]
    moved = [
        {"path": m.push.path, "version": m.push.version, "deleted": m.push.kind is PushKind.DELETE}
        for m in pending
    ]
    if moved:
        events.append(Event("federation.secret.changed", {**about, "secrets": moved}))
    return events


def _end_row(m: Made) -> EndRow:
    token = m.landed.value_token if m.landed else None
    return EndRow(m.push.push_id, m.push.attempts, str(m.state), m.reason or None, token)


def _settled(sender: Sender, m: Made, secret: Row) -> SettledPair:
    push, pair = m.push, m.push.pair
    assert m.landed is not None
    settled_version = push.version
    if push.kind is PushKind.METADATA:
        settled_version = pair.base.settled_version or push.version
    base = base_after(
        pair.base,
        push.kind,
        m.landed,
        fingerprint=push.target,
        fingerprint_key=push.target_key,
        version=settled_version,
        now=sender.now(),
    )
    untouched = secret["row_rev"] == push.planned_rev and not _lacks_tags(sender, m)
    status = PairStatus.IN_SYNC if untouched else PairStatus.PENDING_PUSH
    if push.kind is PushKind.METADATA:
        status = pair.status
    return SettledPair(
        remote_path=push.remote_path,
        base_kind=str(base.kind),
        base_fp=base.fingerprint,
        base_fp_key=base.fingerprint_key,
        value_token=base.value_token,
        meta_token=base.meta_token,
        order=base.order,
        tokens_left="\n".join(base.tokens_left) or None,
        moved_at=base.moved_at,
        remote_tags=pairs.tags_text(base.tags),
        settled=base.settled_version,
        status=str(status),
        recheck=not untouched,
    )


def _lacks_tags(sender: Sender, m: Made) -> bool:
    """Did the value land without what changed of its tags here? They were refused, or the
    answer was lost before they went out: the next look finds them due."""
    push, landed = m.push, m.landed
    assert landed is not None
    base = push.pair.base.tags or {}
    there = base if landed.tags is None and landed.tags_refused else landed.tags
    if there is None or push.kind is PushKind.DELETE:
        return False
    rule = push.pair.rule
    due = pairs_to_push(
        push.local_tags,
        push.local_custom,
        base,
        there,
        sender.rules.spec(rule).tags,
        local_wins=sender.local_wins(rule),
    )
    return due is not None


def _metadata_after(
    sender: Sender, m: Made, secrets: dict[SecretId, Row]
) -> tuple[SecretId, str, str]:
    """Tag strings and custom fields show the same pairs, so both follow what landed."""
    push, landed, secret = m.push, m.landed, secrets[m.push.secret]
    assert landed is not None
    assert landed.tags is not None
    had = secret if push.metadata is None else push.metadata
    base, transform = push.pair.base.tags or {}, sender.rules.spec(push.pair.rule).tags
    tags, custom = after_push(
        had["tags"],
        json.loads(had["custom"]),
        base,
        landed.tags,
        transform,
        local_wins=sender.local_wins(push.pair.rule),
    )
    return push.secret, json.dumps(tags), json.dumps(custom, sort_keys=True)


# --- several at once, and not for ever --------------------------------------------


async def at_once(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of all, in order, a few at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with room:
            return await work()

    tasks = [asyncio.create_task(one(work)) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def within(seconds: float, work: Awaitable[T]) -> T | None:
    """The result, or None when it took too long and was cancelled.

    A task with a bounded wait: a timeout inside a task that is itself being cancelled
    does not tell the two apart before Python 3.11.4.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if done:
            return task.result()
        return None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
