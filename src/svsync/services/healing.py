"""Pushes whose answer never came: what became of them is asked, not guessed.

A push past its deadline has no sender any more, whoever that was: this run, one that
died, a write by a person. The backend is asked with one point read:

- Our value stands: it landed.
- What was expected still stands: it was not made. It goes out again under the same id
  and condition, so that should the lost call arrive after all, one of the two is
  refused; or it is withdrawn, where nothing asks for it any more.
- Our value is among the versions, or our delete, and somebody wrote on top: it landed,
  and what came after is a remote change like any other. So it is with a delete where
  nothing tells: it is not asked for again on top of a newer value.
- Anything else stands: it was refused.

Where the backend cannot be asked it stays unknown, and its path stays untouched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from svsync.domain.changes import (
    HistoricVersion,
    LocalKind,
    RemoteGone,
    RemoteUnknown,
    RemoteValue,
)
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError
from svsync.domain.federation import Writes
from svsync.domain.ids import PushId
from svsync.domain.pushes import REMOTE_CHANGED, Landed, PushState, Refused
from svsync.domain.runs import SkipReason
from svsync.domain.tags import pairs_to_push
from svsync.services.pushes import (
    CALL_S,
    HOLD_S,
    Made,
    Push,
    Sender,
    at_once,
    take_up,
    within,
)
from svsync.services.sending import between, concerns_all, deliver
from svsync.services.settling import settle
from svsync.store import pushes as store
from svsync.store.database import Row
from svsync.store.pushes import EndRow

_BATCH: Final = 100


async def heal(sender: Sender, *, again: bool = True) -> list[Made]:
    """Bring the backend's overdue pushes to an end, as far as it can be asked.

    With `again` false nothing is made once more. Nor is what the rules do not join any
    more: that is asked for, and its tags are left alone.

    Raises:
        BackendError: the backend as a whole cannot be asked; what was learned is kept.
    """
    done: list[Made] = []
    while True:
        async with sender.transaction(lookups=True) as tx:
            ids = await store.take_over(tx, sender.spec.id, HOLD_S, _BATCH)
            if not ids:
                return done
            held = await take_up(sender, tx, ids)
            known = {push.push_id for push in held}
            orphans = await store.load(tx, [i for i in ids if i not in known])
        await _withdraw_orphans(sender, orphans)
        answers = await at_once([_Asking(sender, push, again).ask for push in held])
        once_more = [a for a in answers if isinstance(a, str)]
        learned = [a for a in answers if isinstance(a, Made)]
        done.extend(await settle(sender, learned))
        if once_more:
            async with sender.transaction() as tx:
                await store.again(tx, once_more)
            done.extend(await deliver(sender, once_more))
        for made in learned:
            if made.error is not None:
                raise made.error
        if len(ids) < _BATCH:
            return done


async def _withdraw_orphans(sender: Sender, rows: Sequence[Row]) -> None:
    """Nobody can be asked about a pair that is no more: what waited for it is destroyed."""
    if not rows:
        return
    async with sender.transaction(lookups=True) as tx:
        await store.lock_secrets(tx, [row["push_id"] for row in rows])
        withdrawn, why = str(PushState.WITHDRAWN), "pair_gone"
        ended = await store.end(
            tx, [EndRow(row["push_id"], row["attempts"], withdrawn, why, None) for row in rows]
        )
        gone = [row for row in rows if row["push_id"] in ended]
        waited = [(row["pushed_secret"], row["version"]) for row in gone if row["pending"]]
        await store.destroy_pending(tx, waited)
        await store.raise_revs(tx, [row["pushed_secret"] for row in gone])


@dataclass(frozen=True, slots=True)
class _Asking:
    """What became of one push. `again` as in `heal`."""

    sender: Sender
    push: Push
    again: bool

    async def ask(self) -> Made | PushId:
        """How it ended; its id where it is to be made once more."""
        push = self.push
        if not push.sent:
            return Made(push, PushState.WITHDRAWN, reason=SkipReason.WRITE_IN_PROGRESS)
        try:
            answer = await within(CALL_S, self._ask())
        except BackendError as error:
            return self._unknown(error if concerns_all(error) else None)
        return self._unknown() if answer is None else answer

    async def _ask(self) -> Made | PushId:
        push = self.push
        [read] = await self.sender.backend.read([push.remote_path])
        if isinstance(read, RemoteUnknown):
            return self._unknown()
        match push.kind:
            case PushKind.METADATA:
                return self._of_tags(read)
            case PushKind.DELETE:
                return await self._of_delete(read)
            case PushKind.PUT | PushKind.CREATE:
                return await self._of_value(read)

    def _unknown(self, error: BackendError | None = None) -> Made:
        reason = SkipReason.WRITE_OUTCOME_UNKNOWN
        return Made(self.push, PushState.UNKNOWN, reason=reason, error=error)

    def _landed(self, read: RemoteValue | RemoteGone) -> Made:
        tags = read.tags if isinstance(read, RemoteValue) and self.push.mapped else None
        landed = Landed(read.value_token, read.meta_token, read.order, tags)
        return Made(self.push, PushState.LANDED, landed=landed)

    def _refused(self) -> Made:
        return Made(self.push, PushState.REFUSED, reason=REMOTE_CHANGED)

    def _again_or_withdrawn(self) -> Made | PushId:
        """It was not made. Is it still asked for?"""
        push = self.push
        wanted = self.again and push.mapped and not push.pair.conflict_open
        if wanted:
            settings = self.sender.settings_of(push.pair.rule)
            wanted = settings.writes is Writes.WRITE_THROUGH
            if push.kind is PushKind.DELETE:
                buried = push.pair.local.kind is LocalKind.TOMBSTONE and push.pair.local.propagate
                wanted = wanted and settings.propagate_deletes and (push.pending or buried)
        if wanted:
            return push.push_id
        return Made(push, PushState.WITHDRAWN, reason=SkipReason.PUSH_REFUSED)

    def _of_tags(self, read: RemoteValue | RemoteGone) -> Made | PushId:
        """Tags are a state, not an event: what is still due, the next run finds due."""
        push = self.push
        if not push.mapped or not isinstance(read, RemoteValue) or read.tags is None:
            return Made(push, PushState.WITHDRAWN, reason=SkipReason.PUSH_REFUSED)
        due = pairs_to_push(
            push.local_tags,
            push.local_custom,
            push.pair.base.tags or {},
            read.tags,
            self.sender.rules.spec(push.pair.rule).tags,
            local_wins=True,
        )
        if due is None:
            return self._landed(read)
        return Made(push, PushState.WITHDRAWN, reason=SkipReason.PUSH_REFUSED)

    async def _of_delete(self, read: RemoteValue | RemoteGone) -> Made | PushId:
        push = self.push
        if isinstance(read, RemoteGone):
            return self._landed(read)
        if self._as_expected(read):
            return self._again_or_withdrawn()
        found = await self.sender.backend.find_delete(push.order())
        if isinstance(found, Refused):
            return self._refused()
        return Made(push, PushState.LANDED, landed=found or Landed(order=push.expected_order))

    async def _of_value(self, read: RemoteValue | RemoteGone) -> Made | PushId:
        push = self.push
        if isinstance(read, RemoteValue):
            fingerprint = self.sender.keys.fingerprint(read.payload)
            if fingerprint == push.target:
                return replace(self._landed(read), foreign=await self._between(read))
            if self._as_expected(read, fingerprint):
                return await self._unseen(read)
        elif push.kind is PushKind.CREATE and self._as_expected(read):
            return await self._unseen(read)
        if isinstance(read, RemoteValue) and push.push_id in read.made_by[1:]:
            return Made(push, PushState.LANDED, landed=Landed())
        below = await self._below(read)
        if below is None:
            return self._refused()
        number, foreign = below
        return Made(push, PushState.LANDED, landed=Landed(order=number), foreign=foreign)

    async def _unseen(self, read: RemoteValue | RemoteGone) -> Made | PushId:
        """The newest version is told to be the one from before the push. Where answers may
        lag behind, the one after it is asked for by its number, so that none is made twice."""
        push, backend = self.push, self.sender.backend
        before, features = read.order or 0, backend.features
        if features.history and features.ordered_tokens and features.consistency_window_s:
            found = await backend.read_history(
                push.remote_path, above=before, below=before + 2, limit=1
            )
            if any(self.sender.keys.fingerprint(v.payload) == push.target for v in found):
                return Made(push, PushState.LANDED, landed=Landed(order=before + 1))
        return self._again_or_withdrawn()

    def _as_expected(
        self, read: RemoteValue | RemoteGone, fingerprint: bytes | None = None
    ) -> bool:
        """Is it still what it was before the push? A store whose token never changes
        (KV v1) is told by its value."""
        if read.value_token != self.push.expected_token:
            return False
        base = self.push.pair.base.fingerprint
        return bool(read.value_token) or fingerprint is None or fingerprint == base

    async def _between(self, read: RemoteValue) -> tuple[HistoricVersion, ...]:
        """Without a condition our write went over whatever stood between."""
        backend = self.sender.backend
        if backend.features.compare_and_set:
            return ()
        return await between(backend, self.push, self.push.expected_order, read.order)

    async def _below(
        self, read: RemoteValue | RemoteGone
    ) -> tuple[int, tuple[HistoricVersion, ...]] | None:
        """The number of our version where others wrote on top of it, and what they wrote
        before it. On a condition it can only be the one right after what was expected."""
        push, backend = self.push, self.sender.backend
        before = push.expected_order or 0
        if not backend.features.history or read.order is None or read.order <= before:
            return None
        found = await backend.read_history(
            push.remote_path, above=before, below=read.order + 1, limit=read.order - before
        )
        for at, version in enumerate(found):
            if backend.features.compare_and_set and version.number != before + 1:
                break
            if self.sender.keys.fingerprint(version.payload) == push.target:
                return version.number, tuple(found[:at])
        return None
