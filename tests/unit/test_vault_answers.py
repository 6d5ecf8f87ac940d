"""Is an answer in a server's usual form read as the same answer written otherwise?

The usual form is decoded once; with one more space it is cut member by member.
"""

import pytest

from svsync.backends.vault.kv import read_v2
from svsync.clients.vault import Answer
from svsync.domain.changes import RemoteUnknown, RemoteValue

METADATA = (
    '{"created_time":"2026-01-02T03:04:05.123456789Z","custom_metadata":{"a":"ü"},'
    '"deletion_time":"","destroyed":false,"version":7}'
)
DATA = [
    "{}",
    '{"a":{"data":{},"metadata":{}}}',
    '{"a":"}},\\"metadata\\":{","b":"x"}',
    '{ "n" : 1.10, "big":12345678901234567890123, "m":-0.0 }',
    '{"s":"\\u003c\\ud83d\\ude00 ü\\u0000"}',
    '{"s":"\\ud800"}',
    '{"a":1,"a":2}',
    '{"a":{"b":1,"b":2}}',
    '{"n":1e400}',
    '{"n":NaN}',
    '{"n":' + "1" * 5000 + "}",
    '{"a":' * 63 + "{}" + "}" * 63,
    '{"a":' * 64 + "{}" + "}" * 64,
    '{"a":' * 5000 + "{}" + "}" * 5000,
    '{"s":"' + "[{" * 200 + '"}',
    '{"s":"' + "x" * 900 + '"}',
    "null",
    '"{}"',
    '{"a":1',
    '{"a":1}}',
]
AFTER = [
    '"wrap_info":null,"warnings":null,"auth":null}\n',
    '"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}',
    '"wrap_info":null,"warnings":["old"],"auth":null}',
    '"wrap_info":null,"warnings":null,"auth":null,"data":{}}',
    '"wrap_info":null,"warnings":null,"auth":null}}',
]


def answer(
    data: str, *, metadata: str = METADATA, after: str = AFTER[0], space: str = ""
) -> Answer:
    return Answer(
        200,
        f'{{{space}"request_id":"5b-1f","lease_id":"","renewable":false,"lease_duration":0,'
        f'"data":{{"data":{data},"metadata":{metadata}}},{after}',
    )


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("after", AFTER)
def test_an_answer_says_the_same_whatever_its_form(data: str, after: str) -> None:
    usual, spaced = answer(data, after=after), answer(data, after=after, space=" ")
    assert read_v2(usual, 800) == read_v2(spaced, 800)


@pytest.mark.parametrize(
    "metadata", ['{"version":NaN}', '{"version":2,"version":3}', "null", "[]", '{"version":1']
)
def test_odd_metadata_says_the_same_whatever_the_form(metadata: str) -> None:
    usual, spaced = (answer("{}", metadata=metadata, space=space) for space in ("", " "))
    assert read_v2(usual, 800) == read_v2(spaced, 800)


def test_a_value_is_read_exactly_with_the_tokens_of_its_version() -> None:
    data = '{"b":1.10,"a":" \\u003c"}'
    read = read_v2(answer(data), 800)
    assert isinstance(read, RemoteValue)
    assert read.payload.reveal() == data.encode()
    assert (read.order, read.tags) == (7, {"a": "ü"})
    assert read.value_token == "7|2026-01-02T03:04:05.123456789Z|||"


def test_a_value_beyond_the_limit_is_told_apart() -> None:
    assert read_v2(answer('{"s":"' + "x" * 900 + '"}'), 800) == RemoteUnknown("value_too_large")
