"""A cable between svsync and OpenBao that can be cut at the worst moment.

Bytes go through as they come, so TLS is none of its business. What it waits for
before it cuts is asked from whoever armed it, each time OpenBao says something.
"""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

_BLOCK: Final = 65536


class Cable:
    """One listening port on loopback that leads to another.

    Attributes:
        cut_when: once this is true the connection breaks in place of the next answer;
            the ones after that are whole again.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.cut_when: Callable[[], Awaitable[bool]] | None = None
        self._target = target
        self._lines: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator["Cable"]:
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for line in self._lines:
                line.cancel()
            await asyncio.gather(*self._lines, return_exceptions=True)

    async def _join(self, reader: StreamReader, writer: StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                asking = asyncio.create_task(_carry(reader, back))
                try:
                    await self._answer(there, writer)
                finally:
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                    back.close()
        finally:
            self._lines.discard(line)
            writer.close()

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        while block := await reader.read(_BLOCK):
            if self.cut_when is not None and await self.cut_when():
                self.cut_when = None
                writer.transport.abort()
                return
            writer.write(block)
            await writer.drain()


async def _carry(reader: StreamReader, writer: StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
        writer.close()  # the client has hung up: so does OpenBao, which ends the answers
