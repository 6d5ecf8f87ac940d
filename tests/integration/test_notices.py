"""Notices of change feeds: kept until a run has looked at what they name, and no longer."""

import asyncio

import pytest
from tests.house import BACKEND, TENANT, House, Pause
from tests.integration.test_removal import remove
from tests.waiting import ask, queued, scheduling, work_all, work_all_now, work_until

from svsync.domain.ids import RemotePath, RunId
from svsync.services.sync import intake
from svsync.store import queue, schedule

FEED = "vault-audit"


async def notice(house: House, *paths: str) -> None:
    await scheduling(house).notice(TENANT, BACKEND, set(map(RemotePath, paths)), FEED)


async def named(house: House) -> set[str]:
    """What a run is still to look at."""
    return {row["remote_path"] for row in await house.rows("dirty_paths")}


async def test_run_that_goes_on_with_an_older_listing_leaves_what_was_named_since(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH", 20)
    for n in range(60):
        house.there.put(f"kv/{n:02}", {"k": "1"})
    run = await ask(house)
    await work_until(house, run, "kv/25")
    listed = house.there.calls["list"]
    house.there.put("kv/00", {"k": "2"})
    await notice(house, "kv/00")
    await house.app.runs.work(TENANT, run, lambda: False)
    assert house.there.calls["list"] == listed, "it went on with the listing of before"
    assert await named(house) == {"kv/00"}
    assert await work_all(house) == ["targeted"]
    assert await house.data("ext/00") == {"k": "2"}
    assert await named(house) == set()


async def test_notice_that_was_stored_late_is_not_forgotten_with_a_later_one(
    house: House,
) -> None:
    for name in "ab":
        house.there.put(f"kv/{name}", {"k": "1"})
    pause = Pause(house.there, "login")
    async with house.app.db.transaction(TENANT) as late:
        await schedule.add_dirty(late, BACKEND, [RemotePath("kv/a")], FEED)
        await notice(house, "kv/b")
        working = asyncio.create_task(work_all(house))
        await pause.reached.wait()  # it has read what there was to look at
    pause.let_go()
    await working
    assert await house.paths() == ["ext/b"]
    assert await named(house) == {"kv/a"}


async def test_run_that_waits_does_not_begin_before_the_paths_of_a_notice_are_there(
    house: House,
) -> None:
    await notice(house, "kv/a")
    [waits] = await house.rows("runs", state="queued")
    async with house.app.db.transaction(TENANT) as tx:
        await schedule.add_dirty(tx, BACKEND, [RemotePath("kv/b")], FEED)
        await schedule.enqueue_hinted(tx, BACKEND, RunId("run_x"), "targeted", apart_s=2.0)
        async with house.app.db.transaction(TENANT) as other:
            run = RunId(waits["run_id"])
            assert await queue.claim_queued(other, run, holder="x:1") is None
    assert await queued(house) == [("targeted", "feed")]
    for name in "ab":
        house.there.put(f"kv/{name}", {"k": "1"})
    await work_all(house)
    assert await house.paths() == ["ext/a", "ext/b"]


async def test_run_that_waits_for_long_is_moved_up_by_a_notice_of_a_faster_feed(
    house: House,
) -> None:
    await notice(house, "kv/a")
    await work_all_now(house)
    await house.configure(extra={"feed_min_interval": 3600})
    await notice(house, "kv/a")
    await house.configure(extra={})
    await notice(house, "kv/b")
    [waits] = await house.rows("runs", state="queued")
    assert (waits["not_before"] - waits["queued_at"]).total_seconds() < 60


async def test_run_that_waits_for_its_feed_begins_when_its_backend_is_due(house: House) -> None:
    await scheduling(house).notice(TENANT, BACKEND, None, FEED)
    await work_all_now(house)
    await house.configure(extra={"feed_min_interval": 3600})
    await scheduling(house).notice(TENANT, BACKEND, None, FEED)
    [waits] = await house.rows("runs", state="queued")
    assert (waits["not_before"] - waits["queued_at"]).total_seconds() > 3000
    await house.admin.execute("UPDATE backend_health SET next_due_at = now()")
    await scheduling(house).tick()
    [waits] = await house.rows("runs", state="queued")
    assert (waits["not_before"] - waits["queued_at"]).total_seconds() < 60


@pytest.mark.parametrize("purge", [False, True])
async def test_notices_go_with_their_backend(house: House, purge: bool) -> None:
    await notice(house, "kv/a")
    await remove(house, purge=purge)
    assert await named(house) == set()
