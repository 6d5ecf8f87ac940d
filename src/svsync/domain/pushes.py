"""Writes to a backend: what is asked for, on which condition, and how it ended.

A push is a row before it is a call, so that one whose answer is lost can be asked
for later instead of being repeated blindly:

    planned ──► sent ──► landed      the backend has it; base moves to it
       │          ├────► refused     the backend holds something else; nothing changed
       │          └────► unknown ──► landed, refused, withdrawn, or sent once more
       └────────► withdrawn          not to be made any more, and surely not made

There is one unfinished push of a path at most. While it is unfinished no run and no
other write decides anything about that path.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from svsync.domain.bases import MAX_TOKENS_LEFT
from svsync.domain.changes import Base, BaseKind, RemoteValue, Tags
from svsync.domain.decide import PushKind
from svsync.domain.ids import KeyId, PushId, RemotePath
from svsync.domain.values import Payload


class PushState(StrEnum):
    PLANNED = "planned"
    SENT = "sent"
    LANDED = "landed"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    WITHDRAWN = "withdrawn"


UNFINISHED: Final = (PushState.PLANNED, PushState.SENT, PushState.UNKNOWN)

REMOTE_CHANGED: Final = "remote_changed"
"""The reason of a Refused whose condition does not hold: the table decides anew."""


@dataclass(frozen=True, slots=True)
class RemoteWrite:
    """One write that a backend is asked for.

    Attributes:
        kind: put over a readable value, create where there is none, delete
            recoverably, or set tags alone.
        expected_token: the value token that must still stand, None where the name
            must have no trace at all. It is the condition also where the backend
            has none of its own: then it is compared with a read just before.
        expected_order: the remote version of that token, where it has a number.
        payload: the value; None for a delete and for tags.
    """

    push_id: PushId
    path: RemotePath
    kind: PushKind
    expected_token: str | None
    expected_order: int | None = None
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The expected state stands, so the write may go out.

    Attributes:
        condition: what the backend needs to make it conditional (KV v2: the number
            for `cas`); nobody else reads it.
        conditional: the backend itself refuses the write should somebody be faster.
        tags: the raw pairs that are there now; None where it has none at all.
        before: the value that would be overwritten, where the write is not
            conditional and the store keeps no earlier versions.
    """

    condition: int | str | None = None
    conditional: bool = True
    tags: Tags | None = None
    before: RemoteValue | None = None


@dataclass(frozen=True, slots=True)
class Landed:
    """The backend has it.

    Attributes:
        value_token: of the new state; None where the answer does not tell, the next
            listing will.
        tags: the raw pairs there now; None: not told, so base keeps its own.
        tags_refused: why the pairs could not be written though the value was; empty
            where they were, or none were to be.
    """

    value_token: str | None = None
    meta_token: str | None = None
    order: int | None = None
    tags: Tags | None = None
    tags_refused: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was written. `reason` is REMOTE_CHANGED or a skip reason."""

    reason: str
    detail: str = ""


def base_after(
    base: Base,
    kind: PushKind,
    landed: Landed,
    *,
    fingerprint: bytes | None,
    fingerprint_key: KeyId | None,
    version: int,
    now: datetime,
) -> Base:
    """Base once a push of local version `version` has landed: both sides agree on it.

    A part that the answer did not tell stays as it was, but for the value token: an
    old one would make the new state look changed back.
    """
    tags = base.tags if landed.tags is None else landed.tags
    meta_token = landed.meta_token or base.meta_token
    if kind is PushKind.METADATA:
        return replace(base, tags=tags, meta_token=meta_token)
    left = base.tokens_left
    if base.value_token not in (None, landed.value_token):
        older = (t for t in left if t not in (landed.value_token, base.value_token))
        left = (base.value_token, *older)[:MAX_TOKENS_LEFT]
    gone = kind is PushKind.DELETE
    return Base(
        kind=BaseKind.ABSENT if gone else BaseKind.VALUE,
        fingerprint=None if gone else fingerprint,
        fingerprint_key=None if gone else fingerprint_key,
        value_token=landed.value_token,
        meta_token=meta_token,
        order=base.order if landed.order is None else landed.order,
        tags=tags,
        settled_version=version,
        tokens_left=left,
        moved_at=now,
    )
