"""JSON as exact text: what it is, where its parts stand, what another writer makes of it.

Values travel as the text that was read. Nothing here gives a parsed value away:
a text is judged, cut or brought into canonical form. Python's own reader is
too kind for that (it takes NaN, keeps the last of two equal keys, turns `1e400`
into Infinity), so each question has a decoder that is strict where it matters.
All of it is linear in the length of the text, whatever stands in it.
"""

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, NoReturn

import rfc8785

from svsync.domain.errors import UndecodableError

MAX_DEPTH: Final = 64
"""Deepest nesting of a JSON value; a deeper one is refused as `too_deep`."""

# --- is it a JSON object, by our rules? -------------------------------------------


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("two equal keys")
    return members


def _double(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError("a number outside the range of doubles")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_strict = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_int=_double,
    parse_float=_double,
    parse_constant=_no_constant,
)
_starts_object = re.compile(r"[ \t\n\r]*\{").match
_maybe_surrogate = re.compile(r"\\u[dD][89a-fA-F]").search
# A string that does not end takes the rest, so that a scan stays linear.
_structure = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL).finditer


def is_plain_object(text: str) -> bool:
    """Whether a text is a JSON object that every reader reads alike.

    Not one: other JSON and other text, equal keys, NaN or Infinity, a lone
    surrogate, a number beyond the range of doubles.

    Raises UndecodableError (`too_deep`) for an object nested deeper than 64.
    """
    if not _starts_object(text):
        return False
    limit = _opens_too_deep(text)
    try:
        members = _strict.decode(text if limit is None else text[:limit])
    except json.JSONDecodeError as error:
        # Cut where level 65 opens, JSON lacks exactly the value that opens there.
        # Any other error makes this some other text with many brackets.
        if error.pos == limit and error.msg == "Expecting value":
            raise UndecodableError(
                f"the value is nested deeper than {MAX_DEPTH} levels", code="too_deep"
            ) from None
        return False
    except ValueError:
        return False
    if _maybe_surrogate(text):
        try:
            json.dumps(members, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return False
    return True


def end_of_plain_object(text: str, at: int) -> int | None:
    """Where the plain object ends that begins at `at`, whatever follows it.

    One look instead of two, for most values. None where it takes a closer one:
    `slice_members` then finds the end, and `is_plain_object` judges.
    """
    try:
        members, end = _strict.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    may_be_deep = text.count("{", at, end) + text.count("[", at, end) > MAX_DEPTH
    if not isinstance(members, dict) or may_be_deep or _maybe_surrogate(text, at, end):
        return None
    return end


def _opens_too_deep(text: str) -> int | None:
    """Where the 65th level opens outside of strings, or None."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return None
    depth = 0
    for token in _structure(text):
        match token[0]:
            case "{" | "[":
                depth += 1
                if depth > MAX_DEPTH:
                    return token.start()
            case "}" | "]":
                depth -= 1
    return None


# --- exact slices of an answer ----------------------------------------------------

_skip = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant).raw_decode
# A member's name and, where it is a number, a literal or a string without
# escapes, its value and what follows: one match for most members of an answer.
# No alternatives overlap, so nothing backtracks; possessive quantifiers would say
# so, but Python before 3.11.5 matches some of them wrongly.
_SPACE: Final = r"[ \t\n\r]*"
_SCALAR: Final = (
    r'"[^"\\\x00-\x1f]*"|true|false|null'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
)
_member = re.compile(
    rf'{_SPACE}"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"{_SPACE}:{_SPACE}({_SCALAR})?'
    rf"{_SPACE}([,}}]?)"
).match
_opening = re.compile(rf"{_SPACE}\{{{_SPACE}(\}}?)").match
_separator = re.compile(rf"{_SPACE}([,}}]?)").match
_only_space = re.compile(_SPACE).fullmatch


def slice_members(text: str, start: int = 0, end: int | None = None) -> dict[str, tuple[int, int]]:
    """Where the value of each member of a JSON object stands in its text.

    `text[a:b]` is then the value exactly as it was sent, numbers and spaces
    included. With `start` and `end` from an outer answer one goes inward
    without copying: offsets are always those of `text`.

    Raises:
        ValueError: not one JSON object from start to end, or two equal keys.
        UndecodableError: nested too deeply to be looked through (`too_deep`).
    """
    end = len(text) if end is None else end
    members: dict[str, tuple[int, int]] = {}
    if not (opening := _opening(text, start, end)):
        raise ValueError("not a JSON object")
    at, follows = opening.end(), opening[1] or ","
    while follows == ",":
        if not (member := _member(text, at, end)):
            raise ValueError("a member without a name")
        key, scalar, follows = member.groups()
        if "\\" in key:
            key, _ = _value_at(f'"{key}"', 0)
        if key in members:
            raise ValueError("two equal keys")
        if scalar is None:
            first = member.start(3)
            _, last = _value_at(text, first)
            separator = _separator(text, last, end)
            if separator is None:
                raise ValueError("the object ends within a value")
            members[key], at, follows = (first, last), separator.end(), separator[1]
        else:
            members[key], at = member.span(2), member.end()
    if follows != "}" or not _only_space(text, at, end):
        raise ValueError("the object does not end where it should")
    return members


def _value_at(text: str, at: int) -> tuple[Any, int]:
    """The value that starts there, numbers as text, and where it ends."""
    try:
        return _skip(text, at)
    except json.JSONDecodeError:  # it holds the whole text
        raise ValueError("not JSON") from None
    except RecursionError:
        raise UndecodableError("the answer is nested too deeply", code="too_deep") from None


# --- canonical form ---------------------------------------------------------------


class _NotPlainError(Exception):
    """A number that only the full canonical form gets right."""


def _plain_int(number: str) -> int:
    if len(number) > 15:
        raise _NotPlainError
    return int(number)


def _not_plain(_number: str) -> NoReturn:
    raise _NotPlainError


_decode_plain = json.JSONDecoder(parse_int=_plain_int, parse_float=_not_plain).decode
_encode_plain = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), check_circular=False
).encode
_decode_doubles = json.JSONDecoder(parse_int=_double, parse_float=_double).decode
_beyond_order = re.compile("[\ud800-\U0010ffff]").search


def canonical_json(text: str) -> bytes:
    """RFC 8785 of a plain object's text, with every number a double.

    Where all numbers are short integers and all characters lie below the
    surrogates (there the order of UTF-16, which RFC 8785 asks for, is that of
    code points) the standard encoder gives the same bytes in half the time.
    """
    try:
        plain = _encode_plain(_decode_plain(text))
    except _NotPlainError:
        return rfc8785.dumps(_decode_doubles(text))
    if plain.isascii() or not _beyond_order(plain):
        return plain.encode()
    return rfc8785.dumps(_decode_doubles(text))


_MOST_DIGITS: Final = 1_000
"""Of an exponent that is read as a number; a longer one is compared as text."""


def _digits(number: str) -> tuple[str, int]:
    """A number's digits without zeros around them, with its sign, and its power of ten."""
    mantissa, _, exponent = number.lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0", 0
    if len(exponent) > _MOST_DIGITS:
        return number, 0
    kept = digits.rstrip("0")
    power = int(exponent or 0) - len(fraction) + len(digits) - len(kept)
    return ("-" if mantissa.startswith("-") else "") + kept, power


# A number is a tuple, which nothing else in JSON is.
_decode_exact = json.JSONDecoder(parse_int=_digits, parse_float=_digits).decode


def same_json(one: str, other: str) -> bool:
    """Are two plain objects equal, numbers compared by what they are and not as doubles?

    9007199254740993 and 9007199254740992 are one double, and two numbers; 1.50 and 1.5 are one.
    """
    if one == other:
        return True
    if canonical_json(one) != canonical_json(other):
        return False
    equal: bool = _decode_exact(one) == _decode_exact(other)
    return equal


# --- numbers that a backend would alter -------------------------------------------


def altered_number(text: str) -> str | None:
    """JSON pointer (RFC 6901) of the first number that doubles cannot carry, or None.

    A backend with double numbers writes the shortest decimal that reads back as
    the same double. Where that is the same number, `1.10` as `1.1`, nothing is
    altered; `12345678901234567890123` would come back as another number.
    """
    return next(_altered_at(_decode_altered(text), ""), None)


def _is_altered(number: str) -> bool:
    value = float(number)
    if value == 0:  # asked apart: Decimal has no exponent as small as text may hold
        return re.search("[1-9]", re.split("[eE]", number)[0]) is not None
    return Decimal(number) != Decimal(repr(value))


# Leaves a mark in the place of each altered number; 15 digits always come back.
_ALTERED: Final = object()
_decode_altered = json.JSONDecoder(
    parse_int=lambda number: _ALTERED if len(number) > 15 and _is_altered(number) else None,
    parse_float=lambda number: _ALTERED if _is_altered(number) else None,
).decode


def _altered_at(node: object, pointer: str) -> Iterator[str]:
    if node is _ALTERED:
        yield pointer
    elif isinstance(node, dict):
        for key, member in node.items():
            yield from _altered_at(member, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(node, list):
        for index, member in enumerate(node):
            yield from _altered_at(member, f"{pointer}/{index}")
