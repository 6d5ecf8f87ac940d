"""Real servers for signals: Valkey from the wheel, Debian's Redis, TLS before one of them."""

import asyncio
import contextlib
import io
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.program import until
from tests.servers import FaultyTcp

from svsync.bus.address import parse_address
from svsync.bus.redis import Command, Pace, Servers
from svsync.config.model import LogFormat, LogLevel
from svsync.domain.values import SecretValue
from svsync.embedded.openbao import TlsFiles
from svsync.embedded.valkey import ValkeyServer, valkey_server
from svsync.observe.logs import configure

DEBIAN_REDIS = Path("/usr/bin/redis-server")
_DEBIAN_HAS_IT = DEBIAN_REDIS.exists()

QUICK = Pace(connect=2.0, answer=1.0, beat=0.2, first=0.01, longest=0.1, confirm=0.1, start=5.0)
"""As in earnest, but a test does not wait a second for what may come at once."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ValkeyServer]:
    """The worker's own Valkey on a loopback port. Do not stop it."""
    async with valkey_server(tmp_path_factory.mktemp("valkey"), tcp=True) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ValkeyServer]:
    """The worker's own Redis, where Debian's package is installed. Do not stop it."""
    if not _DEBIAN_HAS_IT:
        pytest.skip(f"{DEBIAN_REDIS} is not there: install Debian's redis-server")
    folder = tmp_path_factory.mktemp("redis")
    async with valkey_server(folder, tcp=True, program=DEBIAN_REDIS) as server:
        yield server


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[ValkeyServer]:
    """A Valkey of the test's own, to be killed and started again."""
    async with valkey_server(tmp_path / "valkey", tcp=True) as server:
        yield server


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """All that is logged while the test runs, by svsync and by libraries at any level."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.lastResort)
    stream = io.StringIO()
    configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    everything = logging.StreamHandler(stream)
    root.addHandler(everything)
    root.setLevel(logging.DEBUG)
    yield stream
    configure(LogLevel.INFO, LogFormat.JSON)
    root.handlers[:], level, logging.lastResort = before
    root.setLevel(level)


async def ask(url: SecretValue, *command: str | int) -> Any:
    """What the first server of a URL answers to one command."""
    address = parse_address(url)
    async with Servers(address, QUICK).linked(address.hosts[0]) as link:
        question: Command = command
        return (await link.ask([question]))[0]


@asynccontextmanager
async def proxy_to(server: ValkeyServer) -> AsyncIterator[FaultyTcp]:
    """A proxy that misbehaves on request, in the block of which all its users end."""
    async with FaultyTcp(("127.0.0.1", server.port)) as proxy:
        yield proxy
        await until(lambda: not proxy._tasks)  # one that is cancelled at its end leaves a socket


@asynccontextmanager
async def tls_before(port: int, files: TlsFiles) -> AsyncIterator[int]:
    """The port of a TLS server that hands what it gets to a plain one on loopback.

    Valkey from the wheel is built without TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        ways = [
            asyncio.create_task(pass_on(reader, inner_writer)),
            asyncio.create_task(pass_on(inner_reader, writer)),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            inner_writer.close()
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
