"""What is answered to clients that are slow, huge, many, gone, or speak no HTTP?

The server is the real one, on a socket; only the services below it are a few lines, which
note what they were asked for. Bytes are written as they stand here.
"""

import asyncio
import json
import math
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tests.api import DOCUMENT, ROBOT
from tests.patience import PATIENCE_S
from tests.program import until

from svsync.config.model import LogFormat, LogLevel, Settings
from svsync.domain.access import Caller, Scope
from svsync.domain.ids import RunId, TenantId
from svsync.domain.policies import ADMIN
from svsync.http import body, connections, listening
from svsync.http.listening import Listener
from svsync.http.server import Api, make_server
from svsync.observe.logs import configure
from svsync.services.authority import Rights

SYNC = b"POST /v1/federation/backends/fed_a/sync HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n"
LAST = b"Connection: close\r\n"
ASKING = b"Expect: 100-continue\r\n"
NEVER = 3600.0
PROBE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
RUN = RunId("run_" + "0" * 32)
ERROR = Draft202012Validator(
    {"$ref": "#/components/schemas/Error", "components": DOCUMENT["components"]}
)


@dataclass(frozen=True)
class Run:
    run_id: RunId = RUN
    coalesced: bool = False


@dataclass
class Services:
    """Everybody may do everything; what was asked for is noted.

    Attributes:
        known: callers are known once it is set, before their body is read.
        go: a trigger is answered once it is set.
    """

    asked: list[object] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    known: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def verify(self, text: str, *_: object) -> Rights:
        await self.known.wait()
        caller = Caller(TenantId(1), "default", ROBOT, text, frozenset({Scope.ADMIN}))
        return Rights(caller, ADMIN, math.inf)

    async def require_scope(self, *_: object) -> None:
        """Nobody lacks any."""

    async def note(self, *_: object, **__: object) -> None:
        """Nothing is recorded."""

    async def trigger(self, *_: object, **asked: object) -> Run:
        self.asked.append(asked)
        self.entered.set()
        await self.go.wait()
        return Run()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> tuple[int, str]:
        """Status and code of an error, which is one as the document has it."""
        found = json.loads(self.body)
        ERROR.validate(found)
        assert self.headers["x-request-id"] == found["error"]["request_id"]
        return self.status, found["error"]["code"]


class Wire:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *parts: bytes) -> None:
        """Each part is written once the one before is understood as far as it says
        `Expect`."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            if ASKING in part:
                assert (await self._head()).startswith(b"HTTP/1.1 100 ")

    async def reply(self) -> Reply:
        head = await self._head()
        first, *lines = head.decode().split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        async with asyncio.timeout(PATIENCE_S):
            told = await self._reader.readexactly(int(headers["content-length"]))
        return Reply(int(first.split(" ")[1]), headers, told)

    async def _head(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.read()

    def reset(self) -> None:
        """Go away without a word."""
        own: socket.socket = self._writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()


@dataclass
class Line:
    """A server, and the way to it."""

    listener: Listener
    services: Services
    log: StringIO
    wires: list[Wire] = field(default_factory=list)

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection(self.listener.host, self.listener.port))
        self.wires.append(wire)
        return wire

    async def served_wire(self) -> Wire:
        """A connection that has been used, and waits."""
        wire = await self.wire()
        await wire.send(PROBE)
        assert (await wire.reply()).status == 200
        return wire

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def requests(self) -> list[tuple[int, str]]:
        """Status and code of each request that the log tells of."""
        return [(x["status"], x["error_code"]) for x in self.lines() if x["event"] == "request"]

    def complaints(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["level"] in ("warn", "error")]


@pytest.fixture
def log() -> Iterator[StringIO]:
    stream = StringIO()
    configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    yield stream
    configure(LogLevel.INFO, LogFormat.JSON)


@asynccontextmanager
async def open_line(
    folder: Path, log: StringIO, app: web.Application | None = None, *, grace: float = 5
) -> AsyncIterator[Line]:
    services = Services()
    services.known.set()
    given: dict[str, Any] = dict.fromkeys(one.name for one in fields(Api))
    own = {"authority": services, "authorizing": services, "scheduling": services}
    api = Api(**given | own)
    settings = Settings(state_dir=str(folder), bind_address="127.0.0.1:0")
    async with listening.listening(app or make_server(api), settings, grace=grace) as listener:
        line = Line(listener, services, log)
        try:
            yield line
        finally:
            for wire in line.wires:
                wire.close()


@pytest_asyncio.fixture
async def line(tmp_path: Path, log: StringIO) -> AsyncIterator[Line]:
    async with open_line(tmp_path, log) as opened:
        opened.services.go.set()
        yield opened


def with_length(*parts: bytes) -> bytes:
    """A trigger with a body, on a connection that ends with it."""
    sent = b"".join(parts)
    return SYNC + LAST + b"Content-Length: %d\r\n\r\n" % len(sent) + sent


def let_pass(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's clock goes on by so much at once."""
    loop = asyncio.get_running_loop()
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + seconds)


