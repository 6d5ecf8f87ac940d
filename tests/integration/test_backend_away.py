"""A backend that goes away: in the middle of a run, for long, and without cycles."""

import pytest
from tests.house import BACKEND, TENANT, House, failure
from tests.waiting import queued, try_once, work_all_now

from svsync.app import new_id
from svsync.domain.errors import BackendUnreachableError
from svsync.domain.federation import Mode
from svsync.domain.ids import RunId
from svsync.store import schedule

TOLD = {"federation.backend.unreachable", "federation.backend.recovered"}


def cut(house: House, at: str) -> None:
    """Each call of this operation is lost from here on; `login`: nobody gets in."""

    async def lost(operation: str, path: str) -> None:
        if operation == at:
            raise BackendUnreachableError("away", operation=operation, sent=False)

    house.there.before = lost


async def ask_for_a_probe(house: House) -> None:
    async with house.app.db.transaction(TENANT) as tx:
        await schedule.enqueue_probe(tx, BACKEND, RunId(new_id("run")), after_s=0)


@pytest.fixture
async def lost_in_the_middle(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A backend that let a run in and was away when it listed."""
    try_once(monkeypatch)
    await house.configure(sync_interval=86_400)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    cut(house, "list")
    assert failure(await house.run()) == "backend_unreachable"
    return house


async def test_backend_that_was_lost_in_mid_run_is_looked_at_soon_and_not_counted_as_away(
    lost_in_the_middle: House,
) -> None:
    house = lost_in_the_middle
    health = await house.row("backend_health")
    assert (health["connection_failures"], health["unreachable_since"]) == (0, None)
    assert (health["failures"], health["status"]) == (1, "unreachable")
    [probe] = await house.rows("runs", state="queued")
    assert probe["kind"] == "probe"
    assert 0 < (probe["not_before"] - probe["queued_at"]).total_seconds() < 60
    assert await work_all_now(house) == ["probe"]
    assert await queued(house) == [], "it was there: nothing more is to be looked at"
    health = await house.row("backend_health")
    assert (health["connection_failures"], health["status"]) == (0, "degraded")
    house.there.before = None
    assert failure(await house.run()) is None
    assert (await house.row("backend_health"))["status"] == "healthy"
    assert not TOLD & set(await house.events())


async def test_cycle_that_was_broken_off_is_made_again_soon_and_ever_later(
    lost_in_the_middle: House,
) -> None:
    house = lost_in_the_middle
    wait = "SELECT extract(epoch FROM next_due_at - last_sync_at)::float8 FROM backend_health"
    assert await house.admin.fetchval(wait) == 30
    for again in (60, 120, 240, 480, 960, 1920, 1920):
        await house.run()
        assert await house.admin.fetchval(wait) == again
    await house.configure(sync_interval=600)
    await house.run()
    assert 540 <= await house.admin.fetchval(wait) <= 600, "never later than the interval"


async def test_backend_that_was_lost_in_mid_run_and_stays_away_counts_from_the_probe_on(
    lost_in_the_middle: House,
) -> None:
    house = lost_in_the_middle
    cut(house, "login")
    for failures in (1, 2, 3):
        assert await work_all_now(house) == ["probe"]
        health = await house.row("backend_health")
        assert (health["connection_failures"], health["status"]) == (failures, "unreachable")
        assert await queued(house) == [("probe", "probe")]
    assert (await house.events()).count("federation.backend.unreachable") == 1


async def test_backend_that_is_away_for_ever_is_looked_at_as_often_as_after_ten_failures(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_once(monkeypatch)
    cut(house, "login")
    for failures in (10, 100_000):
        await house.admin.execute(
            "UPDATE backend_health SET connection_failures = $1, unreachable_since = now()",
            failures,
        )
        assert failure(await house.run()) == "backend_unreachable"
        [probe] = await house.rows("runs", state="queued")
        assert 50 < (probe["not_before"] - probe["queued_at"]).total_seconds() < 70
        await house.admin.execute("DELETE FROM runs WHERE state = 'queued'")


async def test_probe_tells_how_a_backend_without_cycles_stands(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_once(monkeypatch)
    await house.configure(mode=Mode.PROXY)
    await ask_for_a_probe(house)
    cut(house, "login")
    await work_all_now(house)
    assert (await house.row("backend_health"))["status"] == "unreachable"
    house.there.before = None
    await work_all_now(house)
    assert (await house.row("backend_health"))["status"] == "healthy"


async def test_probe_that_gets_through_does_not_make_a_backend_with_cycles_healthy(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/shut/b", {"k": "1"})
    house.there.denied.add("kv/shut/")
    await house.run()
    assert (await house.row("backend_health"))["status"] == "degraded"
    await ask_for_a_probe(house)
    await work_all_now(house)
    health = await house.row("backend_health")
    assert (health["status"], health["latency_ms"] is None) == ("degraded", False)
