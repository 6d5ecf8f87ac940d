"""The worker pool: what it takes first, what it leaves alone, and how it is stopped."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest
from tests.house import BACKEND, TENANT, House, Pause
from tests.patience import PATIENCE_S
from tests.waiting import ask, scheduling, until
from tests.writes import there, written_through

from svsync.bus.local import LocalSignals
from svsync.domain.errors import BackendUnreachableError
from svsync.domain.federation import ConflictPolicy, RuleSpec, Writes
from svsync.domain.ids import RunId, TenantId
from svsync.services.sync import intake
from svsync.services.workers import Workers
from svsync.store import queue, schedule
from svsync.store.queue import Wanted

GRACE = 20.0


@asynccontextmanager
async def working(house: House, signals: LocalSignals | None = None) -> AsyncIterator[Workers]:
    workers = Workers(house.app.db, house.app.runs, signals or LocalSignals(), slots=2)
    task = asyncio.create_task(workers.serve(GRACE))
    try:
        yield workers
    finally:
        workers.stop()
        await task


@asynccontextmanager
async def stopped_in(
    house: House, signals: LocalSignals, operation: str, path: str
) -> AsyncIterator[None]:
    """Workers that are told to stop in the middle of a call to the backend, once the block
    has ended, and have stopped behind it."""
    pause = Pause(house.there, operation, path)
    async with working(house, signals) as workers:
        await asyncio.wait_for(pause.reached.wait(), PATIENCE_S)
        yield
        workers.stop()
        pause.let_go()


async def ended(house: House, run: RunId) -> bool:
    return (await house.row("runs", run_id=run))["state"] in ("completed", "failed")


async def closing_events(house: House) -> list[str]:
    return [name for name in await house.events() if ".sync." in name]


async def test_run_that_waits_is_worked_as_soon_as_it_is_told_of(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    signals = LocalSignals()
    async with working(house, signals):
        run = await ask(house, signals)
        await until(lambda: ended(house, run))
    assert await house.paths() == ["ext/a"]
    assert (await house.row("leases"))["holder"] is None


async def test_backend_that_somebody_else_runs_is_left_until_it_is_free(house: House) -> None:
    async with house.app.db.transaction(TENANT) as tx:
        await queue.claim(tx, BACKEND, RunId("run_x"), Wanted("full", "run_once"), holder="x:1")
    signals = LocalSignals()
    run = await ask(house, signals)
    async with house.app.db.transaction_of([TENANT]) as tx:
        assert await schedule.candidates(tx, 10) == []
    async with working(house, signals):
        await house.admin.execute("UPDATE leases SET expires_at = now()")
        await until(lambda: ended(house, run))
    assert (await house.row("runs", run_id="run_x"))["error_code"] == "worker_lost"


async def test_what_somebody_named_goes_before_the_schedule(house: House) -> None:
    await house.run()
    signals = LocalSignals()
    made = scheduling(house, signals)
    await house.admin.execute("UPDATE backend_health SET next_due_at = now() - interval '1 s'")
    await made.tick()
    named = await ask(house, signals, "ext/a")
    async with house.app.db.transaction_of([TENANT]) as tx:
        first, *others = await schedule.candidates(tx, 10)
    assert first[:2] == (TENANT, named)
    assert len(others) == 1
    await house.admin.execute(
        "UPDATE runs SET queued_at = now() - interval '2 min' WHERE kind = 'full'"
    )
    async with house.app.db.transaction_of([TENANT]) as tx:
        [oldest, _] = await schedule.candidates(tx, 10)
    assert oldest.run != named, "what has waited long is not overtaken for ever"


COPIES = """
INSERT INTO {table} SELECT (jsonb_populate_record(x, jsonb_build_object('tenant_id', $1::int,
  'backend_id', 'fed_' || n, 'name', 'copy ' || n, 'run_id', 'run_' || $1 || '_' || n))).*
