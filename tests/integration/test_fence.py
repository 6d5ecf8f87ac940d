"""One backend is run by one worker, and a late one writes nothing."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, WORK, House, Pause, failure, open_house
from tests.patience import PATIENCE_S
from tests.postgres import connected

from svsync.domain.errors import BackendBusyError, FenceLostError
from svsync.domain.ids import RunId
from svsync.domain.runs import RunState
from svsync.services.pushes import within
from svsync.services.run_ends import Ended
from svsync.services.sync import lease
from svsync.store import queue
from svsync.store.queue import Claimed, Wanted


@pytest.fixture
async def other(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> AsyncIterator[House]:
    """A second process on the same store."""
    async with open_house(database_url, admin_url, state_dir, house.spec) as second:
        second.there._secrets = house.there._secrets
        yield second


async def claim(house: House, run: str = "run_a", holder: str = "a:1") -> Claimed:
    async with house.app.db.transaction(TENANT) as tx:
        claimed, _ = await queue.claim(
            tx, BACKEND, RunId(run), Wanted("full", "run_once"), holder=holder
        )
    return claimed


async def expire(house: House) -> None:
    await house.admin.execute("UPDATE leases SET expires_at = now()")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.005)


async def somebody_waits_for_a_lock(house: House) -> bool:
    return bool(
        await house.admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


@asynccontextmanager
async def paused_run(house: House) -> AsyncIterator[tuple[asyncio.Task[Ended], Pause]]:
    """A run that has committed a batch of 500 and waits in a read of the next."""
    house.there.generate("kv/", 700)
    pause = Pause(house.there, "read", "kv/0000/0000600")
    running = asyncio.create_task(house.run())

    async def committed() -> bool:
        return len(await house.paths()) == 500

    try:
        await pause.reached.wait()
        await until(committed)
        yield running, pause
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# --- two at a time ----------------------------------------------------------------------


async def test_second_run_is_told_who_runs_the_backend(house: House, other: House) -> None:
    async with paused_run(house) as (running, pause):
        with pytest.raises(BackendBusyError) as busy:
            await other.run()
        assert busy.value.holder == (await house.row("leases"))["holder"]
        assert busy.value.expires_at is not None
        assert len(await house.rows("runs")) == 1  # nothing waits in the queue for it
        pause.let_go()
        assert failure(await running) is None
    assert len(await house.paths()) == 700


async def test_of_many_at_once_one_runs_at_a_time(house: House, other: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    ended = await asyncio.gather(
        *(who.run() for who in (house, other) for _ in range(4)), return_exceptions=True
    )
    done = [one for one in ended if isinstance(one, Ended)]
    assert len(done) >= 1
    assert len(done) + sum(isinstance(one, BackendBusyError) for one in ended) == 8
    assert await house.events() == [
        "federation.secret.changed", *["federation.sync.completed"] * len(done),
    ]  # fmt: skip
    assert {row["state"] for row in await house.rows("runs")} == {"completed"}


# --- the fence --------------------------------------------------------------------------


async def test_takeover_waits_for_an_open_transaction(house: House, other: House) -> None:
    first = await claim(house)
    await expire(house)
    async with house.app.db.transaction(TENANT, held=first.held) as tx:
        await queue.set_stage(tx, first.run_id, "fetch")
        taking = asyncio.create_task(claim(other, "run_b", "b:1"))
        await until(lambda: somebody_waits_for_a_lock(house))
        assert not taking.done()
    second = await taking
    assert second.held.fence > first.held.fence
    assert (await house.row("runs", run_id="run_a"))["stage"] == "fetch"


async def test_late_writer_writes_nothing(house: House, other: House) -> None:
    first = await claim(house)
    await expire(house)
    await claim(other, "run_b", "b:1")
    before = await house.dump()
    with pytest.raises(FenceLostError):
        async with house.app.db.transaction(TENANT, held=first.held) as tx:
            await queue.set_stage(tx, first.run_id, "late")
    assert await house.dump() == before
    async with house.app.db.transaction(TENANT) as tx:
        assert not await queue.renew(tx, first.held, "a:1")


async def test_renewal_is_never_blocked_by_an_open_transaction(house: House) -> None:
    first = await claim(house)
    async with house.app.db.transaction(TENANT, held=first.held) as tx:
        await queue.set_stage(tx, first.run_id, "fetch")
        async with (
            asyncio.timeout(PATIENCE_S),
            house.app.db.transaction(TENANT, renewal=True) as another,
        ):
            assert await queue.renew(another, first.held, "a:1")


async def test_renewal_needs_no_connection_of_a_run(house: House) -> None:
    first = await claim(house)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        go, inside = asyncio.Event(), asyncio.Semaphore(0)

        async def occupy() -> None:
            async with house.app.db.transaction(TENANT):
                inside.release()
                await go.wait()

        for _ in range(4):  # the house's whole pool
            group.create_task(occupy())
        for _ in range(4):
            await inside.acquire()
        async with house.app.db.transaction(TENANT, renewal=True) as tx:
            assert await queue.renew(tx, first.held, "a:1")
        go.set()


async def test_frozen_worker_does_not_keep_its_transaction_open(house: House) -> None:
    first = await claim(house)
    async with house.app.db.transaction(TENANT, held=first.held) as tx:
        limit = await tx._connection.fetchval("SHOW idle_in_transaction_session_timeout")
    assert limit == "5s"


async def test_released_lease_lets_nobody_write(house: House) -> None:
    first = await claim(house)
    async with house.app.db.transaction(TENANT, held=first.held) as tx:
        await queue.release(tx, first.held)
    with pytest.raises(FenceLostError):
        async with house.app.db.transaction(TENANT, held=first.held):
            pass


# --- a worker that died -----------------------------------------------------------------


async def test_takeover_ends_the_lost_run_with_exactly_one_event(
    house: House, other: House
) -> None:
    async with paused_run(house) as (running, pause):
        await expire(house)
        other.there.generate("kv/", 700)
        assert failure(await other.run()) is None
        pause.let_go()
        with pytest.raises(FenceLostError):
            await running
    states = {row["state"]: row["error_code"] for row in await house.rows("runs")}
    assert states == {"failed": "worker_lost", "completed": None}
    assert (await house.events()).count("federation.sync.failed") == 1
    assert (await house.events()).count("federation.sync.completed") == 1
    assert len(await house.paths()) == 700
    lost = await house.row("outbox", type="federation.sync.failed")
    assert json.loads(lost["payload"])["error"]["code"] == "worker_lost"


async def test_expired_lease_that_nobody_took_is_still_held(house: House) -> None:
    async with paused_run(house) as (running, pause):
        await expire(house)
        pause.let_go()
        assert failure(await running) is None


async def test_lost_lease_cancels_the_run(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.01)
    async with paused_run(house) as (running, _):
        await house.admin.execute("UPDATE leases SET fence = fence + 1, holder = 'b:1'")
        with pytest.raises(FenceLostError):
            async with asyncio.timeout(PATIENCE_S):
                await running
    assert len(await house.paths()) == 500


async def test_run_that_cannot_renew_stops_by_its_own_clock(
    house: House, admin_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.01)
    monkeypatch.setattr(lease, "DEADLINE_S", 0.3)
    async with paused_run(house) as (running, _), connected(admin_url) as blocker:
        async with blocker.transaction():
            await blocker.execute("SELECT FROM leases FOR NO KEY UPDATE")
            await asyncio.wait([running], timeout=PATIENCE_S)
        with pytest.raises(FenceLostError):
            await running


# --- a configuration that changed -------------------------------------------------------


async def test_changed_configuration_ends_the_running_cycle_without_an_event(
    house: House, other: House
) -> None:
    async with paused_run(house) as (running, pause):
        await other.configure(max_versions=3)
        pause.let_go()
        with pytest.raises(FenceLostError):
            await running
    row = await house.row("runs")
    assert (row["state"], row["result"]) == (RunState.SUPERSEDED, None)
    assert [e for e in await house.events() if "sync" in e] == []
    assert failure(await house.run()) is None
    assert len(await house.paths()) == 700


async def test_successor_of_a_superseded_run_alone_reports(house: House, other: House) -> None:
    async with paused_run(house) as (running, pause):
        await other.configure(max_versions=3)
        other.there.generate("kv/", 700)
        assert failure(await other.run()) is None
        pause.let_go()
        with pytest.raises(FenceLostError):
            await running
    assert sorted(row["state"] for row in await house.rows("runs")) == ["completed", "superseded"]
    assert [e for e in await house.events() if "sync" in e] == ["federation.sync.completed"]


async def test_unchanged_configuration_disturbs_no_run(house: House, other: House) -> None:
    async with paused_run(house) as (running, pause):
        await other.configure()
        pause.let_go()
        assert failure(await running) is None


# --- a run that is told to stop, or breaks ----------------------------------------------


async def test_cancelled_run_ends_at_once_and_gives_its_lease_back(house: House) -> None:
    async with paused_run(house) as (running, _):
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    row = await house.row("runs")
    assert (row["state"], row["error_code"]) == ("failed", "interrupted")
    assert (await house.row("leases"))["holder"] is None
    assert (await house.events())[-1] == "federation.sync.failed"
    assert failure(await house.run()) is None


async def test_end_that_nobody_waits_for_any_more_is_told_of_to_nobody(
    house: House, other: House
) -> None:
    """Told to stop twice, while somebody else took the run over."""
    complaints = list[Any]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, about: complaints.append(about))
    async with paused_run(house) as (running, _):
        async with house.admin.transaction():
            await house.admin.execute("UPDATE leases SET fence = fence + 1")
            running.cancel()
            ending = await the_ending()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        await asyncio.wait({ending})
        assert isinstance(ending._exception, FenceLostError)
        del ending, running
        gc.collect()
    assert complaints == []


async def the_ending() -> asyncio.Task[Any]:
    """What ends a run that was told to stop, once it is at work on that."""
    found = list[asyncio.Task[Any]]()

    async def is_there() -> bool:
        found[:] = [one for one in asyncio.all_tasks() if "_stopped" in str(one.get_coro())]
        return bool(found)

    await until(is_there)
    return found[0]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_call_that_fails_as_whoever_waits_for_it_is_cancelled_is_told_of_to_nobody(
    turns: int,
) -> None:
    complaints = list[Any]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, about: complaints.append(about))
    failing = loop.create_future()

    async def call() -> None:
        await failing

    waiting = asyncio.create_task(within(10, call()))
    await some_turns(3)
    failing.set_exception(FenceLostError("lost"))
    await some_turns(turns)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    del waiting
    gc.collect()
    await some_turns(3)
    assert complaints == []


async def some_turns(many: int) -> None:
    for _ in range(many):
        await asyncio.sleep(0)


async def test_run_that_meets_a_bug_ends_failed_and_tells_no_value(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})

    async def break_off(operation: str, path: str) -> None:
        if operation == "read":
            raise ZeroDivisionError("the value was hunter2")

    house.there.before = break_off
    with pytest.raises(ZeroDivisionError):
        await house.run()
    row = await house.row("runs")
    assert (row["state"], (await house.row("leases"))["holder"]) == ("failed", None)
    assert "hunter2" not in str(await house.dump())
    assert await house.events() == ["federation.sync.failed"]


async def test_worker_that_lost_its_lease_leaves_the_tables_as_the_other_made_them(
    house: House, other: House
) -> None:
    async with paused_run(house) as (running, pause):
        await expire(house)
        other.there.generate("kv/", 700)
        await other.run()
        before = await house.dump(without=WORK)
        pause.let_go()
        await asyncio.wait([running])
        assert await house.dump(without=WORK) == before
