"""Removing a backend: what becomes of its pushes, conflicts, pairs and copies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.house import ALLOW_ALL, BACKEND, TENANT, House, Pause, backend, failure, open_house

from svsync.domain.errors import (
    BackendUnreachableError,
    ConfigError,
    FenceLostError,
    NotFoundError,
    SvsyncError,
)
from svsync.domain.federation import ConflictPolicy, Mode, Writes
from svsync.domain.ids import TenantId
from svsync.services.removal import Removal, Removed
from svsync.store.database import Database, Transaction


def removal(house: House, *, named: bool = False) -> Removal:
    """Who removes while the file names the backend, or not any more."""
    app = house.app
    in_file = {("default", BACKEND)} if named else set()
    return Removal(app.db, app.sealing, app.registry, ids=lambda p: f"{p}_1", in_file=in_file)


async def remove(house: House, **how: Any) -> Removed:
    return await removal(house).remove(TENANT, BACKEND, **how)


async def fill(house: House) -> None:
    """A copy, a changed one, a value that is gone there, a tombstone, a local secret."""
    for name in "abcd":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    await house.write("ext/b", {"k": "mine"})
    house.there.delete("kv/c")
    await house.bury("ext/d")
    house.there.delete("kv/d")
    await house.run()
    await house.write("ext/mine", {"k": "mine"})


async def test_kept_copies_are_ordinary_local_secrets(house: House) -> None:
    await fill(house)
    events = await house.events()
    done = await remove(house)
    assert (done.kept, done.destroyed) == (4, 0)
    assert await house.paths() == ["ext/a", "ext/b", "ext/c", "ext/mine"]
    assert {row["status"] for row in await house.rows("sync_state")} == {"detached"}
    assert await house.write("ext/a", {"k": "2"}) == 2
    for table in ("backends", "backend_health", "leases"):
        assert not await house.rows(table)
    assert len(await house.rows("runs")) == 2
    assert (await house.events())[: len(events)] == events


async def test_purge_destroys_copies_and_nothing_that_is_here_alone(house: House) -> None:
    await fill(house)
    done = await remove(house, purge=True)
    assert (done.kept, done.destroyed) == (2, 2)
    assert await house.paths() == ["ext/b", "ext/c", "ext/mine"]
    assert await house.data("ext/b") == {"k": "mine"}
    for name in "ad":
        row = await house.row("secrets", path=f"ext/{name}")
        assert (row["state"], row["last_version"]) == ("void", 1)
        assert not await house.rows("versions", secret_id=row["secret_id"])
        assert not await house.rows("sync_state", path=f"ext/{name}")


@pytest.mark.parametrize("purge", [False, True])
async def test_copies_that_a_flip_hid_come_back_or_go_with_the_others(
    house: House, purge: bool
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.configure(mode=Mode.PROXY)
    done = await remove(house, purge=purge)
    assert (done.kept, done.destroyed) == ((0, 1) if purge else (1, 0))
    assert await house.paths() == ([] if purge else ["ext/a"])


async def test_open_conflicts_are_closed_with_both_values_kept(house: House) -> None:
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.write("ext/a", {"k": "mine"})
    house.there.put("kv/a", {"k": "theirs"})
    await house.run()
    assert (await remove(house, purge=True)).conflicts == 1
    closed = await house.row("conflicts")
    assert closed["state"] == "backend_removed"
    assert closed["local_sealed"] is not None
    assert closed["remote_sealed"] is not None
    assert await house.data("ext/a") == {"k": "mine"}


async def test_backend_that_the_file_names_is_not_removed(house: House) -> None:
    with pytest.raises(ConfigError) as refused:
        await removal(house, named=True).remove(TENANT, BACKEND)
    assert refused.value.code == "managed_by_file"
    with pytest.raises(ConfigError):
        await house.app.removal.remove(TENANT, BACKEND)
    assert (await house.row("backends"))["state"] == "active"


async def test_removal_that_is_overtaken_leaves_the_next_backend_of_that_id_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    late, other = removal(house), removal(house)
    close = late._close_conflicts

    async def overtaken(*args: Any) -> int:
        closed = await close(*args)
        await other.remove(TENANT, BACKEND)
        await house.configure()
        await house.run()
        return closed

    monkeypatch.setattr(late, "_close_conflicts", overtaken)
    with pytest.raises(NotFoundError):
        await late.remove(TENANT, BACKEND, purge=True)
    assert await house.paths() == ["ext/a"]
    assert (await house.row("backends"))["state"] == "active"


async def test_run_under_way_is_superseded(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    pause = Pause(house.there, "read")
    running = asyncio.create_task(house.run())
    await pause.reached.wait()
    await remove(house)
    pause.let_go()
    with pytest.raises(FenceLostError):
        await running
    assert (await house.row("runs"))["state"] == "superseded"
    assert await house.paths() == []


# --- pushes ---------------------------------------------------------------------------


@asynccontextmanager
async def unanswered(house: House) -> AsyncIterator[None]:
    """A write whose push went out, and whose sender has had its time."""
    await house.configure(writes=Writes.WRITE_THROUGH)
    house.there.put("kv/a", {"k": "1"})
    await house.run()

    async def lost(operation: str, path: str) -> None:
        if operation == "write":
            raise BackendUnreachableError("no answer", operation="write")

    house.there.after = lost
    with pytest.raises(SvsyncError):
        await house.write("ext/a", {"k": "2"})
    house.there.after = None
    await house.admin.execute("UPDATE pushes SET deadline = now() - interval '1 s'")
    yield


async def test_unfinished_push_is_asked_about(house: House) -> None:
    async with unanswered(house):
        done = await remove(house)
    assert done.withdrawn == 0
    assert (await house.row("pushes"))["state"] == "landed"
    assert await house.data("ext/a") == {"k": "2"}


async def test_push_is_withdrawn_where_the_backend_does_not_answer(house: House) -> None:
    async with unanswered(house):
        down = BackendUnreachableError("down", operation="read", sent=False)
        house.there.fail("read", *[down] * 9)
        done = await remove(house)
    assert done.withdrawn == 1
    assert (await house.row("pushes"))["state"] == "withdrawn"
    assert await house.data("ext/a") == {"k": "1"}, "what waited for its answer never was"
    assert await house.write("ext/a", {"k": "3"}) == 3


async def test_push_in_its_senders_hand_is_waited_for(house: House) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    pause = Pause(house.there, "write")
    writing = asyncio.create_task(house.write("ext/a", {"k": "2"}))
    await pause.reached.wait()
    with pytest.raises(SvsyncError) as busy:
        await remove(house)
    assert busy.value.code == "write_in_progress"
    assert (await house.row("backends"))["state"] == "deleting"
    pause.let_go()
    assert await writing == 2
    await remove(house)
    assert await house.data("ext/a") == {"k": "2"}


# --- killed half-way ------------------------------------------------------------------


class Killed(Exception):
    """Stands for a process that is gone."""


@asynccontextmanager
async def killed_at(house: House, at: int) -> AsyncIterator[None]:
    """The process dies as it opens its transaction number `at`."""
    db, seen = house.app.db, 0

    @asynccontextmanager
    async def transaction(tenant: TenantId, **how: Any) -> AsyncIterator[Transaction]:
        nonlocal seen
        seen += 1
        if seen == at:
            raise Killed
        async with Database.transaction(db, tenant, **how) as tx:
            yield tx

    db.transaction = transaction  # type: ignore[method-assign]
    try:
        yield
    finally:
        del db.transaction


async def test_removal_that_was_killed_anywhere_is_gone_on_with(house: House) -> None:
    await fill(house)
    for deaths in range(2, 50):
        try:
            async with killed_at(house, deaths):
                await remove(house, purge=True)
        except Killed:
            assert (await house.row("backends"))["state"] == "deleting"
            with pytest.raises(ConfigError):
                await house.run()
        else:
            break
    assert deaths > 5
    assert not await house.rows("backends")
    assert await house.paths() == ["ext/b", "ext/c", "ext/mine"]


async def test_backend_of_the_same_id_begins_behind_the_one_that_was_removed(
    house: House,
) -> None:
    """Neither a late worker's fence nor an event's number fits the new one."""
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.run()
    fence = max(row["fence"] for row in await house.rows("runs"))
    await remove(house)
    await house.app.federation.apply([house.spec])
    assert (await house.row("leases"))["fence"] > fence
    assert failure(await house.run()) is None
    assert await house.status("ext/a") == "in_sync"
    assert await house.versions("ext/a") == [{"k": "1"}]
    numbers = [row["sequence"] for row in await house.rows("outbox")]
    assert len(numbers) == len(set(numbers))


# --- pause and resume -----------------------------------------------------------------


async def test_paused_backend_runs_again_when_it_is_resumed(house: House) -> None:
    await house.app.removal.pause(TENANT, BACKEND)
    with pytest.raises(ConfigError):
        await house.run()
    await house.app.federation.apply([house.spec])
    with pytest.raises(ConfigError):
        await house.run()  # what a person paused stays so, whatever the file brings
    await house.app.removal.resume(TENANT, BACKEND)
    assert failure(await house.run(allow=ALLOW_ALL)) is None


async def test_pause_lets_the_run_under_way_end(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    pause = Pause(house.there, "read")
    running = asyncio.create_task(house.run())
    await pause.reached.wait()
    await house.app.removal.pause(TENANT, BACKEND)
    pause.let_go()
    assert failure(await running) is None
    assert await house.paths() == ["ext/a"]


async def test_backend_that_the_file_dropped_is_not_resumed(house: House) -> None:
    await house.app.federation.apply([])
    with pytest.raises(ConfigError) as refused:
        await removal(house).resume(TENANT, BACKEND)
    assert refused.value.code == "managed_by_file"


async def test_half_removed_backend_is_neither_paused_nor_resumed_nor_brought_back(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    async with open_house(database_url, admin_url, state_dir, backend()) as house:
        await house.admin.execute("UPDATE backends SET state = 'deleting'")
        for act in (house.app.removal.pause, house.app.removal.resume):
            with pytest.raises(ConfigError) as refused:
                await act(TENANT, BACKEND)
            assert refused.value.code == "backend_removed"
        await house.app.federation.apply([house.spec])
        assert (await house.row("backends"))["state"] == "deleting"
        await house.app.removal.remove(TENANT, BACKEND)  # gone on with, although it is named
        with pytest.raises(NotFoundError):
            await house.run()
