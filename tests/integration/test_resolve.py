"""What a person's decision makes of a conflict, on both sides and for the runs after it."""

import asyncio
import json
from typing import Any

import pytest
from tests.house import BACKEND, ENDINGS, TENANT, WORK, House, Pause, counts
from tests.integration.test_conflicts import BASE, HERE, KINDS, THERE, disagree, opened

from svsync.domain.changes import RemoteUnknown
from svsync.domain.errors import (
    BackendUnreachableError,
    ConflictChangedError,
    KeyServiceError,
    NotFoundError,
    SvsyncError,
)
from svsync.domain.federation import ConflictPolicy, RemoteChanges, Writes
from svsync.domain.ids import LocalPath
from svsync.domain.resolutions import Resolution
from svsync.domain.values import Payload

A = LocalPath("ext/a")
VALUE = {"k": "value"}
LOCAL, REMOTE, GIVEN = Resolution.USE_LOCAL, Resolution.USE_REMOTE, Resolution.USE_VALUE
ONLY_HERE, THROUGH = Writes.LOCAL, Writes.WRITE_THROUGH


async def resolve(house: House, resolution: Resolution, **seen: Any) -> dict[str, Any]:
    payload = Payload.from_fields(VALUE) if resolution is GIVEN else None
    return await house.app.conflicts.resolve(
        TENANT, BACKEND, A, resolution, payload=payload, by="user:ann", **seen
    )


async def open_conflict(house: House, kind: str, writes: Writes = ONLY_HERE) -> Any:
    """`ext/a` in an open conflict of this kind, then with these writes; its record."""
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await disagree(house, kind)
    await house.run()
    if writes is not ONLY_HERE:
        await house.configure(writes=writes)
    return await house.row("conflicts", state="open")


@pytest.fixture
async def frozen(house: House) -> House:
    await open_conflict(house, "modify_modify")
    return house


@pytest.fixture
async def through(house: House) -> House:
    await open_conflict(house, "modify_modify", THROUGH)
    return house


def there(house: House) -> Any:
    """What the backend has at `kv/a`; None where it is gone."""
    secret = house.there.secret("kv/a")
    if secret is None or secret.gone:
        return None
    return json.loads(secret.versions[secret.current].payload.data_text())


async def here(house: House) -> Any:
    """What a read of `ext/a` gives; None where it is deleted."""
    return await house.data(A) if A in await house.paths() else None


async def make_runs_quiet(house: House) -> None:
    """The next run changes no secret, and the one after it nothing at all."""
    tables = ("secrets", "versions", "conflicts", "pushes")
    before, sequence = await house.dump(without=WORK | ENDINGS), len(await house.events())
    ended = await house.run()
    changed = counts(ended).keys() - {"listed", "unchanged"}
    assert not changed
    between = await house.dump(without=WORK | ENDINGS)
    assert [between[name] for name in tables] == [before[name] for name in tables]
    assert counts(await house.run()).keys() <= {"listed", "unchanged"}
    assert await house.dump(without=WORK | ENDINGS) == between
    assert (await house.events())[sequence:] == ["federation.sync.completed"] * 2


# --- every kind, each resolution, on one side and on both -------------------------------


