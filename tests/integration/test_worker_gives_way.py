"""A worker that is frozen, or cut off from its store, keeps nobody waiting for long."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from tests.house import BACKEND, TENANT, House, failure

from svsync.domain.errors import FenceLostError, StoreUnavailableError
from svsync.domain.ids import RunId
from svsync.services.sync import lease
from svsync.store import database, queue
from svsync.store.database import open_database
from svsync.store.queue import Claimed, Wanted


async def claim(db: database.Database, run: str) -> Claimed:
    async with db.transaction(TENANT) as tx:
        claimed, _ = await queue.claim(
            tx, BACKEND, RunId(run), Wanted("full", "run_once"), holder="a:1"
        )
    return claimed


async def shorten_idle_limit(house: House) -> None:
    """The limit that each transaction of a run sets for itself, in tenths of its seconds."""
    made = await house.admin.fetchval("SELECT pg_get_functiondef('svsync_enter'::regproc)")
    limit = "'idle_in_transaction_session_timeout', '5s'"
    assert limit in made, "a takeover may wait for as long as this limit"
    await house.admin.execute(made.replace(limit, limit.replace("5s", "500ms")))


async def test_takeover_passes_a_worker_that_froze_inside_its_transaction(
    house: House, database_url: str
) -> None:
    await shorten_idle_limit(house)
    frozen = await claim(house.app.db, "run_frozen")
    async with open_database(database_url, size=1) as other:

        async def freeze_while_another_takes_over() -> None:
            async with other.transaction(TENANT, held=frozen.held) as tx:
                await queue.set_stage(tx, frozen.run_id, "commit")
                await house.admin.execute("UPDATE leases SET expires_at = now()")
                async with asyncio.timeout(3):
                    assert failure(await house.run()) is None

        with pytest.raises(StoreUnavailableError):
            await freeze_while_another_takes_over()
        # Thawed: what it had written is gone, and it cannot begin anew.
        with pytest.raises(FenceLostError):
            async with other.transaction(TENANT, held=frozen.held):
                pass
    row = await house.row("runs", run_id="run_frozen")
    assert (row["state"], row["error_code"], row["stage"]) == ("failed", "worker_lost", "list")


# --- a store that answers no more ---------------------------------------------------------


class Relay:
    """Stands before the store's socket; once `frozen`, nothing goes through any more."""

    def __init__(self, socket: str) -> None:
        self.frozen = False
        self._never = asyncio.Event()
        self._socket = socket
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
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

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
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


@pytest.mark.parametrize("busy", ["between statements", "in a statement"])
async def test_renewal_that_hangs_does_not_outlive_the_deadline(
    house: House, database_url: str, monkeypatch: pytest.MonkeyPatch, busy: str
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    monkeypatch.setattr(lease, "DEADLINE_S", 0.5)
    monkeypatch.setattr(database, "ROLLBACK_S", 0.1)
    async with relayed(database_url) as (relay, dsn), open_database(dsn, size=1) as db:
        claimed = await claim(db, "run_cut_off")
        async with db.transaction(TENANT, renewal=True):
            pass  # a renewal hangs on a connection that it had before
        began = 0.0

        async def work() -> None:
            nonlocal began
            async with (
                lease.held_lease(db, claimed.held, claimed.holder, time.monotonic),
                db.transaction(TENANT, held=claimed.held) as tx,
            ):
                relay.frozen, began = True, time.monotonic()
                if busy == "in a statement":
                    await queue.set_stage(tx, claimed.run_id, "commit")
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        done, _ = await asyncio.wait([task], timeout=5)
        took = time.monotonic() - began
        db._pool.terminate()
        db._renewals.terminate()
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
    assert done
    assert isinstance(ended, FenceLostError)
    assert took < 2
