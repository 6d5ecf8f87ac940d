"""What somebody who looks on sees; and the stop of all runs."""

import asyncio
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House, Pause, backend
from tests.postgres import connected

from svsync.app import new_id
from svsync.bus.local import LocalSignals
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import ConflictPolicy, RuleSpec
from svsync.domain.ids import BackendId
from svsync.services.overview import Overview
from svsync.services.scheduling import Scheduling
from svsync.store import schedule
from svsync.store.database import Transaction, statements


def scheduling(house: House) -> Scheduling:
    return Scheduling(house.app.db, LocalSignals(), ids=new_id, health_interval=60)


def overview(house: House) -> Overview:
    return Overview(house.app.db, house.app.registry)


async def only(house: House) -> dict[str, Any]:
    """The one backend, as it is shown."""
    [shown] = (await overview(house).look(TENANT))["backends"]
    assert isinstance(shown, dict)
    return shown


async def waiting(house: House) -> int:
    return len(await house.rows("runs", state="queued"))


async def candidates(house: House) -> int:
    async with house.app.db.transaction_of([TENANT]) as tx:
        return len(await schedule.candidates(tx, 10))


# --- what is shown ----------------------------------------------------------------


async def test_backend_that_never_ran_is_shown_without_times(house: House) -> None:
    shown = await only(house)
    assert (shown["id"], shown["state"], shown["status"]) == (BACKEND, "active", "healthy")
    assert shown["last_success_at"] is None
    assert shown["staleness_s"] is None
    assert shown["run"] is None
    assert not shown["stale"]


