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
from svsync.config.kinds import Key, node_of_variable, read_object
from svsync.domain.errors import ConfigError, SvsyncError

MAX_BODY: Final = 1024 * 1024
"""Bytes of a request's body."""
BODY_S: Final = 30.0
"""Seconds in which a body must have come."""


class RequestError(SvsyncError):
    """What was sent cannot be used.

    Attributes:
        status: the HTTP status, 4xx.
        field: what it is about, as `paths[0]`; empty: the whole.
    """

    code = "bad_request"

    def __init__(self, status: int, message: str, *, code: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, code=code)
        self.status = status
        self.field = field


async def read_body(request: web.Request, keys: Sequence[Key]) -> dict[str, Any]:
    """The given keys of the body, checked; a body that is not there is an empty object.

    Raises:
        RequestError: 400 not JSON or not whole, 408 too slow, 415 in a coding, 422 a field
            that is unknown or whose value cannot be used.
        HTTPRequestEntityTooLarge: beyond MAX_BODY.
    """
    _refuse_coding(request, "Content-Encoding", "identity")
    _refuse_coding(request, "Transfer-Encoding", "chunked")
    data = await _received(request)
    value = _object(data) if data else {}
    _refuse_unknown(value, keys)
    with _told_by_field():
        return read_object(from_json(value), keys, api=True)


def _refuse_coding(request: web.Request, header: str, understood: str) -> None:
    if request.headers.get(header, understood).lower() != understood:
        raise RequestError(
            415,
            f"send the body as it is, with no {header} but {understood}",
            code="unsupported_coding",
        )


async def _received(request: web.Request) -> bytes:
    if (request.content_length or 0) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY)
    try:
        async with asyncio.timeout(BODY_S) as limit:
            return await request.read()
    except web.RequestPayloadError:
        raise _malformed("the body ends or is cut into chunks as HTTP does not allow") from None
    except OSError:
        if limit.expired():
            raise RequestError(
                408, f"the body did not come within {BODY_S:g} seconds", code="request_timeout"
            ) from None
        # Its client has gone: nobody is left who could be answered.
        raise RequestError(400, "the body ended before it was whole", code="body_cut_off") from None


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
    with _told_by_field():
        return read_object(Node(members), keys, api=True)


@contextmanager
def _told_by_field() -> Iterator[None]:
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


def _object(data: bytes) -> dict[str, object]:
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise _malformed("the body is not UTF-8") from None
    except json.JSONDecodeError as error:  # its own text quotes nothing, but it holds the body
        raise _malformed(
            f"the body is not JSON at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise _malformed("the body is nested too deeply") from None
    except ValueError:  # an integer of thousands of digits
        raise _malformed("the body holds a number that is too long") from None
    if not isinstance(value, dict):
        raise _malformed("the body must be a JSON object")
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