@pytest.mark.parametrize("writes", [ONLY_HERE, THROUGH])
@pytest.mark.parametrize("resolution", Resolution)
@pytest.mark.parametrize("kind", KINDS)
async def test_resolved_conflict_leaves_both_sides_as_decided(
    house: House, kind: str, resolution: Resolution, writes: Writes
) -> None:
    conflict = await open_conflict(house, kind, writes)
    pair = await house.row("sync_state", path=A)
    ours = None if kind in ("delete_modify", "add_delete") else HERE
    theirs = None if kind == "modify_delete" else THERE
    wanted = {LOCAL: ours, REMOTE: theirs, GIVEN: VALUE}[resolution]
    pushed = writes is THROUGH and resolution is not REMOTE and wanted is not None
    before = await house.events()

    answer = await resolve(house, resolution)

    assert await here(house) == wanted
    assert there(house) == (wanted if pushed else theirs)
    agree = there(house) == wanted
    assert await house.status(A) == ("in_sync" if agree else "diverged")
    state = "applied" if agree else "pending"
    assert answer["write_through"]["state"] == (state if writes is THROUGH else "not_configured")
    assert (answer["write_through"]["push_id"] is not None) is pushed
    row = await house.row("secrets", path=A)
    assert answer["version"] == (None if wanted is None else row["current_version"])
    closed = await house.row("conflicts", conflict_id=conflict["conflict_id"])
    assert (closed["state"], closed["resolved_by"]) == ("resolved", "user:ann")
    assert closed["closed_at"] is not None
    if not pushed:
        await base_is_what_was_seen(house, conflict, took=resolution is REMOTE, before=pair)
    changed = [] if wanted == ours else ["federation.secret.changed"]
    assert (await house.events())[len(before) :] == [*changed, "federation.conflict.resolved"]
    await make_runs_quiet(house)


async def base_is_what_was_seen(house: House, conflict: Any, *, took: bool, before: Any) -> None:
    """And settled is what both sides agree on: a value that is kept here settles nothing."""
    pair = await house.row("sync_state", path=A)
    assert pair["base_kind"] == ("absent" if conflict["remote_gone"] else "value")
    assert pair["base_value_token"] == conflict["remote_token"]
    assert pair["base_fp"] == conflict["remote_fp"]
    assert pair["base_fp_key"] == conflict["remote_fp_key"]
    current = (await house.row("secrets", path=A))["current_version"]
    assert pair["settled_version"] == (current if took else before["settled_version"])


@pytest.mark.parametrize("resolution", [REMOTE, GIVEN])
async def test_new_version_tells_where_it_comes_from_and_keeps_the_others(
    frozen: House, resolution: Resolution
) -> None:
    await resolve(frozen, resolution)
    assert await frozen.versions(A) == [BASE, HERE, THERE if resolution is REMOTE else VALUE]
    version = await frozen.row("versions", version=3)
    assert (version["origin"], version["created_by"]) == ("resolve", "user:ann")


async def test_event_tells_how_it_was_resolved_and_no_value(frozen: House) -> None:
    conflict = await frozen.row("conflicts")
    await resolve(frozen, GIVEN)
    rows = await frozen.admin.fetch("SELECT * FROM outbox ORDER BY sequence")
    resolved = json.loads(rows[-1]["payload"])
    assert resolved.pop("sequence") == rows[-1]["sequence"]
    assert resolved == {
        "backend_id": BACKEND, "backend_name": BACKEND, "tenant": "default", "run_id": None,
        "conflict_id": conflict["conflict_id"], "path": A, "kind": "modify_modify",
        "resolution": "use_value",
    }  # fmt: skip
    assert json.loads(rows[-2]["payload"])["secrets"] == [
        {"path": A, "version": 3, "deleted": False}
    ]


async def test_what_a_secret_has_beside_its_value_stays(frozen: House) -> None:
    await frozen.write(A, HERE, tags=("mine",), owner="team:x", description="d")
    await resolve(frozen, GIVEN)
    row = await frozen.row("secrets", path=A)
    assert (list(row["tags"]), row["owner"], row["description"]) == (["mine"], "team:x", "d")


async def test_tags_of_a_remote_side_that_was_taken_follow_with_the_next_run(house: House) -> None:
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await disagree(house, "add_add")
    house.there.tag("kv/a", {"env": "prod"})
    await house.run()
    await resolve(house, REMOTE)
    await house.run()
    assert list((await house.row("secrets", path=A))["tags"]) == ["env=prod"]


# --- frozen until then ------------------------------------------------------------------