async def test_what_is_shown_of_a_backend_is_what_its_status_says(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    status = await house.app.federation.status(TENANT, BACKEND)
    shown = await only(house)
    moving = {"staleness_s"}
    assert {key: shown[key] for key in status if key not in moving} == {
        key: value for key, value in status.items() if key not in moving
    }
    assert 0 <= shown["staleness_s"] < 60


async def test_backends_are_listed_with_their_status_by_as_many_statements_as_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    made: list[str] = []
    for way in ("fetch", "fetchrow", "fetchval"):
        plain = getattr(Transaction, way)

        async def counted(tx: Transaction, name: str, *args: object, plain: Any = plain) -> Any:
            made.append(name)
            return await plain(tx, name, *args)

        monkeypatch.setattr(Transaction, way, counted)
    await house.app.federation.list_backends(TENANT)
    alone = made.copy()
    more = [backend([RuleSpec(f"{n}/**", f"{n}/**")], id=BackendId(f"fed_{n}")) for n in "ab"]
    await house.app.federation.apply([house.spec, *more])
    made.clear()
    listed = await house.app.federation.list_backends(TENANT)
    assert made == alone
    assert [each["id"] for each in listed] == ["fed_a", "fed_b", BACKEND]
    for each in listed:
        status = await house.app.federation.status(TENANT, str(each["id"]))
        moving = {"staleness_s"}
        assert {key: each[key] for key in status.keys() - moving} == {
            key: status[key] for key in status.keys() - moving
        }


async def test_open_conflicts_and_pending_pushes_are_counted(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await house.run()
    await house.write("ext/a", {"k": "mine"})
    house.there.put("kv/a", {"k": "theirs"})
    await house.run()
    await house.admin.execute("UPDATE sync_state SET status = 'pending_push' WHERE path = 'ext/b'")
    shown = await only(house)
    assert (shown["conflicts_open"], shown["pending_pushes"]) == (1, 1)


async def test_run_at_work_tells_how_far_it_has_got(house: House) -> None:
    for n in range(3):
        house.there.put(f"kv/{n}", {"k": "1"})
    listing = Pause(house.there, "list")
    running = asyncio.create_task(house.run())
    await listing.reached.wait()
    run = (await only(house))["run"]
    assert (run["stage"], run["listed"], run["to_do"], run["done"]) == ("list", None, None, None)
    reading = Pause(house.there, "read")
    listing.let_go()
    await reading.reached.wait()
    look = await overview(house).look(TENANT)
    run = look["backends"][0]["run"]
    assert (run["stage"], run["listed"], run["to_do"], run["done"]) == ("fetch", 3, 3, 0)
    assert run["in_hand"] == 3
    assert look["runs"] == {"running": 1, "waiting": 0}
    assert look["backends"][0]["lease"]["holder"] == run["worker"]
    reading.let_go()
    await running
    assert (await only(house))["run"] is None


async def test_numbers_that_an_earlier_worker_left_are_not_shown_as_those_of_this_one(
    house: House,
) -> None:
    await house.run()
    await house.admin.execute(
        "UPDATE runs SET state = 'running', stage = 'list', staged_count = 7, todo_count = 7,"
        " batch_cursor = 5"
    )
    run = (await only(house))["run"]
    assert (run["listed"], run["to_do"], run["done"]) == (None, None, None)
    assert run["in_hand"] is None


async def test_backend_is_stale_beyond_what_it_promises_or_three_intervals(house: House) -> None:
    await house.run()
    ago = "UPDATE backend_health SET last_success_at = now() - make_interval(secs => $1)"
    await house.admin.execute(ago, 3 * house.spec.sync_interval - 60)
    assert not (await only(house))["stale"]
    await house.admin.execute(ago, 3 * house.spec.sync_interval + 60)
    assert (await only(house))["stale"]
    await house.configure(max_staleness=7200)
    assert not (await only(house))["stale"]
    await house.app.removal.pause(TENANT, BACKEND)
    await house.admin.execute(ago, 86_400)
    assert not (await only(house))["stale"]


async def test_backend_whose_certificate_is_not_checked_is_shown_so(house: House) -> None:
    assert (await only(house))["tls_verify"] is True
    await house.configure(config={"tls_verify": False})
    assert (await only(house))["tls_verify"] is False


async def test_processes_are_shown_while_they_are_heard_of(house: House) -> None:
    await schedule.beat(house.app.db, "one:1", ["api", "worker"], "9.9")
    await schedule.beat(house.app.db, "two:2", ["scheduler"], "9.9")
    await house.admin.execute(
        "UPDATE instances SET beat_at = now() - interval '31 s' WHERE instance_id = 'two:2'"
    )
    [process] = (await overview(house).look(TENANT))["processes"]
    assert (process["id"], process["roles"]) == ("one:1", ["api", "worker"])
    assert process["version"] == "9.9"


async def test_look_uses_the_indexes_that_hold_the_few(database_url: str) -> None:
    """Not the tables of pairs, pushes, conflicts and runs, which grow with the secrets."""
    async with connected(database_url) as role, role.transaction():
        await role.execute("SELECT set_config('svsync.tenants', '1', true)")
        await role.execute("SET LOCAL enable_seqscan = off")
        await role.execute(f"PREPARE look AS {statements()['overview.backends']}")
        plan = "\n".join(
            row[0] for row in await role.fetch("EXPLAIN EXECUTE look (1, NULL, '', NULL)")
        )
    for index in ("conflicts_one_open", "sync_state_pending", "pushes_one_unfinished"):
        assert index in plan
    assert "runs_one_running" in plan
    assert "runs_one_queued" in plan or "runs_waiting" in plan


# --- the stop of all runs ---------------------------------------------------------


async def test_nothing_becomes_due_while_all_runs_are_stopped(house: House) -> None:
    await overview(house).stop("ann")
    await scheduling(house).tick()
    assert await waiting(house) == 0
    await overview(house).go_on()
    await house.admin.execute("UPDATE backend_health SET next_due_at = now()")
    await scheduling(house).tick()
    assert await waiting(house) == 1


async def test_ticks_of_a_stopped_schedule_are_not_made_in_vain(house: House) -> None:
    await overview(house).stop("ann")
    await scheduling(house).tick()
    assert await scheduling(house).tick() == 1.0


async def test_backend_that_became_due_under_the_stop_is_so_soon_after_it(house: House) -> None:
    await overview(house).stop("ann")
    await scheduling(house).tick()
    seconds = await house.admin.fetchval(
        "SELECT extract(epoch FROM next_due_at - now())::float8 FROM backend_health"
    )
    assert 0 < seconds <= 5


async def test_run_that_waits_is_no_candidate_while_all_runs_are_stopped(house: House) -> None:
    await scheduling(house).trigger(TENANT, BACKEND)
    assert await candidates(house) == 1
    await overview(house).stop("ann")
    assert await candidates(house) == 0
    assert await waiting(house) == 1
    await overview(house).go_on()
    assert await candidates(house) == 1


async def test_run_that_a_worker_had_in_hand_does_not_begin_after_the_stop(house: House) -> None:
    run = (await scheduling(house).trigger(TENANT, BACKEND)).run_id
    await overview(house).stop("ann")
    assert await house.app.runs.work(TENANT, run, lambda: False) is None
    assert await waiting(house) == 1
    await overview(house).go_on()
    assert await house.app.runs.work(TENANT, run, lambda: False) is not None


async def test_run_at_work_ends_as_ever_when_all_are_stopped(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    pause = Pause(house.there, "read")
    running = asyncio.create_task(house.run())
    await pause.reached.wait()
    await overview(house).stop("ann")
    pause.let_go()
    assert (await running).record.state == "completed"
    assert await house.paths() == ["ext/a"]


async def test_stop_names_whoever_was_first_until_it_ends(house: House) -> None:
    first = await overview(house).stop("ann")
    assert await overview(house).stop("bob") == first
    assert (await overview(house).look(TENANT))["stopped"]["by"] == "ann"
    with pytest.raises(SvsyncError, match="stopped by ann") as refused:
        await overview(house).refuse_stopped()
    assert refused.value.code == "stopped"
    await overview(house).go_on()
    await overview(house).refuse_stopped()
    assert (await overview(house).look(TENANT))["stopped"] is None
    assert (await overview(house).stop("bob")).by == "bob"


async def test_stop_is_kept_where_the_store_may_not_know_its_home(house: House) -> None:
    """A role without pg_control_system remembers no server and timeline."""
    await house.admin.execute("DELETE FROM store_home")
    assert (await overview(house).stop("ann")).by == "ann"
    assert await house.app.db.fetch_global("restore.remembered") == []
