"""The records that travel from a backend into the store, in order of appearance.

    Entry → Change → Fetched → Decision (in `decide.py`)

Each stage of a cycle takes an async iterator of one and yields the next. What is
sealed and stored of a decision has the shape of its rows (`store/`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from svsync.domain.ids import KeyId, LocalPath, RemotePath, SecretId
from svsync.domain.values import Payload

Tags = Mapping[str, str]
"""A remote secret's raw key/value tags, as the backend holds them."""


# --- list -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """What a listing says of one remote secret; never a value.

    Attributes:
        value_token: changes when the value or its readability changes; compared
            for equality only. None: the listing does not tell, a read will.
        meta_token: changes when only tags or metadata do. None: not told.
        order: rises with each new remote version where the backend has such a
            number (KV v2, GCP); tells a rollback from a change. None: none.
        gone: the backend says that this name has no readable current value
            (soft-deleted, destroyed, disabled, scheduled for deletion).
        tags: raw tags, None where the listing does not carry them.
    """

    remote_path: RemotePath
    value_token: str | None = None
    meta_token: str | None = None
    order: int | None = None
    gone: bool = False
    tags: Tags | None = None


_MOST_VERSIONS: Final = 2**31 - 1


def shown_version(order: int | None) -> int | None:
    """An `order` as the number of a version, for people and records. None: there is none, or
    it is made of something else than a count, such as a date."""
    return order if order and order <= _MOST_VERSIONS else None


class ScopeOutcome(StrEnum):
    COMPLETE = "complete"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Scope:
    """How the listing of one folder (or of the whole store) ended.

    `prefix` is in remote path form and ends with `/`, or is empty for a store
    without folders. Below a prefix that is not complete nothing counts as
    unlisted.
    """

    prefix: str
    outcome: ScopeOutcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ListingPage:
    """Some entries, and the scopes that ended with this page.

    Attributes:
        rejected: names the listing gave that may not be used: (shown form, reason code).
        passed_over: how many names it gave that nobody asked for, where all are listed.
    """

    entries: tuple[Entry, ...] = ()
    scopes: tuple[Scope, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    passed_over: int = 0


@dataclass(frozen=True, slots=True)
class Folder:
    """What stands in one folder, and nothing of what is below the folders in it.

    `folders` are in remote path form and end with `/`. Unless the scope is complete there
    may be more.
    """

    scope: Scope
    entries: tuple[Entry, ...] = ()
    folders: tuple[str, ...] = ()


# --- diff -----------------------------------------------------------------------


class BaseKind(StrEnum):
    NONE = "none"
    VALUE = "value"
    ABSENT = "absent"


class LocalKind(StrEnum):
    NO_ROW = "no_row"
    LIVE = "live"
    TOMBSTONE = "tombstone"


class PairStatus(StrEnum):
    """State of a federated secret; the closed, published list."""

    INITIAL = "initial"
    IN_SYNC = "in_sync"
    PENDING_PUSH = "pending_push"
    DIVERGED = "diverged"
    CONFLICT = "conflict"
    RETAINED = "retained"
    DENIED = "denied"
    QUARANTINED = "quarantined"
    DETACHED = "detached"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True)
class Base:
    """The last remote state settled for a pair.

    `fingerprint` is set for kind value; tokens are kept for absent too (those
    of the gone state). `tokens_left` are the last value tokens that base moved
    away from, newest first, at most eight.
    """

    kind: BaseKind = BaseKind.NONE
    fingerprint: bytes | None = None
    fingerprint_key: KeyId | None = None
    value_token: str | None = None
    meta_token: str | None = None
    order: int | None = None
    tags: Tags | None = None
    settled_version: int | None = None
    tokens_left: tuple[str, ...] = ()
    moved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Local:
    """The local secret as it was read; the commit is conditional on it.

    `last_version` is the highest number ever given out, also to a write that did not
    land; a row that holds nothing but that counter is NO_ROW with a `secret_id`.
    `written_after_claim`: its current version was written after the backend
    claimed the path. `propagate`: a tombstone that may delete remotely. `custom` is
    JSON text of an object of strings.
    """

    kind: LocalKind = LocalKind.NO_ROW
    secret_id: SecretId | None = None
    version: int = 0
    last_version: int = 0
    fingerprint: bytes | None = None
    fingerprint_key: KeyId | None = None
    row_rev: int = 0
    written_after_claim: bool = False
    propagate: bool = False
    tags: tuple[str, ...] = ()
    custom: str = "{}"


@dataclass(frozen=True, slots=True)
class Pair:
    """One remote path and the local path it maps to, with what both were last."""

    remote_path: RemotePath
    local_path: LocalPath
    rule: int
    base: Base = Base()
    local: Local = Local()
    status: PairStatus = PairStatus.INITIAL
    failures: int = 0
    recheck: bool = False
    conflict_open: bool = False
    push_unfinished: bool = False


class ChangeKind(StrEnum):
    NEW = "new"
    CHANGED = "changed"
    METADATA = "metadata"
    LOCAL = "local"
    UNLISTED = "unlisted"


@dataclass(frozen=True, slots=True)
class Change:
    """A pair that this run has to look at, and why. `entry` is None if unlisted; `n` is
    its place in the work list."""

    kind: ChangeKind
    pair: Pair
    entry: Entry | None
    n: int = 0


# --- fetch ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RemoteValue:
    """One point read: value and tokens of the same moment."""

    payload: Payload
    value_token: str
    meta_token: str | None = None
    order: int | None = None
    tags: Tags | None = None
    created_at: datetime | None = None
    dropped_fields: tuple[str, ...] = ()
    """Provider-specific fields that do not travel, for the report's count."""
    made_by: tuple[str, ...] = ()
    """Ids that the writers of this version, and of those before it that are still told,
    gave to them; newest first. Where a store keeps such, those of our pushes are theirs."""


@dataclass(frozen=True, slots=True)
class RemoteGone:
    """The backend itself says that this name has no readable current value."""

    value_token: str | None = None
    meta_token: str | None = None
    order: int | None = None
    reason: str = "not_found"


@dataclass(frozen=True, slots=True)
class RemoteUnknown:
    """Nothing can be concluded. `reason` is from the closed list of skip reasons."""

    reason: str
    detail: str = ""


RemoteRead = RemoteValue | RemoteGone | RemoteUnknown


@dataclass(frozen=True, slots=True)
class RemoteMetadata:
    """Only tags were looked at: the value token of the listing is base's."""

    meta_token: str
    tags: Tags


@dataclass(frozen=True, slots=True)
class HistoricVersion:
    """One earlier remote version that can still be read, for history import."""

    number: int
    payload: Payload
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A change with what its point read said; input of the decision."""

    change: Change
    remote: RemoteRead | RemoteMetadata
    history: tuple[HistoricVersion, ...] = ()