async def test_nothing_goes_to_the_backend_and_nothing_comes_while_a_conflict_is_open(
    through: House,
) -> None:
    await through.configure(propagate_deletes=True)
    through.there.put("kv/a", {"k": "later"})
    through.there.calls.clear()
    await through.write(A, {"k": "mine"})
    await through.run()
    await through.app.writes.delete(TENANT, A, by="sa:test")
    await through.run()
    assert (through.there.calls["write"], through.there.calls["delete"]) == (0, 0)
    assert (await here(through), there(through)) == (None, {"k": "later"})
    assert await through.versions(A) == [BASE, HERE, {"k": "mine"}]
    assert await through.rows("pushes") == []


async def test_local_side_counts_as_it_stands_when_it_is_resolved(through: House) -> None:
    """A write to a frozen path goes on, and no run has looked at it yet."""
    await through.write(A, {"k": "later"})
    answer = await resolve(through, LOCAL)
    assert (answer["version"], answer["write_through"]["state"]) == (3, "applied")
    assert there(through) == {"k": "later"} == await here(through)


async def test_sides_that_come_out_equal_are_in_sync_and_nothing_is_pushed(through: House) -> None:
    await through.write(A, THERE)
    through.there.calls.clear()
    answer = await resolve(through, LOCAL)
    assert answer["write_through"] == {"state": "applied", "push_id": None}
    assert await through.status(A) == "in_sync"
    assert (await through.row("sync_state", path=A))["settled_version"] == 3
    await make_runs_quiet(through)
    assert through.there.calls["write"] == 0


async def test_run_that_was_under_way_does_not_undo_the_decision(frozen: House) -> None:
    pause = Pause(frozen.there, "read", "kv/a")
    running = asyncio.create_task(frozen.run())
    await pause.reached.wait()
    await resolve(frozen, REMOTE)
    pause.let_go()
    await running
    assert await frozen.status(A) == "in_sync"
    assert (await frozen.row("conflicts"))["state"] == "resolved"
    assert await frozen.versions(A) == [BASE, HERE, THERE]
    await make_runs_quiet(frozen)


async def test_run_that_could_not_look_does_not_say_that_a_conflict_still_waits(
    frozen: House,
) -> None:
    frozen.there.unreadable["kv/a"] = RemoteUnknown("undecodable")
    pause = Pause(frozen.there, "read", "kv/a")
    running = asyncio.create_task(frozen.run())
    await pause.reached.wait()
    await resolve(frozen, LOCAL)
    pause.let_go()
    await running
    assert await frozen.status(A) == "diverged"


# --- what was looked at -----------------------------------------------------------------


async def listed(house: House) -> dict[str, Any]:
    found: Any = await house.app.conflicts.list_conflicts(TENANT, BACKEND)
    [conflict] = found["conflicts"]
    return dict(conflict)


def looked_at(conflict: dict[str, Any]) -> dict[str, Any]:
    return {key: conflict[key] for key in ("conflict_id", "local_version", "remote_token")}


async def test_decision_about_what_was_looked_at_is_taken(frozen: House) -> None:
    assert (await resolve(frozen, LOCAL, **looked_at(await listed(frozen))))["version"] == 2


async def refused(house: House, **seen: Any) -> dict[str, object]:
    """The conflict as a refusal tells it; nothing was done."""
    before = await house.dump()
    with pytest.raises(ConflictChangedError) as stale:
        await resolve(house, LOCAL, **seen)
    assert stale.value.code == "conflict_changed"
    assert await house.dump() == before
    assert stale.value.conflict == await listed(house)
    return stale.value.conflict


async def test_local_write_since_it_was_looked_at_is_told(frozen: House) -> None:
    seen = await listed(frozen)
    await frozen.write(A, {"k": "later"})
    told = await refused(frozen, local_version=seen["local_version"])
    assert (seen["local_version"], told["local_version"]) == (2, 3)


