"""Pairs below folders that could not be listed, one of which lies in another."""

from collections.abc import Sequence

from tests.house import BACKEND, TENANT, House

from svsync.domain.changes import Entry, Scope, ScopeOutcome
from svsync.domain.ids import RemotePath, RunId
from svsync.store import staging
from svsync.store.database import Transaction, statements
from svsync.store.staging import Blinded, PushRules

RUN, RUN_NO = RunId("run_blind"), 999_999
NAMES = ("a", "b/1", "b/2", "b/c/1", "b0", "c/1")
INNER = Scope("kv/b/c/", ScopeOutcome.FAILED, "broken")
OUTER = Scope("kv/b/", ScopeOutcome.DENIED, "denied")
WHOLE = Scope("", ScopeOutcome.DENIED, "denied")


async def filled(house: House) -> None:
    for name in NAMES:
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()


async def blind(tx: Transaction, scopes: Sequence[Scope]) -> Blinded:
    await staging.add_scopes(tx, RUN, scopes)
    return await staging.blinded(tx, BACKEND, RUN, RUN_NO)


async def test_pair_below_two_such_folders_is_counted_once_and_by_the_deeper(house: House) -> None:
    await filled(house)
    async with house.app.db.transaction(TENANT) as tx:
        found = await blind(tx, [OUTER, INNER])
    assert found.many == {ScopeOutcome.DENIED: 2, ScopeOutcome.FAILED: 1}
    assert found.based == 3
    assert found.named == [
        ("kv/b/1", ScopeOutcome.DENIED, "denied"),
        ("kv/b/2", ScopeOutcome.DENIED, "denied"),
        ("kv/b/c/1", ScopeOutcome.FAILED, "broken"),
    ]


async def test_only_what_the_deepest_folder_denies_is_marked_so(house: House) -> None:
    await filled(house)
    async with house.app.db.transaction(TENANT) as tx:
        await blind(tx, [OUTER, INNER])
        await staging.mark_blinded(tx, BACKEND, RUN, RUN_NO)
    rows = await house.rows("sync_state", status="denied", recheck=True)
    assert sorted(row["remote_path"] for row in rows) == ["kv/b/1", "kv/b/2"]


async def test_folder_without_a_name_holds_every_pair(house: House) -> None:
    await filled(house)
    async with house.app.db.transaction(TENANT) as tx:
        found = await blind(tx, [WHOLE])
    assert found.many == {ScopeOutcome.DENIED: len(NAMES)}


async def test_pair_that_was_listed_all_the_same_is_not_blind(house: House) -> None:
    await filled(house)
    async with house.app.db.transaction(TENANT) as tx:
        listed = [Entry(RemotePath("kv/b/1"), "t"), Entry(RemotePath("kv/b/c/1"), "t")]
        await staging.add_entries(tx, RUN_NO, listed)
        found = await blind(tx, [OUTER, INNER])
        await staging.mark_blinded(tx, BACKEND, RUN, RUN_NO)
    assert [path for path, _, _ in found.named] == ["kv/b/2"]
    assert await house.status("ext/b/1") == "in_sync"


async def test_unlisted_and_waiting_pairs_count_only_outside_of_such_folders(house: House) -> None:
    await filled(house)
    later = "UPDATE sync_state SET retry_at = now() + interval '1 h' WHERE remote_path = ANY ($1)"
    await house.admin.execute(later, ["kv/a", "kv/b/1", "kv/b/c/1"])
    async with house.app.db.transaction(TENANT) as tx:
        await blind(tx, [OUTER, INNER])
        waiting = await staging.quarantined(tx, BACKEND, RUN)
        counts = await staging.diff(tx, BACKEND, RUN, RUN_NO, 0, PushRules([], [], []))
    assert ([path for path, _ in waiting.named], waiting.many, waiting.based) == (["kv/a"], 1, 1)
    assert counts.unlisted == 2
    todo = await house.rows("todo", run_no=RUN_NO)
    assert [row["remote_path"] for row in todo] == ["kv/b0", "kv/c/1"]


async def test_run_that_listed_everything_reads_no_pair_to_find_blind_ones(house: House) -> None:
    await filled(house)
    read = "SELECT pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid)"
    read += " + coalesce((SELECT sum(pg_stat_get_xact_numscans(i.indexrelid)) FROM pg_index i"
    read += " WHERE i.indrelid = c.oid), 0) FROM pg_class c WHERE c.relname = 'sync_state'"
    call = statements()["staging.blinded"], TENANT, RUN, RUN_NO, BACKEND
    async with house.admin.transaction():
        before = await house.admin.fetchval(read)
        assert await house.admin.fetch(*call) == []
        assert await house.admin.fetchval(read) == before
        await house.admin.execute(
            "INSERT INTO stage_scopes (tenant_id, run_id, prefix, outcome) VALUES ($1, $2, '', $3)",
            TENANT,
            RUN,
            "denied",
        )
        assert len(await house.admin.fetch(*call)) == len(NAMES)
        assert await house.admin.fetchval(read) > before
