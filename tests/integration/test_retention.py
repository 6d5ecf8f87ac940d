"""What goes once its time is over, and what never goes because somebody needs it."""

from dataclasses import replace
from typing import Final

import pytest
from tests.house import TENANT, House, counts

from svsync.app import ages_of
from svsync.domain.access import Identity, IdentityType, Scope
from svsync.domain.errors import (
    BackendUnreachableError,
    NotFoundError,
    WriteOutcomeUnknownError,
)
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete, RemoteChanges, RuleSpec, Writes
from svsync.domain.ids import LocalPath
from svsync.domain.values import Payload
from svsync.services.retention import Ages, Removed, Retention

AT_ONCE: Final = Ages(
    max_versions=2,
    trim_grace=0,
    tombstones=0,
    conflicts=0,
    runs=0,
    runs_kept=1,
    pushes=0,
    detached=0,
    events=60,
    tokens=0,
)
"""Everything is over as soon as it is there."""
LATER: Final = replace(
    AT_ONCE, tombstones=60, conflicts=60, runs=60, pushes=60, detached=60, tokens=60, trim_grace=60
)


async def retain(house: House, ages: Ages = AT_ONCE) -> Removed:
    return await Retention(house.app.db, ages, house.app.recorder).run(TENANT)


async def numbers(house: House, path: str) -> list[int]:
    """Version numbers that are still there."""
    row = await house.row("secrets", path=path)
    rows = await house.rows("versions", secret_id=row["secret_id"])
    return sorted(r["version"] for r in rows)


async def delete(house: House, path: str) -> None:
    await house.app.writes.delete(TENANT, LocalPath(path), by="sa:test")


async def age(house: House, table: str, column: str, seconds: int) -> None:
    await house.admin.execute(
        f"UPDATE {table} SET {column} = {column} - make_interval(secs => {seconds})"
    )


async def put_versions(house: House, path: str, count: int) -> None:
    for n in range(count):
        await house.write(path, {"k": str(n)})


# --- versions ---------------------------------------------------------------------


async def test_versions_beyond_those_kept_go_and_the_next_number_is_new(house: House) -> None:
    await put_versions(house, "own/a", 5)
    removed = await retain(house)
    assert removed == Removed(versions=3)
    assert await numbers(house, "own/a") == [4, 5]
    assert await house.write("own/a", {"k": "6"}) == 6
    assert await retain(house) == Removed(versions=1)
    assert await retain(house) == Removed()


async def test_a_secrets_own_number_wins_over_its_backends_and_that_over_the_general(
    house: House,
) -> None:
    await house.configure(max_versions=4, extra={"trim_grace": 0})
    for name in ("ext/a", "ext/b", "own/c"):
        await put_versions(house, name, 6)
    await house.write("ext/b", {"k": "7"}, max_versions=3)
    house.there.put("kv/a", {"k": "5"})
    house.there.put("kv/b", {"k": "7"})
    await house.run()
    await retain(house)
    assert await numbers(house, "ext/a") == [3, 4, 5, 6]
    assert await numbers(house, "ext/b") == [5, 6, 7]
    assert await numbers(house, "own/c") == [5, 6]


async def test_a_version_that_came_just_now_stays_however_old_it_was_there(house: House) -> None:
    """A backend's own time of a version is no measure: it may be a year ago."""
    await house.configure(max_versions=1)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    await house.run()
    await house.admin.execute("UPDATE versions SET created_at = now() - interval '1 year'")
    assert await retain(house, LATER) == Removed()
    await age(house, "versions", "stored_at", 61)
    assert await retain(house, LATER) == Removed(versions=1)
    await house.configure(extra={"trim_grace": 0})
    house.there.put("kv/a", {"k": "3"})
    await house.run()
    assert (await retain(house)).versions == 1


async def test_the_settled_version_stays_though_newer_ones_are_kept(house: House) -> None:
    await house.configure(max_versions=1, extra={"trim_grace": 0})
    house.there.put("kv/a", {"k": "there"})
    await house.run()
    await put_versions(house, "ext/a", 4)
    await retain(house)
    assert await numbers(house, "ext/a") == [1, 5]
    pair = await house.row("sync_state", path="ext/a")
    assert pair["settled_version"] == 1


