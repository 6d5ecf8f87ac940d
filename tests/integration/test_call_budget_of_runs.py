"""A budget of calls holds for runs: what each is given, what is kept for people, and what is
put off, until when, and how that is told."""

import asyncio
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from tests.api import Front, front
from tests.house import BACKEND, TENANT, House, Pause, failure, house
from tests.waiting import ask, queued, scheduling, work_until

from svsync.app import make_doctor
from svsync.domain.federation import OnRemoteDelete
from svsync.domain.ids import RunId
from svsync.services.call_budgets import CallBudgets
from svsync.services.runs import Request
from svsync.store import queue
from svsync.store.queue import Wanted
from svsync.testing.memory import MemoryDriver

__all__ = ["front", "house"]


async def budget(house: House, per_day: int) -> None:
    await house.configure(call_budget={"per_day": per_day})


def made(house: House) -> int:
    """Calls that reached the store."""
    return sum(house.there.calls.values())


async def counted(house: House) -> int:
    async with house.app.db.transaction(TENANT, read_only=True) as tx:
        return await queue.calls_of_last_day(tx, BACKEND)


async def work(house: House) -> list[str | None]:
    """Work what may begin now; of each run how it ended, None: not at all."""
    rows = await house.admin.fetch(
        "SELECT run_id FROM runs WHERE state = 'queued' AND not_before <= now() ORDER BY run_id"
    )
    ended = [await house.app.runs.work(TENANT, RunId(r["run_id"]), lambda: False) for r in rows]
    return [None if end is None else str(end.record.result) for end in ended]


async def due(house: House) -> None:
    """The schedule makes a run, whatever was due before."""
    await house.admin.execute("UPDATE backend_health SET next_due_at = now()")
    await scheduling(house).tick()


async def status(house: House) -> dict[str, Any]:
    return await house.app.federation.status(TENANT, BACKEND)


async def age(house: House, hours: float) -> None:
    """Let the runs there are have ended so long ago."""
    await house.admin.execute(
        "UPDATE runs SET started_at = started_at - make_interval(secs => $1),"
        " ended_at = ended_at - make_interval(secs => $1)",
        hours * 3600,
    )


async def ran(house: House) -> int:
    """A store of three secrets, brought in; the calls of a quiet cycle, once there was one."""
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    await house.run()
    calls = (await status(house))["calls_per_cycle"]
    assert isinstance(calls, int)
    return calls


async def spent(house: House) -> int:
    """As `ran`, and the first of its runs called a hundred times; what counts now."""
    await ran(house)
    await house.admin.execute(
        """UPDATE runs SET calls = '{"list": 100}' WHERE run_id = (SELECT min(run_id) FROM runs)"""
    )
    return await counted(house)


# --- put off ------------------------------------------------------------------------------


async def test_run_of_the_schedule_without_calls_is_put_off_and_status_says_so(
    house: House,
) -> None:
    cycle = await ran(house)
    await budget(house, made(house) + cycle - 1)
    before, events = made(house), await house.events()
    await due(house)
    assert await work(house) == [None]
    assert made(house) == before
    shown = await status(house)
    assert shown["put_off"]["reason"] == "call_budget_spent"
    assert (shown["consecutive_failures"], shown["last_error"]) == (0, None)
    [seen] = (await house.app.overview.look(TENANT))["backends"]
    assert seen["put_off"] == shown["put_off"]
    assert await house.events() == events, "it is no failure, and nothing is told"


async def test_it_is_put_off_until_enough_calls_are_older_than_a_day(house: House) -> None:
    await ran(house)
    calls = made(house)
    rows = await house.admin.fetch("SELECT ended_at FROM runs ORDER BY run_id")
    async with house.app.db.transaction(TENANT) as tx:
        free = await queue.calls_come_free(tx, BACKEND, 1)
        both = await queue.calls_come_free(tx, BACKEND, calls)
        never = await queue.calls_come_free(tx, BACKEND, calls + 1)
    day = timedelta(hours=24)
    assert (free, both, never) == (rows[0]["ended_at"] + day, rows[1]["ended_at"] + day, None)


async def test_it_begins_when_its_time_has_come(house: House) -> None:
    cycle = await ran(house)
    await age(house, 23)
    await budget(house, made(house) + cycle - 1)
    await due(house)
    assert await work(house) == [None]
    until = datetime.fromisoformat((await status(house))["put_off"]["until"])
    at = await house.admin.fetchval("SELECT min(ended_at) FROM runs") + timedelta(hours=24)
    assert until == at
    await age(house, 2)
    await house.admin.execute("UPDATE runs SET not_before = now() WHERE state = 'queued'")
    assert await work(house) == ["ok"]
    assert (await status(house))["put_off"] is None
    [run] = await house.rows("runs", trigger="schedule")
    assert (run["put_off"], run["granted"]) == (None, None)


async def test_schedule_and_feeds_do_not_hurry_what_is_put_off(house: House) -> None:
    cycle = await ran(house)
    await budget(house, made(house) + cycle - 1)
    await due(house)
    assert await work(house) == [None]
    await due(house)
    await scheduling(house).notice(TENANT, BACKEND, None, "http")
    assert await work(house) == []
    assert await queued(house) == [("full", "schedule")]


