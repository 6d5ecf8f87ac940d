"""Runs that wait: born, claimed, given back, and left to others, while others do the same."""

import asyncio
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House, failure
from tests.waiting import ask, queued, somebody_waits_for_a_lock, until, work_until

from svsync.app import new_id
from svsync.domain.changes import Entry
from svsync.domain.errors import ConfigError, NotFoundError
from svsync.domain.ids import RemotePath, RunId
from svsync.domain.suspects import Suspicion
from svsync.registry import Registry
from svsync.services.runs import Runs
from svsync.services.sync import intake
from svsync.store import queue, staging, suspects
from svsync.store.database import Transaction
from svsync.store.queue import Claimed, Wanted

FULL = Wanted("full", "api")


async def enqueue(house: House, run: str) -> RunId:
    async with house.app.db.transaction(TENANT) as tx:
        made, _ = await queue.enqueue(tx, BACKEND, RunId(run), FULL)
    return made


async def claim(house: House, run: str, wanted: Wanted = FULL) -> Claimed:
    async with house.app.db.transaction(TENANT) as tx:
        claimed, _ = await queue.claim(tx, BACKEND, RunId(run), wanted, holder="x:1")
    return claimed


async def expire(house: House) -> None:
    await house.admin.execute("UPDATE leases SET expires_at = now()")


# --- born and claimed ---------------------------------------------------------------


async def test_nothing_is_queued_for_a_backend_that_is_being_removed(house: House) -> None:
    async with house.admin.transaction():
        await house.admin.execute("DELETE FROM backends")
        asking = asyncio.create_task(enqueue(house, "run_late"))

        async def comes_to_it() -> bool:
            return asking.done() or await somebody_waits_for_a_lock(house)

        await until(comes_to_it)
    with pytest.raises(NotFoundError):
        await asking
    assert await queued(house) == []


async def test_claim_takes_the_run_before_the_lease_as_all_others_do(house: House) -> None:
    # In the other order two who claim the same run could each hold what the other waits for.
    await house.run()
    waiting = await enqueue(house, "run_waiting")
    async with house.admin.transaction():
        await house.admin.execute("SELECT FROM runs WHERE run_id = $1 FOR UPDATE", waiting)
        claiming = asyncio.create_task(claim(house, "run_new"))
        await until(lambda: somebody_waits_for_a_lock(house))
        await house.admin.execute("SELECT FROM leases FOR UPDATE NOWAIT")
    assert (await claiming).run_id == waiting


async def test_lease_names_the_run_that_is_worked_under_it(house: House) -> None:
    waiting = await enqueue(house, "run_waiting")
    await claim(house, "run_new")
    assert (await house.row("leases"))["run_id"] == waiting


# --- left to others -----------------------------------------------------------------


async def test_process_that_lacks_a_type_of_backend_leaves_its_run_to_another(
    house: House,
) -> None:
    async def nothing_to_read(*_: object) -> Any:
        raise AssertionError("no backend is opened")

    house.there.put("kv/a", {"k": "1"})
    app = house.app
    lacking = Runs(
        app.db, app.sealing, Registry(app.settings, nothing_to_read),
        holder="y:1", ids=new_id, random=lambda: 0.5,
    )  # fmt: skip
    run = await ask(house)
    with pytest.raises(ConfigError):
        await lacking.work(TENANT, run, lambda: False)
    assert await queued(house) == [("full", "api")]
    ended = await app.runs.work(TENANT, run, lambda: False)
    assert ended is not None
    assert failure(ended) is None
    assert await house.paths() == ["ext/a"]


# --- given back ---------------------------------------------------------------------


