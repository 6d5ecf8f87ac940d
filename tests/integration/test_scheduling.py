"""What becomes due, who asks for runs, and what is looked after when nobody asks."""

import asyncio

import pytest
from tests.house import BACKEND, TENANT, House
from tests.patience import PATIENCE_S
from tests.waiting import queued, scheduling, work_all, work_all_now

from svsync.domain.errors import (
    BackendUnreachableError,
    ConfigError,
    LoginError,
    NotFoundError,
    ProtocolError,
    WriteOutcomeUnknownError,
)
from svsync.domain.federation import Mode, Writes
from svsync.domain.ids import BackendId, LocalPath, RemotePath, RunId
from svsync.domain.suspects import Suspicion
from svsync.domain.values import Payload
from svsync.services.write_rows import Put
from svsync.store import queue, suspects
from svsync.store.queue import Wanted


async def due(house: House) -> None:
    await house.admin.execute("UPDATE backend_health SET next_due_at = now() - interval '1 s'")


# --- the schedule -----------------------------------------------------------------


async def test_new_backend_is_due_at_once_and_then_an_interval_later(house: House) -> None:
    await scheduling(house).tick()
    assert await queued(house) == [("full", "schedule")]
    await work_all(house)
    wait = await house.admin.fetchval(
        "SELECT extract(epoch FROM h.next_due_at - r.started_at)::float8"
        " FROM backend_health h JOIN runs r ON r.run_id = h.last_run_id"
    )
    assert 0.9 * house.spec.sync_interval <= wait <= house.spec.sync_interval
    await scheduling(house).tick()
    assert await queued(house) == []


async def test_replicas_that_tick_together_make_one_run(house: House) -> None:
    await asyncio.gather(*(scheduling(house).tick() for _ in range(3)))
    assert await queued(house) == [("full", "schedule")]
    await due(house)  # it still waits: due again, nothing is added
    await asyncio.gather(*(scheduling(house).tick() for _ in range(3)))
    assert await queued(house) == [("full", "schedule")]


async def test_paused_backend_is_not_due_and_is_when_resumed(house: House) -> None:
    await house.app.removal.pause(TENANT, BACKEND)
    await scheduling(house).tick()
    assert await queued(house) == []
    await house.admin.execute("UPDATE backends SET managed_by = 'api'")
    await house.admin.execute("UPDATE backends SET spec = replace(spec, '\"file\"', '\"api\"')")
    await house.app.removal.resume(TENANT, BACKEND)
    await scheduling(house).tick()
    assert await queued(house) == [("full", "schedule")]


async def test_backend_without_cycles_is_probed(house: House) -> None:
    await house.configure(mode=Mode.PROXY)
    await scheduling(house).tick()
    assert await queued(house) == [("probe", "probe")]
    assert await work_all(house) == ["probe"]
    assert (await house.row("backend_health"))["latency_ms"] is not None
    assert await house.events() == []
    assert (await house.row("backend_health"))["last_sync_at"] is None


# --- asked for --------------------------------------------------------------------


