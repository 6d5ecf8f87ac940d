"""Calls of the API: where they go, what is sent again, and what is never done.

The token is sent to `base_url` and nowhere else: no redirect is followed, no proxy of the
environment is used, no cookie is kept, and plain HTTP goes to loopback alone unless
`allow_http` says otherwise. A certificate is always checked.

A call is made at most four times, within its timeout. Made again is
- whatever was not sent, because there was no connection,
- whatever the service turned away before it looked at it (429 `rate_limited`),
- a read that was not answered, or answered 503,
- a change that the service knows again by its `Idempotency-Key`, likewise. The client draws
  a key for each call whose route takes one.
Of any other change whose answer did not come, nobody knows whether it was done: it is told
as `outcome_unknown`, and not made again.
"""

import asyncio
import json
import os
import random
import re
import ssl
import uuid
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from svsync import __version__
from svsync.client.errors import SvsyncError, unusable
from svsync.client.exact import decode, encode
from svsync.config.endpoints import is_loopback, split_endpoint

Token = str | Callable[[], str]
"""A token, or what gives the one to use now: a token of ScaiKey is good for a day at most."""

TIMEOUT_S: Final = 30.0
ATTEMPTS: Final = 4
_FIRST_WAIT_S: Final = 0.1
_CONNECTING: Final = 0.75
"""How much of its time a call waits for a connection. It is less than all, so that a
connection that never came is told from an answer that did not."""
_TOKEN: Final = re.compile(r"[!-~]{1,16384}")
_KEY: Final = re.compile(r"[!-~]{1,255}")
_AGAIN_IN_DOUBT: Final = frozenset({"idempotency_in_progress"})
_UNDECIDED: Final = frozenset({401, 403, 410, 429, 503})
"""Answered before it was looked whether the call was made already."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, of a status below 300."""

    status: int
    headers: Mapping[str, str]
    text: str

    def document(self) -> Any:
        """The body. Raises SvsyncError `not_svsync`."""
        try:
            return decode(self.text)
        except (ValueError, RecursionError):
            raise not_svsync(self.status) from None


