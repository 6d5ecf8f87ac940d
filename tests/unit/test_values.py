"""What is a value taken for, what becomes of its bytes, and can it be seen?"""

import copy
import dataclasses
import json
import pickle
import struct
import traceback

import pytest

from svsync.domain.changes import RemoteValue
from svsync.domain.errors import ConfigError, UndecodableError
from svsync.domain.values import (
    Credential,
    Encoding,
    Fingerprinter,
    Payload,
    SecretValue,
    canonical,
    check_limits,
    fingerprint,
    number_would_change,
    slice_members,
)

CANARY = "c4n4ry-in-the-value"
KEY = bytes(range(32))


def nested(levels: int) -> str:
    """A JSON object with `levels` levels, itself the first."""
    return '{"a":' * (levels - 1) + "{}" + "}" * (levels - 1)


# --- what a value is taken for ----------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        ' \r\n\t{"a" : 1.10}\n',
        '{"a":"\\u0000","b":"\\ud83d\\ude00"}',
        '{"a":{"x":1},"b":{"x":2}}',
        '{"n":12345678901234567890123}',
        '{"n":-0.0,"m":1e-400}',
        '{"s":"\\\\ud800"}',
        '{"s":"' + "[{" * 200 + '"}',
        '{"n":0.' + "1" * 5000 + "}",
        nested(64),
        '{"a":[' + ",".join(["[{}]"] * 200) + "]}",
    ],
)
def test_an_object_is_json_and_stays_as_it_stands(text: str) -> None:
    payload = Payload.from_json_text(text)
    assert payload.encoding is Encoding.JSON
    assert payload.data_text() == payload.reveal() == text.encode()


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("", "nothing is no object"),
        ("hello", "a word"),
        ('"quoted"', "a JSON string"),
        ("[1]", "an array"),
        ("[" * 1000 + "]" * 1000, "a deep array"),
        ("12", "a number"),
        ("null", "a literal"),
        ('\ufeff{"a":1}', "a byte order mark"),
        ('{"a":1,"a":1}', "equal keys"),
        ('{"x":{"a":1,"\\u0061":2}}', "keys equal once read"),
        ('{"a":NaN}', "no number"),
        ('{"a":[-Infinity]}', "no number"),
        ('{"a":1e400}', "beyond doubles"),
        ('{"a":-1E400}', "beyond doubles"),
        ('{"a":' + "9" * 400 + "}", "beyond doubles, as an integer"),
        ('{"a":' + "9" * 5000 + "}", "longer than integers may be here"),
        ('{"a":"\\ud800"}', "a lone surrogate"),
        ('{"\\uDC00":1}', "a lone surrogate in a name"),
        ('{"a":"\\ude00\\ud83d"}', "a pair the wrong way round"),
        ('{"a":"\x01"}', "a bare control character"),
        ('{"a":1,}', "a trailing comma"),
        ("{'a':1}", "other quotes"),
        ('{"a":1} x', "something behind"),
        ('{"a":1', "cut off"),
        ("{" * 100, "brackets that are no JSON"),
        ('{"a":' * 63 + '{"a" [', "no colon where level 65 opens"),
        ('{"a":' + "[" * 63 + "1 [", "no comma where level 65 opens"),
        ('{"a":' * 63 + "{{", "no name where level 65 opens"),
        ('{"a":1 ' + "{" * 100, "an error before it is deep"),
        ('{"a" "' + '\\"' * 200_000 + "[" * 100, "a string without end, many escapes"),
        ("NUL \0 inside", "NUL is legal"),
    ],
    ids=lambda value: value if len(value) < 60 else "long",
)
def test_other_text_is_text_byte_for_byte(text: str, because: str) -> None:
    payload = Payload.from_json_text(text)
    assert payload.encoding is Encoding.TEXT, because
    assert payload.reveal() == text.encode()
    assert json.loads(payload.data_text()) == {"value": text}


@pytest.mark.parametrize("raw", [b"\xff", b'{"a":"\xc3"}', b"\xed\xa0\x80", b"\0\x80"])
def test_bytes_that_are_no_utf8_are_binary(raw: bytes) -> None:
    payload = Payload.from_json_text(raw)
    assert payload.encoding is Encoding.BINARY
    assert payload.reveal() == raw


def test_each_encoding_has_its_data_text() -> None:
    assert Payload.from_json_text('{"a" : 1}').data_text() == b'{"a" : 1}'
    assert Payload.from_text('é "\0').data_text() == '{"value": "é \\"\\u0000"}'.encode()
    assert Payload.from_bytes(b"\xff\0").data_text() == b'{"value_base64": "/wA="}'


