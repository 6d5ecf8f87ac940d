"""Does the proxy that breaks connections leave any of its own behind?"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from tests.patience import PATIENCE_S
from tests.program import until
from tests.servers import FaultyTcp


@dataclass
class Upstream:
    """A server that answers nothing. `ended` counts connections that were closed."""

    port: int = 0
    came: int = 0
    ended: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        self.writers.append(writer)
        while await reader.read(1024):
            pass
        self.ended += 1


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    found = Upstream()
    server = await asyncio.start_server(found.take, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for writer in found.writers:
            writer.close()


@pytest.mark.parametrize("turns", range(12))
async def test_no_connection_is_left_whenever_the_proxy_is_shut(turns: int) -> None:
    """It is shut so many turns of the loop after its client went away."""
    async with upstream() as server, FaultyTcp(("127.0.0.1", server.port)) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await until(lambda: server.came == 1)
        writer.close()
        for _ in range(turns):
            await asyncio.sleep(0)
        await proxy.shut()
        await until(lambda: server.ended == 1)
        await proxy.open()


@pytest.mark.parametrize("turns", range(8))
async def test_client_that_comes_as_the_proxy_is_shut_is_let_go(turns: int) -> None:
    """A connection may be accepted, and nobody have looked at it yet."""
    async with upstream() as server, FaultyTcp(("127.0.0.1", server.port)) as proxy:
        coming = asyncio.create_task(asyncio.open_connection("127.0.0.1", proxy.port))
        for _ in range(turns):
            await asyncio.sleep(0)
        await proxy.shut()
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                reader, writer = await coming
                writer.write(b"x")
                assert await reader.read() == b""
            if coming.done() and coming.exception() is None:
                coming.result()[1].close()
        await until(lambda: server.ended == server.came)
        await proxy.open()


async def test_nobody_else_is_given_the_port_of_a_proxy_that_is_shut() -> None:
    async with upstream() as server, FaultyTcp(("127.0.0.1", server.port)) as proxy:
        await proxy.shut()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", proxy.port))
        await proxy.open()
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await until(lambda: server.came == 1)
        writer.close()
