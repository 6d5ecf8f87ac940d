"""Who calls: a bearer token, looked up anew for each request.

Everything below `/v1/` needs one, known route or not. A handler there takes a `Caller`,
and gets one only through `for_scope`, so none can be reached without its scope. Change feeds
show a secret of their own in the token's place, Event Grid a token of Entra's where its
backend says so: it opens their door (`for_sender`) and nothing else, and no token of a caller
opens that.

Failures are limited by address. A token that counts is let through however many failed
before it from the same address: one wrong client must not lock out the others behind its
proxy, and 256 random bits are not guessed. What failed is recorded by address, in aggregate.
"""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from svsync.domain.access import (
    Call,
    Caller,
    ForbiddenError,
    Origin,
    Scope,
    UnauthenticatedError,
    token_hash,
    token_name,
)
from svsync.domain.errors import SvsyncError
from svsync.domain.feeds import EVENT_GRID, secret_name
from svsync.domain.scaikey import IssuerUnavailableError
from svsync.http.addresses import site_of
from svsync.http.limits import Limits, category_of
from svsync.observe.logs import log_context
from svsync.services.authority import Authority, Rights
from svsync.services.authorizing import Authorizing
from svsync.services.feed_secrets import FeedSecrets, Sender
from svsync.services.feed_tokens import FeedTokens
from svsync.services.strangers import Strangers

ADDRESS: Final = web.RequestKey("address", str)
CALLER: Final = web.RequestKey("caller", Caller)
RIGHTS: Final = web.RequestKey("rights", Rights)
SENDER: Final = web.RequestKey("sender", Sender)
FRESH: Final = web.RequestKey("fresh", bool)
"""The rights were asked for after the request began."""
AUTHORIZING: Final = web.AppKey("authorizing", Authorizing)
REQUEST_ID: Final = web.RequestKey("request_id", str)

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CallersHandler = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]
SendersHandler = Callable[[web.Request, Sender], Awaitable[web.StreamResponse]]


class TooManyFailuresError(SvsyncError):
    """Too many requests without a valid token came from this address."""

    code = "too_many_failures"

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            "too many requests without a valid token came from this address: wait, and use a"
            " token that is valid"
        )
        self.retry_after = retry_after


@dataclass(slots=True)
class Failures:
    """Requests without a valid token, counted by address in windows of fixed length.

    Attributes:
        clock: seconds that never go back.
        limit: so many of them in a window are told why.
        window: its length in seconds.
        room: addresses that are remembered; the longest known are forgotten first.
    """

    clock: Callable[[], float]
    limit: int = 20
    window: int = 10
    room: int = 10_000
    _seen: OrderedDict[str, tuple[float, int]] = field(default_factory=OrderedDict)

    def count(self, address: str) -> int | None:
        """One more; seconds to wait where that is too many."""
        site, now = site_of(address), self.clock()
        began, failed = self._seen.pop(site, (now, 0))
        if now - began >= self.window:
            began, failed = now, 0
        self._seen[site] = (began, failed + 1)
        if len(self._seen) > self.room:
            self._seen.popitem(last=False)
        return None if failed < self.limit else max(1, round(began + self.window - now))