@pytest.mark.parametrize("levels", [65, 66, 1000, 100_000])
@pytest.mark.parametrize("close", [True, False])
def test_a_value_nested_beyond_64_levels_is_refused_as_too_deep(levels: int, close: bool) -> None:
    text = nested(levels) if close else nested(levels).rstrip("}")
    with pytest.raises(UndecodableError, match="deeper than 64") as refused:
        Payload.from_json_text(text)
    assert refused.value.code == "too_deep"


def test_arrays_count_as_levels_and_space_does_not_hide_them() -> None:
    with pytest.raises(UndecodableError) as refused:
        Payload.from_json_text('{"a": ' + "[ 1 , " * 64 + "1" + "]" * 64 + "}")
    assert refused.value.code == "too_deep"


@pytest.mark.parametrize("build", [Payload.from_json_text, Payload.from_text])
def test_a_str_that_has_no_bytes_is_undecodable(build: object) -> None:
    assert callable(build)
    with pytest.raises(UndecodableError) as refused:
        build(f"{CANARY}\ud800")
    assert refused.value.code == "undecodable"
    assert CANARY not in "".join(traceback.format_exception(refused.value))


def test_what_was_called_text_or_bytes_is_not_looked_into() -> None:
    assert Payload.from_text('{"a":1}').encoding is Encoding.TEXT
    assert Payload.from_bytes(b'{"a":1}').encoding is Encoding.BINARY


def test_fields_become_an_object_in_their_order() -> None:
    payload = Payload.from_fields({"b": "1", "a": 'é"'})
    assert payload.encoding is Encoding.JSON
    assert payload.reveal() == '{"b": "1", "a": "é\\""}'.encode()
    assert Payload.from_json_text(payload.reveal()) == payload


def test_size_counts_the_bytes_that_were_read() -> None:
    assert Payload.from_text("é").size == 2


def test_a_value_beyond_its_limit_has_a_reason() -> None:
    assert check_limits(b"1234", 4) is None
    assert check_limits(b"12345", 4) == "value_too_large"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b'{"value": 1}', Encoding.TEXT),
        (b'{"value": "a", "b": 1}', Encoding.TEXT),
        (b'{"value_base64": "YQ=="}', Encoding.TEXT),
        (b'{"value": "\\ud800"}', Encoding.TEXT),
        (b'["value"]', Encoding.TEXT),
        (b"{", Encoding.TEXT),
        (b'{"value_base64": "a"}', Encoding.BINARY),
        (b'{"value_base64": "YQ==!"}', Encoding.BINARY),
        ('{"value_base64": "é"}'.encode(), Encoding.BINARY),
    ],
)
def test_a_data_text_of_another_form_is_refused(data: bytes, encoding: Encoding) -> None:
    with pytest.raises(UndecodableError, match="is stored as"):
        Payload.from_data(data, encoding)


# --- nothing shows it -------------------------------------------------------------

