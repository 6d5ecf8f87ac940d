"""What does a point read mean for a pair, in the words of the decision table?"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from svsync.domain.changes import (
    Base,
    BaseKind,
    Local,
    LocalKind,
    Pair,
    RemoteGone,
    RemoteUnknown,
    RemoteValue,
)
from svsync.domain.federation import (
    ConflictPolicy,
    Mode,
    OnRemoteDelete,
    PathSettings,
    RemoteChanges,
    Writes,
)
from svsync.domain.ids import KeyId, LocalPath, RemotePath
from svsync.domain.runs import SkipReason
from svsync.domain.situation import (
    ImpossibleSituation,
    LocalState,
    RemoteKind,
    Situation,
    classify,
)
from svsync.domain.values import Encoding, Payload

SYNC = PathSettings(
    mode=Mode.SYNC,
    writes=Writes.LOCAL,
    conflict_resolution=ConflictPolicy.BACKEND_WINS,
    remote_changes=RemoteChanges.PULL,
    on_remote_delete=OnRemoteDelete.RETAIN,
    propagate_deletes=False,
    seed_remote=False,
)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = KeyId(1)
PAYLOAD = Payload(Encoding.TEXT, b"not looked at")


def pair(base: Base, local: Local = Local()) -> Pair:  # noqa: B008 - frozen records
    return Pair(RemotePath("kv/data/a"), LocalPath("a"), 0, base=base, local=local)


def settled(fingerprint: bytes | None = b"a", **fields: object) -> Base:
    base = Base(
        kind=BaseKind.VALUE,
        fingerprint=fingerprint,
        fingerprint_key=KEY,
        value_token="t1",
        settled_version=1,
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def live(fingerprint: bytes | None = b"a", version: int = 1, key: int = 1) -> Local:
    return Local(
        kind=LocalKind.LIVE,
        version=version,
        fingerprint=fingerprint,
        fingerprint_key=KeyId(key),
    )


def read(token: str = "t1") -> RemoteValue:
    return RemoteValue(PAYLOAD, value_token=token)


def seen(
    of: Pair,
    remote: RemoteValue | RemoteGone | RemoteUnknown,
    fingerprint: bytes | None,
    *,
    now: datetime = NOON,
    window: float = 0.0,
) -> Situation:
    return classify(of, remote, fingerprint, SYNC, now=now, consistency_window_s=window)


def test_equal_to_base_is_asked_before_equal_to_local() -> None:
    assert seen(pair(settled(), live()), read(), b"a").remote is RemoteKind.EQUAL_BASE
    assert seen(pair(settled(), live(b"b", 2)), read("t2"), b"b").remote is RemoteKind.EQUAL_LOCAL
    assert seen(pair(settled(), live(b"b", 2)), read("t2"), b"c").remote is RemoteKind.OTHER


def test_a_token_that_moved_over_an_equal_value_is_equal() -> None:
    assert seen(pair(settled(), live()), read("t9"), b"a").remote is RemoteKind.EQUAL_BASE


def test_held_is_dirty_at_the_settled_version() -> None:
    assert seen(pair(settled(b"b"), live(b"a", 1)), read(), b"b").held
    assert not seen(pair(settled(b"b"), live(b"a", 2)), read(), b"b").held
    assert not seen(pair(settled(b"a"), live(b"a", 1)), read(), b"a").held


@pytest.mark.parametrize(("version", "state"), [(1, LocalState.CLEAN), (2, LocalState.DIRTY)])
def test_with_base_absent_the_settled_version_is_clean(version: int, state: LocalState) -> None:
    base = Base(kind=BaseKind.ABSENT, settled_version=1)
    assert seen(pair(base, live(b"z", version)), RemoteGone(), None).local is state


def test_with_base_none_every_live_secret_is_dirty() -> None:
    s = seen(pair(Base(), live()), read(), b"a")
    assert (s.local, s.remote) == (LocalState.DIRTY, RemoteKind.EQUAL_LOCAL)


def test_a_soft_deleted_name_is_traced_and_an_unknown_one_is_not() -> None:
    assert seen(pair(Base(), live()), RemoteGone("t1", reason="deleted"), None).traced
    assert not seen(pair(Base(), live()), RemoteGone(), None).traced


def test_a_reason_that_is_not_published_is_shown_as_unreadable() -> None:
    s = seen(pair(settled(), live()), RemoteUnknown("my own word"), None)
    assert (s.remote, s.unknown_reason) == (RemoteKind.UNKNOWN, SkipReason.UNREADABLE)
    assert seen(pair(settled()), RemoteUnknown("denied"), None).unknown_reason is SkipReason.DENIED


MOVED = settled(moved_at=NOON, tokens_left=("t0",))


@pytest.mark.parametrize(
    ("remote", "fingerprint"),
    [(RemoteGone("t2"), None), (read("t0"), b"old"), (read("t0"), b"a")],
    ids=["gone", "token left behind", "token left behind, equal value"],
)
def test_an_answer_from_before_the_last_move_is_unknown_within_the_window(
    remote: RemoteValue | RemoteGone, fingerprint: bytes | None
) -> None:
    soon, later = NOON + timedelta(seconds=599), NOON + timedelta(seconds=600)
    lagging = seen(pair(MOVED, live()), remote, fingerprint, now=soon, window=600)
    assert (lagging.remote, lagging.unknown_reason) == (RemoteKind.UNKNOWN, SkipReason.LAGGING)
    for believed in (
        seen(pair(MOVED, live()), remote, fingerprint, now=later, window=600),
        seen(pair(MOVED, live()), remote, fingerprint, now=soon, window=0),
        seen(pair(MOVED, live()), remote, fingerprint, now=NOON - timedelta(seconds=1), window=0),
    ):
        assert believed.remote is not RemoteKind.UNKNOWN


def test_a_value_that_lags_behind_its_deletion_is_not_recreated() -> None:
    absent = replace(MOVED, kind=BaseKind.ABSENT, fingerprint=None, value_token="gone")
    s = seen(pair(absent, live()), read("t0"), b"a", now=NOON, window=600)
    assert s.remote is RemoteKind.UNKNOWN


def test_gone_is_believed_at_once_where_base_is_no_value() -> None:
    absent = replace(MOVED, kind=BaseKind.ABSENT, fingerprint=None)
    assert seen(pair(absent, live()), RemoteGone(), None, window=600).remote is RemoteKind.GONE


def test_base_s_own_token_is_believed_within_the_window() -> None:
    back = settled(moved_at=NOON, tokens_left=("t0", "t1"))
    assert seen(pair(back, live()), read("t1"), b"a", window=600).remote is RemoteKind.EQUAL_BASE


@pytest.mark.parametrize(
    ("of", "fingerprint", "what"),
    [
        (pair(settled(None), live()), b"a", "base has no fingerprint"),
        (pair(settled(), live(None)), b"a", "the local version has no fingerprint"),
        (pair(settled(), live()), None, "the value read has no fingerprint"),
        (pair(settled(), live(key=2)), b"a", "two keys"),
    ],
)
def test_fingerprints_that_cannot_be_compared_raise(
    of: Pair, fingerprint: bytes | None, what: str
) -> None:
    with pytest.raises(ImpossibleSituation, match=what):
        seen(of, read(), fingerprint)