async def test_another_budget_is_looked_at_at_once(house: House) -> None:
    cycle = await ran(house)
    await budget(house, made(house) + cycle - 1)
    await due(house)
    assert await work(house) == [None]
    await budget(house, 10_000)
    assert (await status(house))["put_off"] is None
    assert await work(house) == ["ok"]


async def test_a_first_import_begins_with_what_there_is_and_goes_on_the_next_day(
    house: House,
) -> None:
    for n in range(700):
        house.there.put(f"kv/{n}", {"k": "1"})
    await budget(house, 670)
    await due(house)
    assert await work(house) == ["failed"]
    assert made(house) == 603, "a tenth is kept"
    [run] = await house.rows("runs")
    assert run["error_code"] == "call_budget_spent"
    some = len(await house.paths())
    assert 0 < some < 700
    await due(house)
    assert await work(house) == [None]
    await age(house, 25)
    await house.admin.execute("UPDATE runs SET not_before = now() WHERE state = 'queued'")
    assert await work(house) == ["ok"]
    assert len(await house.paths()) == 700


async def test_doctor_tells_of_what_is_put_off(house: House) -> None:
    cycle = await ran(house)
    await budget(house, made(house) + cycle - 1)
    await due(house)
    await work(house)
    doctor = make_doctor(
        house.app.settings, environ={}, drivers={"memory": MemoryDriver(house.there)}
    )
    said = [f for f in [f async for f in doctor.examine()] if f.check == f"backend {BACKEND}"]
    assert any("put off until" in f.says and "call_budget_spent" in f.says for f in said)
    assert any("call_budget.per_day" in f.advice for f in said)


# --- what a cycle needs -------------------------------------------------------------------


