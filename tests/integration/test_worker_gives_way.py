"""A worker that is frozen, or cut off from its store, keeps nobody waiting for long."""

import asyncio
import time

import pytest
from tests.house import BACKEND, TENANT, House, failure
from tests.patience import PATIENCE_S
from tests.postgres import relayed

from svsync.domain.errors import FenceLostError, StoreError, StoreUnavailableError
from svsync.domain.ids import RunId
from svsync.services.sync import lease
from svsync.store import database, federation, queue
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
                async with asyncio.timeout(PATIENCE_S):
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
        done, _ = await asyncio.wait([task], timeout=PATIENCE_S)
        took = time.monotonic() - began
        db._pool.terminate()
        db._renewals.terminate()
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
    assert done
    assert isinstance(ended, FenceLostError)
    assert took < 2


@pytest.mark.parametrize("what", ["all tenants", "no tenant", "one tenant", "cancelled"])
async def test_store_that_hangs_is_told_as_one_that_is_away_and_its_pool_ends(
    house: House, database_url: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    for limit in ("LOOK_S", "ANSWER_S", "ROLLBACK_S"):
        monkeypatch.setattr(database, limit, 0.2)

    async def look(db: database.Database) -> None:
        if what == "all tenants":
            async with db.transaction_of([TENANT]) as tx:
                await tx.fetch("gauges.backends")
        elif what == "one tenant":
            async with db.transaction(TENANT) as tx:
                await tx.fetch("gauges.backends")
        else:
            await federation.active(db)

    async with (
        asyncio.timeout(PATIENCE_S),
        relayed(database_url) as (relay, dsn),
        open_database(dsn, size=2) as db,
    ):
        await federation.active(db)
        relay.frozen = True
        if what == "cancelled":
            monkeypatch.setattr(database, "LOOK_S", 3600.0)
            task = asyncio.create_task(look(db))
            await asyncio.sleep(0.05)  # it waits for an answer that does not come
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(StoreUnavailableError):
                await look(db)


async def test_transaction_in_which_a_statement_failed_is_not_told_as_committed(
    house: House,
) -> None:
    async def go_on_after_a_failure() -> None:
        async with house.app.db.transaction(TENANT) as tx:
            await queue.enqueue(tx, BACKEND, RunId("run_undone"), Wanted("full", "api"))
            with pytest.raises(StoreError):
                await tx.copy("runs", ["run_id"], [("run_undone",)])

    with pytest.raises(StoreError, match="undid"):
        await go_on_after_a_failure()
    assert not await house.rows("runs", run_id="run_undone")
