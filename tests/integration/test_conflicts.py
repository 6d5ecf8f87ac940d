"""What becomes of a secret on which both sides moved: nothing is lost, whoever wins."""

import json
from typing import Any

import pytest
from tests.house import ENDINGS, TENANT, WORK, House, counts

from svsync.domain.changes import RemoteUnknown
from svsync.domain.envelope import Purpose
from svsync.domain.errors import KeyServiceError
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete, RemoteChanges, RuleSpec
from svsync.domain.ids import LocalPath, SecretId
from svsync.services.sealing import Sealed

POLICIES = list(ConflictPolicy)
KINDS = ["modify_modify", "add_add", "modify_delete", "delete_modify", "add_delete"]
BASE, HERE, THERE = {"k": "base"}, {"k": "here"}, {"k": "there"}


async def disagree(house: House, kind: str) -> None:
    """Bring `ext/a` into a conflict of this kind; a bystander stays in sync."""
    house.there.put("kv/bystander", BASE)
    if kind.startswith("add"):
        await house.run()
        await house.write("ext/a", HERE)
        house.there.put("kv/a", THERE)
        if kind == "add_delete":
            await house.bury("ext/a")
        return
    house.there.put("kv/a", BASE)
    await house.run()
    if kind.startswith("modify"):
        await house.write("ext/a", HERE)
    else:
        await house.bury("ext/a")
    if kind.endswith("delete"):
        house.there.delete("kv/a")
    else:
        house.there.put("kv/a", THERE)


async def opened(house: House, row: Any, side: str) -> Any:
    """One side of a conflict record, opened under its own binding; None where it has none."""
    if row[f"{side}_sealed"] is None:
        return None
    keys = await house.app.sealing.for_tenant(TENANT)
    purpose = Purpose.CONFLICT_LOCAL if side == "local" else Purpose.CONFLICT_REMOTE
    sealed = Sealed(row[f"{side}_key_id"], row[f"{side}_nonce"], row[f"{side}_sealed"])
    secret, path = SecretId(row["secret_id"]), LocalPath(row["path"])
    return json.loads(await keys.open(purpose, secret, path, 0, sealed, extra=row["sealed_as"]))


async def sides(house: House, row: Any) -> tuple[Any, Any]:
    return await opened(house, row, "local"), await opened(house, row, "remote")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
async def test_conflict_is_recorded_with_both_values(
    house: House, kind: str, policy: ConflictPolicy
) -> None:
    await house.configure(conflict_resolution=policy)
    await disagree(house, kind)
    assert counts(await house.run())["conflicts"] == 1
    row = await house.row("conflicts")
    states = {"backend_wins": "took_remote", "local_wins": "kept_local", "manual": "open"}
    expected = states[policy]
    if (kind, policy) == ("modify_delete", ConflictPolicy.BACKEND_WINS):
        expected = "kept_local"  # retained: a read still gives the local value
    assert (row["kind"], row["state"]) == (kind, expected)
    assert (row["closed_at"] is None) is (policy is ConflictPolicy.MANUAL)
    local = None if kind in ("delete_modify", "add_delete") else HERE
    assert await sides(house, row) == (local, None if kind == "modify_delete" else THERE)
    assert (row["local_state"], row["remote_gone"]) == (
        "live" if local else "deleted", kind == "modify_delete",
    )  # fmt: skip
    assert (await house.events()).count("federation.conflict.detected") == 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
async def test_second_run_records_and_changes_nothing(
    house: House, kind: str, policy: ConflictPolicy
) -> None:
    await house.configure(conflict_resolution=policy)
    await disagree(house, kind)
    await house.run()
    before = await house.dump(without=WORK | ENDINGS)
    assert "conflicts" not in counts(await house.run())
    assert await house.dump(without=WORK | ENDINGS) == before


@pytest.mark.parametrize("kind", KINDS)
async def test_where_the_backend_wins_the_overwritten_value_stays_readable(
    house: House, kind: str
) -> None:
    await disagree(house, kind)
    await house.run()
    here = [HERE] if kind.startswith("add") else [BASE]
    if kind.startswith("modify"):
        here.append(HERE)
    there = [] if kind == "modify_delete" else [THERE]
    assert await house.versions("ext/a") == here + there
    assert await house.status("ext/a") == ("in_sync" if there else "retained")


