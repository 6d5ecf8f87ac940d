"""How a person settles a conflict, and where that leaves the pair.

Nobody is asked again: base becomes the remote side **as it was seen**, and the local
side is what the resolution makes of it. Should the backend have moved on meanwhile,
the next run finds that against this base, as it finds any other change, and a write
to the backend on the condition of this base is refused. So nothing is lost by a
decision that was made for an earlier state.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from svsync.domain.bases import MAX_TOKENS_LEFT
from svsync.domain.changes import Base, BaseKind, Local, LocalKind, PairStatus
from svsync.domain.decide import PushKind
from svsync.domain.ids import ConflictId, KeyId


class Resolution(StrEnum):
    """What a person decided: the local side stays, the remote side is taken, or both
    give way to a value that is given with the decision."""

    USE_LOCAL = "use_local"
    USE_REMOTE = "use_remote"
    USE_VALUE = "use_value"


@dataclass(frozen=True, slots=True)
class RemoteSide:
    """The remote side of a conflict as it was seen.

    Attributes:
        value_token: None where the backend had no trace of the name.
        fingerprint: of its value under `fingerprint_key`; None where it is gone.
    """

    gone: bool
    value_token: str | None
    order: int | None
    fingerprint: bytes | None
    fingerprint_key: KeyId | None

    @classmethod
    def of_record(
        cls,
        token: str,
        *,
        gone: bool,
        order: int | None,
        fingerprint: bytes | None,
        fingerprint_key: KeyId | None,
    ) -> "RemoteSide":
        """Out of a conflict record, whose token also tells apart what has none.

        A store without versions has an empty token, and its record the fingerprint in
        its place; a name without any trace has none, and its record says so.
        """
        value_token: str | None = token
        if gone and token == NO_TRACE_TOKEN:
            value_token = None
        elif fingerprint is not None and token == fingerprint.hex():
            value_token = ""
        return cls(gone, value_token, order, fingerprint, fingerprint_key)


NO_TRACE_TOKEN = "gone"
"""Stands in a conflict record for the token of a name that the backend knows nothing of."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Where a resolution leaves the pair; `push` is due where written through."""

    base: Base
    status: PairStatus
    push: PushKind | None = None


def settle(
    base: Base, side: RemoteSide, local: Local, *, through: bool, deletes: bool, now: datetime
) -> Settlement:
    """The pair after a resolution.

    Args:
        local: the local side as the resolution leaves it.
        through: the path is written through.
        deletes: local deletes are propagated.

    A local tombstone is never pushed from here: whether it may delete the remote side
    is asked of the table, by the next run.
    """
    live = local.kind is LocalKind.LIVE
    equal = live and local.fingerprint == side.fingerprint
    agree = not live if side.gone else equal
    seen = _seen(base, side, local.version if agree else base.settled_version, now)
    if agree:
        return Settlement(seen, PairStatus.IN_SYNC)
    if live and through:
        kind = PushKind.CREATE if side.gone else PushKind.PUT
        return Settlement(seen, PairStatus.PENDING_PUSH, kind)
    pending = through and deletes and local.propagate and not live
    return Settlement(seen, PairStatus.PENDING_PUSH if pending else PairStatus.DIVERGED)


def _seen(base: Base, side: RemoteSide, settled: int | None, now: datetime) -> Base:
    """Base as the remote side that was seen. Its tags were not part of the conflict, so
    they, and the token that tells of them, stay as they were last agreed on."""
    left = base.tokens_left
    if base.value_token not in (None, side.value_token):
        older = (t for t in left if t not in (side.value_token, base.value_token))
        left = (base.value_token, *older)[:MAX_TOKENS_LEFT]
    return Base(
        kind=BaseKind.ABSENT if side.gone else BaseKind.VALUE,
        fingerprint=side.fingerprint,
        fingerprint_key=side.fingerprint_key,
        value_token=side.value_token,
        meta_token=base.meta_token,
        order=base.order if side.order is None else side.order,
        tags=base.tags,
        settled_version=settled,
        tokens_left=left,
        moved_at=now,
    )


def handle_of(conflict: ConflictId, token: str) -> str:
    """Names the remote side of a conflict to people and programs, so that they can say
    which one they saw; neither the backend's token nor a fingerprint can be told from it."""
    return hashlib.sha256(f"svsync/side/1\0{conflict}\0{token}".encode()).hexdigest()[:32]