HOLDERS = [
    Payload.from_text(CANARY),
    Payload.from_bytes(CANARY.encode()),
    Payload.from_json_text(json.dumps({"a": CANARY})),
    SecretValue(CANARY),
    Credential.parse(CANARY, "env:TOKEN"),
    Fingerprinter(CANARY.encode() * 2),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_a_holder_of_a_value_shows_none_of_it(holder: object) -> None:
    shown = [
        repr(holder),
        str(holder),
        f"{holder}",
        f"{holder!r:>60}",
        "%s %r" % (holder, holder),  # noqa: UP031 - logging formats like this
        repr([holder]),
        repr({"a": (holder,)}),
        json.dumps({"a": holder}, default=str),
    ]
    assert not [text for text in shown if CANARY in text]
    assert all("<secret>" in text for text in shown)


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_a_holder_of_a_value_cannot_be_dumped(holder: object) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(holder, protocol)
    with pytest.raises(TypeError):
        json.dumps(holder)
    with pytest.raises(TypeError):
        vars(holder)


@pytest.mark.parametrize("holder", [Payload.from_text(CANARY), SecretValue(CANARY)])
def test_a_secret_is_its_own_copy_has_no_state_and_does_not_change(holder: object) -> None:
    assert copy.copy(holder) is holder
    assert copy.deepcopy([holder])[0] is holder
    with pytest.raises(TypeError, match="serialised"):
        holder.__getstate__()
    with pytest.raises(TypeError, match="unhashable"):
        hash(holder)
    with pytest.raises(AttributeError):
        holder._raw = b""  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        del holder._raw  # type: ignore[attr-defined]


def test_a_record_taken_apart_shows_no_value() -> None:
    record = RemoteValue(payload=Payload.from_text(CANARY), value_token="3")
    assert CANARY not in repr(record) + repr(dataclasses.asdict(record))


def test_local_variables_in_a_traceback_show_no_value() -> None:
    def fail(payload: Payload, token: SecretValue) -> None:
        raise RuntimeError(f"{payload} {token}")

    with pytest.raises(RuntimeError) as failed:
        fail(Payload.from_text(CANARY[::-1]), SecretValue(CANARY[::-1]))
    frames = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
    assert CANARY[::-1] not in "".join(frames.format())


def test_payloads_are_equal_by_encoding_and_bytes() -> None:
    assert Payload.from_text("a") == Payload.from_text("a")
    assert Payload.from_text("a") != Payload.from_text("b")
    assert Payload.from_text("a") != Payload.from_bytes(b"a")
    assert Payload.from_text("a") != "a"


# --- exact slices -----------------------------------------------------------------

ANSWER = """{"request_id":"0f3c7d4e-2b70-5a5e-0a6c-0d7a9cc7b0d1","lease_id":"","renewable":false,
 "lease_duration":0,"data":{"data":{"n":1.10, "s":"\\u003cb\\u003e","x":1E+2},
 "metadata":{"created_time":"2026-01-01T00:00:00.5Z","custom_metadata":null,"version":3}},
 "wrap_info":null,"warnings":["a } b"],"auth":null,"e\\"\\u0073":-0.0e1}
"""


def test_the_data_of_an_answer_is_sliced_as_it_was_sent() -> None:
    outer = slice_members(ANSWER)
    inner = slice_members(ANSWER, *outer["data"])
    first, last = inner["data"]
    assert ANSWER[first:last] == '{"n":1.10, "s":"\\u003cb\\u003e","x":1E+2}'
    members = slice_members(ANSWER, first, last)
    assert {key: ANSWER[a:b] for key, (a, b) in members.items()} == {
        "n": "1.10",
        "s": '"\\u003cb\\u003e"',
        "x": "1E+2",
    }
    assert {key: ANSWER[a:b] for key, (a, b) in outer.items() if key not in ("data",)} == {
        "request_id": '"0f3c7d4e-2b70-5a5e-0a6c-0d7a9cc7b0d1"',
        "lease_id": '""',
        "renewable": "false",
        "lease_duration": "0",
        "wrap_info": "null",
        "warnings": '["a } b"]',
        "auth": "null",
        'e"s': "-0.0e1",
    }


def test_a_number_of_any_length_is_sliced() -> None:
    digits = "9" * 5000
    assert slice_members(f'{{"n":{digits},"m":[{digits}]}}') == {
        "n": (5, 5005),
        "m": (5010, 5012 + 5000),
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '"a"',
        "{",
        "{}}",
        "{} x",
        "{,}",
        '{"a"}',
        '{"a":}',
        '{"a":1',
        '{"a":1,',
        '{"a":1,}',
        '{"a":1 "b":2}',
        '{"a":{}',
        '{"a":{} "b":2}',
        '{"a":[1,}',
        '{"a":01}',
        '{"a":1.}',
        '{"a":-}',
        '{"a":truely}',
        '{"a":NaN}',
        '{"a":[Infinity]}',
        '{"a":"\n"}',
        '{"a\n":1}',
        '{"a\\q":1}',
        '{"a":"\\q"}',
        '{a:1}',
        '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}',
        '{"a":\u0661}',
        '\xa0{}',
    ],
)  # fmt: skip
def test_a_malformed_answer_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the words do not matter
        slice_members(text)
    assert not isinstance(refused.value, json.JSONDecodeError), "it would hold the text"


def test_a_slice_that_ends_too_early_is_refused() -> None:
    text = '{"a":{"b":[1,2]}}'
    for end in range(5, 16):
        with pytest.raises(ValueError):  # noqa: PT011
            slice_members(text, 5, end)
    assert slice_members(text, 5, 16) == {"b": (10, 15)}


def test_an_answer_that_nests_without_end_is_too_deep() -> None:
    with pytest.raises(UndecodableError) as refused:
        slice_members('{"data":' + "[" * 100_000)
    assert refused.value.code == "too_deep"


# --- canonical form ---------------------------------------------------------------

