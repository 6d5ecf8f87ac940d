"""Secret values: their exact bytes, their JSON text, and what makes two of them equal.

A value is kept twice over in meaning, once in bytes. Its **exact text** is what
was read: it is sealed, served and written back byte for byte, so that no number
and no space changes on the way. Its **canonical form** (RFC 8785, numbers as
doubles) exists for a moment only, under a keyed hash: a backend that stores
`1.10` as `1.1` has not changed the secret. Equality is asked of fingerprints,
content of the exact text, and neither is ever derived from the other.

Everything here that holds a value is a `Secret`: it cannot be printed, logged,
pickled or dumped by accident; `reveal` is the word to search for.
"""

import base64
import binascii
import hmac
import json
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NoReturn, Self, SupportsIndex, final

import rfc8785

from svsync.domain.errors import ConfigError, UndecodableError

MAX_DEPTH: Final = 64
"""Deepest nesting of a JSON value; a deeper one is refused as `too_deep`."""

_MAX_EXACT: Final = 2**53
_SHOWN: Final = "<secret>"


class Encoding(StrEnum):
    """How the bytes of a value are carried in a JSON answer."""

    JSON = "json"
    TEXT = "text"
    BINARY = "binary"


# --- what cannot be printed -------------------------------------------------------


class Secret:
    """Shows `<secret>` wherever text is made of it, and refuses to be pickled.

    Copies are the object itself: it does not change. A subclass that can be
    compared has no hash, because a secret is never the key of a cache.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return _SHOWN

    def __format__(self, spec: str) -> str:
        return format(_SHOWN, spec)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret cannot be serialised")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a secret cannot be serialised")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a secret does not change: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a secret does not change: {name}")


_set = object.__setattr__


@final
class SecretValue(Secret):
    """One secret text, such as a token; `reveal` gives it."""

    __slots__ = ("_text",)
    __hash__ = None  # type: ignore[assignment]
    _text: str

    def __init__(self, text: str) -> None:
        _set(self, "_text", text)

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        """Equal texts, compared in constant time."""
        if not isinstance(other, SecretValue):
            return NotImplemented
        ours, theirs = (side._text.encode("utf-8", "surrogatepass") for side in (self, other))
        return hmac.compare_digest(ours, theirs)


# --- payloads ---------------------------------------------------------------------


@final
class Payload(Secret):
    """A value as it was read: its encoding and its exact bytes.

    Two payloads are `==` when encoding and bytes are the same; whether they are
    the same *value* is asked of their fingerprints.
    """

    __slots__ = ("_raw", "encoding")
    __hash__ = None  # type: ignore[assignment]
    encoding: Encoding
    _raw: bytes

    def __init__(self, encoding: Encoding, raw: bytes) -> None:
        """As given, unchecked; the constructors below decide and check."""
        _set(self, "encoding", encoding)
        _set(self, "_raw", raw)

    @classmethod
    def from_json_text(cls, raw: bytes | str) -> Self:
        """Tell by its content what a value is.

        A JSON object is json. What is no object, or has equal keys, NaN or
        Infinity, a lone surrogate or a number beyond the range of doubles, is
        text, byte for byte. Bytes that are not UTF-8 are binary.

        Raises:
            UndecodableError: a JSON object nested deeper than 64 (`too_deep`),
                or a str with a lone surrogate, which has no bytes.
        """
        if isinstance(raw, str):
            text, raw = raw, _encoded(raw)
        else:
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                return cls(Encoding.BINARY, raw)
        return cls(Encoding.JSON if _is_plain_object(text) else Encoding.TEXT, raw)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Text, whatever it looks like. A value that another reader may meet
        through `from_json_text` belongs there, or the two will not be equal.
        """
        return cls(Encoding.TEXT, _encoded(text))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Bytes, whatever they look like."""
        return cls(Encoding.BINARY, raw)

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Self:
        """The JSON object of `k=v` pairs, in their order."""
        return cls(Encoding.JSON, _encoded(json.dumps(dict(fields), ensure_ascii=False)))

    @classmethod
    def from_data(cls, data: bytes, encoding: Encoding) -> Self:
        """Undo `data_text`: the stored form and its encoding give the exact bytes.

        Raises UndecodableError for a data text that `data_text` does not make.
        """
        if encoding is Encoding.JSON:
            return cls(encoding, data)
        field = "value" if encoding is Encoding.TEXT else "value_base64"
        try:
            members = json.loads(data)
            if members.keys() != {field}:
                raise ValueError
            inner: bytes = members[field].encode()
            if encoding is Encoding.BINARY:
                inner = base64.b64decode(inner, validate=True)
        except (ValueError, AttributeError, binascii.Error):
            raise UndecodableError(f'a {encoding} value is stored as {{"{field}": …}}') from None
        return cls(encoding, inner)

    def reveal(self) -> bytes:
        """The exact bytes that were read."""
        return self._raw

    def data_text(self) -> bytes:
        """The exact JSON text of the API's `data`; this is what is sealed and served."""
        if self.encoding is Encoding.JSON:
            return self._raw
        if self.encoding is Encoding.TEXT:
            inner = json.dumps(self._raw.decode(), ensure_ascii=False).encode()
            return b'{"value": %b}' % inner
        return b'{"value_base64": "%b"}' % base64.b64encode(self._raw)

    @property
    def size(self) -> int:
        """Length of the exact bytes."""
        return len(self._raw)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Payload):
            return NotImplemented
        return self.encoding is other.encoding and hmac.compare_digest(self._raw, other._raw)


