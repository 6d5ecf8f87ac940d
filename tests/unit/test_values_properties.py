"""What holds for every value: nothing changes on the way, equal stays equal."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from svsync.domain.errors import UndecodableError
from svsync.domain.values import (
    Encoding,
    Payload,
    canonical,
    fingerprint,
    number_would_change,
    slice_members,
)

quick = settings(max_examples=60, deadline=None)

KEY = bytes(32)
SHORT_INT = 10**15 - 1

characters = st.characters(exclude_categories=["Cs"])
low_characters = st.characters(max_codepoint=0xD7FF)
finite = st.floats(allow_nan=False, allow_infinity=False)
big_ints = st.integers(min_value=-(10**40), max_value=10**40)


def objects(
    text: st.SearchStrategy[str], numbers: st.SearchStrategy[int] | st.SearchStrategy[float]
) -> st.SearchStrategy[dict[str, object]]:
    leaves = st.none() | st.booleans() | numbers | text
    nodes = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=8,
    )
    return st.dictionaries(text, nodes, max_size=5)


plain_objects = objects(st.text(low_characters, max_size=8), st.integers(-SHORT_INT, SHORT_INT))
any_objects = objects(st.text(characters, max_size=8), finite | big_ints)

spellings: st.SearchStrategy[Callable[[object], str]] = st.builds(
    lambda ascii_only, indent, separators: (
        lambda node: json.dumps(node, ensure_ascii=ascii_only, indent=indent, separators=separators)
    ),
    st.booleans(),
    st.sampled_from([None, 1, "\t", "\r\n"]),
    st.sampled_from([(",", ":"), (" ,", " : "), (", ", ":\n")]),
)
"""Ways to write one and the same JSON value."""

# Texts made of what JSON is made of are now and then JSON, and often nearly.
json_like = st.lists(
    st.sampled_from(
        ['{', '}', '[', ']', ',', ':', '"', '"a"', '"b"', '"\\u0061"', "\\", "{}", '{"a":', '"a":',
         '"b":', "1", "-", "0", ".5", "e2", "true", "null", "NaN", " ", "\n", "\x01", "\\ud800"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


def doubles(node: Any) -> Any:
    """The same value with every number a double."""
    if isinstance(node, dict):
        return {key: doubles(member) for key, member in node.items()}
    if isinstance(node, list):
        return [doubles(member) for member in node]
    if isinstance(node, int) and not isinstance(node, bool):
        return float(node)
    return node


@quick
@given(st.binary() | st.text(characters).map(str.encode) | json_like.map(str.encode))
@example(b'{"value": "a"}')
@example(b'\xef\xbb\xbf{"a":1}')
def test_every_bytes_come_back_exactly_from_their_stored_form(raw: bytes) -> None:
    payload = Payload.from_json_text(raw)
    assert payload.reveal() == raw
    stored = payload.data_text()
    assert isinstance(json.loads(stored), dict)
    assert Payload.from_data(stored, payload.encoding) == payload


@quick
@given(st.binary(), st.text(characters))
def test_what_is_called_bytes_or_text_comes_back_exactly(raw: bytes, text: str) -> None:
    for payload in (Payload.from_bytes(raw), Payload.from_text(text)):
        again = Payload.from_data(payload.data_text(), payload.encoding)
        assert again == payload


@quick
@given(any_objects, spellings)
def test_an_object_is_json_however_it_is_written(
    node: dict[str, Any], spell: Callable[[object], str]
) -> None:
    text = spell(node)
    payload = Payload.from_json_text(text)
    assert payload.encoding is Encoding.JSON
    assert payload.data_text() == text.encode()


@quick
@given(json_like)
@example('{"a":{"b":1,"b":1}}')
def test_only_what_the_standard_reader_takes_is_json(text: str) -> None:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    try:
        node = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
        json.dumps(node, ensure_ascii=False).encode()
        is_object = isinstance(node, dict)
    except (ValueError, AssertionError):
        is_object = False
    assert (Payload.from_json_text(text).encoding is Encoding.JSON) is is_object


@quick
@given(plain_objects)
def test_the_fast_canonical_form_is_that_of_the_library(node: dict[str, Any]) -> None:
    assert canonical(Payload.from_json_text(json.dumps(node))) == rfc8785.dumps(node)


@quick
@given(any_objects)
@example({"\U0001f600": 1, "\ufb33": 2})
@example({"\ufb33\U0001f600": {"\ue000": 1, "\U00010000": 2}})
def test_the_canonical_form_is_that_of_the_library(node: dict[str, Any]) -> None:
    assert canonical(Payload.from_json_text(json.dumps(node))) == rfc8785.dumps(doubles(node))


@quick
@given(any_objects, spellings)
def test_a_fingerprint_does_not_depend_on_how_a_value_is_written(
    node: dict[str, Any], spell: Callable[[object], str]
) -> None:
    turned = dict(reversed(node.items()))
    plain = Payload.from_json_text(json.dumps(node))
    payloads = [
        plain,
        Payload.from_json_text(spell(turned)),
        Payload.from_json_text(canonical(plain)),
    ]
    assert len({fingerprint(KEY, payload) for payload in payloads}) == 1


@quick
@given(any_objects, any_objects)
def test_fingerprints_are_equal_only_for_equal_values(
    one: dict[str, object], other: dict[str, object]
) -> None:
    prints = [fingerprint(KEY, Payload.from_json_text(json.dumps(node))) for node in (one, other)]
    written = [json.dumps(doubles(node), sort_keys=True) for node in (one, other)]
    same = written[0].replace("-0.0", "0.0") == written[1].replace("-0.0", "0.0")
    assert (prints[0] == prints[1]) is same


def as_ecmascript(number: float) -> str:
    """Number::toString of ECMA-262, from the shortest digits and their exponent."""
    if number == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    assert isinstance(exponent, int)
    s = "".join(map(str, digits))
    k, n = len(s), len(s) + exponent
    if k <= n <= 21:
        body = s + "0" * (n - k)
    elif 0 < n <= 21:
        body = f"{s[:n]}.{s[n:]}"
    elif -6 < n <= 0:
        body = f"0.{'0' * -n}{s}"
    else:
        body = f"{s[0]}.{s[1:]}".rstrip(".") + f"e{n - 1:+d}"
    return "-" * sign + body


@quick
@given(finite)
@example(5e-324)
@example(1e21)
@example(1e-7)
@example(1.5e-5)
@example(123456789012345680000.0)
def test_a_number_is_written_as_ecmascript_does(number: float) -> None:
    written = canonical(Payload.from_json_text(f'{{"n":{number!r}}}'))
    assert written == f'{{"n":{as_ecmascript(number)}}}'.encode()


@quick
@given(big_ints | finite)
def test_a_number_would_change_where_its_shortest_double_is_another_number(
    number: float,
) -> None:
    text = repr(number)
    changed = Decimal(text) != Decimal(repr(float(text)))
    pointer = number_would_change(Payload.from_json_text(f'{{"a":[0,{text}]}}'))
    assert pointer == ("/a/1" if changed else None)


@quick
@given(any_objects, spellings, st.sampled_from(["", " ", "\n\t\r "]))
def test_slices_are_the_values_in_their_order(
    node: dict[str, Any], spell: Callable[[object], str], around: str
) -> None:
    text = around + spell(node) + around
    members = slice_members(text)
    assert list(members) == list(node)
    for key, (first, last) in members.items():
        assert text[first:last].strip() == text[first:last]
        assert json.loads(text[first:last]) == node[key]


@quick
@given(any_objects, spellings, st.data())
def test_a_cut_answer_is_refused(
    node: dict[str, Any], spell: Callable[[object], str], data: st.DataObject
) -> None:
    text = spell(node)
    end = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(ValueError):  # noqa: PT011 - the words do not matter
        slice_members(text[:end])
    with pytest.raises(ValueError):  # noqa: PT011
        slice_members(text, 0, end)


@quick
@given(json_like)
@example('{"a":{"a":1,"a":2}}')
def test_an_answer_is_sliced_where_the_standard_reader_takes_it(text: str) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def top(pairs: list[tuple[str, object]]) -> list[tuple[str, object]]:
        return pairs

    try:
        node = json.loads(text, object_pairs_hook=top, parse_constant=refuse)
        taken = text.strip(" \t\r\n").startswith("{") and len(dict(node)) == len(node)
    except ValueError:
        taken = False
    try:
        slice_members(text)
    except ValueError:
        assert not taken
    else:
        assert taken


@quick
@given(st.integers(1, 140), st.sampled_from(['{"a":', "[", '[1, {"b" :']), st.booleans())
def test_a_value_is_too_deep_from_the_65th_level_on(levels: int, opening: str, cut: bool) -> None:
    opened = opening.count("{") + opening.count("[")
    body = opening * levels + "1"
    closing = "".join("}" if c == "{" else "]" for c in reversed(opening) if c in "{[")
    text = f'{{"x":{body}' + ("" if cut else closing * levels + "}")
    if 1 + opened * levels > 64:
        with pytest.raises(UndecodableError):
            Payload.from_json_text(text)
    else:
        expected = Encoding.TEXT if cut else Encoding.JSON
        assert Payload.from_json_text(text).encoding is expected
