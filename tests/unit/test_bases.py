"""Where does base go, and what does it remember of where it was?"""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from svsync.domain.bases import move_base, rolled_back, tags_changed
from svsync.domain.changes import Base, BaseKind, RemoteGone, RemoteValue
from svsync.domain.decide import BaseMove, Decision
from svsync.domain.ids import KeyId
from svsync.domain.situation import ImpossibleSituation
from svsync.domain.values import Encoding, Payload

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = KeyId(1)
PAYLOAD = Payload(Encoding.TEXT, b"not looked at")


def settled(fingerprint: bytes | None = b"a", **fields: object) -> Base:
    base = Base(
        kind=BaseKind.VALUE,
        fingerprint=fingerprint,
        fingerprint_key=KEY,
        value_token="t1",
        settled_version=1,
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def read(token: str = "t1") -> RemoteValue:
    return RemoteValue(PAYLOAD, value_token=token)


def moved(base: Base, decision: Decision, remote: RemoteValue | RemoteGone) -> Base:
    return move_base(
        base,
        decision,
        remote,
        fingerprint=b"new" if isinstance(remote, RemoteValue) else None,
        fingerprint_key=KEY,
        version=7,
        now=NOON,
    )


def test_a_quiet_run_leaves_base_as_it_is() -> None:
    retoken = Decision(9, None, base_move=BaseMove.RETOKEN)
    assert moved(settled(), retoken, read("t1")) == settled()


def test_a_moved_token_is_remembered_and_the_new_one_is_not_among_those_left() -> None:
    base = settled(tokens_left=("t9", "t0"))
    after = moved(base, Decision(9, None, base_move=BaseMove.RETOKEN), read("t9"))
    assert (after.value_token, after.tokens_left) == ("t9", ("t1", "t0"))
    assert (after.moved_at, after.fingerprint) == (NOON, b"a")


def test_at_most_eight_tokens_are_remembered() -> None:
    base = settled(tokens_left=tuple(f"o{n}" for n in range(8)))
    after = moved(base, Decision(10, None, base_move=BaseMove.TO_REMOTE), read("t2"))
    assert after.tokens_left == ("t1", *(f"o{n}" for n in range(7)))


def test_a_read_that_does_not_tell_its_meta_token_or_tags_leaves_them() -> None:
    base = settled(meta_token="m1", order=4, tags={"team": "pay"})
    after = moved(base, Decision(10, None, base_move=BaseMove.TO_REMOTE), read("t2"))
    assert (after.meta_token, after.order, after.tags) == ("m1", 4, {"team": "pay"})
    assert after.fingerprint == b"new"


def test_a_name_that_is_gone_without_a_token_keeps_none() -> None:
    decision = Decision(11, None, base_move=BaseMove.TO_ABSENT, settles=True)
    after = moved(settled(meta_token="m1"), decision, RemoteGone())
    assert (after.kind, after.fingerprint, after.value_token) == (BaseKind.ABSENT, None, None)
    assert (after.tokens_left, after.meta_token, after.settled_version) == (("t1",), None, 7)
    assert after.moved_at == NOON


@pytest.mark.parametrize(
    ("move", "remote"),
    [(BaseMove.TO_REMOTE, RemoteGone()), (BaseMove.TO_ABSENT, read())],
)
def test_base_does_not_move_to_what_was_not_read(
    move: BaseMove, remote: RemoteValue | RemoteGone
) -> None:
    with pytest.raises(ImpossibleSituation):
        moved(settled(), Decision(10, None, base_move=move), remote)


def test_only_an_order_that_fell_is_a_rollback() -> None:
    assert rolled_back(settled(order=5), 4)
    assert not rolled_back(settled(order=5), 5)
    assert not rolled_back(settled(order=5), None)
    assert not rolled_back(settled(), 4)
    assert not rolled_back(Base(kind=BaseKind.ABSENT, order=5), 1)


def test_tags_that_were_not_told_did_not_change() -> None:
    assert not tags_changed({"a": "1"}, None)
    assert not tags_changed(None, {})
    assert not tags_changed({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    assert tags_changed({"a": "1"}, {"a": "2"})
    assert tags_changed({"a": "1"}, {})
