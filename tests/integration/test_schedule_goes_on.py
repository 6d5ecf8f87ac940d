"""A full disk, or one backend, ends neither the schedule nor the beats of a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House, backend
from tests.patience import PATIENCE_S
from tests.waiting import queued, scheduling, until

from svsync.bus.local import LocalSignals
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import RuleSpec, Writes
from svsync.domain.ids import BackendId, RunId
from svsync.services import instances
from svsync.services import scheduling as schedules
from svsync.services.instances import keep_beating
from svsync.services.scheduling import Scheduling, keep_schedule
from svsync.store import queue, schedule
from svsync.store.queue import Wanted

OTHER = BackendId("fed_other")


async def fill_disk(house: House, table: str) -> None:
    """From here on a write to this table is answered as by a server without space."""
    await house.admin.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;"
        f" CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE OR DELETE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )


async def free_disk(house: House) -> None:
    await house.admin.execute("DROP FUNCTION full_disk CASCADE")


@asynccontextmanager
async def kept(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """A task that ends when it is cancelled, and not before."""
    try:
        yield
    finally:
        ended_by_itself = task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert not ended_by_itself


async def test_beats_go_on_once_the_disk_has_space_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "BEAT_S", 0.01)
    beats = asyncio.Semaphore(0)
    await fill_disk(house, "instances")
    beating = asyncio.create_task(
        keep_beating(
            house.app.db,
            LocalSignals(),
            "x:1",
            roles=["worker"],
            version="1",
            each=lambda _: beats.release(),
        )
    )
    async with kept(beating), asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            await beats.acquire()
        assert await house.rows("instances") == []
        await free_disk(house)

        async def beats_again() -> bool:
            return bool(await house.rows("instances"))

        await until(beats_again)
    assert await house.rows("instances") == [], "it left in order"


async def test_schedule_goes_on_once_the_disk_has_space_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "TICK_S", 0.05)
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    tick = Scheduling.tick

    async def watched(self: Scheduling, *, care: bool = True) -> float:
        try:
            return await tick(self, care=care)
        except SvsyncError as problem:
            if not refused.done():
                refused.set_result(problem.code)
            raise

    monkeypatch.setattr(Scheduling, "tick", watched)
    await fill_disk(house, "runs")
    async with kept(asyncio.create_task(keep_schedule(scheduling(house)))):
        assert await asyncio.wait_for(refused, PATIENCE_S) == "disk_full"
        await free_disk(house)

        async def is_queued() -> bool:
            return await queued(house) == [("full", "schedule")]

        await until(is_queued)


# --- a backend that is removed meanwhile --------------------------------------------


async def two_backends(house: House) -> None:
    """The house's, and one that nothing is wrong with."""
    other = backend([RuleSpec("other/**", "kv/**")], id=OTHER)
    await house.app.federation.apply([house.spec, other])
    await house.admin.execute("UPDATE backend_health SET next_due_at = now() + interval '1 d'")


def remove_between_look_and_care(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = schedule.stale

    async def then_removed(tx: Any) -> Any:
        found = await stale(tx)
        await house.admin.execute("DELETE FROM backends WHERE backend_id = $1", BACKEND)
        return found

    monkeypatch.setattr(schedule, "stale", then_removed)


async def test_dead_run_of_a_backend_that_was_removed_keeps_nobody_from_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_backends(house)
    for name in (BACKEND, OTHER):
        async with house.app.db.transaction(TENANT) as tx:
            run, wanted = RunId(f"run_{name}"), Wanted("full", "schedule")
            await queue.claim(tx, name, run, wanted, holder="x:1")
    await house.admin.execute("UPDATE leases SET expires_at = now()")
    remove_between_look_and_care(house, monkeypatch)
    await scheduling(house).tick()
    waits = await house.rows("runs", state="queued")
    assert [row["backend_id"] for row in waits] == [OTHER]


async def unfinished(house: House, push: str, name: BackendId, path: str, remote: str) -> None:
    """A push that nobody has in hand any more."""
    await house.admin.execute(
        "INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind, state,"
        " secret_id, version, row_rev, created_by, sent_at, deadline)"
        " VALUES (1, $1, $2, $3, $4, 'put', 'unknown', 1, 1, 1, 'x', now(),"
        " now() - interval '1 h')",
        push, name, path, remote,
    )  # fmt: skip


async def test_push_of_a_backend_that_was_removed_keeps_nobody_from_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    await two_backends(house)
    await unfinished(house, "psh_a", BACKEND, "ext/a", "kv/a")
    await unfinished(house, "psh_b", OTHER, "other/b", "kv/b")
    remove_between_look_and_care(house, monkeypatch)
    await scheduling(house).tick()
    waits = await house.rows("runs", state="queued")
    assert [row["backend_id"] for row in waits] == [OTHER]


# --- pushes that nobody ended -------------------------------------------------------


async def test_two_pushes_to_one_remote_path_are_asked_after_together(house: House) -> None:
    await two_backends(house)
    await unfinished(house, "psh_a", BACKEND, "ext/a", "kv/a")
    await unfinished(house, "psh_b", BACKEND, "old/a", "kv/a")  # as a mapping of before had it
    await scheduling(house).tick()
    assert [row["remote_path"] for row in await house.rows("dirty_paths")] == ["kv/a"]
    assert await queued(house) == [("targeted", "schedule")]


@pytest.mark.parametrize(
    ("failures", "minutes", "asked"),
    [(0, 2, True), (4, 4, False), (4, 6, True), (5_000, 59, False), (5_000, 61, True)],
)
async def test_pushes_are_asked_after_the_less_often_the_more_runs_have_failed(
    house: House, failures: int, minutes: int, asked: bool
) -> None:
    await two_backends(house)
    await unfinished(house, "psh_a", BACKEND, "ext/a", "kv/a")
    await house.admin.execute(
        "UPDATE backend_health SET failures = $1, last_sync_at = now() - make_interval(mins => $2)",
        failures,
        minutes,
    )
    await scheduling(house).tick()
    assert bool(await queued(house)) is asked