async def left_to_schedule(house: House, calls: int) -> None:
    """A budget of which so many calls are left to what nobody asked for."""
    allowed = await counted(house) + calls
    await budget(house, next(n for n in count(allowed) if n - n // 10 == allowed))


async def test_after_a_bulk_import_a_cycle_needs_what_a_quiet_one_takes(house: House) -> None:
    quiet = await ran(house)
    for n in range(200):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    assert (await status(house))["calls_per_cycle"] > 200
    await left_to_schedule(house, quiet - 1)
    await due(house)
    assert await work(house) == [None]
    await left_to_schedule(house, quiet)
    assert await work(house) == ["ok"]


async def test_after_a_first_import_a_cycle_needs_what_was_not_for_the_values(
    house: House,
) -> None:
    for n in range(50):
        house.there.put(f"kv/{n}", {"k": "1"})
    first = await house.run()
    lists = first.report.api_calls()["list"] + first.report.api_calls()["login"]
    await left_to_schedule(house, lists - 1)
    await due(house)
    assert await work(house) == [None]
    await left_to_schedule(house, lists)
    assert await work(house) == ["ok"]


async def test_where_the_listing_tells_of_no_value_its_reads_may_come_again(
    house: House,
) -> None:
    house.there.tokens_cost_calls = True
    for n in range(20):
        house.there.put(f"kv/{n}", {"k": "1"})
    first = sum((await house.run()).report.api_calls().values())
    await left_to_schedule(house, first - 1)
    await due(house)
    assert await work(house) == [None]
    await left_to_schedule(house, first)
    assert await work(house) == ["ok"]


async def grown(house: House, folders: int) -> int:
    """A store that grew by so many folders, each a call; what the schedule was left then."""
    quiet = await ran(house)
    for n in range(folders):
        house.there.put(f"kv/more{n}/x", {"k": "1"})
    await left_to_schedule(house, quiet)
    return quiet


async def test_what_ran_out_is_not_begun_again_before_there_is_twice_as_much(
    house: House,
) -> None:
    quiet = await grown(house, 40)
    await due(house)
    assert await work(house) == ["failed"], "the store grew, which nobody knows before"
    await due(house)
    await left_to_schedule(house, 2 * quiet - 1)
    assert await work(house) == [None], "it would run out as well"
    await left_to_schedule(house, 2 * quiet)
    assert await work(house) == ["failed"]
    await due(house)
    await left_to_schedule(house, 200)
    assert await work(house) == ["ok"]
    assert len(await house.paths()) == 43


async def test_after_a_day_it_is_begun_with_what_a_quiet_cycle_takes(house: House) -> None:
    quiet = await grown(house, 40)
    await due(house)
    assert await work(house) == ["failed"]
    await age(house, 25)
    await due(house)
    await left_to_schedule(house, quiet)
    assert await work(house) == ["failed"]


async def test_a_run_without_calls_deletes_and_detaches_nothing_and_is_no_success(
    house: House,
) -> None:
    """Wherever it ends: what is gone there may be seen so, what is there stays, and nobody is
    told that all was looked at."""
    await house.configure(on_remote_delete=OnRemoteDelete.SOFT_DELETE)
    names = [f"{folder}/{name}" for folder in "abc" for name in "xy"]
    for name in names:
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    succeeded = (await house.row("backend_health"))["last_success_at"]
    house.there.remove("kv/b/y")
    for name in ("a/x", "c/y"):
        house.there.put(f"kv/{name}", {"k": "2"})
    staying = {f"ext/{name}" for name in names if name != "b/y"}
    for calls in count(1):
        await house.admin.execute("UPDATE runs SET calls = NULL")
        await budget(house, calls)
        ended = await house.run()
        assert staying <= set(await house.paths())
        assert {await house.status(path) for path in staying} == {"in_sync"}
        health = await house.row("backend_health")
        if failure(ended) is None:
            assert calls > 6
            assert health["last_success_at"] > succeeded
            assert set(await house.paths()) == staying
            return
        assert failure(ended) == "call_budget_spent"
        assert health["last_success_at"] == succeeded
        assert not ended.report.skipped
        assert (await house.events())[-1] == "federation.sync.failed"


# --- what people ask for ------------------------------------------------------------------


async def test_a_tenth_is_kept_for_runs_that_somebody_asks_for(house: House) -> None:
    before = await spent(house)
    await budget(house, before + 10)
    await due(house)
    assert await work(house) == [None]
    assert failure(await house.run()) is None


async def test_a_person_who_asks_for_what_is_put_off_gets_it_begun(house: House) -> None:
    await budget(house, await spent(house) + 10)
    await due(house)
    assert await work(house) == [None]
    run = await ask(house)
    assert await queued(house) == [("full", "schedule")]
    assert await work(house) == ["ok"]
    assert (await house.row("runs", run_id=run))["state"] == "completed"


async def test_what_somebody_asked_for_is_put_off_too_where_nothing_is_left(house: House) -> None:
    await budget(house, await spent(house))
    await ask(house)
    assert await work(house) == [None]
    assert (await status(house))["put_off"]["reason"] == "call_budget_spent"


async def test_reads_may_use_what_is_kept(house: House) -> None:
    await budget(house, await spent(house) + 8)
    await due(house)
    assert await work(house) == [None]
    assert await CallBudgets(house.app.db).take(TENANT, house.spec) == 8


# --- at one time --------------------------------------------------------------------------


async def test_what_a_run_was_given_counts_while_it_runs_and_what_it_called_afterwards(
    house: House,
) -> None:
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    await budget(house, 30)
    pause = Pause(house.there, "list")
    running = asyncio.create_task(house.run())
    await pause.reached.wait()
    assert await counted(house) == 8, "the portion it begins with"
    assert [await CallBudgets(house.app.db).take(TENANT, house.spec) for _ in range(4)] == [
        8, 8, 6, 0,
    ]  # fmt: skip
    pause.let_go()
    ended = await running
    assert failure(ended) is None
    assert await counted(house) == made(house) < 8


async def test_a_run_and_reads_together_make_no_more_than_there_are(house: House) -> None:
    for n in range(60):
        house.there.put(f"kv/{n}", {"k": "1"})
    await budget(house, 40)
    budgets = CallBudgets(house.app.db)
    given: list[int] = []

    async def read_on() -> None:
        while calls := await budgets.take(TENANT, house.spec):
            given.append(calls)
            await asyncio.sleep(0)

    ended, _ = await asyncio.gather(house.run(), read_on())
    assert failure(ended) == "call_budget_spent"
    assert made(house) + sum(given) == 40


async def test_what_a_dead_worker_was_given_counts_as_called(house: House) -> None:
    await ran(house)
    before = made(house)
    await budget(house, 10_000)
    pause = Pause(house.there, "list")
    request = Request(BACKEND)
    dying = asyncio.create_task(house.app.runs.run(TENANT, request, lambda *told: None))
    await pause.reached.wait()
    await house.admin.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
    async with house.app.db.transaction(TENANT) as tx:
        await queue.claim(tx, BACKEND, RunId("run_z"), Wanted("full", "run_once"), holder="b:1")
    assert await counted(house) == before + 500
    pause.let_go()
    await asyncio.gather(dying, return_exceptions=True)
    assert await counted(house) == before + 500


async def test_a_run_that_was_given_back_counts_what_it_called_once(house: House) -> None:
    for n in range(3):
        house.there.put(f"kv/{n}", {"k": "1"})
    await budget(house, 10_000)
    run = await ask(house)
    await work_until(house, run, "kv/1")
    assert (await house.row("runs"))["state"] == "queued"
    assert await counted(house) == made(house) > 0
    assert await work(house) == ["ok"]
    assert await counted(house) == made(house)
    assert (await house.row("runs"))["granted"] is None


async def test_status_over_http_tells_of_it(front: Front) -> None:
    house = front.house
    cycle = await ran(house)
    await budget(house, made(house) + cycle - 1)
    await due(house)
    await work(house)
    shown = (await front.client.get(f"/v1/federation/backends/{BACKEND}/status")).body
    assert shown["put_off"]["reason"] == "call_budget_spent"
    assert shown["interval_unreachable"]["because"] == "call_budget"
