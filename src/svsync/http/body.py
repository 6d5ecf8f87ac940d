"""A request's body and query, read strictly: what is not understood is refused by its name.

A body is JSON as every reader reads it: UTF-8, no two equal keys, no NaN, no number
beyond doubles, one object. What it may hold is told by the rows of a table, with the same
kinds that read the configuration file. No message repeats a value.
"""

import asyncio
import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from aiohttp import web

from svsync.config.document import Node, from_json, shown
from svsync.config.kinds import ANY_TEXT, Key, node_of_variable, read_object
from svsync.domain.errors import ConfigError, SvsyncError, UndecodableError
from svsync.domain.values import slice_members

MAX_BODY: Final = 1024 * 1024
"""Bytes of a request's body."""
MAX_VALUE_BODY: Final = MAX_BODY + 256 * 1024
"""The same where it brings a secret's value, which may be 1 MiB by itself."""
BODY_S: Final = 30.0
"""Seconds in which a body must have come."""


class RequestError(SvsyncError):
    """What was sent cannot be used.

    Attributes:
        status: the HTTP status, 4xx.
        field: what it is about, as `paths[0]`; empty: the whole.
    """

    code = "malformed_request"

    def __init__(self, status: int, message: str, *, code: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, code=code)
        self.status = status
        self.field = field


async def read_body(request: web.Request, keys: Sequence[Key]) -> dict[str, Any]:
    """The given keys of the body, checked; a body that is not there is an empty object.

    Raises:
        RequestError: 400 not JSON or not whole, 408 too slow, 413 beyond MAX_BODY, 415 in a
            coding, 422 a field that is unknown or whose value cannot be used.
    """
    data = await received(request)
    value = _object(_text(data)) if data else {}
    _refuse_unknown(value, keys)
    return _checked(value, keys)


async def read_document(request: web.Request) -> dict[str, object]:
    """The body as it is, one object; whoever reads it checks what it holds.

    Raises: as `read_body`, of what it says of the body as a whole.
    """
    data = await received(request)
    return _object(_text(data)) if data else {}


async def read_json(request: web.Request) -> object:
    """The body as it is, any JSON value; whoever reads it checks what it holds.

    Raises: as `read_body`, of what it says of the body as a whole.
    """
    return _value(_text(await received(request)))


async def read_value_body(
    request: web.Request, keys: Sequence[Key], name: str
) -> tuple[dict[str, Any], str | None]:
    """The same of a body that brings a secret's value as one more member, `name`: with the
    exact text of that, which is checked no further; None where it is not there.

    No name that stands in the value is repeated.

    Raises: as `read_body`, beyond MAX_VALUE_BODY.
    """
    data = await received(request, MAX_VALUE_BODY)
    text = _text(data)
    value = _object(text, _VALUE_DECODER) if data else {}
    _refuse_unknown(value, (*keys, Key(name, ANY_TEXT, "")))
    if name not in value:
        return _checked(value, keys), None
    del value[name]
    try:
        start, end = slice_members(text)[name]
    except UndecodableError:
        raise _malformed("the body is nested too deeply") from None
    return _checked(value, keys), text[start:end]


def _checked(value: Mapping[str, object], keys: Sequence[Key]) -> dict[str, Any]:
    with told_by_field():
        return read_object(from_json(value), keys, api=True)


async def received(request: web.Request, limit: int = MAX_BODY) -> bytes:
    """The body as it came, at most so many bytes.

    Raises: as `read_body`, of what it says of the body as a whole.
    """
    _refuse_coding(request, "Content-Encoding", "identity")
    _refuse_coding(request, "Transfer-Encoding", "chunked")
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(BODY_S) as time_limit:
            data = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(limit) from None
    except web.RequestPayloadError:
        raise _malformed("the body ends or is cut into chunks as HTTP does not allow") from None
    except OSError:
        if time_limit.expired():
            raise RequestError(
                408, f"the body did not come within {BODY_S:g} seconds", code="request_timeout"
            ) from None
        # Its client has gone: nobody is left who could be answered.
        raise RequestError(400, "the body ended before it was whole", code="body_cut_off") from None
    if len(data) > limit:
        raise _too_large(limit)
    return data


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the body is larger than {limit:,} bytes", code="body_too_large")


def _refuse_coding(request: web.Request, header: str, understood: str) -> None:
    if request.headers.get(header, understood).lower() != understood:
        raise RequestError(
            415,
            f"send the body as it is, with no {header} but {understood}",
            code="unsupported_coding",
        )


def read_query(request: web.Request, keys: Sequence[Key]) -> dict[str, Any]:
    """The given parameters of the query, checked.

    Raises:
        RequestError: 422 a parameter that is unknown, stands twice, or cannot be used.
    """
    given = request.query
    _refuse_unknown(given, keys)
    members: dict[str, Node] = {}
    for key in keys:
        texts = given.getall(key.name, [])
        if len(texts) > 1:
            raise RequestError(422, "stands twice", code="invalid_field", field=key.name)
        if texts:
            node = node_of_variable(key, "", texts[0])
            members[key.name] = Node(node.value, key.name)
    with told_by_field():
        return read_object(Node(members), keys, api=True)


@contextmanager
def told_by_field() -> Iterator[None]:
    """What the kinds of the configuration file refuse, as an answer's error."""
    try:
        yield
    except ConfigError as error:
        code = "invalid_field" if error.code == ConfigError.code else error.code
        message = error.message.removeprefix(f"{error.where}: ")
        raise RequestError(422, message, code=code, field=error.where) from None


def _refuse_unknown(given: Mapping[str, object], keys: Sequence[Key]) -> None:
    known = [key.name for key in keys]
    for name in given:
        if name in known:
            continue
        near = difflib.get_close_matches(name[:64], known, 1, 0.6)
        meant = near[0] if near else ", ".join(known) or "none is taken here"
        raise RequestError(
            422, f"is not known; known: {meant}", code="unknown_field", field=shown(name)
        )


# --- strict JSON ------------------------------------------------------------------


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("the body is not UTF-8") from None


def _object(text: str, decoder: json.JSONDecoder | None = None) -> dict[str, object]:
    value = _value(text, decoder)
    if not isinstance(value, dict):
        raise _malformed("the body must be a JSON object")
    return value


def _value(text: str, decoder: json.JSONDecoder | None = None) -> object:
    try:
        value: object = (decoder or _DECODER).decode(text)
    except json.JSONDecodeError as error:  # its own text quotes nothing, but it holds the body
        raise _malformed(
            f"the body is not JSON at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise _malformed("the body is nested too deeply") from None
    except ValueError:  # an integer of thousands of digits
        raise _malformed("the body holds a number that is too long") from None
    return value


def _malformed(message: str, field: str = "") -> RequestError:
    return RequestError(400, message, code="malformed_body", field=field)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _malformed("stands twice", shown(name))
        found[name] = value
    return found


def _unique_in_silence(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A name in a value is part of the secret."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _malformed("two members of one object have the same name")
    return found


def _whole(number: str) -> int:
    _finite(number)
    return int(number)


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise _malformed("the body holds a number beyond the range of doubles")
    return value


def _no_constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)
_VALUE_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_in_silence,
    parse_int=_whole,
    parse_float=_finite,
    parse_constant=_no_constant,
)
