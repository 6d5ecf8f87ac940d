"""The short way of a plain read: `GET /v1/secrets/{path}`, asked thousands of times a second.

A request that came whole, in one piece, and is exactly of the form below is answered here,
where its caller is remembered and what it asks for is at hand. Any other, and any that would
be answered with anything but 200, goes the long way through the application, from its first
byte, as if nothing had been: so each rule has one place, an error is made there alone, and
no request is understood here that would be understood otherwise there.

    GET /v1/secrets/PATH HTTP/1.1     a local path, nothing encoded, no query
    Host, Authorization: once each    and of the rest `_HEADERS`, each once at most

What is decided and recorded is decided and recorded by the same code: see `Reading.glance`.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from svsync.domain.access import Call, token_hash
from svsync.domain.errors import SvsyncError
from svsync.domain.ids import LocalPath
from svsync.domain.limits import Category
from svsync.domain.paths import IllegalPath, parse_local
from svsync.http.addresses import Addresses
from svsync.http.answers import HEADERS, NOT_KEPT
from svsync.http.limits import Limits
from svsync.observe.logs import get_logger
from svsync.observe.meter import Meter
from svsync.services.answers import Secret
from svsync.services.authority import Authority, Known, Rights
from svsync.services.reading import Glance, Reading

LONGEST: Final = 4096
"""Bytes of a request that goes the short way."""
GIVEN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""An id that a request may bring itself."""
ROUTE: Final = "/v1/secrets/{path}"
ASKED: Final = web.RequestKey("asked", Glance)
"""Of a request that went the short way before the long one: what came of that. Where it could
not be recorded it is not tried again."""

_KEPT: Final = 1024
"""Bytes of a request of which is kept what it says."""
_ROOM: Final = 32_768
"""Requests of which that is kept; beyond it all are read anew."""
_BEGIN: Final = b"GET /v1/secrets/"
_END: Final = b"\r\n\r\n"
_LINE_END: Final = b" HTTP/1.1\r\n"
_HEADER: Final = re.compile(r"([A-Za-z-]+): ([!-~]+(?: [!-~]+)*)")
_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "connection",
        "host",
        "user-agent",
        "x-forwarded-for",
        "x-request-id",
    }
)
_ALWAYS: Final = "".join(f"{name}: {value}\r\n" for name, value in {**HEADERS, **NOT_KEPT}.items())


class Teller(Protocol):
    """Tells of a request in the log, or counts it until it does."""

    def __call__(self, call: Call, path: str, seconds: float) -> None: ...


@dataclass(slots=True)
class Asked:
    """What a plain read says, and what was found out of it, as most come again byte by byte.

    Attributes:
        token: its hash.
        forwarded: what stands in `X-Forwarded-For`.
        request_id: that it brings.
        known: what is remembered of the token.
        readers: the rights by which the path may be read.
    """

    path: LocalPath
    token: bytes
    forwarded: tuple[str, ...]
    request_id: str | None
    known: Known | None = None
    readers: Rights | None = None