# --- gone -------------------------------------------------------------------------


async def test_client_that_goes_away_in_its_body_is_told_as_a_request_and_no_error(
    line: Line,
) -> None:
    wire = await line.wire()
    await wire.send(SYNC + ASKING + b"Content-Length: 100\r\n\r\n", b'{"paths": [')
    wire.reset()
    await until(lambda: bool(line.requests()))
    assert line.requests() == [(400, "body_cut_off")]
    assert line.complaints() == []
    assert line.services.asked == []


async def test_client_that_ends_its_side_within_its_body_gets_no_answer(line: Line) -> None:
    wire = await line.wire()
    await wire.send(SYNC + ASKING + b"Content-Length: 100\r\n\r\n", b'{"paths": [')
    wire._writer.write_eof()
    assert await wire.rest() == b""
    await until(lambda: bool(line.requests()))
    assert line.requests() == [(400, "body_cut_off")]
    assert line.complaints() == []


# --- slow -------------------------------------------------------------------------


async def test_slow_head_is_ended_and_an_idle_connection_is_not(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.05)
    idle = await line.served_wire()
    await idle.send(b"\r\n")  # an empty line begins no request
    slow = await line.served_wire()
    await slow.send(b"GET /healthz HTTP/1.1\r\nHost:")
    reply = await slow.reply()
    assert reply.told == (408, "request_timeout")
    assert reply.headers["connection"] == "close"
    assert await slow.rest() == b""
    await idle.send(PROBE)
    assert (await idle.reply()).status == 200
    assert line.requests() == [(200, None), (200, None), (408, "request_timeout"), (200, None)]
    assert line.complaints() == []


async def test_slow_head_behind_another_request_is_ended_as_any(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.05)
    start = b"GET /healthz HTTP/1.1\r\nHost:"
    wire = await line.wire()
    await wire.send(PROBE + PROBE + start)
    assert [(await wire.reply()).status for _ in range(2)] == [200, 200]
    assert (await wire.reply()).told == (408, "request_timeout")
    assert await wire.rest() == b""
    # The same where it came while the one before was under way.
    line.services.go.clear()
    wire = await line.wire()
    await wire.send(SYNC + b"Content-Length: 2\r\n\r\n{}")
    await line.services.entered.wait()
    await wire.send(b"\r\n" + start)
    await line.served_wire()  # so the server has those bytes too
    line.services.go.set()
    assert (await wire.reply()).status == 202
    assert (await wire.reply()).told == (408, "request_timeout")
    assert await wire.rest() == b""
    assert line.complaints() == []


