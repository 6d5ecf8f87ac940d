"""Secret values: their exact bytes, their JSON text, and what makes two of them equal.

A value's **exact text** is what was read: it is sealed, served and written back
byte for byte, so that no number and no space changes on the way. Its **canonical
form** (RFC 8785, numbers as doubles) exists for a moment only, under a keyed
hash: a backend that stores `1.10` as `1.1` has not changed the secret. Equality
is asked of fingerprints, content of the exact text, and nothing is ever written
from a canonical form.

Everything here that holds a value is a `Secret`: it cannot be printed, logged,
pickled or dumped by accident; `reveal` is the word to search for.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NoReturn, Self, SupportsIndex, final

from svsync.domain.errors import ConfigError, UndecodableError
from svsync.domain.json_text import (
    altered_number,
    canonical_json,
    end_of_plain_object,
    is_plain_object,
    slice_members,
)

__all__ = [
    "Credential",
    "Encoding",
    "Fingerprinter",
    "Payload",
    "Secret",
    "SecretValue",
    "canonical",
    "check_limits",
    "end_of_plain_object",
    "fingerprint",
    "number_would_change",
    "slice_members",
]

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
        return cls(Encoding.JSON if is_plain_object(text) else Encoding.TEXT, raw)

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


# --- canonical form and fingerprint -----------------------------------------------


def canonical(payload: Payload) -> bytes:
    """RFC 8785 of the value as `data`, with every number a double.

    A string or bytes count as the object that `data` shows them as: a backend that
    holds objects only gives them back as such, and that is the same value.
    """
    return canonical_json(payload.data_text().decode())


@final
class Fingerprinter(Secret):
    """Fingerprints under one tenant's key, with the key schedule done once.

    `HMAC-SHA-256(key, "svsync/fp/1" ‖ 0 ‖ "json" ‖ 0 ‖ canonical)`.
    """

    __slots__ = ("_keyed", "_requests")
    _keyed: hmac.HMAC
    _requests: hmac.HMAC

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("a fingerprint key has at least 32 bytes")
        _set(self, "_keyed", hmac.new(key, b"svsync/fp/1\0json\0", "sha256"))
        _set(self, "_requests", hmac.new(key, b"svsync/request/1\0", "sha256"))

    def fingerprint(self, payload: Payload) -> bytes:
        """32 bytes, equal for equal values."""
        keyed = self._keyed.copy()
        keyed.update(canonical(payload))
        return keyed.digest()

    def digest_of_request(self, request: bytes) -> bytes:
        """32 bytes, equal for equal requests, and for no value's fingerprint. Keyed, for a
        request may hold a value that could be guessed."""
        keyed = self._requests.copy()
        keyed.update(request)
        return keyed.digest()


def fingerprint(key: bytes, payload: Payload) -> bytes:
    """One fingerprint; `Fingerprinter` is for many under one key."""
    return Fingerprinter(key).fingerprint(payload)


def number_would_change(payload: Payload) -> str | None:
    """JSON pointer of the first number that a backend with double numbers would
    give back as another number, or None. `1.10` given back as `1.1` is the same.
    """
    if payload.encoding is not Encoding.JSON:
        return None
    return altered_number(payload.reveal().decode())


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
