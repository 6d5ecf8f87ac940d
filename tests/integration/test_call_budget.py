"""A budget of calls in 24 hours: what counts, what is refused, and what a run says then."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.api import BACKENDS, ROBOT, Front, front
from tests.house import BACKEND, TENANT, House, backend, failure, house, open_house
from tests.openbao import Bao
from tests.postgres import connected
from tests.writes import put, state

from svsync.app import make_doctor, new_id
from svsync.domain.access import Call, Caller, Scope
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    StoreUnavailableError,
    SvsyncError,
)
from svsync.domain.federation import ConflictPolicy, Mode, RuleSpec, Writes
from svsync.domain.ids import LocalPath, RunId
from svsync.domain.policies import ADMIN
from svsync.services.authority import Rights
from svsync.services.call_budgets import CallBudgets
from svsync.services.call_budgets import made as calls_made
from svsync.services.proxying import open_proxying
from svsync.services.reading import Reading
from svsync.store import proxied_calls, queue
from svsync.store.database import statements
from svsync.store.queue import Wanted
from svsync.testing.memory import MemoryDriver

__all__ = ["front", "house"]


async def budget(house: House, calls: int) -> None:
    """So many calls in 24 hours, the ones already made included."""
    await house.configure(call_budget={"per_day": calls})


async def calls_of_last_day(house: House) -> int:
    async with house.app.db.transaction(TENANT, read_only=True) as tx:
        return await queue.calls_of_last_day(tx, BACKEND)


def made(house: House) -> int:
    """Calls that reached the store."""
    return sum(house.there.calls.values())


async def age(house: House, hours: float) -> None:
    """Let the runs there are have ended so long ago."""
    await house.admin.execute(
        "UPDATE runs SET started_at = started_at - make_interval(secs => $1),"
        " ended_at = ended_at - make_interval(secs => $1)",
        hours * 3600,
    )


async def test_run_of_a_spent_budget_makes_no_call_and_says_so(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    before = made(house)
    await budget(house, before)
    ended = await house.run()
    assert failure(ended) == "call_budget_spent"
    assert ended.record.error is not None
    assert "call_budget.per_day" in ended.record.error.message
    assert made(house) == before


async def test_run_stops_at_the_call_that_is_too_many_and_keeps_what_it_committed(
    house: House,
) -> None:
    for n in range(3):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    for n in range(700):  # more than one batch
        house.there.put(f"kv/more/{n}", {"k": "1"})
    before = made(house)
    await budget(house, before + 600)
    assert failure(await house.run()) == "call_budget_spent"
    assert made(house) == before + 600
    kept = await house.paths()
    assert 3 < len(kept) < 703
    await budget(house, 10_000)
    assert failure(await house.run()) is None
    assert len(await house.paths()) == 703


async def test_logins_and_dry_runs_count(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    assert await calls_of_last_day(house) == 0
    await house.run(dry=True)
    assert house.there.calls["login"] == 1
    assert await calls_of_last_day(house) == made(house)
    await house.run()
    assert await calls_of_last_day(house) == made(house)


async def test_failed_runs_count(house: House) -> None:
    house.there.fail("list", *[BackendUnreachableError("down", operation="list")] * 2)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    assert await calls_of_last_day(house) == made(house)


async def test_calls_come_free_24_hours_after_their_run_ended(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await budget(house, made(house))
    await age(house, 23.9)
    assert failure(await house.run()) == "call_budget_spent"
    await age(house, 0.2)
    assert failure(await house.run()) is None


async def test_run_that_ended_out_of_the_order_of_ids_counts(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    first = await calls_of_last_day(house)
    await house.run()
    rows = await house.admin.fetch("SELECT run_id FROM runs ORDER BY run_id")
    await house.admin.execute(
        "UPDATE runs SET ended_at = now() - interval '25 hours' WHERE run_id = $1",
        rows[1]["run_id"],
    )
    assert await calls_of_last_day(house) == first


async def test_run_that_ended_after_those_that_were_queued_behind_it_counts(house: House) -> None:
    """It waited for days, as one does that is put off."""
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    first = await calls_of_last_day(house)
    await house.run()
    await house.admin.execute(
        "UPDATE runs SET ended_at = now() - interval '50 hours'"
        " WHERE run_id = (SELECT max(run_id) FROM runs)"
    )
    assert await calls_of_last_day(house) == first


@pytest.mark.parametrize("kept_plan", ["force_custom_plan", "force_generic_plan"])
async def test_history_before_it_is_not_read(
    house: House, database_url: str, kept_plan: str
) -> None:
    await house.run()
    await house.admin.execute(
        """INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, state, ended_at, calls)
           SELECT tenant_id, 'run_0' || n, backend_id, kind, trigger, state,
                  now() - interval '2 days' - n * interval '30 s', calls
           FROM runs, generate_series(1, 20000) n"""
    )
    await house.admin.execute("ANALYZE runs")
    async with connected(database_url) as role, role.transaction():
        await role.execute(f"SET LOCAL svsync.tenants = '{TENANT}'")
        await role.execute(f"SET LOCAL plan_cache_mode = {kept_plan}")
        asked = statements()["queue.calls_of_last_day"]
        await role.execute(f"PREPARE asked (int, text) AS {asked}")
        plan = await role.fetch(f"EXPLAIN (ANALYZE) EXECUTE asked ({TENANT}, '{BACKEND}')")
    shown = "\n".join(row[0] for row in plan)
    assert "runs_by_end" in shown
    assert "Rows Removed" not in shown, shown


async def test_run_whose_worker_died_tells_no_calls(house: House) -> None:
    async with house.app.db.transaction(TENANT) as tx:
        await queue.claim(tx, BACKEND, RunId("run_dead"), Wanted("full", "run_once"), holder="a:1")
    await house.admin.execute("UPDATE leases SET expires_at = now()")
    await house.run()
    assert [row["error_code"] for row in await house.rows("runs", run_id="run_dead")] == [
        "worker_lost"
    ]
    assert await calls_of_last_day(house) == made(house)


async def calls_that_count(house: House) -> int:
    async with house.app.db.transaction(TENANT, read_only=True) as tx:
        return await calls_made(tx, BACKEND)


async def test_connection_test_counts_and_is_not_refused(front: Front) -> None:
    house = front.house
    await house.run()
    await budget(house, await calls_that_count(house))
    assert (await house.app.federation.test(TENANT, BACKEND)).status == "healthy"
    answer = await front.client.post(f"{BACKENDS}/{BACKEND}/test")
    assert answer.body["status"] == "healthy"
    settings = replace(house.app.settings, backends=(house.spec,))
    drivers = {"memory": MemoryDriver(house.there)}
    async for finding in make_doctor(settings, environ={}, drivers=drivers).examine():
        assert "call_budget_spent" not in finding.says
    assert house.there.calls["login"] == 4
    assert await calls_that_count(house) == made(house)


async def test_connection_test_that_fails_counts_what_it_called(house: House) -> None:
    await budget(house, 100)
    house.there.fail("login", BackendError("no", operation="login"))
    with pytest.raises(BackendError):
        await house.app.federation.test(TENANT, BACKEND)
    assert await calls_that_count(house) == made(house) == 1


async def test_writes_that_pass_through_count_and_are_not_refused(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.configure(writes=Writes.WRITE_THROUGH)
    await house.run()
    await budget(house, await calls_that_count(house))
    assert state(await put(house, "ext/a", {"k": "2"})) == "applied"
    assert state(await put(house, "ext/b", {"k": "1"})) == "applied"
    await house.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    assert state(await put(house, "ext/a", {"k": "3"})) == "applied"
    assert house.there.calls["write"] >= 3
    assert await calls_that_count(house) == made(house)
    assert failure(await house.run()) == "call_budget_spent", "runs make so many fewer"


async def test_writes_leave_no_more_than_what_counts(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.configure(writes=Writes.WRITE_THROUGH, call_budget={"per_day": 1_000})
    await house.run()
    for value in ("2", "3"):
        await put(house, "ext/a", {"k": value})
        await house.admin.execute("UPDATE proxied_calls SET hour = hour - interval '3 days'")
    await put(house, "ext/a", {"k": "4"})
    assert len(await house.rows("proxied_calls")) == 1


async def test_write_that_the_backend_refuses_counts_what_it_called(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.configure(writes=Writes.WRITE_THROUGH)
    await house.run()
    await budget(house, 1_000)
    house.there.put("kv/a", {"k": "theirs"})
    with pytest.raises(SvsyncError) as refused:
        await put(house, "ext/a", {"k": "2"})
    assert refused.value.code == "remote_changed"
    assert await calls_that_count(house) == made(house)


async def test_what_cannot_be_counted_undoes_no_write(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.configure(writes=Writes.WRITE_THROUGH, call_budget={"per_day": 1_000})
    await house.run()

    async def away(*_: object) -> None:
        raise StoreUnavailableError("the database cannot be reached")

    monkeypatch.setattr(proxied_calls, "count", away)
    assert state(await put(house, "ext/a", {"k": "2"})) == "applied"
    assert await house.data("ext/a") == {"k": "2"}


async def test_where_there_is_no_budget_nothing_is_counted(house: House) -> None:
    await house.app.federation.test(TENANT, BACKEND)
    assert await house.rows("proxied_calls") == []


async def test_spent_budget_says_nothing_of_the_backends_health(house: House) -> None:
    await house.run()
    before = await house.app.federation.status(TENANT, BACKEND)
    await budget(house, 1)
    assert failure(await house.run()) == "call_budget_spent"
    after = await house.app.federation.status(TENANT, BACKEND)
    assert (after["status"], after["unreachable_since"]) == ("healthy", None)
    assert (after["consecutive_failures"], after["last_error"]) == (1, "call_budget_spent")
    assert after["last_success_at"] == before["last_success_at"]


async def test_spent_budget_ends_no_outage(house: House) -> None:
    house.there.fail("login", *[BackendUnreachableError("down", operation="login")] * 5)
    assert failure(await house.run()) == "backend_unreachable"
    before = await house.app.federation.status(TENANT, BACKEND)
    await budget(house, 1)
    assert failure(await house.run()) == "call_budget_spent"
    after = await house.app.federation.status(TENANT, BACKEND)
    assert after["status"] == before["status"] == "unreachable"
    assert after["unreachable_since"] == before["unreachable_since"]


# --- reads that pass through ----------------------------------------------------------


async def read_as_admin(reading: Reading) -> None:
    caller = Caller(TENANT, "default", ROBOT, "tok_1", frozenset(Scope))
    call = Call(caller, new_id("req"), "127.0.0.1")
    rights = Rights(caller, ADMIN, until=0)
    await reading.read(call, rights, LocalPath("ext/a"), None, fresh=True)


async def read_through(front: Front, many: int) -> list[int]:
    """Statuses of so many reads, one after another."""
    return [(await front.client.get("/v1/secrets/ext/a")).status for _ in range(many)]


async def proxied(front: Front, per_day: int) -> None:
    house = front.house
    house.there.put("kv/a", {"k": "1"})
    await house.configure(mode=Mode.PROXY, call_budget={"per_day": per_day})


async def test_reads_stop_at_the_call_that_is_too_many(front: Front) -> None:
    await proxied(front, 20)
    assert await read_through(front, 25) == [200] * 20 + [502] * 5
    answer = await front.client.get("/v1/secrets/ext/a")
    assert answer.told == (502, "call_budget_spent")
    assert "call_budget.per_day" in answer.body["error"]["message"]
    assert answer.headers["Retry-After"] == "60"
    assert made(front.house) == 20


async def test_lists_are_calls_too_and_incomplete_where_none_is_left(front: Front) -> None:
    await proxied(front, 8)
    pages = [(await front.client.get("/v1/secrets")).body for _ in range(10)]
    assert [page["incomplete"] for page in pages] == [False] * 8 + [True] * 2
    assert made(front.house) == 8


async def test_what_runs_called_is_taken_off_what_reads_may_and_the_reverse(front: Front) -> None:
    house = front.house
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    called = made(house)
    await proxied(front, called + 10)
    assert await read_through(front, 12) == [200] * 10 + [502] * 2
    await house.configure(mode=Mode.SYNC)
    assert failure(await house.run()) == "call_budget_spent"
    assert made(house) == called + 10


async def test_processes_share_a_budget(front: Front) -> None:
    house, app = front.house, front.house.app
    await proxied(front, 12)
    async with open_proxying(app.db, app.recorder, app.registry, ids=new_id) as other:
        second = Reading(app.db, app.recorder, app.sealing, other)
        assert await read_through(front, 1) == [200]
        for _ in range(4):
            await read_as_admin(second)
        with pytest.raises(BackendError) as spent:
            await read_as_admin(second)
        assert spent.value.code == "call_budget_spent"
        assert await read_through(front, 10) == [200] * 7 + [502] * 3
    assert made(house) == 12


async def test_calls_of_reads_come_free_after_a_day(front: Front) -> None:
    house = front.house
    await proxied(front, 8)
    await read_through(front, 10)
    budgets = CallBudgets(house.app.db)
    older = "UPDATE proxied_calls SET hour = hour - $1::text::interval"
    await house.admin.execute(older, "24 hours")
    assert await budgets.take(TENANT, house.spec) == 0
    await house.admin.execute("DELETE FROM proxied_calls WHERE made = 0")
    await house.admin.execute(older, "1 hour")
    assert await budgets.take(TENANT, house.spec) == 8
    await house.admin.execute(older, "2 days")
    assert await budgets.take(TENANT, house.spec) == 8
    assert len(await house.rows("proxied_calls")) == 1, "what counts no more is gone"


# --- a real store, whose calls come one within another ---------------------------------


@asynccontextmanager
async def house_of(bao: Bao, database: tuple[str, str, Path], calls: int) -> AsyncIterator[House]:
    spec = backend(
        (RuleSpec("ext/**", f"{bao.mount}/data/**"),),
        type="hashicorp-vault",
        config={
            "endpoint": bao.url,
            "auth_method": "token",
            "auth_config_path": "env:BAO_TOKEN",
        },
        call_budget={"per_day": calls},
    )
    async with open_house(*database, spec, environ={"BAO_TOKEN": bao.root_token}) as house:
        yield house


async def test_wherever_it_is_spent_the_run_ends_with_that_and_nothing_is_taken_for_missing(
    kv2: Bao, database_url: str, admin_url: str, state_dir: Path
) -> None:
    """Identity, login, mount, folders, pages, values: none takes the refusal for an answer."""
    for name in ("a", "b/c", "b/d/e"):
        await kv2.put(name, {"k": "1"})
    async with house_of(kv2, (database_url, admin_url, state_dir), 1000) as house:
        ended = await house.run()
        assert failure(ended) is None
        needed = await calls_of_last_day(house)
        assert needed > 8
        await house.admin.execute("UPDATE runs SET calls = NULL")
        for name in ("a", "b/c", "b/d/e"):
            await kv2.put(name, {"k": "2"})
        for calls in range(1, needed):
            await budget(house, calls)
            ended = await house.run()
            assert (calls, failure(ended)) == (calls, "call_budget_spent")
            assert sum(ended.report.api_calls().values()) <= calls
            assert not ended.report.skipped
            assert await house.paths() == ["ext/a", "ext/b/c", "ext/b/d/e"]
            await house.admin.execute("UPDATE runs SET calls = NULL")
        await budget(house, needed)
        assert failure(await house.run()) is None
        assert await house.data("ext/b/d/e") == {"k": "2"}
