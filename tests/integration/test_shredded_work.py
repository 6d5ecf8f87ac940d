"""Into a tenant that was shredded nothing comes in again: runs, writes, pushes, backends."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from tests.house import BACKEND, EVERYTHING, TENANT, House, Pause, backend
from tests.receivers import Hanging, Receiver, webhook_desk
from tests.shredded import broken_off, shred, status
from tests.waiting import ask, scheduling, somebody_waits_for_a_lock, until

from svsync.domain.access import TenantShreddedError
from svsync.domain.errors import FenceLostError, SvsyncError
from svsync.domain.federation import ConflictPolicy, Writes
from svsync.domain.ids import PushId, RemotePath
from svsync.services import write_through as writing_through
from svsync.services.delivering import LANES
from svsync.services.pushes import Made, Sender
from svsync.services.sending import deliver
from svsync.store import tenants as store

# --- what was under way -----------------------------------------------------------------


async def test_a_run_under_way_writes_nothing_more(house: House, other: House) -> None:
    house.there.generate("kv/", 700)
    pause = Pause(house.there, "read", "kv/0000/0000600")
    running = asyncio.create_task(house.run())
    await pause.reached.wait()
    done = await shred(other)
    pause.let_go()
    with pytest.raises(FenceLostError):
        await running
    assert done.backends == 1
    assert await house.rows("secrets") == []
    [run] = await house.rows("runs")
    assert run["state"] == "superseded"


async def test_a_write_with_keys_at_hand_is_refused(house: House, other: House) -> None:
    await house.write("own/x", {"k": "1"})
    await shred(other)
    with pytest.raises(TenantShreddedError):
        await house.write("own/x", {"k": "2"})
    with pytest.raises(TenantShreddedError):
        await house.write("own/y", {"k": "2"})
    assert await house.rows("secrets") == []


async def test_a_write_that_met_it_halfway_is_refused(house: House, other: House) -> None:
    """Its rows wait for their key, which is destroyed before they get it."""
    await house.write("own/x", {"k": "1"})
    async with house.admin.transaction():
        # Who shreds has the keys, and waits for the tenant.
        await house.admin.execute("SELECT FROM tenants FOR NO KEY UPDATE")
        shredding = asyncio.create_task(shred(other))
        await until(lambda: somebody_waits_for_a_lock(house))
        writing = asyncio.create_task(house.write("own/y", {"k": "2"}))
        await until(lambda: two_wait(house))
    assert (await shredding).before is False
    with pytest.raises(TenantShreddedError):
        await writing
    assert await house.rows("secrets") == []


async def two_wait(house: House) -> bool:
    waiting: int = await house.admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return waiting >= 2


async def test_a_write_that_was_first_is_waited_for(house: House) -> None:
    await house.write("own/x", {"k": "1"})
    async with house.admin.transaction():
        await house.admin.execute("SELECT FROM data_keys FOR KEY SHARE")
        shredding = asyncio.create_task(shred(house))
        await until(lambda: somebody_waits_for_a_lock(house))
        assert await status(house) == "active"
    assert (await shredding).secrets == 1


async def write_through(house: House) -> None:
    await house.configure(
        writes=Writes.WRITE_THROUGH, conflict_resolution=ConflictPolicy.BACKEND_WINS
    )
    house.there.put("kv/a", {"k": "1"})
    await house.run()


async def test_a_push_that_is_planned_is_not_sent(
    house: House, other: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_through(house)
    given_up = []

    async def met(sender: Sender, ids: Sequence[PushId]) -> list[Made]:
        given_up.append((await shred(other)).pushes)
        return await deliver(sender, ids)

    monkeypatch.setattr(writing_through, "deliver", met)
    with pytest.raises(SvsyncError):
        await house.write("ext/a", {"k": "2"})
    assert (given_up, house.there.calls["write"]) == ([1], 0)


async def test_nor_where_the_command_died_before_pushes_were_withdrawn(
    house: House, other: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_through(house)
    await house.data("ext/a")

    async def met(sender: Sender, ids: Sequence[PushId]) -> list[Made]:
        await broken_off(other, at="withdraw_pushes")
        return await deliver(sender, ids)

    monkeypatch.setattr(writing_through, "deliver", met)
    with suppress(SvsyncError):  # one that stood here before it was to be pushed is answered
        await house.write("ext/a", {"k": "2"})
    assert await status(house) == "shredded"
    assert {push["state"] for push in await house.rows("pushes")} == {"planned"}
    assert house.there.calls["write"] == 0


async def test_a_push_under_way_is_given_up(house: House, other: House) -> None:
    await write_through(house)
    pause = Pause(house.there, "write")
    writing = asyncio.create_task(house.write("ext/a", {"k": "2"}))
    await pause.reached.wait()
    done = await shred(other)
    pause.let_go()
    assert done.pushes == 1
    with pytest.raises(SvsyncError):
        await writing
    assert (await house.rows("pushes"), await house.rows("secrets")) == ([], [])


async def test_no_webhook_is_sent_that_its_secret_would_sign(house: House, other: House) -> None:
    """Also where the command died before it cleared endpoints and events away."""

    async with webhook_desk(house) as desk, Receiver(hanging := Hanging()) as receiver:
        await desk.endpoint(receiver.url)
        await house.admin.execute(
            "INSERT INTO outbox (tenant_id, event_id, backend_id, sequence, type, payload, pending)"
            " SELECT 1, 'evt_' || n, 'fed_' || n, 1, 'federation.sync.completed',"
            """ '{"sequence": 1, "backend_id": "b"}', true FROM generate_series(1, $1) n""",
            LANES + 1,
        )
        delivering = asyncio.create_task(desk.deliveries.deliver_due())
        await receiver.received(LANES)
        await broken_off(other, at="withdraw_pushes")
        hanging.let_go()
        await delivering
        assert len(receiver.got) == LANES
        with pytest.raises(asyncpg.PostgresError, match="shredded"):  # by whoever was let in before
            async with house.app.db.transaction(TENANT) as tx:
                await tx._connection.execute("UPDATE endpoints SET state = 'active'")


# --- nothing comes in again -------------------------------------------------------------


async def test_nothing_is_pulled_again(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await ask(house)
    asked = dict(house.there.calls)
    done = await shred(house)
    assert done.runs == 1
    assert (await house.row("backends"))["state"] == "paused"
    with pytest.raises(TenantShreddedError):
        await house.run()
    await house.admin.execute("UPDATE backend_health SET next_due_at = now()")
    await scheduling(house).tick()
    assert await house.rows("runs", state="queued") == []
    await house.configure(sync_interval=61)
    assert (await house.row("backends"))["state"] == "paused"
    assert dict(house.there.calls) == asked
    assert await house.rows("secrets") == []


async def test_what_a_feed_tells_of_it_is_not_written_down(house: House) -> None:
    await shred(house)
    await scheduling(house).notice(TENANT, BACKEND, [RemotePath("kv/named")], "vault-events")
    assert await house.rows("dirty_paths") == []


async def test_its_backends_are_never_active_again(house: House) -> None:
    await shred(house)
    with pytest.raises(TenantShreddedError):
        await house.app.removal.resume(TENANT, BACKEND)
    with pytest.raises(asyncpg.PostgresError, match="shredded"):
        await house.admin.execute("UPDATE backends SET state = 'active'")
    assert (await house.row("backends"))["state"] == "paused"


async def test_a_backend_that_is_made_meanwhile_does_not_escape(house: House) -> None:
    made = (
        "INSERT INTO backends (tenant_id, backend_id, name, type, spec, mapping_hash, managed_by,"
        " syncs, interval_s) VALUES (1, 'fed_late', 'late', 'memory', '{}', '', 'api', true, 60)"
    )
    making = house.admin.transaction()
    await making.start()
    await house.admin.execute(made)
    await shred(house)
    with pytest.raises(asyncpg.PostgresError, match="shredded"):
        await making.commit()
    assert [row["backend_id"] for row in await house.rows("backends")] == [BACKEND]


async def test_one_that_was_committed_just_before_is_paused_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = store.pause_backends

    async def late(tx: Any) -> int:
        paused = await usual(tx)
        monkeypatch.setattr(store, "pause_backends", usual)
        await house.admin.execute(
            "INSERT INTO backends (tenant_id, backend_id, name, type, spec, mapping_hash,"
            " managed_by, syncs, interval_s)"
            " VALUES (1, 'fed_late', 'late', 'memory', '{}', '', 'api', true, 60)"
        )
        return paused

    monkeypatch.setattr(store, "pause_backends", late)
    assert (await shred(house)).backends == 2
    assert {row["state"] for row in await house.rows("backends")} == {"paused"}


async def test_a_file_that_names_it_is_told_so(house: House, log: Callable[[], list[Any]]) -> None:
    await shred(house)
    await house.app.federation.apply([backend(EVERYTHING)])
    [line] = [line for line in log() if line["event"] == "backend_passed_over"]
    assert line["detail"] == "its tenant was shredded: take it out of the file"


async def test_beside_runs_and_writes_it_loses_to_nobody(house: House, other: House) -> None:
    """Whatever is under way ends before it or is refused by it, and no row outlives it."""
    house.there.generate("kv/", 700)
    await house.write("own/0/0", {"k": "0"})

    async def write_on(desk: House, name: int) -> BaseException:
        for n in range(10_000):
            try:
                await desk.write(f"own/{name}/{n}", {"k": str(n)})
            except SvsyncError as refused:
                return refused
        raise AssertionError("it was never refused")

    async def run_on() -> BaseException:
        while True:
            try:
                await house.run()
            except SvsyncError as refused:
                return refused

    working = [asyncio.create_task(write_on(house, n)) for n in range(1, 4)]
    working.append(asyncio.create_task(run_on()))

    async def some_are_there() -> bool:
        return len(await house.rows("secrets")) > 100

    await until(some_are_there)
    done = await shred(other)
    refused = await asyncio.gather(*working)
    assert not done.before
    assert {type(one) for one in refused} <= {TenantShreddedError, FenceLostError}
    assert (await house.rows("secrets"), await house.rows("versions")) == ([], [])
    await other.app.tenants.clear_all()
    for table in store.CLEARED:
        if table not in ("runs", "outbox"):
            assert await house.rows(table) == [], table