@pytest.mark.parametrize("kind", KINDS)
async def test_where_the_local_side_wins_it_stays_as_it_is(house: House, kind: str) -> None:
    await house.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    await disagree(house, kind)
    before = await house.rows("secrets", path="ext/a")
    await house.run()
    assert await house.rows("secrets", path="ext/a") == before
    assert await house.status("ext/a") == "diverged"
    # What was lost there is not lost: the next change there is another conflict or drift.
    house.there.put("kv/a", {"k": "later"})
    await house.run()
    assert await house.rows("secrets", path="ext/a") == before
    records = await house.admin.fetch("SELECT * FROM conflicts ORDER BY detected_at")
    assert await opened(house, records[-1], "remote") == {"k": "later"}


async def test_backend_wins_with_soft_delete_keeps_the_local_value_in_the_history(
    house: House,
) -> None:
    await house.configure(on_remote_delete=OnRemoteDelete.SOFT_DELETE)
    await disagree(house, "modify_delete")
    await house.run()
    assert await house.paths() == ["ext/bystander"]
    assert await house.data("ext/a", version=2) == HERE
    assert (await house.row("secrets", path="ext/a"))["propagate"] is False


# --- manual: frozen until somebody decides ----------------------------------------------


@pytest.fixture
async def frozen(house: House) -> House:
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await disagree(house, "modify_modify")
    await house.run()
    assert await house.status("ext/a") == "conflict"
    return house


async def test_frozen_path_keeps_what_it_had(frozen: House) -> None:
    assert await frozen.versions("ext/a") == [BASE, HERE]
    assert (await frozen.row("sync_state", path="ext/a"))["settled_version"] == 1


async def test_frozen_path_stays_frozen_when_the_policy_changes(frozen: House) -> None:
    await frozen.configure(conflict_resolution=ConflictPolicy.BACKEND_WINS)
    await frozen.run()
    assert await frozen.versions("ext/a") == [BASE, HERE]
    assert await frozen.status("ext/a") == "conflict"


async def test_new_remote_value_refreshes_the_conflict_and_keeps_the_earlier_one(
    frozen: House,
) -> None:
    first = await frozen.row("conflicts")
    frozen.there.put("kv/a", {"k": "later"})
    ended = await frozen.run()
    assert "conflicts" not in counts(ended)
    now = await frozen.row("conflicts", state="open")
    assert now["conflict_id"] == first["conflict_id"]
    assert await sides(frozen, now) == (HERE, {"k": "later"})
    kept = await frozen.row("conflicts", state="superseded")
    assert await sides(frozen, kept) == (HERE, THERE)


async def test_local_write_refreshes_the_conflict_and_goes_on(frozen: House) -> None:
    assert await frozen.write("ext/a", {"k": "later"}) == 3
    await frozen.run()
    now = await frozen.row("conflicts", state="open")
    assert now["local_version"] == 3
    assert await sides(frozen, now) == ({"k": "later"}, THERE)
    assert await sides(frozen, await frozen.row("conflicts", state="superseded")) == (HERE, THERE)


async def test_remote_value_that_goes_and_comes_back_is_one_open_conflict(frozen: House) -> None:
    for happens in (frozen.there.delete, frozen.there.undelete, frozen.there.delete):
        happens("kv/a")
        await frozen.run()
        row = await frozen.row("conflicts", state="open")
        assert row["remote_gone"] is (happens == frozen.there.delete)
    assert await frozen.versions("ext/a") == [BASE, HERE]


@pytest.mark.parametrize("who", ["here", "there"])
async def test_equal_sides_close_the_conflict_as_converged(frozen: House, who: str) -> None:
    if who == "there":
        frozen.there.put("kv/a", HERE)
    else:
        await frozen.write("ext/a", THERE)
    await frozen.run()
    row = await frozen.row("conflicts")
    assert (row["state"], row["closed_at"] is None) == ("converged", False)
    assert await frozen.status("ext/a") == "in_sync"
    assert (await frozen.events()).count("federation.conflict.resolved") == 1
    frozen.there.put("kv/a", {"k": "next"})
    await frozen.run()
    assert await frozen.data("ext/a") == {"k": "next"}


async def test_both_gone_closes_the_conflict_as_converged(frozen: House) -> None:
    await frozen.bury("ext/a")
    frozen.there.remove("kv/a")
    await frozen.run()
    assert (await frozen.row("conflicts"))["state"] == "converged"
    assert (await frozen.row("sync_state", path="ext/a"))["base_kind"] == "absent"


