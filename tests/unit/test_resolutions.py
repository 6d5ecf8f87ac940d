"""Where a resolution leaves the pair, and what names the remote side to people."""

from datetime import UTC, datetime

import pytest

from svsync.domain.bases import MAX_TOKENS_LEFT
from svsync.domain.changes import Base, BaseKind, Local, LocalKind, PairStatus
from svsync.domain.decide import PushKind
from svsync.domain.ids import ConflictId, KeyId
from svsync.domain.resolutions import NO_TRACE_TOKEN, RemoteSide, handle_of, settle

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY, OURS, THEIRS = KeyId(1), b"o" * 32, b"t" * 32
VALUE = RemoteSide(False, "t2", 2, THEIRS, KEY)
GONE = RemoteSide(True, "t2|deleted", 2, None, None)
BASE = Base(BaseKind.VALUE, b"b" * 32, KEY, "t1", "m1", 1, {"env": "prod"}, settled_version=1)
LIVE = Local(LocalKind.LIVE, version=2, last_version=2, fingerprint=OURS, fingerprint_key=KEY)
EQUAL = Local(LocalKind.LIVE, version=3, last_version=3, fingerprint=THEIRS, fingerprint_key=KEY)
TOMBSTONE = Local(LocalKind.TOMBSTONE, version=2, last_version=2)
DELETES = Local(LocalKind.TOMBSTONE, version=2, last_version=2, propagate=True)

IN_SYNC, PENDING, DIVERGED = PairStatus.IN_SYNC, PairStatus.PENDING_PUSH, PairStatus.DIVERGED


@pytest.mark.parametrize(
    ("local", "side", "through", "deletes", "status", "push"),
    [
        (LIVE, VALUE, False, False, DIVERGED, None),
        (LIVE, VALUE, True, False, PENDING, PushKind.PUT),
        (LIVE, GONE, False, False, DIVERGED, None),
        (LIVE, GONE, True, False, PENDING, PushKind.CREATE),
        (EQUAL, VALUE, True, True, IN_SYNC, None),
        (TOMBSTONE, GONE, True, True, IN_SYNC, None),
        (TOMBSTONE, VALUE, True, True, DIVERGED, None),
        (DELETES, VALUE, True, True, PENDING, None),
        (DELETES, VALUE, True, False, DIVERGED, None),
        (DELETES, VALUE, False, True, DIVERGED, None),
    ],
)
def test_what_is_due_at_the_backend_is_a_value_that_it_does_not_have(
    local: Local,
    side: RemoteSide,
    through: bool,
    deletes: bool,
    status: PairStatus,
    push: PushKind | None,
) -> None:
    settled = settle(BASE, side, local, through=through, deletes=deletes, now=NOW)
    assert (settled.status, settled.push) == (status, push)
    agree = status is IN_SYNC
    assert settled.base.settled_version == (local.version if agree else BASE.settled_version)


def test_base_is_what_was_seen_and_remembers_what_it_left() -> None:
    base = settle(BASE, VALUE, LIVE, through=False, deletes=False, now=NOW).base
    assert base == Base(
        BaseKind.VALUE, THEIRS, KEY, "t2", "m1", 2, {"env": "prod"},
        settled_version=1, tokens_left=("t1",), moved_at=NOW,
    )  # fmt: skip
    gone = settle(base, GONE, LIVE, through=False, deletes=False, now=NOW).base
    assert (gone.kind, gone.fingerprint, gone.fingerprint_key) == (BaseKind.ABSENT, None, None)
    assert (gone.value_token, gone.tokens_left) == ("t2|deleted", ("t2", "t1"))


def test_tokens_that_were_left_are_the_last_few_without_the_one_that_stands() -> None:
    base = Base(BaseKind.VALUE, OURS, KEY, "t9", tokens_left=tuple("abcdefgh"))
    side = RemoteSide(False, "c", None, THEIRS, KEY)
    left = settle(base, side, LIVE, through=False, deletes=False, now=NOW).base.tokens_left
    assert left == ("t9", "a", "b", "d", "e", "f", "g", "h")
    assert len(left) == MAX_TOKENS_LEFT


@pytest.mark.parametrize(
    ("token", "fingerprint", "expected"),
    [
        ("2|1|0|False", THEIRS, "2|1|0|False"),
        (THEIRS.hex(), THEIRS, ""),
        ("2|1|5|False", None, "2|1|5|False"),
        (NO_TRACE_TOKEN, None, None),
    ],
    ids=["versioned", "without_versions", "soft_deleted", "no_trace"],
)
def test_token_of_a_record_is_the_backends_own_or_stands_for_having_none(
    token: str, fingerprint: bytes | None, expected: str | None
) -> None:
    side = RemoteSide.of_record(
        token, gone=fingerprint is None, order=2, fingerprint=fingerprint, fingerprint_key=KEY
    )
    assert side.value_token == expected


def test_handle_is_of_one_conflict_and_one_remote_side() -> None:
    one, other = ConflictId("cfl_1"), ConflictId("cfl_2")
    handles = {handle_of(one, "a"), handle_of(one, "b"), handle_of(other, "a")}
    assert len(handles) == 3
    assert handle_of(one, "a") in handles
