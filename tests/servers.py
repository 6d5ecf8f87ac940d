"""Servers that stand between svsync and a real one, and misbehave on request.

`FaultyTcp` breaks connections; `Front` answers chosen HTTP routes itself and
hands everything else through. Both live on loopback and end with their block.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, Self

import aiohttp
from aiohttp import web

Fault = Literal["none", "refuse", "reset", "hang", "cut"]


class FaultyTcp:
    """A TCP proxy to `target`; `fault` applies to what comes next.

    refuse: a new connection is closed at once; reset: it is aborted after the
    first bytes; hang: bytes are taken and nothing is answered; cut: the answer
    ends after `cut_after` bytes. `delay` seconds pass before each answer.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.fault: Fault = "none"
        self.cut_after = 0
        self.delay = 0.0
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            if self.fault != "refuse":
                await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self.target)
        try:
            async with asyncio.TaskGroup() as group:
                forth = group.create_task(self._forth(reader, up_writer, writer))
                back = group.create_task(self._back(up_reader, writer))
                await asyncio.wait({forth, back}, return_when=asyncio.FIRST_COMPLETED)
                forth.cancel()
                back.cancel()
        finally:
            up_writer.close()

    async def _forth(
        self,
        reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> None:
        while block := await reader.read(65536):
            if self.fault == "reset":
                writer.transport.abort()
                return
            if self.fault != "hang":
                up_writer.write(block)
                await up_writer.drain()

    async def _back(self, up_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while block := await up_reader.read(65536):
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.fault == "cut":
                block = block[: max(0, self.cut_after - sent)]
            writer.write(block)
            await writer.drain()
            sent += len(block)
            if self.fault == "cut" and sent >= self.cut_after:
                return


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
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
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
