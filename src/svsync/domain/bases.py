"""How a base moves, and what a new read is compared with.

Base is the last remote state settled for a pair. It moves with a decision, and
when a push lands. The value tokens it leaves behind are remembered for a while:
a store that lags may show them again, and such an answer is not believed.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from svsync.domain.changes import (
    Base,
    BaseKind,
    RemoteGone,
    RemoteRead,
    RemoteValue,
    Tags,
)
from svsync.domain.decide import BaseMove, Decision
from svsync.domain.ids import KeyId
from svsync.domain.situation import ImpossibleSituation

MAX_TOKENS_LEFT: Final = 8


def move_base(
    base: Base,
    decision: Decision,
    remote: RemoteRead,
    *,
    fingerprint: bytes | None,
    fingerprint_key: KeyId | None,
    version: int,
    now: datetime,
) -> Base:
    """Base after a decision; equal to `base` where nothing is to be written.

    Args:
        remote: the point read that was decided on, with its fingerprint and key.
        version: the local version that is current once the effect is applied.
        now: the moment of the move.

    Raises:
        ImpossibleSituation: the decision is not one for this read.
    """
    settled = version if decision.settles else base.settled_version
    match decision.base_move, remote:
        case BaseMove.KEEP, _:
            return (
                base if settled == base.settled_version else replace(base, settled_version=settled)
            )
        case BaseMove.RETOKEN, RemoteValue() | RemoteGone():
            state = (base.kind, base.fingerprint, base.fingerprint_key)
        case BaseMove.TO_REMOTE, RemoteValue():
            state = (BaseKind.VALUE, fingerprint, fingerprint_key)
        case BaseMove.TO_ABSENT, RemoteGone():
            state = (BaseKind.ABSENT, None, None)
        case _:
            raise ImpossibleSituation(
                f"The decision of row {decision.row} is not one for {type(remote).__name__};"
                " report this as a bug."
            )
    return _under_tokens(base, state, settled, remote, now)


def _under_tokens(
    base: Base,
    state: tuple[BaseKind, bytes | None, KeyId | None],
    settled: int | None,
    remote: RemoteValue | RemoteGone,
    now: datetime,
) -> Base:
    """Base in this state (kind, fingerprint and its key), with the tokens of this read.

    A read of a value that does not tell its meta token, order or tags leaves them
    as they were. The value token of a gone state may be none, and is then no
    token at all: were the old one kept, a secret that comes back with it would
    look unchanged. Raw tags stay: should it come back, they are merged from there.
    """
    meta_token, tags = remote.meta_token, None
    if isinstance(remote, RemoteValue):
        meta_token, tags = remote.meta_token or base.meta_token, remote.tags
    token, left = remote.value_token, base.tokens_left
    if base.value_token not in (None, token):
        older = (t for t in left if t not in (token, base.value_token))
        left = (base.value_token, *older)[:MAX_TOKENS_LEFT]
    moved = token != base.value_token or state != (
        base.kind,
        base.fingerprint,
        base.fingerprint_key,
    )
    kind, fingerprint, fingerprint_key = state
    return Base(
        kind=kind,
        fingerprint=fingerprint,
        fingerprint_key=fingerprint_key,
        value_token=token,
        meta_token=meta_token,
        order=base.order if remote.order is None else remote.order,
        tags=base.tags if tags is None else tags,
        settled_version=settled,
        tokens_left=left,
        moved_at=now if moved else base.moved_at,
    )


def rolled_back(base: Base, order: int | None) -> bool:
    """Has the backend gone back to an earlier version? Not told by tokens without order."""
    return (
        base.kind is BaseKind.VALUE
        and order is not None
        and base.order is not None
        and order < base.order
    )


def tags_changed(base_tags: Tags | None, remote_tags: Tags | None) -> bool:
    """Do the raw tags differ from those in base? None of the backend: it did not tell."""
    return remote_tags is not None and dict(remote_tags) != dict(base_tags or {})
