"""Sending pushes: each one call, on its condition and within its time.

Before the call the name is looked at once more, for what a condition alone does not
catch: whose it is, what its tags are, and, where the backend takes no condition, what
stands there. A call without an answer leaves its push unknown; nothing is repeated.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from svsync.domain.changes import HistoricVersion, RemoteValue
from svsync.domain.decide import PushKind
from svsync.domain.envelope import Purpose
from svsync.domain.errors import (
    BackendError,
    DeniedError,
    KeyServiceError,
    LoginError,
    SvsyncError,
    ThrottledError,
)
from svsync.domain.ids import (
    PushId,
)
from svsync.domain.pushes import (
    REMOTE_CHANGED,
    Landed,
    PushState,
    Ready,
    Refused,
    RemoteWrite,
)
from svsync.domain.runs import SkipReason
from svsync.domain.tags import MANAGED, pairs_to_push
from svsync.domain.values import Encoding, Payload, number_would_change
from svsync.ports import Backend
from svsync.services.pushes import (
    AT_ONCE,
    CALL_S,
    HOLD_S,
    Made,
    Push,
    Sender,
    at_once,
    take_up,
    within,
)
from svsync.services.settling import settle
from svsync.store import pushes as store


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
    order = push.order(payload)
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
        if isinstance(error, ThrottledError) and error.code == ThrottledError.code:
            return Made(
                push,
                PushState.WITHDRAWN,
                reason=SkipReason.PUSH_THROTTLED,
                again_s=error.retry_after,
            )
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
    if isinstance(error, LoginError):
        return True  # whatever status a clock or keys are refused with
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