async def test_local_delete_since_it_was_looked_at_is_told(frozen: House) -> None:
    """A tombstone keeps its secret's number, so a deleted side counts as version 0."""
    seen = await listed(frozen)
    await frozen.bury(A)
    told = await refused(frozen, local_version=seen["local_version"])
    assert (told["local"], told["local_version"]) == ("deleted", 0)
    await resolve(frozen, LOCAL, local_version=0)


async def test_remote_change_since_it_was_looked_at_is_told(frozen: House) -> None:
    seen = await listed(frozen)
    frozen.there.put("kv/a", {"k": "later"})
    await frozen.run()
    told = await refused(frozen, remote_token=seen["remote_token"])
    assert told["conflict_id"] == seen["conflict_id"]
    await resolve(frozen, REMOTE, **looked_at(await listed(frozen)))
    assert await here(frozen) == {"k": "later"}


async def test_other_conflict_than_the_one_looked_at_is_told(frozen: House) -> None:
    await refused(frozen, conflict_id="cfl_of_last_week")


async def test_handle_of_the_remote_side_tells_neither_token_nor_fingerprint(
    frozen: House,
) -> None:
    row = await frozen.row("conflicts")
    shown = json.dumps(await listed(frozen))
    assert row["remote_token"] not in shown
    assert row["remote_fp"].hex() not in shown


async def test_path_without_an_open_conflict_has_none_to_resolve(frozen: House) -> None:
    await resolve(frozen, REMOTE)
    for path in (A, LocalPath("ext/bystander"), LocalPath("no/such")):
        with pytest.raises(NotFoundError) as none:
            await frozen.app.conflicts.resolve(TENANT, BACKEND, path, LOCAL, by="user:ann")
        assert none.value.code == "conflict_not_found"


async def test_push_without_an_outcome_is_waited_for(through: House) -> None:
    await through.admin.execute(
        "INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind, state,"
        " secret_id, version, row_rev, created_by, deadline)"
        " SELECT 1, 'psh_1', $1, path, 'kv/a', 'put', 'unknown', secret_id, 2, 1, 'x', now()"
        " FROM secrets WHERE path = $2",
        BACKEND,
        A,
    )
    with pytest.raises(SvsyncError) as waits:
        await resolve(through, LOCAL)
    assert waits.value.code == "write_in_progress"
    assert (await through.row("conflicts"))["state"] == "open"


async def test_value_is_refused_where_local_writes_are_disabled_and_a_side_is_taken(
    frozen: House,
) -> None:
    await frozen.configure(writes=Writes.DISABLED)
    with pytest.raises(SvsyncError) as disabled:
        await resolve(frozen, GIVEN)
    assert disabled.value.code == "federated_path_read_only"
    await resolve(frozen, REMOTE)
    assert await here(frozen) == THERE


# --- the backend went on meanwhile ------------------------------------------------------


async def kept_values(house: House) -> list[Any]:
    """Every value that can still be read here: versions, and remote sides of conflicts."""
    records = await house.admin.fetch("SELECT * FROM conflicts")
    return [*await house.versions(A), *[await opened(house, row, "remote") for row in records]]


@pytest.mark.parametrize("writes", [ONLY_HERE, THROUGH])
async def test_remote_side_that_moved_on_opens_a_new_conflict_and_loses_nothing(
    house: House, writes: Writes
) -> None:
    """Written through, the push that was made on the condition of the old one is refused."""
    await open_conflict(house, "modify_modify", writes)
    house.there.put("kv/a", {"k": "later"})
    answer = await resolve(house, LOCAL)
    assert answer["write_through"]["state"] == (
        "pending" if writes is THROUGH else "not_configured"
    )
    assert (await here(house), there(house)) == (HERE, {"k": "later"})
    assert counts(await house.run())["conflicts"] == 1
    first, second = await house.admin.fetch("SELECT * FROM conflicts ORDER BY detected_at")
    assert (first["state"], second["state"]) == ("resolved", "open")
    assert await kept_values(house) == [BASE, HERE, THERE, {"k": "later"}]
    await resolve(house, LOCAL)
    assert there(house) == (HERE if writes is THROUGH else {"k": "later"})
    await make_runs_quiet(house)