FROM {table} x, generate_series(1, $2::int) n WHERE x.tenant_id = 1 AND x.backend_id = $3
"""


async def test_few_runs_of_one_tenant_are_among_the_first_beside_many_of_another(
    house: House,
) -> None:
    await house.run()
    await house.admin.execute("DELETE FROM runs WHERE state <> 'queued'")
    await scheduling(house, LocalSignals()).trigger(TENANT, BACKEND, full=True)
    await house.admin.execute("INSERT INTO tenants (tenant_id, slug) VALUES (2, 'other')")
    for tenant, many in ((1, 100), (2, 1)):
        for table in ("backends", "backend_health", "runs"):
            await house.admin.execute(COPIES.format(table=table), tenant, many, BACKEND)
    await house.admin.execute("UPDATE runs SET queued_at = now() WHERE tenant_id = 2")
    async with house.app.db.transaction_of([TENANT, TenantId(2)]) as tx:
        found = await schedule.candidates(tx, 32)
    assert [one.tenant for one in found[:2]].count(TenantId(2)) == 1


async def test_processes_begin_with_shares_of_their_own_and_with_what_is_urgent(
    house: House,
) -> None:
    await house.run()
    await house.admin.execute("DELETE FROM runs WHERE state <> 'queued'")
    await scheduling(house, LocalSignals()).trigger(TENANT, BACKEND, full=True)
    for table in ("backends", "backend_health", "runs"):
        await house.admin.execute(COPIES.format(table=table), 1, 60, BACKEND)
    await house.admin.execute("UPDATE runs SET trigger = 'schedule' WHERE run_id LIKE 'run_1_%'")
    names = ["a", "b", "c"]
    for name in names:
        await schedule.beat(house.app.db, name, ["worker"], "1")
    looks = []
    for name in names:
        workers = Workers(house.app.db, house.app.runs, LocalSignals(), slots=6, name=name)
        await workers._look()
        looks.append([one.run for one in workers._found])
    assert all(sorted(look) == sorted(looks[0]) and len(look) == 61 for look in looks)
    [urgent] = {look[0] for look in looks}
    assert not urgent.startswith("run_1_")
    firsts = [set(look[1:11]) for look in looks]
    assert not firsts[0] & firsts[1] | firsts[1] & firsts[2] | firsts[0] & firsts[2]


# --- stopped ----------------------------------------------------------------------


def many(house: House, number: int) -> None:
    for n in range(number):
        house.there.put(f"kv/{n:04}", {"k": str(n)})


async def test_stopped_worker_gives_its_run_back_and_the_next_goes_on_at_the_diff(
    house: House,
) -> None:
    many(house, 3 * intake.BATCH)
    signals = LocalSignals()
    run = await ask(house, signals)
    async with stopped_in(house, signals, "read", f"kv/{intake.BATCH + 5:04}"):
        pass
    row = await house.row("runs", run_id=run)
    assert (row["state"], row["handed_over"]) == ("queued", True)
    assert (await house.row("leases"))["holder"] is None
    committed = len(await house.paths())
    assert 0 < committed < 3 * intake.BATCH
    assert await closing_events(house) == []
    listed = house.there.calls["list"]
    async with working(house):
        await until(lambda: ended(house, run))
    row = await house.row("runs", run_id=run)
    assert house.there.calls["list"] == listed, "it does not list again"
    assert row["state"] == "completed"
    told = json.loads(row["counts"])
    assert (told["listed"], told["created"]) == (3 * intake.BATCH, 3 * intake.BATCH)
    assert len(await house.paths()) == 3 * intake.BATCH
    assert await closing_events(house) == ["federation.sync.completed"]
    assert await house.rows("stage") == await house.rows("todo") == []


async def test_run_that_waits_already_inherits_the_stage(house: House) -> None:
    many(house, 2 * intake.BATCH)
    signals = LocalSignals()
    first = await ask(house, signals)
    async with stopped_in(house, signals, "read", f"kv/{intake.BATCH + 5:04}"):
        heir = await ask(house, signals)
    assert heir != first
    assert (await house.row("runs", run_id=first))["state"] == "superseded"
    listed = house.there.calls["list"]
    async with working(house):
        await until(lambda: ended(house, heir))
    assert house.there.calls["list"] == listed
    assert len(await house.paths()) == 2 * intake.BATCH
    assert await closing_events(house) == ["federation.sync.completed"]


async def test_stopped_while_it_lists_it_waits_again_from_the_beginning(house: House) -> None:
    many(house, 3)
    signals = LocalSignals()
    run = await ask(house, signals)
    pause = Pause(house.there, "list")
    workers = Workers(house.app.db, house.app.runs, signals, slots=2)
    task = asyncio.create_task(workers.serve(grace=5.0))  # nothing is left of it to wait in
    await pause.reached.wait()
    workers.stop()
    await task
    row = await house.row("runs", run_id=run)
    assert (row["state"], row["staged_count"]) == ("queued", None)
    async with working(house):
        await until(lambda: ended(house, run))
    assert len(await house.paths()) == 3


async def test_stage_of_another_mapping_is_not_gone_on_with(house: House) -> None:
    many(house, 2 * intake.BATCH)
    signals = LocalSignals()
    run = await ask(house, signals)
    async with stopped_in(house, signals, "read", f"kv/{intake.BATCH + 5:04}"):
        pass
    await house.configure(rules=(RuleSpec("new/**", "kv/**"),))
    listed = house.there.calls["list"]
    async with working(house):
        await until(lambda: ended(house, run))
    assert house.there.calls["list"] > listed
    new = [path for path in await house.paths() if path.startswith("new/")]
    assert len(new) == 2 * intake.BATCH


async def test_run_that_pushed_goes_on_elsewhere_and_its_own_writes_trip_no_guard(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH", 40)
    await written_through(house, monkeypatch)
    await house.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS, writes=Writes.LOCAL)
    many(house, 120)
    await house.run()
    for n in range(120):
        await house.write(f"ext/{n:04}", {"k": f"ours {n}"})
    await house.configure(writes=Writes.WRITE_THROUGH)
    signals = LocalSignals()
    made = scheduling(house, signals)
    run = (await made.trigger(TENANT, BACKEND, allow=["mass_overwrite"])).run_id
    async with stopped_in(house, signals, "write", "kv/0045"):
        pass
    assert (await house.row("runs", run_id=run))["handed_over"]
    # The stage that was left tells of values of before these pushes: all went backwards.
    async with working(house):
        await until(lambda: ended(house, run))
    row = await house.row("runs", run_id=run)
    assert (row["state"], row["result"]) == ("completed", "ok")
    assert json.loads(row["counts"])["pushed"] == 120
    assert all(there(house, f"kv/{n:04}") == {"k": f"ours {n}"} for n in range(120))
    assert await closing_events(house) == ["federation.sync.completed"] * 3  # two before


# --- unreachable ------------------------------------------------------------------


async def test_backend_that_stays_away_is_told_of_once_and_probed_and_so_is_its_return(
    house: House,
) -> None:
    await house.run()

    def away(operation: str, path: str) -> Awaitable[None]:
        raise BackendUnreachableError("away", operation="login", sent=False)

    house.there.before = away
    await house.admin.execute("UPDATE runs SET not_before = now()")
    made = scheduling(house)
    await house.run()
    for _ in range(4):
        [probe] = await house.rows("runs", state="queued", kind="probe")
        assert 0 < (probe["not_before"] - probe["queued_at"]).total_seconds() <= 60
        await house.admin.execute("UPDATE runs SET not_before = now() WHERE state = 'queued'")
        await house.app.runs.work(TENANT, RunId(probe["run_id"]), lambda: False)
    health = await house.row("backend_health")
    assert (health["connection_failures"], health["status"]) == (5, "unreachable")
    assert (await house.events()).count("federation.backend.unreachable") == 1
    house.there.before = None
    await house.admin.execute("UPDATE runs SET not_before = now() WHERE state = 'queued'")
    [probe] = await house.rows("runs", state="queued", kind="probe")
    await house.app.runs.work(TENANT, RunId(probe["run_id"]), lambda: False)
    assert (await house.events()).count("federation.backend.recovered") == 1
    assert (await house.row("backend_health"))["unreachable_since"] is None
    await made.tick()  # it has missed cycles: the next is due at once
    [full] = await house.rows("runs", state="queued")
    assert full["kind"] == "full"
    await house.app.runs.work(TENANT, RunId(full["run_id"]), lambda: False)
    assert (await house.events()).count("federation.backend.recovered") == 1
    assert await house.rows("runs", state="queued") == []