def check_limits(raw: bytes, max_bytes: int) -> str | None:
    """The reason code for which a value is too large to take in, or None.

    Asked before it is parsed; nesting is checked by `Payload.from_json_text`.
    """
    return "value_too_large" if len(raw) > max_bytes else None


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise UndecodableError("the value holds a lone surrogate, which no UTF-8 has") from None


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
_structure = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL).finditer


def _is_plain_object(text: str) -> bool:
    if not _starts_object(text):
        return False
    limit = _opens_too_deep(text)
    try:
        members = _strict.decode(text if limit is None else text[:limit])
    except json.JSONDecodeError as error:
        # Cut where level 65 opens, JSON lacks its value exactly there. Any other
        # error comes earlier: then this is some other text with many brackets.
        if error.pos == limit:
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
_SPACE: Final = r"[ \t\n\r]*+"
_SCALAR: Final = (
    r'"[^"\\\x00-\x1f]*+"|true|false|null'
    r"|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
)
_member = re.compile(
    rf'{_SPACE}"((?:[^"\\\x00-\x1f]++|\\.)*+)"{_SPACE}:{_SPACE}({_SCALAR})?+{_SPACE}([,}}]?)'
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


# --- canonical form and fingerprint -----------------------------------------------


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


def canonical(payload: Payload) -> bytes:
    """RFC 8785 of a JSON value, with every number a double; other values as they are.

    Where all numbers are short integers and all characters lie below the
    surrogates (there the order of UTF-16, which RFC 8785 asks for, is that of
    code points) the standard encoder gives the same bytes, five times faster.
    """
    raw = payload.reveal()
    if payload.encoding is not Encoding.JSON:
        return raw
    text = raw.decode()
    try:
        plain = _encode_plain(_decode_plain(text))
    except _NotPlainError:
        return rfc8785.dumps(_decode_doubles(text))
    if plain.isascii() or not _beyond_order(plain):
        return plain.encode()
    return rfc8785.dumps(_decode_doubles(text))


@final
class Fingerprinter(Secret):
    """Fingerprints under one tenant's key, with the key schedule done once.

    `HMAC-SHA-256(key, "svsync/fp/1" ‖ 0 ‖ encoding ‖ 0 ‖ canonical)`: no
    encoding's name holds a zero byte, so no two inputs read the same.
    """

    __slots__ = ("_keyed",)
    _keyed: Mapping[Encoding, hmac.HMAC]

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("a fingerprint key has at least 32 bytes")
        _set(
            self,
            "_keyed",
            {e: hmac.new(key, b"svsync/fp/1\0%b\0" % e.encode(), "sha256") for e in Encoding},
        )

    def fingerprint(self, payload: Payload) -> bytes:
        """32 bytes, equal for equal values of one encoding."""
        keyed = self._keyed[payload.encoding].copy()
        keyed.update(canonical(payload))
        return keyed.digest()


def fingerprint(key: bytes, payload: Payload) -> bytes:
    """One fingerprint; `Fingerprinter` is for many under one key."""
    return Fingerprinter(key).fingerprint(payload)


# --- numbers that a backend would alter -------------------------------------------


def number_would_change(payload: Payload) -> str | None:
    """JSON pointer (RFC 6901) of the first number that doubles cannot carry, or None.

    A backend with double numbers writes the shortest decimal that reads back as
    the same double. Where that is the same number, `1.10` as `1.1`, nothing is
    altered; `12345678901234567890123` would come back as another number.
    """
    if payload.encoding is not Encoding.JSON:
        return None
    return next(_altered_at(_decode_altered(payload.reveal().decode()), ""), None)


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


# --- credentials ------------------------------------------------------------------


@final
class Credential(Mapping[str, SecretValue]):
    """What opens a backend: named secret fields, such as `role_id` and `secret_id`."""

    __slots__ = ("_fields", "where")

    def __init__(self, fields: Mapping[str, SecretValue], where: str) -> None:
        """`where` is the reference it came from, for messages."""
        self._fields = dict(fields)
        self.where = where

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """A JSON object of fields, or a bare string, which is a token.

        White space around it is dropped, since files end in a newline. A field
        that is not a string keeps its JSON text. An object with the one field
        `value` is how the store shows a string, so it is one.

        Raises ConfigError for what is neither, naming `where`, never the text.
        """
        try:
            text = (text.decode() if isinstance(text, bytes) else text).strip()
            if not text.startswith("{"):
                fields = {"token": text}
            else:
                fields = {
                    key: json.loads(text[a:b]) if text[a] == '"' else text[a:b]
                    for key, (a, b) in slice_members(text).items()
                }
        except (ValueError, UndecodableError):
            raise ConfigError(
                "the credential is neither a JSON object nor a string", where=where
            ) from None
        if fields.keys() == {"value"}:
            fields = {"token": fields["value"]}
        if not any(fields.values()):
            raise ConfigError("the credential is empty", where=where)
        return cls({key: SecretValue(value) for key, value in fields.items()}, where)

    def require(self, field: str) -> SecretValue:
        """The field's value. Raises ConfigError where it is missing or empty."""
        value = self._fields.get(field)
        if not value:
            raise ConfigError(f"the credential has no field {field!r}", where=self.where)
        return value

    def __getitem__(self, field: str) -> SecretValue:
        return self._fields[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Credential({', '.join(sorted(self._fields))}: {_SHOWN})"