async def test_asking_again_gives_the_run_that_waits_with_all_that_was_asked_for(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    first = await scheduling(house).trigger(TENANT, BACKEND, paths=["ext/a"])
    second = await scheduling(house).trigger(
        TENANT, "fed_house", paths=["ext/b"], allow=["mass_delete"]
    )
    assert (first.coalesced, second.coalesced) == (False, True)
    assert first.run_id == second.run_id
    assert (await house.row("runs"))["allow"] == ["mass_delete"]
    assert await work_all(house) == ["targeted"]
    assert await house.paths() == ["ext/a", "ext/b"]
    assert (await house.row("runs"))["run_id"] == first.run_id


async def test_run_that_was_asked_for_waits_beside_a_full_one(house: House) -> None:
    await scheduling(house).tick()
    triggered = await scheduling(house).trigger(TENANT, BACKEND, paths=["ext/a"])
    assert not triggered.coalesced
    assert (await scheduling(house).trigger(TENANT, BACKEND, full=True)).coalesced
    assert await queued(house) == [("full", "schedule"), ("targeted", "api")]


async def test_nothing_is_queued_for_what_cannot_run(house: House) -> None:
    with pytest.raises(NotFoundError):
        await scheduling(house).trigger(TENANT, "fed_none")
    await house.app.removal.pause(TENANT, BACKEND)
    with pytest.raises(ConfigError) as paused:
        await scheduling(house).trigger(TENANT, BACKEND)
    assert paused.value.code == "backend_paused"
    assert await queued(house) == []


async def test_queued_run_of_a_backend_that_went_to_proxy_mode_is_withdrawn(house: House) -> None:
    asked = await scheduling(house).trigger(TENANT, BACKEND)
    await house.configure(mode=Mode.PROXY)
    assert await house.app.runs.work(TENANT, asked.run_id, lambda: False) is None
    assert (await house.row("runs"))["state"] == "superseded"


# --- notices ----------------------------------------------------------------------


async def test_notices_become_one_targeted_run_that_asks_for_them_alone(house: House) -> None:
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    await scheduling(house).notice(TENANT, BACKEND, {RemotePath("kv/a")}, "vault-audit")
    await scheduling(house).notice(
        TENANT, BACKEND, {RemotePath("kv/b"), RemotePath("elsewhere/x")}, "vault-audit"
    )
    assert await queued(house) == [("targeted", "feed")]
    assert await work_all(house) == ["targeted"]
    assert await house.paths() == ["ext/a", "ext/b"]
    assert house.there.calls["list"] == 0
    assert await house.rows("dirty_paths") == []


async def test_path_that_is_named_again_during_the_run_stays_for_the_next(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    schedule = scheduling(house)
    await schedule.notice(TENANT, BACKEND, {RemotePath("kv/a")}, "vault-audit")

    async def again(operation: str, path: str) -> None:
        house.there.before = None
        await schedule.notice(TENANT, BACKEND, {RemotePath("kv/a")}, "vault-audit")

    house.there.before = again
    await work_all(house)
    assert len(await house.rows("dirty_paths")) == 1
    assert await queued(house) == [("targeted", "feed")]
    first, second = await house.admin.fetch(
        "SELECT queued_at, not_before FROM runs ORDER BY run_no"
    )
    assert (second["not_before"] - first["queued_at"]).total_seconds() >= 2


async def test_notice_without_a_path_asks_for_everything(house: House) -> None:
    await scheduling(house).notice(TENANT, BACKEND, None, "vault-audit")
    assert await queued(house) == [("full", "feed")]


async def test_notices_outlive_a_run_that_failed(house: House) -> None:
    await scheduling(house).notice(TENANT, BACKEND, {RemotePath("kv/a")}, "vault-audit")
    house.there.fail("login", ProtocolError("not a vault", operation="login"))
    await work_all(house)
    assert len(await house.rows("dirty_paths")) == 1


# --- what nobody asks for ---------------------------------------------------------


async def test_run_of_a_dead_worker_is_ended_by_one_that_is_made_for_it(house: House) -> None:
    async with house.app.db.transaction(TENANT) as tx:
        await queue.claim(tx, BACKEND, RunId("run_dead"), Wanted("full", "schedule"), holder="x:1")
    await house.admin.execute("UPDATE backend_health SET next_due_at = now() + interval '1 d'")
    await scheduling(house).tick()
    assert await queued(house) == []
    await house.admin.execute("UPDATE leases SET expires_at = now()")
    await scheduling(house).tick()
    assert await queued(house) == [("full", "schedule")]
    await work_all(house)
    assert (await house.row("runs", run_id="run_dead"))["error_code"] == "worker_lost"
    assert await house.events() == ["federation.sync.failed", "federation.sync.completed"]


async def test_push_that_nobody_ended_is_asked_after(house: House) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    house.there.put("kv/a", {"k": "1"})
    await house.run()

    async def cut(operation: str, path: str) -> None:
        if operation == "write":
            house.there.after = None
            raise BackendUnreachableError("cut", operation="write")

    house.there.after = cut
    with pytest.raises(WriteOutcomeUnknownError):
        await house.app.writes.put(
            TENANT, LocalPath("ext/a"), Put(Payload.from_fields({"k": "2"})), by="sa:test"
        )
    await scheduling(house).tick()
    assert await queued(house) == []
    await house.admin.execute("UPDATE pushes SET deadline = now() - interval '1 h'")
    await scheduling(house).tick()
    assert await queued(house) == [], "a run that has just ended is not repeated at once"
    await house.admin.execute("UPDATE backend_health SET last_sync_at = now() - interval '2 min'")
    await scheduling(house).tick()
    assert await queued(house) == [("targeted", "schedule")]
    await work_all(house)
    assert (await house.row("pushes"))["state"] == "landed"
    assert await house.data("ext/a") == {"k": "2"}


async def test_backend_that_is_older_than_it_promises_is_told_of_once(house: House) -> None:
    await house.configure(max_staleness=3600)
    await house.run()
    await house.admin.execute("UPDATE backend_health SET last_success_at = now() - interval '2 h'")
    await asyncio.gather(*(scheduling(house).tick() for _ in range(3)))
    await scheduling(house).tick()
    stale = "federation.backend.stale"
    assert (await house.events()).count(stale) == 1
    await house.run()
    await house.admin.execute("UPDATE backend_health SET last_success_at = now() - interval '2 h'")
    await scheduling(house).tick()
    assert (await house.events()).count(stale) == 2


# --- what a review found ------------------------------------------------------------


async def test_push_that_cannot_be_asked_after_makes_no_run_each_second(house: House) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.admin.execute(
        "INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind, state,"
        " secret_id, version, row_rev, created_by, sent_at, deadline)"
        " SELECT 1, 'psh_x', $1, 'ext/a', 'kv/a', 'put', 'unknown', secret_id, 1, row_rev, 'x',"
        " now(), now() - interval '1 h' FROM secrets",
        BACKEND,
    )
    await house.admin.execute("UPDATE backend_health SET last_sync_at = now() - interval '2 min'")
    house.there.fail("login", LoginError("no longer", operation="login"))
    made = 0
    for _ in range(5):
        await scheduling(house).tick()
        made += len(await work_all(house))
    assert made == 1


async def test_run_that_waits_for_its_feed_begins_when_somebody_asks(house: House) -> None:
    await house.configure(extra={"feed_min_interval": 3600})
    for _ in range(2):
        await scheduling(house).notice(TENANT, BACKEND, None, "vault-audit")
        await work_all_now(house)
    await scheduling(house).notice(TENANT, BACKEND, None, "vault-audit")
    [waits] = await house.rows("runs", state="queued")
    assert (waits["not_before"] - waits["queued_at"]).total_seconds() > 3000
    assert (await scheduling(house).trigger(TENANT, BACKEND)).coalesced
    [waits] = await house.rows("runs", state="queued")
    assert (waits["not_before"] - waits["queued_at"]).total_seconds() < 60


async def test_run_of_a_backend_that_was_removed_is_not_waited_for(house: House) -> None:
    with pytest.raises(NotFoundError):
        async with asyncio.timeout(PATIENCE_S), house.app.db.transaction(TENANT) as tx:
            await queue.enqueue(tx, BackendId("fed_gone"), RunId("run_x"), Wanted("full", "api"))


async def test_lost_probe_is_no_cycle_and_is_followed_by_a_probe(house: House) -> None:
    await house.configure(mode=Mode.PROXY)
    async with house.app.db.transaction(TENANT) as tx:
        await queue.claim(tx, BACKEND, RunId("run_dead"), Wanted("probe", "probe"), holder="x:1")
    await house.admin.execute("UPDATE leases SET expires_at = now()")
    await house.admin.execute("UPDATE backend_health SET next_due_at = now() + interval '1 d'")
    await scheduling(house).tick()
    assert await queued(house) == [("probe", "probe")]
    await work_all(house)
    assert await house.events() == []
    assert (await house.row("backend_health"))["failures"] == 0


async def test_notice_of_after_a_listing_that_was_taken_over_is_kept(house: House) -> None:
    await scheduling(house).notice(TENANT, BACKEND, {RemotePath("kv/a")}, "vault-audit")
    [waits] = await house.rows("runs", state="queued")
    await house.admin.execute("UPDATE runs SET state = 'superseded'")
    await house.admin.execute("DELETE FROM runs WHERE run_id = $1", waits["run_id"])
    await house.run()  # listed now and whole: it has seen it
    assert await house.rows("dirty_paths") == []
    await scheduling(house).notice(TENANT, BACKEND, {RemotePath("kv/a")}, "vault-audit")
    house.there.put("kv/shut/b", {"k": "1"})
    house.there.denied.add("kv/shut/")
    await house.run()  # not whole: by name it may be read all the same
    assert len(await house.rows("dirty_paths")) == 1


# --- left behind by the dead --------------------------------------------------------


async def dead(house: House) -> None:
    """A run whose worker died in a piece of its work list, its lease over."""
    async with house.app.db.transaction(TENANT) as tx:
        claimed, _ = await queue.claim(
            tx, BACKEND, RunId("run_dead"), Wanted("full", "run_once"), holder="x:1"
        )
        await suspects.take_in_hand(tx, claimed.run_id, [RemotePath("kv/a")])
    await house.admin.execute("UPDATE leases SET expires_at = now()")


async def test_dead_run_of_a_paused_backend_is_ended_with_its_event(house: House) -> None:
    await dead(house)
    await house.app.removal.pause(TENANT, BACKEND)
    await scheduling(house).tick()
    row = await house.row("runs")
    assert (row["state"], row["error_code"]) == ("failed", "worker_lost")
    assert await house.events() == ["federation.sync.failed"]
    assert (await house.row("leases"))["holder"] is None
    await scheduling(house).tick()
    assert await house.events() == ["federation.sync.failed"]


async def test_run_of_a_paused_backend_that_is_still_worked_is_left_alone(house: House) -> None:
    await dead(house)
    await house.admin.execute("UPDATE leases SET expires_at = now() + interval '1 min'")
    await house.app.removal.pause(TENANT, BACKEND)
    await scheduling(house).tick()
    assert (await house.row("runs"))["state"] == "running"


async def test_death_that_was_told_while_paused_is_remembered_when_resumed(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await dead(house)
    await house.admin.execute("UPDATE backends SET state = 'paused'")
    await scheduling(house).tick()
    await house.admin.execute("UPDATE backends SET state = 'active'")
    async with house.app.db.transaction(TENANT) as tx:
        claimed, lost = await queue.claim(
            tx, BACKEND, RunId("run_next"), Wanted("full", "run_once"), holder="x:2"
        )
    assert lost == []
    assert claimed.suspicion == Suspicion().after_death([RemotePath("kv/a")], piece=True)


async def test_death_that_a_later_run_dealt_with_is_not_counted_again(house: House) -> None:
    """The run that died was queued after the one that took over, and so has the later id."""
    house.there.put("kv/a", {"k": "1"})
    async with house.app.db.transaction(TENANT) as tx:
        await queue.enqueue(tx, BACKEND, RunId("run_a"), Wanted("full", "api"))
        claimed, _ = await queue.claim(
            tx, BACKEND, RunId("run_b"), Wanted("targeted", "api", paths=["ext/a"]), holder="x:1"
        )
        await suspects.take_in_hand(tx, claimed.run_id, [RemotePath("kv/a")])
    await house.admin.execute("UPDATE leases SET expires_at = now()")
    ended = await house.app.runs.work(TENANT, RunId("run_a"), lambda: False)
    assert ended is not None
    assert (await house.row("runs", run_id="run_b"))["error_code"] == "worker_lost"
    async with house.app.db.transaction(TENANT) as tx:
        claimed, lost = await queue.claim(
            tx, BACKEND, RunId("run_c"), Wanted("full", "run_once"), holder="x:2"
        )
    assert lost == []
    assert (claimed.suspicion, claimed.after_death) == (Suspicion(), False)