async def test_head_that_began_behind_another_request_is_taken_once_it_is_whole(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = await line.wire()
    await wire.send(PROBE + PROBE[:20])
    assert (await wire.reply()).status == 200
    await wire.send(PROBE[20:] + b"\r\n")
    assert (await wire.reply()).status == 200
    let_pass(connections.HEAD_S + 1, monkeypatch)
    await line.served_wire()
    await wire.send(PROBE)  # what ended there was idle, and no slow head
    assert (await wire.reply()).status == 200
    assert line.complaints() == []


async def test_head_that_is_whole_in_time_leaves_no_limit_behind(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limit is over while the handler works."""
    line.services.go.clear()
    wire = await line.wire()
    await wire.send(SYNC[:20])
    await line.served_wire()  # so the server has those bytes too
    await wire.send(SYNC[20:] + LAST + b"Content-Length: 2\r\n\r\n{}")
    await line.services.entered.wait()
    let_pass(connections.HEAD_S + 1, monkeypatch)
    await line.served_wire()
    line.services.go.set()
    assert (await wire.reply()).status == 202


async def test_slow_body_is_ended(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_S", 0.05)
    monkeypatch.setattr(connections, "LINGER_S", NEVER)
    wire = await line.wire()
    await wire.send(SYNC + b"Content-Length: 100\r\n\r\n{")
    reply = await wire.reply()
    assert reply.told == (408, "request_timeout")
    assert reply.headers["connection"] == "close"
    assert await wire.rest() == b""
    assert line.services.asked == []
    assert line.complaints() == []


async def test_connection_that_stays_idle_is_closed(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0.05)
    unused = await line.wire()
    used = await line.served_wire()
    assert (await unused.rest(), await used.rest()) == (b"", b"")


async def test_client_that_takes_nothing_of_its_answer_is_cut_off(
    tmp_path: Path, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ANSWER_S", 0.05)

    transports: list[asyncio.Transport | None] = []

    async def much(request: web.Request) -> web.Response:
        transports.append(request.transport)
        return web.Response(body=bytes(32 * 1024 * 1024))

    app = web.Application()
    app.router.add_get("/healthz", much)
    async with open_line(tmp_path, log, app) as line:
        with socket.create_connection((line.listener.host, line.listener.port)) as client:
            client.sendall(PROBE)
            await until(lambda: bool(transports))
            [transport] = transports
            assert transport is not None
            await until(transport.is_closing)
    assert line.complaints() == []


async def test_client_that_takes_its_answer_in_time_gets_all_of_it_and_the_next(
    tmp_path: Path, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 8 * 1024 * 1024

    async def much(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(size))

    app = web.Application()
    app.router.add_get("/healthz", much)
    async with open_line(tmp_path, log, app) as line:
        wire = await line.wire()
        for _ in range(2):
            await wire.send(PROBE)
            assert len((await wire.reply()).body) == size
            let_pass(connections.ANSWER_S + 1, monkeypatch)
            await line.served_wire()


# --- large and many ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"GET /" + b"x" * connections.MAX_LINE + b" HTTP/1.1\r\n\r\n", (431, "head_too_large")),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (connections.MAX_LINE + 1) + b"\r\n\r\n",
            (431, "head_too_large"),
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X" * (connections.MAX_LINE + 1) + b": x\r\n\r\n",
            (431, "head_too_large"),
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * connections.MAX_HEADERS + b"\r\n",
            (400, "malformed_request"),
        ),
        (
            (b"GET / HTTP/1.1\r\n" + (b"X: " + b"x" * 8000 + b"\r\n") * 9)[
                : connections.MAX_HEAD + 1
            ],
            (431, "head_too_large"),
        ),
        (
            SYNC + b"Content-Length: %d\r\n\r\n" % (body.MAX_BODY + 1),
            (413, "body_too_large"),
        ),
    ],
    ids=["line", "header", "name", "headers", "head", "length"],
)
async def test_what_is_too_large_is_refused_before_it_has_come(
    line: Line, sent: bytes, told: tuple[int, str]
) -> None:
    wire = await line.wire()
    await wire.send(sent)
    assert (await wire.reply()).told == told
    assert line.requests() == [told]
    assert line.complaints() == []


async def test_just_not_too_large_is_taken(line: Line) -> None:
    wire = await line.wire()
    room = connections.MAX_LINE - len(b"/v1/")
    await wire.send(
        b"GET /v1/" + b"x" * room + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n"
    )
    assert (await wire.reply()).told == (404, "not_found")
    await wire.send(with_length(b"{}".ljust(body.MAX_BODY)))
    assert (await wire.reply()).status == 202


async def test_where_all_connections_are_taken_the_longest_idle_one_gives_way(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    line.services.go.clear()
    busy = await line.wire()
    await busy.send(with_length(b"{}"))
    await line.services.entered.wait()
    older, newer = await line.served_wire(), await line.served_wire()
    await line.served_wire()
    assert await older.rest() == b""
    await newer.send(PROBE)
    assert (await newer.reply()).status == 200
    line.services.go.set()
    assert (await busy.reply()).status == 202
    assert line.complaints() == []


async def test_where_none_is_idle_one_more_is_turned_away(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)
    line.services.go.clear()
    busy = await line.wire()
    await busy.send(with_length(b"{}"))
    await line.services.entered.wait()
    more = await line.wire()
    reply = await more.reply()
    assert reply.told == (503, "too_many_connections")
    assert reply.headers["retry-after"] == "1"
    assert await more.rest() == b""
    line.services.go.set()
    assert (await busy.reply()).status == 202
    assert await busy.rest() == b""
    await line.served_wire()
    assert line.complaints() == []


# --- no HTTP ----------------------------------------------------------------------

CHUNKED = SYNC + b"Transfer-Encoding: chunked\r\n\r\n"
HEAD = b"GET /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: x\n\n",
        b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n",
        b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[::1/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/x?a=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        HEAD + b"X: a\r\n b\r\n\r\n",
        HEAD + b"X: a\rY: b\r\n\r\n",
        HEAD + b"X: \x00\r\n\r\n",
        HEAD + b": b\r\n\r\n",
        HEAD + b"secret-text\r\n\r\n",
        SYNC + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        SYNC + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(PROBE) + PROBE,
        SYNC + b"Content-Length: 0, 0\r\n\r\n" + PROBE,
        SYNC + b"Content-Length: +2\r\n\r\n{}",
        SYNC + b"Content-Length: -2\r\n\r\n{}",
        SYNC + b"Content-Length: 0x2\r\n\r\n{}",
        SYNC + b"Content-Length:\r\n\r\n" + PROBE,
        SYNC + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        SYNC + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + PROBE,
        SYNC + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + PROBE,
        SYNC + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + PROBE,
        SYNC + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + PROBE,
        SYNC + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + PROBE,
        SYNC + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + PROBE,
        SYNC
        + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
        + PROBE,
        SYNC.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + PROBE,
        CHUNKED + b"secret-text\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n" + PROBE,
        CHUNKED + b"2\n{}\n0\n\n" + PROBE,
    ],
)
async def test_what_is_no_http_is_one_error_and_the_end(line: Line, sent: bytes) -> None:
    wire = await line.wire()
    await wire.send(sent)
    reply = await wire.reply()
    assert reply.told == (400, "malformed_request")
    assert await wire.rest() == b""
    assert line.requests() == [(400, "malformed_request")]
    assert line.complaints() == []
    assert line.services.asked == []
    assert "secret-text" not in f"{reply} {line.log.getvalue()}"


@pytest.mark.parametrize(
    "rest",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"ffffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}}\r\n0\r\n\r\n",
        b"2\n{}\n0\n\n",
        b"2\r\n{}\r\n0\r\nno trailer\r\n\r\n",
        b"2\r\n{}\r\n0\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
    ],
)
async def test_chunks_that_turn_out_to_be_none_end_their_request(line: Line, rest: bytes) -> None:
    wire = await line.wire()
    await wire.send(SYNC + ASKING + b"Transfer-Encoding: chunked\r\n\r\n", rest + PROBE)
    assert (await wire.reply()).told == (400, "malformed_body")
    assert await wire.rest() == b""
    assert line.requests() == [(400, "malformed_body")]
    assert line.complaints() == []
    assert line.services.asked == []


async def test_request_before_unreadable_chunks_is_answered_all_the_same(line: Line) -> None:
    wire = await line.wire()
    line.services.go.clear()
    await wire.send(SYNC + b"Content-Length: 2\r\n\r\n{}")
    await line.services.entered.wait()
    await wire.send(CHUNKED)
    await wire.send(b"zz\r\n")
    line.services.go.set()
    assert (await wire.reply()).status == 202
    assert (await wire.reply()).told in ((400, "malformed_body"), (400, "malformed_request"))
    assert await wire.rest() == b""
    assert len(line.services.asked) == 1
    assert line.complaints() == []


async def test_body_that_is_whole_but_unread_is_not_spoilt_by_what_follows(line: Line) -> None:
    line.services.known.clear()
    wire = await line.wire()
    await wire.send(SYNC + ASKING + b"Content-Length: 2\r\n\r\n", b"{}garbage\r\n\r\n")
    await line.served_wire()  # so the server has those bytes too
    line.services.known.set()
    assert (await wire.reply()).status == 202
    assert (await wire.reply()).told == (400, "malformed_request")
    assert await wire.rest() == b""


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (SYNC.replace(b"fed_a", b"%00"), (404, "backend_not_found")),
        (SYNC.replace(b"fed_a", b"%2e%2e"), (404, "backend_not_found")),
        (SYNC.replace(b"fed_a", b"..%2f.."), (404, "backend_not_found")),
        (SYNC.replace(b"fed_a", b"%ff%zz%"), (404, "backend_not_found")),
        (HEAD.replace(b"/v1/x", b"/v1/federation/backends/../x"), (404, "not_found")),
        (HEAD.replace(b"/v1/x", b"//x/v1/federation/backends"), (404, "not_found")),
        (HEAD.replace(b"GET /v1/x", b"OPTIONS *"), (404, "not_found")),
        (HEAD.replace(b"GET /v1/x", b"CONNECT x:1"), (404, "not_found")),
        (HEAD + b"X-Request-Id: \xff\r\nX-Forwarded-For: \xff,,\r\n", (404, "not_found")),
        (HEAD + b"Upgrade: websocket\r\n", (404, "not_found")),
        (
            HEAD.replace(b"/v1/x", b"/v1/federation/backends?limit=%ff"),
            (422, "invalid_field"),
        ),
        (
            HEAD.replace(b"/v1/x", b"/v1/federation/backends?%ed%a0%80=1"),
            (422, "unknown_field"),
        ),
    ],
)
async def test_odd_request_is_answered_in_the_form_of_errors(
    line: Line, sent: bytes, told: tuple[int, str]
) -> None:
    wire = await line.wire()
    await wire.send(sent + LAST + b"\r\n")
    reply = await wire.reply()
    assert reply.told == told
    assert await wire.rest() == b""
    assert line.complaints() == []


@pytest.mark.parametrize("expected", [b"secret-text", b"\xff", b"100-continue, secret-text"])
async def test_unknown_expectation_is_refused_and_not_repeated(line: Line, expected: bytes) -> None:
    wire = await line.wire()
    await wire.send(SYNC + b"Expect: " + expected + b"\r\nContent-Length: 2\r\n\r\n{}")
    reply = await wire.reply()
    assert reply.told == (417, "expectation_failed")
    assert await wire.rest() == b""
    assert line.complaints() == []
    assert line.services.asked == []
    assert "secret-text" not in f"{reply} {line.log.getvalue()}"


async def test_body_of_a_request_that_takes_none_is_no_second_request(line: Line) -> None:
    wire = await line.wire()
    await wire.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(PROBE) + PROBE)
    assert (await wire.reply()).told == (404, "not_found")
    await wire.send(HEAD.replace(b"/v1/x", b"/v1/y") + LAST + b"\r\n")
    assert (await wire.reply()).told == (404, "not_found")
    assert await wire.rest() == b""
    assert line.requests() == [(404, "not_found")] * 2


# --- no JSON, or not what is taken ------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"[" * 100_000, "malformed_body"),
        (b'{"a":' * 100_000, "malformed_body"),
        (b'{"paths":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed_body"),
        (b'{"full":NaN}', "malformed_body"),
        (b'{"full":1e400}', "malformed_body"),
        (b'{"full":-1e400}', "malformed_body"),
        (b'{"full":' + b"9" * 5000 + b"}", "malformed_body"),
        (b'{"\\ud800":1,"\\ud800":2}', "malformed_body"),
        (b"\xef\xbb\xbf{}", "malformed_body"),
        ('{"full":true}'.encode("utf-16"), "malformed_body"),
        (b'{"paths":["\xed\xa0\x80"]}', "malformed_body"),
        (b'{"paths":["\x01"]}', "malformed_body"),
        (b"paths=a", "malformed_body"),
        (b" ", "malformed_body"),
        (b"null", "malformed_body"),
        (b'{"paths":["\\ud800"]}', "invalid_field"),
        (b'{"paths":["a\\u0000b"]}', "invalid_field"),
        (b'{"paths":["' + b"a/" * 100_000 + b'"]}', "invalid_field"),
        (b'{"paths":["' + b"*" * 400 + b'"]}', "invalid_field"),
        (b'{"paths":[' + b",".join([b'"a"'] * 1001) + b"]}", "invalid_field"),
        (b'{"paths":["../a"]}', "invalid_field"),
        (b'{"paths":{}}', "invalid_field"),
        (b'{"full":-0}', "invalid_field"),
        (b'{"' + b"k" * 100_000 + b'":1}', "unknown_field"),
        (b"{" + b",".join(b'"k%d":1' % n for n in range(50_000)) + b"}", "unknown_field"),
        (b'{"\\ud800":1}', "unknown_field"),
        (b'{"__proto__":1}', "unknown_field"),
    ],
    ids=lambda value: re.sub(r"[^ -~]", "?", repr(value))[:24],
)
async def test_body_that_cannot_be_used_is_refused_in_a_sentence(
    line: Line, sent: bytes, told: str
) -> None:
    wire = await line.wire()
    await wire.send(with_length(sent))
    reply = await wire.reply()
    assert reply.told == (400 if told == "malformed_body" else 422, told)
    assert len(json.loads(reply.body)["error"]["message"]) < 600
    assert await wire.rest() == b""
    assert line.complaints() == []
    assert line.services.asked == []


async def test_transfer_coding_other_than_chunks_is_not_unpacked(line: Line) -> None:
    wire = await line.wire()
    coded = SYNC + LAST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    await wire.send(coded)
    assert (await wire.reply()).told == (415, "unsupported_coding")
    assert line.services.asked == []


# --- stopping ---------------------------------------------------------------------


async def test_body_that_is_still_coming_when_the_listener_stops_is_taken_and_answered(
    tmp_path: Path, log: StringIO
) -> None:
    async with open_line(tmp_path, log) as line:
        line.services.go.set()
        idle = await line.served_wire()
        wire = await line.wire()
        await wire.send(SYNC + ASKING + b"Content-Length: 14\r\n\r\n", b'{"full"')
        line.wires.clear()  # they are closed below

        async def go_on_once_it_stops() -> tuple[int, bytes]:
            assert await idle.rest() == b""
            await wire.send(b": true}" + PROBE)
            return (await wire.reply()).status, await wire.rest()

        going = asyncio.create_task(go_on_once_it_stops())
    assert await going == (202, b"")
    for open_wire in (idle, wire):
        open_wire.close()
    assert line.complaints() == []


@pytest.mark.parametrize("sent", [b"{", b"[]"], ids=["half", "whole"])
async def test_client_that_goes_away_while_the_listener_stops_does_not_hold_it_up(
    tmp_path: Path, log: StringIO, sent: bytes
) -> None:
    async with asyncio.timeout(PATIENCE_S), open_line(tmp_path, log, grace=NEVER) as line:
        idle = await line.served_wire()
        wire = await line.wire()
        await wire.send(SYNC + ASKING + b"Content-Length: 2\r\n\r\n", sent)
        line.wires.clear()

        async def leave_once_it_stops() -> None:
            assert await idle.rest() == b""
            wire.reset()

        leaving = asyncio.create_task(leave_once_it_stops())
    await leaving
    idle.close()
    assert len(line.requests()) == 2


async def test_client_whose_body_is_no_longer_wanted_does_not_hold_it_up_once_it_has_gone(
    tmp_path: Path, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGER_S", NEVER)
    async with asyncio.timeout(PATIENCE_S), open_line(tmp_path, log, grace=NEVER) as line:
        wire = await line.wire()
        await wire.send(SYNC + b"Content-Length: %d\r\n\r\n" % (body.MAX_BODY + 1))
        assert (await wire.reply()).told == (413, "body_too_large")
        wire.reset()
    assert line.complaints() == []