class _UnansweredError(Exception):
    """No answer of the API. `sent`: the request may have reached it."""

    def __init__(self, message: str, *, sent: bool, again: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.sent = sent
        self.again = again


class _Connector(aiohttp.TCPConnector):
    """One that a forked process forgets without a word: its connections are not that one's."""

    def __init__(self) -> None:
        super().__init__()
        self._made_by = os.getpid()

    def __del__(self, _warnings: Any = warnings) -> None:
        if self._made_by == os.getpid():
            super().__del__(_warnings)


class Calls:
    """Makes calls, over connections that are kept open between them.

    Belongs to the event loop in which its first call is made.
    """

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        timeout: float = TIMEOUT_S,
        ca: str | os.PathLike[str] | ssl.SSLContext | None = None,
        allow_http: bool = False,
        request_ids: Callable[[], str] | None = None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """As `Client`. `wait` and `draw` are time and chance: seconds pass, and a number from
        0 to 1."""
        self.base_url, secure = _checked(base_url, allow_http=allow_http)
        self._token = token
        if not callable(token):
            _check_token(token)
        if not 0 < timeout <= 86_400:
            raise unusable("timeout is a number of seconds, more than 0 and at most a day")
        self._timeout = float(timeout)
        self._request_ids = request_ids
        self._ssl: ssl.SSLContext | bool = _context(ca) if secure else True
        self._wait = wait
        self._draw = draw
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def get(self, path: str, /, **query: object) -> Any:
        """The document at a path; parameters that are None are left out."""
        return (await self.call("GET", path, query=query)).document()

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        /,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **query: object,
    ) -> Any:
        """Let something change; what the answer says, None where it says nothing.

        `key` as `call` takes it.
        """
        text = None if body is None else encode(body)
        answer = await self.call(method, path, query=query, body=text, headers=headers, key=key)
        return answer.document() if answer.text else None

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Answer:
        """The answer to one call, made again as the module says.

        Args:
            path: what follows `base_url`, with each part escaped already.
            key: the `Idempotency-Key`; `new_key()` draws one. None: the route takes none.

        Raises:
            SvsyncError: the answer is an error, or there is none.
        """
        told = {**(headers or {}), **({} if key is None else {"Idempotency-Key": key})}
        repeatable = method == "GET" or key is not None
        loop = asyncio.get_running_loop()
        until, doubt = loop.time() + self._timeout, False
        for attempt in range(ATTEMPTS):
            least = 0.0
            try:
                answer = await self._once(method, path, query or {}, body, told, until)
                problem = _problem(answer)
            except _UnansweredError as none:
                doubt = doubt or (none.sent and method != "GET")
                again = none.again and (repeatable or not none.sent)
                error = _lost(none.message, doubt=doubt)
            else:
                if problem is None:
                    return answer
                again = _is_worth_repeating(problem, repeatable=repeatable, doubt=doubt)
                least = problem.retry_after or 0.0
                error = _in_doubt(problem) if doubt and problem.status in _UNDECIDED else problem
            pause = max(least, _FIRST_WAIT_S * 2**attempt * (0.5 + self._draw()))
            if not again or attempt + 1 == ATTEMPTS or loop.time() + pause >= until:
                raise error
            await self._wait(pause)
        raise AssertionError("the last attempt answers or raises")

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: str | None,
        headers: Mapping[str, str],
        until: float,
    ) -> Answer:
        given = {name: _parameter(value) for name, value in query.items() if value is not None}
        asked = f"?{urlencode(given, quote_via=quote)}" if given else ""
        session = self._opened()
        left = max(0.001, until - asyncio.get_running_loop().time())
        try:
            async with session.request(
                method,
                URL(f"{self.base_url}{path}{asked}", encoded=True),
                data=None if body is None else body.encode(),
                headers={**self._headers(body is not None), **headers},
                allow_redirects=False,
                ssl=self._ssl,
                timeout=aiohttp.ClientTimeout(total=left, sock_connect=left * _CONNECTING),
            ) as response:
                text = (await response.read()).decode()
                return Answer(response.status, response.headers, text)
        except aiohttp.ClientConnectorCertificateError:
            raise _UnansweredError(
                "the service's certificate is not trusted, or is another's: give the CA that"
                " signed it as `ca`", sent=False, again=False,
            ) from None  # fmt: skip
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise _UnansweredError("the service cannot be reached", sent=False) from None
        except TimeoutError:
            raise _UnansweredError("the service has not answered in time", sent=True) from None
        except aiohttp.ClientError:
            raise _UnansweredError("the connection broke before the answer", sent=True) from None
        except UnicodeDecodeError:
            raise _UnansweredError("what answers is not svsync", sent=True, again=False) from None

    def _headers(self, has_body: bool) -> dict[str, str]:
        token = self._token() if callable(self._token) else self._token
        headers = {
            "Authorization": f"Bearer {_check_token(token)}",
            "Accept": "application/json",
            "User-Agent": f"svsync-client/{__version__}",
        }
        if self._request_ids is not None:
            headers["X-Request-Id"] = self._request_ids()
        return {**headers, "Content-Type": "application/json"} if has_body else headers

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise SvsyncError("the client is closed: make another", code="client_closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
            # It would send a DELETE again whose answer did not come. What is sent again is
            # decided above, and nowhere else.
            self._session._retry_connection = False
        return self._session

    def abandon(self) -> None:
        """Leave the connections to the process that this one was forked from."""
        if self._session is not None:
            self._session.detach()
            self._session = None

    async def close(self) -> None:
        """Close the connections. No call can be made any more."""
        self._closed = True
        if self._session is not None:
            await self._session.close()


def new_key() -> str:
    """An `Idempotency-Key` that nobody has."""
    return str(uuid.uuid4())


def key_of(given: str | None) -> str:
    """The one that was given, or a new one. Raises SvsyncError `invalid_argument`."""
    if given is not None and not _KEY.fullmatch(given):
        raise unusable("idempotency_key is one word of at most 255 visible ASCII characters")
    return given or new_key()


def segment(text: str, what: str) -> str:
    """A name as one part of a path. Raises SvsyncError `invalid_argument`: it cannot be one."""
    if not text or text in (".", ".."):
        raise unusable(f"{what} is missing: name one")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise unusable(f"{what} holds half a surrogate pair") from None


def at_revision(rev: int | None) -> dict[str, str]:
    """The header that asks for a revision to stand."""
    return {} if rev is None else {"If-Match": f'"r{rev}"'}


def body_text(members: Mapping[str, Any], data: str) -> str:
    """A body with `data` as the exact text that it is."""
    rest = encode(members).removeprefix("{")
    return f'{{"data": {data}{", " if members else ""}{rest}'


# --- what is wrong --------------------------------------------------------------------


def not_svsync(status: int) -> SvsyncError:
    return SvsyncError(
        f"what answers is not svsync's API (status {status}): look at base_url",
        code="not_svsync",
    )


def _lost(message: str, *, doubt: bool) -> SvsyncError:
    if doubt:
        return SvsyncError(
            f"{message}, after a change was sent: nobody knows whether it was done, so look"
            " before you ask for it again",
            code="outcome_unknown",
        )
    return SvsyncError(f"{message}: look at base_url and the network", code="service_unreachable")


def _in_doubt(last: SvsyncError) -> SvsyncError:
    """An attempt before was sent and not answered, and this one was turned away unlooked at."""
    return SvsyncError(
        "a change was sent and not answered, and now the service does not say whether it was"
        f" done ({last.code}): look before you ask for it again",
        code="outcome_unknown",
        status=last.status,
        request_id=last.request_id,
        retry_after=last.retry_after,
    )


def _is_worth_repeating(problem: SvsyncError, *, repeatable: bool, doubt: bool) -> bool:
    if problem.code == "rate_limited":
        return True  # it was turned away before anything else
    if doubt and problem.code in _AGAIN_IN_DOUBT:
        return True  # the attempt before is still under way
    return repeatable and problem.status == 503


def _problem(answer: Answer) -> SvsyncError | None:
    """The error that an answer is. Raises _UnansweredError where something on the way to the
    service failed in its place."""
    if answer.status < 300:
        return None
    if answer.status < 400:
        return SvsyncError(
            f"the address answers with a redirect (status {answer.status}), which is not"
            " followed: give the one that it leads to as base_url",
            code="redirected",
        )
    try:
        told = json.loads(answer.text)["error"]
        code, message, request_id = (told[name] for name in ("code", "message", "request_id"))
        known = all(isinstance(one, str) for one in (code, message, request_id))
    except (ValueError, KeyError, TypeError, RecursionError):
        known = False
    if not known:
        if answer.status >= 500:
            raise _UnansweredError(
                f"something before the service answers in its place (status {answer.status})",
                sent=True,
            )
        return not_svsync(answer.status)
    return SvsyncError(
        message,
        code=code,
        status=answer.status,
        request_id=request_id,
        field=told.get("field"),
        push_id=told.get("push_id"),
        conflict=told.get("conflict"),
        retry_after=_seconds(answer.headers.get("Retry-After")),
    )


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,6}", text) else None


# --- what was given -------------------------------------------------------------------


def _checked(base_url: str, *, allow_http: bool) -> tuple[str, bool]:
    """The address without a slash at its end, and whether it is https."""
    parts = split_endpoint(base_url)
    if isinstance(parts, str):
        raise unusable(f"base_url {parts.replace('vault.internal:8200', 'svsync.internal:8443')}")
    secure = parts.scheme == "https"
    if not secure and not allow_http and not is_loopback(parts.hostname or ""):
        raise unusable(
            "base_url must begin with https://, or the token and every value could be read on the"
            " way; plain http is for loopback"
        )
    return base_url.rstrip("/"), secure


def _check_token(token: object) -> str:
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise unusable("token is one word of visible ASCII characters")
    return token


def _context(ca: str | os.PathLike[str] | ssl.SSLContext | None) -> ssl.SSLContext:
    if isinstance(ca, ssl.SSLContext):
        return ca
    try:
        return ssl.create_default_context(cafile=None if ca is None else os.fspath(ca))
    except (OSError, ssl.SSLError, ValueError):
        raise unusable("ca is no readable file of CA certificates in PEM") from None


def _parameter(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