async def test_the_settled_version_of_a_detached_pair_stays(house: House) -> None:
    house.there.put("kv/a", {"k": "there"})
    await house.run()
    await house.configure(rules=(RuleSpec("ext/**", "kv/**"), RuleSpec("x/**", "y/**")))
    await house.configure(rules=(RuleSpec("x/**", "y/**"),))
    await house.run()
    await put_versions(house, "ext/a", 4)
    await retain(house, replace(AT_ONCE, detached=60))
    assert await numbers(house, "ext/a") == [1, 4, 5]


async def test_a_side_of_an_open_conflict_stays(house: House) -> None:
    await house.configure(
        conflict_resolution=ConflictPolicy.MANUAL, max_versions=1, extra={"trim_grace": 0}
    )
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.write("ext/a", {"k": "ours"})
    house.there.put("kv/a", {"k": "theirs"})
    await house.run()
    await put_versions(house, "ext/a", 3)
    await retain(house)
    assert await numbers(house, "ext/a") == [1, 2, 5]
    await house.admin.execute("UPDATE conflicts SET state = 'resolved', closed_at = now()")
    await retain(house)
    assert await numbers(house, "ext/a") == [1, 5]


async def test_a_version_that_an_unfinished_push_sends_stays(house: House) -> None:
    await house.configure(
        writes=Writes.WRITE_THROUGH,
        conflict_resolution=ConflictPolicy.LOCAL_WINS,
        max_versions=1,
        extra={"trim_grace": 0},
    )
    house.there.put("kv/a", {"k": "1"})
    await house.run()

    async def cut(operation: str, path: str) -> None:
        if operation == "write":
            raise BackendUnreachableError("cut", operation="write")

    house.there.before = cut
    await put_versions(house, "ext/a", 4)
    assert [p["version"] for p in await house.rows("pushes")] == [2]
    await retain(house)
    assert await numbers(house, "ext/a") == [1, 2, 5]


async def test_what_did_not_land_counts_for_nothing_and_goes_with_those_around_it(
    house: House,
) -> None:
    await put_versions(house, "own/a", 5)
    await house.admin.execute(
        "UPDATE versions SET state = 'destroyed', sealed = NULL, nonce = NULL"
        " WHERE version IN (1, 4)"
    )
    await retain(house)
    assert await numbers(house, "own/a") == [3, 4, 5]