RFC_NUMBERS = """
0000000000000000 0
8000000000000000 0
0000000000000001 5e-324
8000000000000001 -5e-324
7fefffffffffffff 1.7976931348623157e+308
ffefffffffffffff -1.7976931348623157e+308
4340000000000000 9007199254740992
c340000000000000 -9007199254740992
4430000000000000 295147905179352830000
44b52d02c7e14af5 9.999999999999997e+22
44b52d02c7e14af6 1e+23
44b52d02c7e14af7 1.0000000000000001e+23
444b1ae4d6e2ef4e 999999999999999700000
444b1ae4d6e2ef4f 999999999999999900000
444b1ae4d6e2ef50 1e+21
3eb0c6f7a0b5ed8c 9.999999999999997e-7
3eb0c6f7a0b5ed8d 0.000001
41b3de4355555553 333333333.3333332
41b3de4355555554 333333333.33333325
41b3de4355555555 333333333.3333333
41b3de4355555556 333333333.3333334
41b3de4355555557 333333333.33333343
becbf647612f3696 -0.0000033333333333333333
43143ff3c1cb0959 1424953923781206.2
"""


@pytest.mark.parametrize(
    ("bits", "expected"), [line.split() for line in RFC_NUMBERS.split("\n") if line]
)
def test_numbers_are_written_as_in_appendix_b_of_rfc_8785(bits: str, expected: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    payload = Payload.from_json_text(f'{{"n":{number!r}}}')
    assert canonical(payload) == f'{{"n":{expected}}}'.encode()


def test_the_sample_of_rfc_8785_is_written_as_printed() -> None:
    sample = """{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\"\\/",
      "literals": [null, true, false]
    }"""
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(Payload.from_json_text(sample)) == expected.encode()


def test_names_are_sorted_by_utf_16_as_in_rfc_8785() -> None:
    sample = """{"\\u20ac": "Euro Sign", "\\r": "Carriage Return", "\\ufb33": "Hebrew", "1": "One",
      "\\ud83d\\ude00": "Smiling", "\\u0080": "Control", "\\u00f6": "o"}"""
    written = json.loads(canonical(Payload.from_json_text(sample)))
    assert list(written) == ["\r", "1", "\x80", "ö", "€", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1.10}', '{"a":1.1}'),
        ('{"a":1.0}', '{"a":1}'),
        ('{"a":1e3}', '{"a": 1000}'),
        ('{"a":-0}', '{"a":0}'),
        ('{"a":-0.0}', '{"a":0}'),
        ('{"a":12345678901234567890123}', '{"a":1.2345678901234568e+22}'),
        ('{"a":9007199254740993}', '{"a":9007199254740992}'),
        ('{"a":1,"b":2}', ' { "b" : 2 , "a" : 1 } '),
        ('{"a":"\\u003c\\/"}', '{"a":"</"}'),
    ],
)
def test_the_same_value_in_other_words_has_the_same_fingerprint(one: str, other: str) -> None:
    prints = [fingerprint(KEY, Payload.from_json_text(text)) for text in (one, other)]
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Payload.from_json_text('{"a":1}'), Payload.from_json_text('{"a":2}')),
        (Payload.from_json_text('{"a":1}'), Payload.from_json_text('{"a":"1"}')),
        (Payload.from_json_text('{"a":null}'), Payload.from_json_text("{}")),
        (Payload.from_json_text('{"a":[1,2]}'), Payload.from_json_text('{"a":[2,1]}')),
        (Payload.from_json_text('{"a":1}'), Payload.from_text('{"a":1}')),
        (Payload.from_text("a"), Payload.from_bytes(b"a")),
        (Payload.from_text("1.0"), Payload.from_text("1")),
        (Payload.from_text("é"), Payload.from_text("e\u0301")),
    ],
)
def test_another_value_has_another_fingerprint(one: Payload, other: Payload) -> None:
    assert fingerprint(KEY, one) != fingerprint(KEY, other)


def test_a_string_is_the_value_that_its_data_shows() -> None:
    """A store that holds objects only gives a string back as the object it was shown as."""
    assert fingerprint(KEY, Payload.from_text("a")) == fingerprint(
        KEY, Payload.from_fields({"value": "a"})
    )


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            Payload.from_json_text(' {"b": 1.10, "a": "é"}'),
            "47c7e4ad2274398c8ac749d5136b909925053b61d167409a613922ec2d9afe9c",
        ),
        (
            Payload.from_text("a\0b"),
            "0ae8cd0aa0df1eb767dbaec3260b93dc4ebee29ae28947dd48065f8924194aba",
        ),
        (
            Payload.from_bytes(b"\xff\0"),
            "1dae94a401041ab09a8931d3c5052f064a99910a00de6247881cbe7cbf36c8a7",
        ),
    ],
)
def test_a_fingerprint_never_changes_between_releases(payload: Payload, expected: str) -> None:
    assert fingerprint(KEY, payload).hex() == expected