def recalling(handler: Handler) -> Handler:
    """Mark a handler that compares its caller's epoch with that of its answer by itself."""

    async def recalled(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    recalled.recalls = True  # type: ignore[attr-defined]
    return recalled


def asked_often(request: web.Request) -> bool:
    """Is it for a handler of which there are thousands of requests a second?"""
    return getattr(request.match_info.handler, "recalls", False)


def for_sender(handler: SendersHandler) -> Handler:
    """A handler for whoever holds a feed's secret, and for nobody else."""

    async def checked(request: web.Request) -> web.StreamResponse:
        return await handler(request, request[SENDER])

    checked.of_feeds = True  # type: ignore[attr-defined]
    return checked


def _is_of_feeds(request: web.Request) -> bool:
    return getattr(request.match_info.handler, "of_feeds", False)


def for_scope(
    scope: Scope, action: str, handler: CallersHandler, *, recorded: bool = True
) -> Handler:
    """A handler for callers with a scope.

    Args:
        action: what the audit log calls it, as `federation.sync`. Who lacks the scope is
            recorded always.
        recorded: it is recorded before the handler is reached. False for what changes
            nothing and shows no name of a secret, and for a handler that records by itself.
    """

    async def checked(request: web.Request) -> web.StreamResponse:
        call, authorizing = call_of(request), request.app[AUTHORIZING]
        await authorizing.require_scope(call, scope, action)
        if recorded:
            await authorizing.note(call, action, backend=_backend(request))
        return await handler(request, call.caller)

    return checked


def _backend(request: web.Request) -> str | None:
    """The backend that a path names, if it could be one's id."""
    if not request.path.startswith("/v1/federation/backends/"):
        return None
    named = request.match_info.get("id", "")
    return named if _ID.fullmatch(named) else None


def identify(
    authority: Authority,
    feeds: FeedSecrets,
    feed_tokens: FeedTokens,
    failures: Failures,
    strangers: Strangers,
    limits: Limits,
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that finds out who calls, and how often."""

    @web.middleware
    async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith("/v1/"):
            return await handler(request)
        text = ""
        often = asked_often(request)
        try:
            if _is_of_feeds(request):
                text = _feed_secret(request)
                if text.count(".") == 2 and request.match_info["feed"] == EVENT_GRID:
                    sender = await feed_tokens.vouch(text, request.match_info["backend_id"])
                else:
                    sender = await feeds.vouch(text)
                request[SENDER] = sender
                caller = sender.caller
            else:
                text = bearer(request)
                rights = authority.recall(token_hash(text)) if often else None
                request[FRESH] = rights is None
                if rights is None:
                    rights = await authority.verify(text, origin_of(request))
                request[RIGHTS], caller = rights, rights.caller
            request[CALLER] = caller
            limits.take(caller, category_of(request.method, request.path))
            if often:
                return await handler(request)
            with log_context(tenant=caller.slug):
                return await handler(request)
        except (UnauthenticatedError, ForbiddenError) as refused:
            # What a caller may not do is recorded where that is decided. That nobody vouches
            # for them any more is found out there too, where their rights were remembered.
            if refused.code == ForbiddenError.code:
                raise
            named = token_name(text) or secret_name(text)
            strangers.count(site_of(request[ADDRESS]), named and named[0], refused.code)
            # The token is good and its tenant is shut, or nobody can tell what it is.
            if isinstance(refused, ForbiddenError | IssuerUnavailableError):
                raise
            if (wait := failures.count(request[ADDRESS])) is not None:
                raise TooManyFailuresError(wait) from None
            raise

    return identified


def call_of(request: web.Request) -> Call:
    """The request as the audit log tells of it."""
    return Call(request[CALLER], request[REQUEST_ID], request[ADDRESS])


def origin_of(request: web.Request) -> Origin:
    """Where its token came from."""
    return Origin(request[REQUEST_ID], request[ADDRESS])


def bearer(request: web.Request, what: str = "a token") -> str:
    """The token's text. Raises UnauthenticatedError where there is none, or more than one."""
    given = request.headers.getall("Authorization", [])
    scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    # Bytes that are no text would be met again where the token is looked up.
    if scheme.lower() != "bearer" or not text.isascii():
        raise UnauthenticatedError(f"{what} is needed, in one header: `Authorization: Bearer …`")
    return text.strip(" ")


def _feed_secret(request: web.Request) -> str:
    """The same of a change feed. A query is written into logs on its way, so that nobody
    comes to rely on a secret in it, none is taken at all."""
    if request.query_string:
        raise UnauthenticatedError(
            "no query is taken here, for it is logged on its way: send the feed's secret in the"
            " header `Authorization: Bearer …`, and make another one if this was it",
            code="secret_in_query",
        )
    return bearer(request, "the feed's secret")
