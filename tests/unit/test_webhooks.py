"""What an endpoint asked for, how a message is signed, and when it is tried again."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from svsync.domain import webhooks
from svsync.domain.errors import ConfigError
from svsync.domain.ids import EndpointId
from svsync.domain.webhooks import (
    EventType,
    SigningSecrets,
    Subscription,
    answer_of,
    hold_time,
    key_of,
    make_secret,
    message_id,
    retry_delay,
    signed_headers,
    wanted_by,
)

TWO = {"secrets": [{"path": "team/a"}, {"path": "other/b"}], "sequence": 7}


def payload_for(kind: str, data: dict[str, Any], **wants: Any) -> Any:
    """What an endpoint is told of an event's data; None: nothing."""
    text = json.dumps(data)
    wanted = wanted_by(Subscription(**wants))(kind, text)
    return None if wanted is None else json.loads(wanted.payload or text)


def test_endpoint_that_names_nothing_is_told_everything() -> None:
    for kind in EventType:
        assert payload_for(kind, TWO) == TWO


def test_only_the_types_that_were_asked_for_are_told() -> None:
    wants = {"types": ("federation.sync.failed",)}
    assert payload_for("federation.sync.failed", {}, **wants) == {}
    assert payload_for("federation.sync.completed", {"counts": {}}, **wants) is None


def test_of_changed_secrets_only_those_that_match_are_told() -> None:
    told = payload_for(EventType.SECRET_CHANGED, TWO, path_patterns=("team/**", "x"))
    assert told == {"secrets": [{"path": "team/a"}], "sequence": 7}
    assert payload_for(EventType.SECRET_CHANGED, TWO, path_patterns=("x/**",)) is None
    assert payload_for(EventType.SECRET_CHANGED, TWO, path_patterns=("**",)) == TWO


def test_conflict_is_told_where_its_path_matches() -> None:
    data = {"path": "team/a"}
    assert payload_for(EventType.CONFLICT_DETECTED, data, path_patterns=("team/*",)) == data
    assert payload_for(EventType.CONFLICT_DETECTED, data, path_patterns=("other/*",)) is None


def test_what_names_no_path_is_told_whatever_the_patterns() -> None:
    assert payload_for(EventType.STALE, {"since": "x"}, path_patterns=("a",)) == {"since": "x"}


@pytest.mark.parametrize("count", ["created", "updated", "pushed", "deleted", "conflicts"])
def test_cycle_that_changed_something_is_told(count: str) -> None:
    data = {"counts": {"listed": 9, count: 1}}
    assert payload_for(EventType.COMPLETED, data, only_if_changed=True) == data


def test_cycle_that_changed_nothing_is_told_to_those_who_want_every_cycle() -> None:
    data = {"counts": {"listed": 9, "unchanged": 9, "skipped": 1, "created": 0}}
    assert payload_for(EventType.COMPLETED, data, only_if_changed=True) is None
    assert payload_for(EventType.COMPLETED, data) == data
    assert payload_for(EventType.FAILED, data, only_if_changed=True) == data


@pytest.mark.parametrize(
    ("wants", "field"),
    [
        ({"types": ("federation.sync.complete",)}, r"types\[0\].*federation.sync.completed"),
        ({"types": (webhooks.TEST_TYPE,)}, r"types\[0\]"),
        ({"path_patterns": ("a/**", "a//b")}, r"path_patterns\[1\]"),
        ({"path_patterns": ("a",) * 101}, "path_patterns.*100"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_by_its_field(
    wants: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError, match=field):
        Subscription(**wants).check()


def test_secret_is_32_bytes_behind_its_prefix() -> None:
    secret = make_secret(lambda size: b"\x07" * size)
    assert secret.startswith("whsec_")
    assert key_of(secret) == b"\x07" * 32


@pytest.mark.parametrize("text", ["whsec_c2hvcnQ=", "whsec_!", "c2VjcmV0", "whsec_"])
def test_text_that_is_no_secret_is_refused_unseen(text: str) -> None:
    with pytest.raises(ConfigError, match="secret") as caught:
        key_of(text)
    assert text.removeprefix("whsec_") not in caught.value.message or text == "whsec_"


def test_secrets_come_back_from_where_they_are_kept_and_are_not_shown() -> None:
    both = SigningSecrets("whsec_one").rotated("whsec_two", keep=True)
    assert SigningSecrets.from_bytes(both.to_bytes()) == SigningSecrets("whsec_two", "whsec_one")
    assert both.rotated("whsec_three", keep=False) == SigningSecrets("whsec_three")
    assert "whsec" not in repr(both)


def test_signature_is_that_of_the_public_library() -> None:
    secrets = [make_secret(bytes), make_secret(lambda size: b"\x01" * size)]
    now = datetime.now(UTC)
    body = webhooks.body_of("a.b", now, '{"path": "ä"}')
    headers = signed_headers("evt_1", int(now.timestamp()), body, secrets)
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in secrets:
        told = Webhook(secret).verify(body, dict(headers))
        assert (told["type"], told["data"]) == ("a.b", {"path": "ä"})


def test_message_has_one_id_for_each_endpoint() -> None:
    first, second = EndpointId("whk_01"), EndpointId("whk_02")
    assert message_id("evt_9", first) == "evt_9_01"
    assert message_id("evt_9", second) != message_id("evt_9", first)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None),
        (204, None),
        (301, "redirected"),
        (307, "redirected"),
        (400, "refused"),
        (410, "gone"),
        (429, "refused"),
        (500, "receiver_failed"),
    ],
)
def test_only_2xx_is_a_delivery(status: int, error: str | None) -> None:
    answer = answer_of(status)
    assert (answer.error, answer.gone) == (error, status == 410)


def test_delay_doubles_up_to_an_hour_and_lasts_a_day() -> None:
    delays = [retry_delay(n, 0) for n in range(1, 40)]
    assert delays[:4] == [5, 10, 20, 40]
    assert max(delays) == 3600
    tries = next(n for n in range(40) if sum(delays[:n]) > webhooks.GIVE_UP_S)
    assert 20 < tries < 40


def test_jitter_shortens_a_delay_by_a_fifth_at_most() -> None:
    assert 8 <= retry_delay(2, 0.999) < retry_delay(2, 0.5) < 10


def test_receiver_may_ask_for_more_time_within_bounds() -> None:
    assert retry_delay(1, 0, 60) == 60
    assert retry_delay(5, 0, 1) == 80
    assert retry_delay(1, 0, 1e9) == 3600


def test_endpoint_is_held_from_the_third_failure_on_for_a_minute_at_most() -> None:
    assert [hold_time(n) for n in (0, 1, 2, 3, 4, 5)] == [None, None, None, 1, 2, 4]
    assert hold_time(500) == 60
    assert hold_time(1, 30) == 30
    assert hold_time(1, 1e9) == 3600