class ShortWay:
    """Answers plain reads at the connections of one listener."""

    def __init__(
        self,
        reading: Reading,
        authority: Authority,
        limits: Limits,
        addresses: Addresses,
        *,
        ids: Callable[[str], str],
        meter: Meter,
        tell: Teller,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Arguments as of `make_server`."""
        self._reading = reading
        self._authority = authority
        self._limits = limits
        self._addresses = addresses
        self._ids = ids
        self._meter = meter
        self._tell = tell
        self._clock = clock
        self._asked: dict[bytes, Asked] = {}

    def take(
        self, data: bytes, peer: object, answer: Callable[[bytes | None], None]
    ) -> Glance | None:
        """Begin to answer a request; None: it is for the long way.

        `answer` is called once, later, and raises nothing: with the bytes of the answer, or with
        None where it is for the long way after all. Who is gone cancels its `told`.
        """
        if not _begins(data):
            return None
        mark = hashlib.sha256(data).digest()  # not the request itself: a token stands in it
        asked = self._asked.get(mark) or read(data)
        if asked is None:
            return None
        began = self._clock()
        rights = None if asked.known is None else asked.known.at(began)
        if rights is None:
            asked.known = self._authority.known(asked.token)
            rights = None if asked.known is None else asked.known.at(began)
            if rights is None:
                return None
        if asked.readers is not rights:
            # First: how long a refusal takes tells nobody what others read.
            if not self._reading.may(rights, asked.path):
                return None
            asked.readers = rights
            self._keep(mark, asked, len(data))
        caller = rights.caller
        address = self._addresses.told(peer, asked.forwarded)
        call = Call(caller, asked.request_id or self._ids("req"), address)
        try:
            self._limits.take(caller, Category.SECRETS_READ)
        except SvsyncError:
            return None
        try:
            glance = self._reading.glance(
                call, asked.path, partial(self._done, call, began, answer)
            )
        except SvsyncError:
            glance = None
        if glance is None:
            self._limits.give_back(caller, Category.SECRETS_READ)
            return None
        return glance

    def _keep(self, mark: bytes, asked: Asked, size: int) -> None:
        """Whoever may read it asks for it again; what brings its own id does not come again."""
        if asked.request_id is None and size <= _KEPT:
            if len(self._asked) >= _ROOM:
                self._asked.clear()
            self._asked[mark] = asked

    def _done(
        self, call: Call, began: float, answer: Callable[[bytes | None], None], glance: Glance
    ) -> None:
        made = None
        try:
            found = glance.secret
            if glance.told.error is None and found is not None:
                seconds = self._clock() - began
                mode = "local" if found.source is None else "proxy"
                self._meter.read_served(call.caller.slug, mode, "ok", seconds)
                self._tell(call, glance.path, seconds)
                made = _answer(found, call.request_id)
            else:
                if glance.told.error is not None:
                    # It is answered with that, which leads back here: a value would stay in memory.
                    glance.secret = glance.heard = None
                self._limits.give_back(call.caller, Category.SECRETS_READ)
        except Exception as bug:  # noqa: BLE001 - others of the batch have no part in it
            get_logger().error("short_way_failed", exc_info=bug)
        answer(made)


def _answer(found: Secret, request_id: str) -> bytes:
    body = found.body
    version = "" if found.version is None else f'ETag: "v{found.version}"\r\n'
    conflict = "X-SVSync-Conflict: true\r\n" if found.in_conflict else ""
    source = "" if found.source is None else f"X-SVSync-Source: {found.source}\r\n"
    head = (
        f"HTTP/1.1 200 OK\r\n{version}{conflict}{source}"
        f"Content-Type: application/json\r\n{_ALWAYS}X-Request-Id: {request_id}\r\n"
        f"Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n\r\n"
    )
    return head.encode("ascii") + body


def _begins(data: bytes) -> bool:
    return len(data) <= LONGEST and data.startswith(_BEGIN)


def read(data: bytes) -> Asked | None:
    """A request that came whole, where it is a plain read."""
    if not _begins(data) or data.find(_END) != len(data) - len(_END):
        return None
    end = data.find(_LINE_END)
    try:
        path = parse_local(data[len(_BEGIN) : end].decode("ascii"))
    except (IllegalPath, UnicodeDecodeError):
        return None
    given = _headers_of(data[end + len(_LINE_END) : -len(_END)])
    if given is None:
        return None
    forwarded, request_id = given.get("x-forwarded-for"), given.get("x-request-id")
    return Asked(
        path,
        token_hash(given["token"]),
        () if forwarded is None else (forwarded,),
        request_id if request_id is not None and GIVEN_ID.fullmatch(request_id) else None,
    )


def _headers_of(raw: bytes) -> dict[str, str] | None:
    """The headers of a plain read by their names in small letters, and its `token`; None: they
    are those of another request."""
    given: dict[str, str] = {}
    for text in raw.decode("latin-1").split("\r\n"):
        header = _HEADER.fullmatch(text)
        if header is None:
            return None
        name = header[1].lower()
        if name not in _HEADERS or name in given:
            return None
        given[name] = header[2]
    scheme, _, token = given.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or "host" not in given:
        return None
    if given.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return given | {"token": token}