def test_a_fingerprint_depends_on_the_key_and_is_32_bytes() -> None:
    payload = Payload.from_text("a")
    assert len(fingerprint(KEY, payload)) == 32
    assert fingerprint(KEY, payload) != fingerprint(KEY[::-1], payload)


def test_one_fingerprinter_serves_many_values() -> None:
    prints = Fingerprinter(KEY)
    payloads = [Payload.from_text(text) for text in "aba"]
    assert [prints.fingerprint(p) for p in payloads] == [fingerprint(KEY, p) for p in payloads]


def test_a_short_fingerprint_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Fingerprinter(b"short")


# --- numbers that doubles do not carry --------------------------------------------


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ('{"a":1.10,"b":0.1,"c":-0,"d":-0.0,"e":1E3,"f":0e99999999999999999999}', None),
        ('{"a":9007199254740992,"b":9007199254740994,"c":12345678901234567000}', None),
        ('{"a":5e-324,"b":1.7976931348623157e308}', None),
        ('{"a":9007199254740993}', "/a"),
        ('{"a":12345678901234567890123,"b":9007199254740993}', "/a"),
        ('{"a":[1,{"x/y~z":0.12345678901234567890}]}', "/a/1/x~1y~0z"),
        ('{"":1e-400}', "/"),
        ('{"a":1e-99999999999999999999999}', "/a"),
        ('{"a":' + "1" * 300 + "}", "/a"),
        ('{"a":"12345678901234567890123"}', None),
    ],
)
def test_the_first_number_that_would_change_is_pointed_at(text: str, pointer: str | None) -> None:
    assert number_would_change(Payload.from_json_text(text)) == pointer


def test_text_and_bytes_hold_no_number() -> None:
    assert number_would_change(Payload.from_text("9007199254740993")) is None
    assert number_would_change(Payload.from_bytes(b"9007199254740993")) is None


# --- credentials ------------------------------------------------------------------


def revealed(credential: Credential) -> dict[str, str]:
    return {field: value.reveal() for field, value in credential.items()}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("hvs.abc\n", {"token": "hvs.abc"}),
        (b"hvs.abc", {"token": "hvs.abc"}),
        ('{"role_id":"r","secret_id":"s\\u0041\\n"}', {"role_id": "r", "secret_id": "sA\n"}),
        ('{"value": "hvs.abc"}', {"token": "hvs.abc"}),
        ('{"value": "v", "token": "t"}', {"value": "v", "token": "t"}),
        ('{"n": 1.10, "o": {"x": 1}, "b": true}', {"n": "1.10", "o": '{"x": 1}', "b": "true"}),
    ],
)
def test_a_credential_is_an_object_or_a_bare_token(
    text: str | bytes, fields: dict[str, str]
) -> None:
    assert revealed(Credential.parse(text, "env:X")) == fields


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("{}", "empty"),
        ('{"token": ""}', "empty"),
        ('{"token": "' + CANARY, "neither a JSON object nor a string"),
        ('{"token": "a", "token": "' + CANARY + '"}', "neither"),
        ('{"token": "\\q' + CANARY + '"}', "neither"),
        (b"\xff" + CANARY.encode(), "neither"),
        ('{"a":' + "[" * 100_000 + CANARY, "neither"),
    ],
    ids=range(9),
)
def test_an_unusable_credential_names_its_reference_and_never_its_text(
    text: str | bytes, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        Credential.parse(text, "file:/run/token")
    assert str(refused.value).startswith("file:/run/token: the credential is")
    assert CANARY not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("text", ['{"role_id":"r"}', '{"role_id":"r","secret_id":""}'])
def test_a_missing_field_is_named_with_its_reference(text: str) -> None:
    credential = Credential.parse(text, "infra/vault/approle")
    assert credential.require("role_id").reveal() == "r"
    assert not credential.get("secret_id")
    with pytest.raises(
        ConfigError, match=r"^infra/vault/approle: the credential has no field 'secret_id'$"
    ):
        credential.require("secret_id")


def test_a_changed_credential_can_be_told_from_the_old_one() -> None:
    old = Credential.parse('{"token":"a"}', "env:X")
    assert old == Credential.parse("a", "env:X")
    assert old != Credential.parse("b", "env:X")
    assert SecretValue("a") != "a"


def test_a_credential_names_its_fields_and_nothing_more() -> None:
    credential = Credential.parse(f'{{"secret_id":"{CANARY}","role_id":"r"}}', "env:X")
    assert repr(credential) == "Credential(role_id, secret_id: <secret>)"
    assert len(credential) == 2
