"""`Idempotency-Key`: a POST, PUT or DELETE that may be sent again without being done again.

A handler that does something puts its work into `once`, after it has asked whether the
caller may: so a repeated request is decided and recorded as any other, and its answer is
given to nobody who may not have it by now.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiohttp import web

from svsync.domain.access import Caller
from svsync.domain.errors import (
    SetupError,
    StoreError,
    SvsyncError,
    WriteOutcomeUnknownError,
)
from svsync.http.body import RequestError, received
from svsync.http.identity import CallersHandler, call_of
from svsync.services.idempotency import Idempotency, KeptAnswer

IDEMPOTENCY: Final = web.AppKey("idempotency", Idempotency)
HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_CONDITIONS: Final = ("If-Match", "If-None-Match")
_KEPT_HEADERS: Final = ("ETag", "Location", "X-SVSync-Write-Through", "X-SVSync-Push-Id")


def idempotent(handler: CallersHandler, *, holds_secret: bool = False) -> CallersHandler:
    """A handler behind `for_scope` whose work is done once for each key.

    Args:
        holds_secret: its answer shows one, and is not kept: a repeated request is told that
            it was done.
    """

    async def handled(request: web.Request, caller: Caller) -> web.StreamResponse:
        body = await received(request)
        return await once(
            request, body, partial(handler, request, caller), holds_secret=holds_secret
        )

    return handled


async def once(
    request: web.Request,
    body: bytes,
    act: Callable[[], Awaitable[web.StreamResponse]],
    *,
    holds_secret: bool = False,
) -> web.StreamResponse:
    """Do what a request asks for, unless the same one brought its key before.

    Raises: as `act` and `Idempotency.begin`; RequestError: 422, a header that is no key.
    """
    key = _key_of(request)
    if key is None:
        return await act()
    call, keys = call_of(request), request.app[IDEMPOTENCY]
    begun = await keys.begin(call, key, _said(request, body))
    if isinstance(begun, KeptAnswer):
        return _again(begun)
    try:
        answer = await act()
    except BaseException as error:  # cancelled too: what was begun may have been done
        await keys.fail(call.tenant, begun, error, certain=_did_nothing(error))
        raise
    # A caller who goes away now has been answered as far as anybody can tell.
    await asyncio.shield(keys.keep(call.tenant, begun, None if holds_secret else _kept(answer)))
    return answer


def _key_of(request: web.Request) -> str | None:
    given = request.headers.getall(HEADER, [])
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise RequestError(
            422,
            "is one word of at most 255 visible ASCII characters, new with each request",
            code="invalid_field",
            field=HEADER,
        )
    return given[0]


def _said(request: web.Request, body: bytes) -> bytes:
    """All that makes the request what it is."""
    conditions = [request.headers.getall(name, []) for name in _CONDITIONS]
    head = [request.method, request.path, request.query_string, conditions]
    return json.dumps(head).encode() + b"\0" + body


def _did_nothing(error: BaseException) -> bool:
    """Is it certain? What fails in the store may have been committed, and of a mistake of
    ours, or of what was broken off, nobody knows."""
    if isinstance(error, web.HTTPException):
        return True
    open_ended = (StoreError, SetupError, WriteOutcomeUnknownError)
    return isinstance(error, SvsyncError) and not isinstance(error, open_ended)


def _kept(answer: web.StreamResponse) -> KeptAnswer:
    assert isinstance(answer, web.Response)
    headers = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
    return KeptAnswer(answer.status, headers, answer.text or "")


def _again(kept: KeptAnswer) -> web.Response:
    headers = {**kept.headers, REPLAYED: "true"}
    if not kept.text:
        return web.Response(status=kept.status, headers=headers)
    return web.Response(
        text=kept.text, status=kept.status, headers=headers, content_type="application/json"
    )
