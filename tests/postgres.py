"""One PostgreSQL for the whole test session, one database for each test.

All workers of a session hold the same embedded server; the last one stops it.
The schema is migrated once, into a template, and cloned for each test.
`SVSYNC_TEST_POSTGRES=debian` runs the tests on Debian's PostgreSQL instead.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest
import pytest_asyncio
from tests.debian import server_named
from tests.memory import shared_folder
from tests.patience import PATIENCE_S

from svsync.embedded.postgres import EmbeddedPostgres

KIND = os.environ.get("SVSYNC_TEST_POSTGRES", "embedded")
_TEMPLATE = "svsync_template"
_TEMPLATE_LOCK = 7001


def database_dsn(dsn: str, name: str) -> str:
    """The same server and role, another database."""
    address, _, query = dsn.partition("?")
    return f"{address.rpartition('/')[0]}/{name}?{query}"


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


class Relay:
    """Stands before the store's socket; once `frozen`, nothing goes through any more. While
    it is `away`, from `leave` on, whoever comes is turned away."""

    def __init__(self, socket: str) -> None:
        self.frozen = self.away = False
        self._never = asyncio.Event()
        self._socket = socket
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.away:
                return
            if self.frozen:
                await self._never.wait()
            up_reader, up_writer = await asyncio.open_unix_connection(self._socket)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, up_writer))
                group.create_task(self._pass_on(up_reader, writer))
        except asyncio.CancelledError:
            pass  # the streams would report it
        finally:
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while block := await reader.read(65536):
                if self.frozen:
                    await self._never.wait()
                writer.write(block)
                await writer.drain()
        finally:
            writer.close()

    def leave(self) -> None:
        """Cut every connection, as a store that stops does."""
        self.away = True
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def relayed(database_url: str) -> AsyncIterator[tuple[Relay, str]]:
    """The relay, and the address of the database behind it."""
    address = urlsplit(database_url)
    query = {name: values[0] for name, values in parse_qs(address.query).items()}
    relay = Relay(str(Path(query["host"]) / f".s.PGSQL.{query['port']}"))
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = quote(address.username or query.get("user", ""))
    password = quote(address.password or query.get("password", ""))
    try:
        yield relay, f"postgresql://{user}:{password}@127.0.0.1:{port}{address.path}"
    finally:
        server.close()
        await relay.end()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    """The session's server, its template made."""
    from svsync.store.migrate import migrate  # tests without a database need no store

    async with server_named(KIND)(shared_folder() / "server", durable=False) as server:
        async with connected(server.admin_dsn) as admin:
            await admin.execute("SELECT pg_advisory_lock($1)", _TEMPLATE_LOCK)
            if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", _TEMPLATE):
                await admin.execute("DROP DATABASE IF EXISTS template_draft")
                await admin.execute("CREATE DATABASE template_draft OWNER svsync")
                await migrate(database_dsn(server.dsn, "template_draft"))
                await admin.execute(f"ALTER DATABASE template_draft RENAME TO {_TEMPLATE}")
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _maker(postgres: EmbeddedPostgres) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The worker's connection for making databases and dropping them."""
    async with connected(postgres.admin_dsn) as admin:
        yield admin


@pytest_asyncio.fixture(loop_scope="session")
async def database_url(
    postgres: EmbeddedPostgres, _maker: "asyncpg.Connection[asyncpg.Record]"
) -> AsyncIterator[str]:
    """A migrated, empty database of this test's own, as the ordinary role.

    The test must leave no connection open: that is checked when it ends.
    """
    name = f"test_{secrets.token_hex(8)}"
    await _maker.execute(
        f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} OWNER svsync STRATEGY file_copy"
    )
    yield database_dsn(postgres.dsn, name)
    left = await _connections_left(_maker, name)
    await _maker.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert not left, f"connections left open: {left}"


@pytest.fixture
def admin_url(postgres: EmbeddedPostgres, database_url: str) -> str:
    """This test's database as superuser: sees every tenant's rows."""
    name = database_url.partition("?")[0].rpartition("/")[2]
    return database_dsn(postgres.admin_dsn, name)


async def _connections_left(
    admin: "asyncpg.Connection[asyncpg.Record]", database: str
) -> list[str]:
    """What is still connected, once those that are just closing have closed."""
    left: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                rows = await admin.fetch(
                    "SELECT pid, state, query FROM pg_stat_activity "
                    "WHERE datname = $1 AND backend_type = 'client backend'",
                    database,
                )
                left = [f"{row['state']}: {row['query']}" for row in rows]
                if not left:
                    break
                await asyncio.sleep(0.01)
    return left
