"""A pair and what its backend just said of it, in the words of the decision table.

`classify` turns fingerprints, tokens, versions and times into one of a few
combinations of base, local and remote state, with the settings in force. It is
the only place where they are compared; `decide` sees the combination alone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from svsync.domain.changes import (
    Base,
    BaseKind,
    LocalKind,
    Pair,
    RemoteGone,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
)
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import PathSettings, RemoteChanges, Writes
from svsync.domain.runs import SkipReason

NO_TRACE: Final = "not_found"
"""The reason of a RemoteGone whose name the backend knows nothing of."""


class LocalState(StrEnum):
    """The local side against base. With base none every live secret is dirty; with
    base absent it is clean while its version is the settled one."""

    NO_ROW = "no_row"
    TOMBSTONE = "tombstone"
    CLEAN = "clean"
    DIRTY = "dirty"


class RemoteKind(StrEnum):
    """The point read against both sides. Equal to base is asked before equal to local."""

    GONE = "gone"
    EQUAL_BASE = "equal_base"
    EQUAL_LOCAL = "equal_local"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision depends on.

    Attributes:
        held: dirty although nobody wrote since both sides agreed; drift makes this.
        written_after_claim: the local version is younger than the backend's claim.
        propagate: the tombstone may delete remotely.
        traced: the backend has a trace of the gone name (soft-deleted, disabled).
        unknown_reason: why nothing is known, where the remote side is unknown.
        push_unfinished: a push of this path has no outcome yet.
        conflict_open: a conflict of this path waits for a person.
        quarantined: it failed too often, and its time has not come again.
    """

    base: BaseKind
    local: LocalState
    remote: RemoteKind
    settings: PathSettings
    held: bool = False
    written_after_claim: bool = False
    propagate: bool = False
    traced: bool = False
    unknown_reason: SkipReason = SkipReason.UNREADABLE
    push_unfinished: bool = False
    conflict_open: bool = False
    quarantined: bool = False

    @property
    def write_through(self) -> bool:
        return self.settings.writes is Writes.WRITE_THROUGH

    @property
    def deletes_there(self) -> bool:
        """The tombstone is to delete the remote side, once that is what was agreed on."""
        return self.write_through and self.settings.propagate_deletes and self.propagate

    @property
    def pulls(self) -> bool:
        return self.settings.remote_changes is RemoteChanges.PULL


class ImpossibleSituation(SvsyncError):
    """Base, local and remote state contradict each other; nothing is done with the path."""

    code = "impossible_situation"


def classify(
    pair: Pair,
    remote: RemoteRead,
    remote_fingerprint: bytes | None,
    settings: PathSettings,
    *,
    now: datetime,
    consistency_window_s: float = 0.0,
    quarantined: bool = False,
) -> Situation:
    """Say what a point read means for a pair.

    Args:
        remote_fingerprint: of the value read, under the same fingerprint key as
            base's and the local one; None where there is no value.
        now: the moment of the read, on the clock that `base.moved_at` is of.
        consistency_window_s: how long this backend may answer from before its
            last change; 0 for one that never does.
        quarantined: the secret failed too often and its time has not come again.

    Raises:
        ImpossibleSituation: a fingerprint is missing, or fingerprints are of two
            keys: comparing them would call an equal value another one.
    """
    _check_fingerprints(pair, remote, remote_fingerprint)
    base, local = pair.base, pair.local
    state = _local_state(pair)
    kind, reason = _remote_kind(pair, remote, remote_fingerprint, now, consistency_window_s)
    return Situation(
        base=base.kind,
        local=state,
        remote=kind,
        settings=settings,
        held=state is LocalState.DIRTY
        and base.kind is BaseKind.VALUE
        and local.version == base.settled_version,
        written_after_claim=local.written_after_claim,
        propagate=local.propagate,
        traced=isinstance(remote, RemoteGone) and remote.reason != NO_TRACE,
        unknown_reason=reason,
        push_unfinished=pair.push_unfinished,
        conflict_open=pair.conflict_open,
        quarantined=quarantined,
    )


def _local_state(pair: Pair) -> LocalState:
    base, local = pair.base, pair.local
    if local.kind is LocalKind.NO_ROW:
        return LocalState.NO_ROW
    if local.kind is LocalKind.TOMBSTONE:
        return LocalState.TOMBSTONE
    match base.kind:
        case BaseKind.NONE:
            clean = False
        case BaseKind.VALUE:
            clean = local.fingerprint == base.fingerprint
        case BaseKind.ABSENT:
            clean = local.version == base.settled_version
    return LocalState.CLEAN if clean else LocalState.DIRTY


def _remote_kind(
    pair: Pair,
    remote: RemoteRead,
    fingerprint: bytes | None,
    now: datetime,
    window_s: float,
) -> tuple[RemoteKind, SkipReason]:
    if isinstance(remote, RemoteUnknown):
        return RemoteKind.UNKNOWN, SkipReason.of(remote.reason)
    base, local = pair.base, pair.local
    if _lags(base, remote, now, window_s):
        return RemoteKind.UNKNOWN, SkipReason.LAGGING
    if isinstance(remote, RemoteGone):
        kind = RemoteKind.GONE
    elif base.kind is BaseKind.VALUE and fingerprint == base.fingerprint:
        kind = RemoteKind.EQUAL_BASE
    elif local.kind is LocalKind.LIVE and fingerprint == local.fingerprint:
        kind = RemoteKind.EQUAL_LOCAL
    else:
        kind = RemoteKind.OTHER
    return kind, SkipReason.UNREADABLE


def _lags(base: Base, remote: RemoteValue | RemoteGone, now: datetime, window_s: float) -> bool:
    """Shortly after base moved, an answer may be one from before the move: a value
    that is gone, or a token that base has left behind, is then not believed."""
    if window_s <= 0 or base.moved_at is None:
        return False
    if now - base.moved_at >= timedelta(seconds=window_s):
        return False
    gone = isinstance(remote, RemoteGone) and base.kind is BaseKind.VALUE
    token = remote.value_token
    return gone or (token != base.value_token and token in base.tokens_left)


def _check_fingerprints(pair: Pair, remote: RemoteRead, fingerprint: bytes | None) -> None:
    base, local = pair.base, pair.local
    live, valued = local.kind is LocalKind.LIVE, base.kind is BaseKind.VALUE
    for needed, given, what in (
        (valued, base.fingerprint, "base"),
        (live, local.fingerprint, "the local version"),
        (isinstance(remote, RemoteValue), fingerprint, "the value read"),
    ):
        if needed and given is None:
            raise ImpossibleSituation(
                f"{pair.local_path}: {what} has no fingerprint; report this as a bug."
            )
    if live and valued and base.fingerprint_key != local.fingerprint_key:
        raise ImpossibleSituation(
            f"{pair.local_path}: base and local version have fingerprints of two keys;"
            " take both under one key first."
        )
