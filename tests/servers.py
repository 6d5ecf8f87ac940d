"""Servers that stand between svsync and a real one, and misbehave on request.

`FaultyTcp` breaks connections; `Front` answers chosen HTTP routes itself and
hands everything else through. Both live on loopback and end with their block.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Self

import aiohttp
from aiohttp import web
from tests.patience import PATIENCE_S

Fault = Literal["none", "refuse", "reset", "tear", "hold", "hang", "mute", "cut"]


@dataclass(slots=True)
class _Strike:
    """A fault for the requests whose first line matches, each `every`th, `left` times."""

    line: re.Pattern[bytes]
    fault: Fault
    every: int
    left: float
    seen: int = 0

    def meets(self, block: bytes) -> bool:
        if self.left <= 0 or not self.line.match(block):
            return False
        self.seen += 1
        if self.seen % self.every:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class _Way:
    """One connection through the proxy, and the fault that struck it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    up_reader: asyncio.StreamReader
    up_writer: asyncio.StreamWriter
    fault: Fault = "none"
    taken: bytes = b""
    sent: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)


async def accept_no_more(server: asyncio.Server) -> None:
    """Before a server is closed: asyncio leaks a connection that it has accepted and not yet
    handed out. None is accepted any more, and those are handed out."""
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(3):
        await asyncio.sleep(0)


async def stop(runner: web.AppRunner, site: web.TCPSite) -> None:
    """End an application and its one place, those included who still greet it over TLS: the
    application does not know of them, and asyncio leaks them."""
    server = site._server
    if isinstance(server, asyncio.Server):
        await accept_no_more(server)
        known = runner.server
        async with asyncio.timeout(PATIENCE_S):
            while known and _many(server) > len(known.connections):  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.01)
    await runner.cleanup()


def _many(server: asyncio.Server) -> int:
    """Connections of a server, those included that are not greeted yet."""
    many: int = vars(server)["_active_count"]
    return many