async def test_sides_that_disagree_again_open_their_closed_record_again(house: House) -> None:
    await house.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    await disagree(house, "delete_modify")
    await house.run()
    await house.admin.execute(
        "UPDATE sync_state SET base_fp = sha256(''), base_value_token = 'other', recheck = true"
    )
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await house.run()
    row = await house.row("conflicts", path="ext/a")
    assert (row["state"], row["closed_at"]) == ("open", None)
    assert row["opened_run"] == (await house.row("backend_health"))["last_run_id"]


async def test_unreadable_remote_side_leaves_the_conflict_open(frozen: House) -> None:
    frozen.there.unreadable["kv/a"] = RemoteUnknown("undecodable")
    await frozen.run()
    assert (await frozen.row("conflicts"))["state"] == "open"
    assert await frozen.status("ext/a") == "conflict"


async def test_detaching_closes_the_conflict_and_keeps_both_values(frozen: House) -> None:
    await frozen.configure(rules=(RuleSpec("ext/bystander", "kv/bystander"),))
    await frozen.run()
    row = await frozen.row("conflicts")
    assert row["state"] == "detached"
    assert await sides(frozen, row) == (HERE, THERE)


async def test_status_counts_the_open_conflict(frozen: House) -> None:
    status = await frozen.app.federation.status(TENANT, frozen.spec.id)
    assert status["conflicts_open"] == 1
    shown = await frozen.app.conflicts.list_conflicts(TENANT, frozen.spec.id)
    conflicts: Any = shown["conflicts"]
    [conflict] = conflicts
    assert (conflict["path"], conflict["kind"]) == ("ext/a", "modify_modify")
    assert "here" not in json.dumps(shown)


async def test_local_value_that_does_not_open_keeps_the_remote_one(house: House) -> None:
    """An unreadable value is neither changed nor gone, and the conflict is recorded (S14)."""
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await disagree(house, "modify_modify")
    await house.admin.execute(
        "UPDATE versions SET sealed = set_byte(sealed, 0, get_byte(sealed, 0) # 1)"
        " WHERE version = 2"
    )
    with pytest.raises(KeyServiceError):
        await house.data("ext/a")
    await house.run()
    row = await house.row("conflicts")
    assert row["local_sealed"] is None
    assert await opened(house, row, "remote") == THERE


# --- held and drifted -------------------------------------------------------------------


async def test_remote_change_that_is_held_is_recorded_as_drift(house: House) -> None:
    await house.configure(remote_changes=RemoteChanges.HOLD)
    house.there.put("kv/a", BASE)
    await house.run()
    house.there.put("kv/a", THERE)
    assert counts(await house.run())["conflicts"] == 1
    row = await house.row("conflicts")
    assert (row["kind"], row["state"]) == ("drift", "kept_local")
    assert await sides(house, row) == (BASE, THERE)
    assert await house.versions("ext/a") == [BASE]
    assert await house.status("ext/a") == "diverged"
    assert "federation.conflict.detected" not in await house.events()


async def test_held_change_is_pulled_once_changes_are_pulled_again(house: House) -> None:
    await house.configure(remote_changes=RemoteChanges.HOLD)
    house.there.put("kv/a", BASE)
    await house.run()
    house.there.put("kv/a", THERE)
    await house.run()
    await house.configure(remote_changes=RemoteChanges.PULL)
    await house.run()
    assert await house.versions("ext/a") == [BASE, THERE]
    assert await house.status("ext/a") == "in_sync"


async def test_local_write_that_is_not_written_through_diverges_and_is_no_conflict(
    house: House,
) -> None:
    house.there.put("kv/a", BASE)
    await house.run()
    await house.write("ext/a", HERE)
    assert counts(await house.run()) == {"listed": 1, "unchanged": 1}
    assert await house.status("ext/a") == "diverged"
    assert not await house.rows("conflicts")
    assert await house.data("ext/a") == HERE


# --- events -----------------------------------------------------------------------------


async def test_events_are_numbered_without_gaps(house: House) -> None:
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await disagree(house, "modify_modify")
    await house.run()
    house.there.put("kv/a", HERE)
    await house.run()
    rows = await house.admin.fetch("SELECT * FROM outbox ORDER BY sequence")
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert [json.loads(row["payload"])["sequence"] for row in rows] == [
        row["sequence"] for row in rows
    ]
    assert [row["type"].removeprefix("federation.") for row in rows] == [
        "secret.changed", "sync.completed", "secret.changed", "conflict.detected", "sync.completed",
        "conflict.resolved", "sync.completed",
    ]  # fmt: skip