async def test_remote_side_that_moved_on_after_it_was_taken_is_pulled(frozen: House) -> None:
    frozen.there.put("kv/a", {"k": "later"})
    await resolve(frozen, REMOTE)
    await frozen.run()
    assert await frozen.versions(A) == [BASE, HERE, THERE, {"k": "later"}]
    assert await frozen.status(A) == "in_sync"


async def test_backend_that_is_down_gets_the_value_from_the_next_run(through: House) -> None:
    down = BackendUnreachableError("down", operation="write", sent=False)
    through.there.fail("write", down)
    answer = await resolve(through, LOCAL)
    assert answer["write_through"]["state"] == "pending"
    assert await through.status(A) == "pending_push"
    await through.run()
    assert there(through) == HERE
    assert await through.status(A) == "in_sync"


async def test_paused_backend_is_left_alone_and_gets_the_value_when_it_is_back(
    through: House,
) -> None:
    await through.admin.execute("UPDATE backends SET state = 'paused'")
    answer = await resolve(through, LOCAL)
    assert answer["write_through"] == {"state": "pending", "push_id": None}
    assert (there(through), await through.status(A)) == (THERE, "pending_push")
    await through.admin.execute("UPDATE backends SET state = 'active'")
    assert counts(await through.run())["pushed"] == 1
    assert there(through) == HERE


# --- deleted sides ----------------------------------------------------------------------


async def test_tombstone_that_was_made_to_be_propagated_deletes_in_the_next_run(
    through: House,
) -> None:
    await through.configure(propagate_deletes=True)
    await through.app.writes.delete(TENANT, A, by="sa:test")
    answer = await resolve(through, LOCAL)
    assert answer["write_through"] == {"state": "pending", "push_id": None}
    assert (there(through), await through.status(A)) == (THERE, "pending_push")
    assert counts(await through.run())["pushed"] == 1
    assert there(through) is None
    await make_runs_quiet(through)


async def test_remote_deletion_that_was_taken_deletes_nothing_there_later(house: House) -> None:
    """Also not under `hold`, where a secret that comes back does not replace the tombstone."""
    await open_conflict(house, "modify_delete", THROUGH)
    await house.configure(propagate_deletes=True, remote_changes=RemoteChanges.HOLD)
    await house.app.writes.delete(TENANT, A, by="sa:test")
    await resolve(house, REMOTE)
    assert (await house.row("secrets", path=A))["propagate"] is False
    house.there.undelete("kv/a")
    await house.run()
    await house.run()
    assert there(house) == BASE


# --- sides that cannot be read ----------------------------------------------------------


async def test_remote_side_that_does_not_open_is_not_taken_and_may_be_decided_against(
    through: House,
) -> None:
    """Its fingerprint and token are known, which is all that base needs."""
    await through.admin.execute(
        "UPDATE conflicts SET remote_sealed = set_byte(remote_sealed, 0,"
        " get_byte(remote_sealed, 0) # 1)"
    )
    with pytest.raises(KeyServiceError):
        await resolve(through, REMOTE)
    assert await through.status(A) == "conflict"
    await resolve(through, LOCAL)
    assert there(through) == HERE


async def test_local_value_that_does_not_open_stays_here_and_is_not_pushed(through: House) -> None:
    await through.admin.execute(
        "UPDATE versions SET sealed = set_byte(sealed, 0, get_byte(sealed, 0) # 1)"
        " WHERE version = 2"
    )
    answer = await resolve(through, LOCAL)
    assert answer["write_through"]["state"] == "pending"
    assert there(through) == THERE
