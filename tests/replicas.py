"""A PostgreSQL and its streaming replica, both of the wheel, for a module of tests.

What the replica gets goes through a relay, which is also how it comes to the primary's
socket: only the owner of the primary's folder passes there.
"""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from tests.postgres import connected, database_dsn, relayed
from tests.waiting import until

from svsync.embedded import postgres, postgres_server
from svsync.embedded.postgres import EmbeddedPostgres, embedded_postgres
from svsync.embedded.postgres_server import PostgresServer

_REPLICATING = {"wal_level": "replica", "max_wal_senders": "4"}


class _Primary(PostgresServer):
    """Lets its owner replicate."""

    __slots__ = ()

    def _write(self, name: str, text: str) -> None:
        if name == "pg_hba.conf":
            text += "local replication postgres peer map=svsync\n"
        super()._write(name, text)


class _Standby(PostgresServer):
    """Made of a copy of the primary, which it follows from then on."""

    __slots__ = ()
    source = ""

    def create(self) -> None:
        draft = self.folder / "data.new"
        self._make_private(draft)
        options = ["-d", self.source, "-X", "stream", "-c", "fast", "-R", "--no-sync"]
        place = self._seen_by_server(draft)
        self._run("pg_basebackup", ["-D", place, *options], "The primary could not be copied")
        draft.rename(self.data)


@dataclass(frozen=True)
class Pair:
    """A primary, and a standby that follows it."""

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres

    async def caught_up(self) -> None:
        """Until the standby has all that the primary has now."""
        async with (
            connected(self.primary.admin_dsn) as here,
            connected(self.standby.admin_dsn) as there,
        ):
            place = await here.fetchval("SELECT pg_current_wal_insert_lsn()::text")

            async def has_come() -> bool:
                return bool(
                    await there.fetchval(
                        "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", place
                    )
                )

            await until(has_come)

    @asynccontextmanager
    async def halted(self) -> AsyncIterator[None]:
        """The standby shows nothing new within the block."""
        await self.caught_up()
        async with connected(self.standby.admin_dsn) as there:
            await there.execute("SELECT pg_wal_replay_pause()")

            async def stands() -> bool:
                return bool(
                    await there.fetchval("SELECT pg_get_wal_replay_pause_state() = 'paused'")
                )

            await until(stands)
            try:
                yield
            finally:
                await there.execute("SELECT pg_wal_replay_resume()")


@asynccontextmanager
async def _reachable(primary: EmbeddedPostgres) -> AsyncIterator[str]:
    """The primary by a relay that works whichever loop a test runs in."""
    loop = asyncio.new_event_loop()
    working = threading.Thread(target=loop.run_forever)
    working.start()
    relay = relayed(primary.admin_dsn)

    async def there(step: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(step, loop))

    try:
        _, address = await there(relay.__aenter__())
        at = urlsplit(address)
        yield f"host={at.hostname} port={at.port} user=postgres"
        await there(relay.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        working.join()
        loop.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with (
        mock.patch.dict(postgres_server._SETTINGS, _REPLICATING),
        mock.patch.object(postgres, "PostgresServer", _Primary),
    ):
        first = embedded_postgres(folder / "primary", durable=False)
        primary = await first.__aenter__()
    try:
        async with _reachable(primary) as source:
            with (
                mock.patch.dict(postgres_server._SETTINGS, _REPLICATING),
                mock.patch.object(postgres, "PostgresServer", _Standby),
                mock.patch.object(_Standby, "source", source),
            ):
                second = embedded_postgres(folder / "standby", durable=False)
                standby = await second.__aenter__()
            try:
                yield Pair(primary, standby)
            finally:
                await second.__aexit__(None, None, None)
    finally:
        await first.__aexit__(None, None, None)


@dataclass(frozen=True)
class Replicated:
    """A database of a test's own: as the ordinary role and as superuser on the primary, and as
    the ordinary role on the standby."""

    url: str
    admin_url: str
    standby_url: str


@asynccontextmanager
async def replicated_database(pair: Pair) -> AsyncIterator[Replicated]:
    name = f"test_{secrets.token_hex(8)}"
    async with connected(pair.primary.admin_dsn) as admin:
        await admin.execute(f"CREATE DATABASE {name} OWNER svsync")
    await pair.caught_up()
    yield Replicated(
        database_dsn(pair.primary.dsn, name),
        database_dsn(pair.primary.admin_dsn, name),
        database_dsn(pair.standby.dsn, name),
    )
    async with connected(pair.primary.admin_dsn) as admin:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
