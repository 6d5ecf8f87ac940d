"""Messages of the queue: which secret each of them names, and which tell of no change."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.aws import ACCOUNT, REGION
from tests.queues import aws_event, documented_pattern

from svsync.domain.paths import remote_problem
from svsync.feeds.aws_sqs import events
from svsync.feeds.aws_sqs.events import names_of

ARN = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:"


def told(event: dict[str, Any]) -> list[str]:
    return list(names_of(json.dumps(event), REGION))


@pytest.mark.parametrize(
    "call",
    [
        "CreateSecret",
        "DeleteSecret",
        "PutSecretValue",
        "RestoreSecret",
        "TagResource",
        "UntagResource",
        "UpdateSecret",
        "UpdateSecretVersionStage",
    ],
)
def test_each_call_that_changes_something_names_its_secret(call: str) -> None:
    assert told(aws_event(call)) == ["app/db"]


@pytest.mark.parametrize("call", ["GetSecretValue", "DescribeSecret", "RotateSecret", "", "X" * 99])
def test_calls_that_change_nothing_are_passed_over(call: str) -> None:
    assert told(aws_event(call)) == []


def test_the_rule_of_the_page_sends_what_is_read_here_and_no_more() -> None:
    pattern = documented_pattern()
    assert pattern["source"] == ["aws.secretsmanager"]
    for name in pattern["detail"]["eventName"]:
        assert told(aws_event(name)) == ["app/db"]
    assert set(pattern["detail"]["eventName"]) == events._CHANGES


def test_a_call_that_failed_changed_nothing() -> None:
    assert told(aws_event(errorCode="ResourceNotFoundException")) == []


@pytest.mark.parametrize(
    ("secret", "names"),
    [
        ("app/db", ["app/db"]),
        ("app/db-a1b2c3", ["app/db-a1b2c3"]),
        (f"{ARN}app/db-a1b2c3", ["app/db", "app/db-a1b2c3"]),
        (f"{ARN}app/db", ["app/db"]),
        (f"{ARN}x-production", ["x-production"]),
    ],
)
def test_an_arn_may_be_whole_or_not_and_both_names_are_told(secret: str, names: list[str]) -> None:
    assert told(aws_event(secret=secret)) == names


@pytest.mark.parametrize("key", ["arn", "aRN"])
def test_the_arn_of_the_answer_leaves_one_name(key: str) -> None:
    answer = {key: f"{ARN}app/db-prod01-a1b2c3"}
    event = aws_event(secret=f"{ARN}app/db-prod01", responseElements=answer)
    assert told(event) == ["app/db-prod01"]


def test_what_aws_does_by_itself_names_the_secret_elsewhere() -> None:
    event = aws_event("RotationSucceeded", requestParameters=None)
    event["detail"]["additionalEventData"] = {"SecretId": f"{ARN}app/db-a1b2c3"}
    assert told(event) == ["app/db", "app/db-a1b2c3"]


def test_what_happens_in_another_region_is_not_ours() -> None:
    assert told(aws_event(awsRegion="eu-west-1")) == []


@pytest.mark.parametrize(
    "event",
    [
        aws_event(secret=""),
        aws_event(secret=f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:x"),
        aws_event(secret="../../sys/raw"),
        aws_event(secret="a\nb"),
        aws_event(secret="x" * 513),
        aws_event(requestParameters=[]),
        {**aws_event(), "source": "aws.ec2"},
    ],
)
def test_what_names_no_secret_is_no_event(event: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="event"):
        told(event)


@given(st.text(max_size=40) | st.sampled_from(["{}", "[" * 100_000, "null", '{"detail": 7}']))
def test_what_is_no_event_is_refused_without_a_word_of_it(body: str) -> None:
    with pytest.raises(ValueError, match=r"^not an event of Secrets Manager$"):
        names_of(body, REGION)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
_FORGED = st.fixed_dictionaries(
    {"source": st.just("aws.secretsmanager")},
    optional={
        "region": _JSON,
        "detail": st.fixed_dictionaries(
            {},
            optional={
                "eventName": st.just("PutSecretValue") | _JSON,
                "awsRegion": st.just(REGION) | _JSON,
                "requestParameters": _JSON
                | st.fixed_dictionaries({"secretId": st.text(max_size=600) | _JSON}),
                "responseElements": _JSON | st.fixed_dictionaries({"arn": st.text() | _JSON}),
                "additionalEventData": _JSON,
            },
        )
        | _JSON,
    },
)


@given(_FORGED)
def test_whatever_a_forged_event_holds_it_names_what_may_be_asked_for(event: Any) -> None:
    try:
        names = names_of(json.dumps(event), REGION)
    except ValueError:
        return
    assert all(remote_problem(name, max_bytes=512) is None for name in names)
    assert len(names) <= 2