class FaultyTcp:
    """A TCP proxy to `target`; `fault` applies to what comes next.

    refuse: a new connection is closed at once; reset: it is aborted after the
    first bytes; tear: half of them arrive, and it is aborted; hold: they arrive
    once it is `let_go`, whoever still waits for their answer; hang: they are taken
    and nothing is answered; mute: they arrive, and the answer is kept back; cut: the
    answer ends after `cut_after` bytes. `delay` seconds pass before each answer.
    `strike` chooses single requests instead; `shut` lets nothing connect at all.

    Attributes:
        struck: requests that a strike has met.
        kept: set once a request (hold, hang) or its answer (mute) is kept back whole.
        arrived: requests that were held and have been answered, to nobody.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.fault: Fault = "none"
        self.cut_after = 0
        self.delay = 0.0
        self.connections = 0
        self.struck = 0
        self.arrived = 0
        self.kept = asyncio.Event()
        self.port = 0
        self._strikes: list[_Strike] = []
        self._released = asyncio.Event()
        self._reserved: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def strike(self, line: str, fault: Fault, *, every: int = 1, times: float = 1) -> None:
        """Requests whose `METHOD /path` matches meet `fault`."""
        self._released.clear()
        self._strikes.append(_Strike(re.compile(line.encode()), fault, every, times))

    def let_go(self) -> None:
        """What is held arrives now."""
        self._released.set()

    async def open(self) -> None:
        """Take connections, on the port of before where there was one."""
        if self._reserved is None:
            # While nobody listens, nobody else is given the port either.
            self._reserved = socket.socket()
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._reserved.bind(("127.0.0.1", 0))
            self.port = self._reserved.getsockname()[1]
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, reuse_port=True
        )

    async def shut(self) -> None:
        """From now on nobody listens, and no connection is left."""
        assert self._server is not None
        await accept_no_more(self._server)
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shut()
        if self._reserved is not None:
            self._reserved.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a task of the server's own: it is to be known, and to close what it was given,
        also where it is cancelled before it has begun."""
        self.connections += 1
        task = asyncio.create_task(self._take(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self.fault != "refuse":
                await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = _Way(reader, writer, *await asyncio.open_connection(*self.target))
        ends = {asyncio.create_task(self._forth(way)), asyncio.create_task(self._back(way))}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            way.up_writer.close()  # first: whoever is cancelled below comes no further
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _forth(self, way: _Way) -> None:
        while block := await way.reader.read(65536):
            fault = self._fault_of(way, block)
            if fault == "tear":
                way.up_writer.write(block[: len(block) // 2])
                await way.up_writer.drain()
            if fault in ("reset", "tear"):
                way.writer.transport.abort()
                return
            if fault in ("hold", "hang"):
                way.taken += block
                if not _is_whole(way.taken):
                    continue
                self.kept.set()
            if fault == "hold":
                block, way.taken = way.taken, b""
                await self._released.wait()
            if fault != "hang":
                way.up_writer.write(block)
                await way.up_writer.drain()
        if way.fault == "hold":  # its sender has gone; a request without one may be dropped
            await way.answered.wait()
            self.arrived += 1

    def _fault_of(self, way: _Way, block: bytes) -> Fault:
        if self.fault != "none":
            return self.fault
        for strike in self._strikes:
            if strike.meets(block):
                self.struck += 1
                way.sent = 0
                way.answered.clear()  # earlier requests on this connection were
                way.fault = strike.fault
                break
        return way.fault

    async def _back(self, way: _Way) -> None:
        while block := await way.up_reader.read(65536):
            way.answered.set()
            if self.delay:
                await asyncio.sleep(self.delay)
            if "mute" in (self.fault, way.fault):
                self.kept.set()
                continue
            cut = "cut" in (self.fault, way.fault)
            if cut:
                block = block[: max(0, self.cut_after - way.sent)]
            way.writer.write(block)
            await way.writer.drain()
            way.sent += len(block)
            if cut and way.sent >= self.cut_after:
                return


def _is_whole(request: bytes) -> bool:
    """Is this all of a request, its body included?"""
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


Answer = Callable[[web.Request], Awaitable[web.StreamResponse] | web.StreamResponse]


class Front:
    """An HTTP front for `target` (an URL): `rules` answer, the rest passes through.

    `seen` lists `METHOD /path` of every request, refused ones too.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.rules: list[tuple[re.Pattern[str], Answer]] = []
        self.seen: list[str] = []
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._session: aiohttp.ClientSession | None = None
        self.url = ""

    def answer(self, pattern: str, answer: Answer) -> None:
        """Requests whose `METHOD /path` matches `pattern` get `answer`."""
        self.rules.append((re.compile(pattern), answer))

    def refuse(
        self, pattern: str, status: int, body: str = '{"errors":["refused by front"]}'
    ) -> None:
        self.answer(
            pattern,
            lambda _: web.Response(status=status, text=body, content_type="application/json"),
        )

    def html(self, pattern: str, status: int = 200) -> None:
        page = "<html><body>Please sign in</body></html>"
        self.answer(
            pattern, lambda _: web.Response(status=status, text=page, content_type="text/html")
        )

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        assert self._session is not None
        assert self._site is not None
        await stop(self._runner, self._site)
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path}"
        self.seen.append(line)
        for pattern, answer in self.rules:
            if pattern.search(line):
                made = answer(request)
                return made if isinstance(made, web.StreamResponse) else await made
        return await self.forward(request)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """What the real server answers to `request`."""
        assert self._session is not None
        headers = {k: v for k, v in request.headers.items() if k.lower().startswith("x-vault")}
        async with self._session.request(
            request.method,
            f"{self.target}{request.raw_path}",
            data=await request.read(),
            headers=headers,
            allow_redirects=False,
        ) as answer:
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() in {"content-type", "retry-after", "location", "date"}
            }
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


@asynccontextmanager
async def hanging_server() -> AsyncIterator[str]:
    """An URL whose server takes connections and never answers."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                while await reader.read(65536):
                    pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
