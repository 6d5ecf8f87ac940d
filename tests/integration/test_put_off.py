"""Runs that are put off for want of calls: what keeps them, and what they keep, waiting."""

import asyncio
from functools import partial
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House, house
from tests.integration.test_call_budget_of_runs import age, budget, counted, due, made, ran, work
from tests.patience import PATIENCE_S
from tests.waiting import ask, queued, scheduling, work_until
from tests.writes import lose, put, through

from svsync.domain.errors import WriteOutcomeUnknownError
from svsync.domain.ids import RunId
from svsync.store import queue
from svsync.store.queue import Wanted

__all__ = ["house", "through"]


async def given_back(house: House) -> None:
    """A run of the schedule that was given back with its listing."""
    await due(house)
    [run] = await house.rows("runs", state="queued")
    await work_until(house, RunId(run["run_id"]), "kv/new")


async def later(house: House, hours: float) -> None:
    """Let all that happened have happened so long ago, and what waits begin now."""
    await age(house, hours)
    await house.admin.execute(
        "UPDATE runs SET given_back_at = given_back_at - make_interval(secs => $1),"
        " not_before = now() WHERE state = 'queued'",
        hours * 3600,
    )


# --- one that was given back ----------------------------------------------------------------


async def test_calls_of_a_run_that_was_given_back_come_free_after_a_day(house: House) -> None:
    await ran(house)
    house.there.put("kv/new", {"k": "1"})
    await budget(house, 10_000)
    await given_back(house)
    await budget(house, made(house))
    assert await work(house) == [None]
    assert await counted(house) == made(house)
    await later(house, 25)
    assert await counted(house) == 0
    assert await work(house) == ["ok"]
    assert await house.data("ext/new") == {"k": "1"}


async def test_one_that_was_put_off_lists_anew(house: House) -> None:
    await ran(house)
    house.there.put("kv/new", {"k": "1"})
    await budget(house, 10_000)
    await given_back(house)
    await budget(house, made(house))
    assert await work(house) == [None]
    house.there.put("kv/a", {"k": "2"})
    await later(house, 25)
    assert await work(house) == ["ok"]
    assert await house.data("ext/a") == {"k": "2"}


# --- between the refusal and what comes of it -----------------------------------------------


def before_it_is_put_off(monkeypatch: pytest.MonkeyPatch, meanwhile: Any) -> None:
    """Somebody is faster than whoever puts a run off."""
    put_off = queue.put_off

    async def then(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(queue, "put_off", put_off)
        await meanwhile()
        await put_off(*args, **kwargs)

    monkeypatch.setattr(queue, "put_off", then)


async def test_who_asks_just_before_it_is_put_off_gets_it_begun(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ran(house)
    await house.admin.execute(
        """UPDATE runs SET calls = '{"list": 100}' WHERE run_id = (SELECT min(run_id) FROM runs)"""
    )
    await budget(house, await counted(house) + 10)
    await due(house)
    before_it_is_put_off(monkeypatch, partial(ask, house))
    assert await work(house) == [None]
    assert await queued(house) == [("full", "schedule")]
    assert await work(house) == ["ok"]


async def test_another_budget_just_before_it_is_put_off_is_looked_at_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycle = await ran(house)
    await budget(house, made(house) + cycle - 1)
    await due(house)
    before_it_is_put_off(monkeypatch, partial(budget, house, 10_000))
    assert await work(house) == [None]
    assert await work(house) == ["ok"]


# --- what does not wait for it --------------------------------------------------------------


async def test_a_push_of_which_nobody_knows_is_asked_after_meanwhile(through: House) -> None:
    lose(through, applied=True)
    with pytest.raises(WriteOutcomeUnknownError):
        await put(through, "ext/a", {"k": "2"})
    await through.admin.execute("""UPDATE runs SET calls = '{"list": 60}'""")
    await through.admin.execute(
        "UPDATE backend_health SET last_sync_at = now() - interval '1 h',"
        """ quiet_cycle = '{"calls": {"list": 50}, "total": 50, "seconds": 1}'"""
    )
    await budget(through, 100)
    await due(through)
    assert await work(through) == [None], "a cycle of 50 calls, of which 30 are left"
    await through.admin.execute("UPDATE pushes SET deadline = now() - interval '1 min'")
    await scheduling(through).tick()
    assert await queued(through) == [("full", "schedule"), ("targeted", "schedule")]
    assert await work(through) == ["ok"]
    assert await through.data("ext/a") == {"k": "2"}


async def test_a_dead_worker_is_told_of_meanwhile(house: House) -> None:
    cycle = await ran(house)
    await budget(house, made(house) + cycle - 1)
    await due(house)
    assert await work(house) == [None]
    async with house.app.db.transaction(TENANT) as tx:
        wanted = Wanted("targeted", "api", paths=["ext/a"])
        await queue.claim(tx, BACKEND, RunId("run_z"), wanted, holder="b:1")
    await house.admin.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
    await scheduling(house).tick()
    assert len(await work(house)) == 1
    assert (await house.row("runs", run_id="run_z"))["error_code"] == "worker_lost"


async def test_a_change_of_configuration_waits_for_nobody_who_begins_it(house: House) -> None:
    """Whoever begins a run has its row, and waits for the lease that the change has."""
    cycle = await ran(house)
    await budget(house, made(house) + cycle - 1)
    await due(house)
    assert await work(house) == [None]
    async with house.admin.transaction():
        await house.admin.execute("SELECT FROM runs WHERE state = 'queued' FOR UPDATE")
        async with asyncio.timeout(PATIENCE_S):
            await budget(house, 10_000)