@pytest.fixture
async def sixty(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Three batches of secrets, of which a worker may stop in the middle."""
    monkeypatch.setattr(intake, "BATCH", 20)
    for n in range(60):
        house.there.put(f"kv/{n:02}", {"k": "1"})
    return house


async def goes_on(house: House, run: RunId) -> bool:
    """Work it to its end; did it go on with the listing that was left?"""
    listed = house.there.calls["list"]
    ended = await house.app.runs.work(TENANT, run, lambda: False)
    assert ended is not None
    assert failure(ended) is None
    assert len(await house.paths()) == 60
    return house.there.calls["list"] == listed


async def test_listing_that_waited_for_long_is_made_anew(sixty: House) -> None:
    house = sixty
    run = await ask(house)
    await work_until(house, run, "kv/25")
    await house.admin.execute("UPDATE runs SET given_back_at = now() - interval '2 min'")
    begun: list[tuple[str, int | None]] = []

    async def look(operation: str, path: str) -> None:
        if operation == "list":
            row = await house.row("runs")
            begun.append((row["stage"], row["staged_count"]))

    house.there.before = look
    assert not await goes_on(house, run)
    assert begun[0] == ("list", None), "it is told as what it is"


@pytest.mark.parametrize("wait", ["-1 hour", "1 hour"])
async def test_heir_goes_on_at_once_however_long_it_has_waited_or_was_to_wait(
    sixty: House, wait: str
) -> None:
    house = sixty
    heirs = []

    async def another_waits() -> None:
        heirs.append(await ask(house))
        await house.admin.execute(
            "UPDATE runs SET not_before = now() + $1::text::interval WHERE state = 'queued'", wait
        )

    await work_until(house, await ask(house), "kv/25", another_waits)
    assert await goes_on(house, heirs[0])


async def test_run_that_is_given_back_while_another_is_queued_is_gone_on_with_by_that_one(
    sixty: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = sixty
    heirs: list[RunId] = []
    execute = Transaction.execute

    async def late(tx: Transaction, name: str, *args: object) -> int:
        if name == "queue.requeue" and not heirs:  # it has just seen that none waits
            heirs.append(await enqueue(house, new_id("run")))
        return await execute(tx, name, *args)

    monkeypatch.setattr(Transaction, "execute", late)
    run = await ask(house)
    await work_until(house, run, "kv/25")
    assert (await house.row("runs", run_id=run))["state"] == "superseded"
    assert (await house.row("leases"))["holder"] is None
    assert await goes_on(house, heirs[0])


async def suspicious(house: House) -> Claimed:
    """A run that suspects what two dead workers had in hand."""
    for run in ("run_a", "run_b"):
        claimed = await claim(house, run)
        async with house.app.db.transaction(TENANT) as tx:
            await suspects.take_in_hand(
                tx, claimed.run_id, [RemotePath("kv/a"), RemotePath("kv/b")]
            )
        await expire(house)
    begun = await claim(house, "run_c")
    assert begun.suspicion.paths == ("kv/a", "kv/b")
    return begun


async def give_back(house: House, run: Claimed) -> None:
    async with house.app.db.transaction(TENANT, held=run.held) as tx:
        await queue.hand_over(tx, run.run_id, counts={}, calls={}, stages_ms={}, keep_stage=False)
        await queue.release(tx, run.held)


@pytest.mark.parametrize("inherited", [False, True])
async def test_whom_a_run_suspects_is_suspected_by_who_goes_on_with_it(
    house: House, inherited: bool
) -> None:
    stopped = await suspicious(house)
    if inherited:
        await enqueue(house, "run_d")
    await give_back(house, stopped)
    next_one = await claim(house, "run_e")
    assert next_one.run_id == ("run_d" if inherited else "run_c")
    assert next_one.suspicion == stopped.suspicion


@pytest.mark.parametrize("inherited", [False, True])
async def test_whom_a_run_has_cleared_is_not_suspected_by_who_goes_on_with_it(
    house: House, inherited: bool
) -> None:
    stopped = await suspicious(house)
    async with house.app.db.transaction(TENANT, held=stopped.held) as tx:
        await suspects.clear(tx, stopped.run_id)
    if inherited:
        await enqueue(house, "run_d")
    await give_back(house, stopped)
    assert (await claim(house, "run_e")).suspicion == Suspicion()


# --- left behind --------------------------------------------------------------------


async def test_work_rows_of_a_dead_run_are_cleared_however_many_probes_came_after(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    dead = await claim(house, "run_0dead")
    async with house.app.db.transaction(TENANT, held=dead.held) as tx:
        await staging.add_entries(tx, dead.run_no, [Entry(RemotePath("kv/x"))])
    await expire(house)
    await house.admin.execute(
        "UPDATE runs SET state = 'failed', result = 'failed', ended_at = now()"
    )
    await house.admin.execute(
        "INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, state, ended_at)"
        " SELECT 1, 'run_1probe' || n, $1, 'probe', 'probe', 'completed', now()"
        " FROM generate_series(10, 40) n",
        BACKEND,
    )
    assert failure(await house.run()) is None
    assert await house.rows("stage") == []