async def test_more_versions_than_one_transaction_removes_all_go(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svsync.services.retention.BATCH", 2)
    for name in ("own/a", "own/b", "own/c"):
        await put_versions(house, name, 5)
    assert await retain(house) == Removed(versions=9)


async def test_tables_that_were_filled_since_are_looked_at_first(house: House) -> None:
    """Planned for empty tables, each look-up of a page would read the tenant whole."""
    await put_versions(house, "own/a", 5)
    known = "SELECT reltuples FROM pg_class WHERE oid = 'versions'::regclass"
    assert await house.admin.fetchval(known) < 1
    await retain(house)
    assert await house.admin.fetchval(known) >= 1


# --- tombstones -------------------------------------------------------------------


async def test_values_of_a_deleted_secret_go_once_its_time_is_over(house: House) -> None:
    await house.write("own/a", {"k": "1"}, tags=("t",), owner="o")
    await delete(house, "own/a")
    assert await retain(house, LATER) == Removed()
    await age(house, "secrets", "deleted_at", 61)
    assert await retain(house, LATER) == Removed(tombstone_values=1, tombstones=1)
    row = await house.row("secrets", path="own/a")
    assert (row["state"], row["current_version"], row["last_version"]) == ("void", 0, 1)
    assert (row["tags"], row["owner"]) == ([], None)
    assert await numbers(house, "own/a") == []
    with pytest.raises(NotFoundError) as absent:
        await house.data("own/a", 1)
    assert absent.value.code == "secret_not_found"
    assert await retain(house) == Removed()


async def test_a_write_to_a_forgotten_path_goes_on_with_its_numbers(house: House) -> None:
    await put_versions(house, "own/a", 3)
    await delete(house, "own/a")
    await retain(house)
    assert await house.write("own/a", {"k": "new"}, cas=0) == 4
    assert await house.data("own/a") == {"k": "new"}
    assert await numbers(house, "own/a") == [4]


async def test_a_pull_to_a_forgotten_path_goes_on_with_its_numbers(house: House) -> None:
    await house.write("ext/a", {"k": "1"}, secret_type="api_key", tags=("old",))
    await delete(house, "ext/a")
    await retain(house)
    house.there.put("kv/a", Payload.from_text("plain"))
    ended = await house.run()
    assert counts(ended)["created"] == 1
    row = await house.row("secrets", path="ext/a")
    assert (row["state"], row["current_version"], row["last_version"]) == ("live", 2, 2)
    assert (row["secret_type"], row["tags"]) == ("text", [])


async def test_the_mark_of_a_delete_stays_as_long_as_the_backend_has_the_path(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await delete(house, "ext/a")
    await house.run()
    assert await retain(house) == Removed(tombstone_values=1, runs=0)
    assert await numbers(house, "ext/a") == []
    for _ in range(2):
        ended = await house.run()
        assert "created" not in counts(ended)
        assert await house.paths() == []
        assert await retain(house) == Removed()
    house.there.put("kv/a", {"k": "2"})
    await house.run()
    assert await house.data("ext/a") == {"k": "2"}
    assert (await house.row("secrets", path="ext/a"))["current_version"] == 2


async def test_the_mark_of_a_delete_that_no_run_has_seen_yet_stays(house: House) -> None:
    await house.configure(on_remote_delete=OnRemoteDelete.RETAIN, remote_changes=RemoteChanges.HOLD)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.delete("kv/a")
    await house.run()
    assert await house.status("ext/a") == "retained"
    await delete(house, "ext/a")
    assert (await retain(house)).tombstones == 0
    await house.run()
    assert (await retain(house)).tombstones == 1
    assert await house.rows("sync_state") == []


async def test_a_propagated_delete_is_forgotten_whole(house: House) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH, propagate_deletes=True)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await delete(house, "ext/a")
    removed = await retain(house)
    assert (removed.tombstone_values, removed.tombstones) == (1, 1)
    assert await house.rows("sync_state") == []
    await house.run()
    assert await house.paths() == []
    assert await house.write("ext/a", {"k": "2"}) == 2
    await house.run()
    assert await house.status("ext/a") == "in_sync"


async def test_a_deleted_side_of_an_open_conflict_keeps_its_history(house: House) -> None:
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await delete(house, "ext/a")
    house.there.put("kv/a", {"k": "2"})
    await house.run()
    assert await house.status("ext/a") == "conflict"
    assert await retain(house) == Removed()
    assert await numbers(house, "ext/a") == [1]


async def test_a_deleted_secret_whose_base_may_be_attached_again_keeps_its_mark(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await delete(house, "ext/a")
    await house.run()
    rules = house.spec.rules
    await house.configure(rules=(RuleSpec("x/**", "y/**"),))
    await house.run()
    removed = await retain(house, replace(AT_ONCE, detached=60))
    assert (removed.tombstone_values, removed.tombstones) == (1, 0)
    await house.configure(rules=rules)
    await house.run()
    assert await house.paths() == [], "the delete still stands"
    await house.configure(rules=(RuleSpec("x/**", "y/**"),))
    await house.run()
    removed = await retain(house)
    assert (removed.detached_pairs, removed.tombstones) == (1, 1)


async def test_what_somebody_has_in_hand_is_left_for_the_next_time(house: House) -> None:
    await put_versions(house, "own/a", 5)
    await house.write("own/b", {"k": "1"})
    await delete(house, "own/b")
    async with house.admin.transaction():
        await house.admin.execute("SELECT FROM secrets FOR UPDATE")
        assert await retain(house) == Removed()
    assert await retain(house) == Removed(versions=3, tombstone_values=1, tombstones=1)


async def test_a_tombstone_whose_pair_somebody_has_in_hand_is_left_for_the_next_time(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await delete(house, "ext/a")
    async with house.admin.transaction():
        await house.admin.execute("SELECT FROM sync_state FOR UPDATE")
        assert await retain(house) == Removed()
    assert await retain(house) == Removed(tombstone_values=1)


async def test_a_decision_on_a_tombstone_that_was_forgotten_meanwhile_is_made_anew(
    house: House,
) -> None:
    """The run has read the row when retention comes; its commit finds another one."""
    await house.write("ext/a", {"k": "1"})
    await delete(house, "ext/a")
    house.there.put("kv/a", {"k": "there"})

    async def forget(operation: str, path: str) -> None:
        if operation == "read":
            house.there.before = None
            assert (await retain(house)).tombstones == 1

    house.there.before = forget
    await house.run()
    assert await house.data("ext/a") == {"k": "there"}
    assert (await house.row("secrets", path="ext/a"))["current_version"] == 2


async def test_a_first_write_that_never_landed_leaves_nothing_but_its_number(house: House) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    await house.run()

    async def race(operation: str, path: str) -> None:
        if operation == "write":
            house.there.before = None
            house.there.put("kv/a", {"k": "theirs"})

    house.there.before = race
    with pytest.raises(Exception, match="was changed in"):
        await house.write("ext/a", {"k": "ours"}, tags=("ours",), owner="us")
    assert (await house.row("secrets", path="ext/a"))["state"] == "void"
    assert await retain(house) == Removed(versions=1)
    await house.run()
    row = await house.row("secrets", path="ext/a")
    assert (row["current_version"], row["tags"], row["owner"]) == (2, [], None)


async def test_a_first_version_that_waits_for_its_backend_is_not_there_yet_and_stays(
    house: House,
) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    await house.run()

    async def cut(operation: str, path: str) -> None:
        if operation == "write":
            raise BackendUnreachableError("cut", operation="write")

    house.there.before = cut
    with pytest.raises(WriteOutcomeUnknownError):
        await house.write("ext/a", {"k": "1"})
    for version in (None, 1):
        with pytest.raises(NotFoundError) as absent:
            await house.data("ext/a", version)
        assert absent.value.code == "secret_not_found"
    assert await retain(house) == Removed()
    assert await numbers(house, "ext/a") == [1]


# --- conflicts, runs, pushes, pairs -----------------------------------------------


async def test_closed_conflicts_go_and_open_ones_stay_with_their_earlier_sides(
    house: House,
) -> None:
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    for name in "ab":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    for name in "ab":
        await house.write(f"ext/{name}", {"k": "ours"})
        house.there.put(f"kv/{name}", {"k": "theirs"})
    await house.run()
    for name in "ab":
        house.there.put(f"kv/{name}", {"k": "theirs again"})
    await house.run()
    assert len(await house.rows("conflicts", state="superseded")) == 2
    await house.admin.execute(
        "UPDATE conflicts SET state = 'resolved', closed_at = now() WHERE path = 'ext/b'"
        " AND state = 'open'"
    )
    await age(house, "conflicts", "closed_at", 61)
    await house.admin.execute("UPDATE conflicts SET closed_at = now() WHERE state = 'resolved'")
    assert (await retain(house, LATER)).conflicts == 0, "closed just now, so its sides stay"
    await age(house, "conflicts", "closed_at", 61)
    assert (await retain(house, LATER)).conflicts == 2
    assert {(r["path"], r["state"]) for r in await house.rows("conflicts")} == {
        ("ext/a", "open"),
        ("ext/a", "superseded"),
    }


async def test_old_runs_go_but_for_the_last_and_those_that_tell_what_a_cycle_costs(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b c", {"k": "1"})
    for _ in range(14):
        await house.run()
    for _ in range(3):
        await house.run("ext/a")
    assert (await retain(house)).runs == 0, "a budget of calls counts the last two days"
    await age(house, "runs", "ended_at", 49 * 3600)
    assert (await retain(house, replace(AT_ONCE, runs_kept=2))).runs == 5
    rows = await house.rows("runs")
    assert [r["kind"] for r in sorted(rows, key=lambda r: r["run_no"])] == [
        *["full"] * 10,
        *["targeted"] * 2,
    ]
    left = {r["run_id"] for r in await house.rows("run_skips")}
    assert left == {r["run_id"] for r in rows if r["kind"] == "full"}


async def test_an_old_run_that_has_not_ended_stays(house: House) -> None:
    for _ in range(3):
        await house.run()
    await age(house, "runs", "ended_at", 49 * 3600)
    oldest = min(r["run_id"] for r in await house.rows("runs"))
    await house.admin.execute(
        "UPDATE runs SET state = 'running', ended_at = NULL, kind = 'targeted' WHERE run_id = $1",
        oldest,
    )
    await retain(house)
    assert oldest in {r["run_id"] for r in await house.rows("runs")}


async def test_ended_pushes_go_but_what_may_still_arrive_late_is_remembered(house: House) -> None:
    await house.configure(
        writes=Writes.WRITE_THROUGH, conflict_resolution=ConflictPolicy.LOCAL_WINS
    )
    for name in "abc":
        await house.write(f"ext/{name}", {"k": "1"})
    await house.admin.execute(
        "UPDATE pushes SET state = 'withdrawn', reason = 'push_refused' WHERE path = 'ext/b'"
    )
    await house.admin.execute(
        "UPDATE pushes SET state = 'unknown', ended_at = NULL WHERE path = 'ext/c'"
    )
    assert (await retain(house)).pushes == 1
    assert {p["path"] for p in await house.rows("pushes")} == {"ext/b", "ext/c"}
    await age(house, "pushes", "ended_at", 8 * 86400)
    assert (await retain(house)).pushes == 1
    assert {p["path"] for p in await house.rows("pushes")} == {"ext/c"}


async def test_a_pair_that_left_the_mapping_goes_and_its_secret_stays(house: House) -> None:
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    await house.configure(rules=(RuleSpec("ext/a", "kv/a"),))
    await house.run()
    assert (await retain(house, LATER)).detached_pairs == 0
    assert (await retain(house)).detached_pairs == 2
    assert [p["path"] for p in await house.rows("sync_state")] == ["ext/a"]
    assert await house.paths() == ["ext/a", "ext/b", "ext/c"]


async def test_pages_of_one_row_reach_the_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svsync.services.retention.BATCH", 1)
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    await house.configure(rules=(RuleSpec("x/**", "y/**"),))
    await house.run()
    for name in "abc":
        await delete(house, f"ext/{name}")
    removed = await retain(house)
    assert (removed.detached_pairs, removed.tombstones) == (3, 3)


async def test_events_wait_for_their_delivery(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    before = await house.events()
    await house.admin.execute("UPDATE outbox SET pending = true")
    await age(house, "outbox", "created_at", 10**9)
    await retain(house)
    assert await house.events() == before


async def test_events_that_everybody_was_told_of_go_but_the_newest(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.run()
    told = await house.events()
    await house.admin.execute("UPDATE outbox SET pending = false")
    assert (await retain(house)).events == 0
    await age(house, "outbox", "created_at", 61)
    assert (await retain(house)).events == len(told) - 1
    assert await house.events() == told[-1:]


# --- tokens -----------------------------------------------------------------------


async def make_token(house: House, *, expires_in: float | None = None) -> str:
    made = await house.app.access.create(
        TENANT,
        Identity(IdentityType.SERVICE_ACCOUNT, "ci"),
        [Scope.SECRETS_READ],
        expires_in=expires_in,
        by="ann",
    )
    return made.token_id


async def tokens(house: House) -> set[str]:
    return {row["token_id"] for row in await house.rows("tokens")}


async def test_tokens_that_count_no_more_are_listed_for_a_while_and_go(house: House) -> None:
    lasting, later = await make_token(house), await make_token(house, expires_in=10**6)
    revoked, _ = await make_token(house), await make_token(house, expires_in=3600)
    await house.app.access.revoke(TENANT, revoked)
    await age(house, "tokens", "created_at", 3700)
    await age(house, "tokens", "expires_at", 3600 + 50)
    await age(house, "tokens", "revoked_at", 50)
    assert (await retain(house, LATER)).tokens == 0
    await age(house, "tokens", "expires_at", 11)
    assert (await retain(house, LATER)).tokens == 1
    assert await tokens(house) == {lasting, later, revoked}
    await age(house, "tokens", "revoked_at", 11)
    assert (await retain(house, LATER)).tokens == 1
    assert await tokens(house) == {lasting, later}
    assert (await retain(house)).tokens == 0


async def test_token_that_was_revoked_before_it_would_expire_goes_by_that(house: House) -> None:
    token = await make_token(house, expires_in=10**6)
    await house.app.access.revoke(TENANT, token)
    await age(house, "tokens", "created_at", 61)
    await age(house, "tokens", "revoked_at", 61)
    assert (await retain(house, LATER)).tokens == 1


async def test_pages_of_tokens_reach_those_behind_ones_that_stay(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svsync.services.retention.BATCH", 1)
    lasting = await make_token(house)
    for _ in range(2):
        await house.app.access.revoke(TENANT, await make_token(house))
    assert (await retain(house)).tokens == 2
    assert await tokens(house) == {lasting}


async def test_what_goes_and_when_is_as_configured(house: House) -> None:
    settings = replace(house.app.settings, events_kept=86_400, token_retention=7)
    ages = ages_of(settings)
    assert (ages.events, ages.tokens) == (86_400, 7)
