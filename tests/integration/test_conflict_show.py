"""What a person sees of a conflict: both sides next to each other, and no value."""

import json
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House
from tests.integration.test_conflicts import KINDS, disagree

from svsync.domain.errors import NotFoundError
from svsync.domain.federation import ConflictPolicy
from svsync.domain.ids import LocalPath
from svsync.domain.resolutions import Resolution
from svsync.domain.values import Payload
from svsync.services.conflict_sides import Shown

A = LocalPath("ext/a")
OURS = Payload.from_json_text('{"same": 1.10, "other": "here", "mine": {"a": [1]}}')
THEIRS = Payload.from_json_text('{"same": 1.1, "other": "there!", "theirs": true, "none": null}')


async def show(house: House, conflict_id: str | None = None) -> Shown:
    return await house.app.conflicts.show(TENANT, BACKEND, A, conflict_id=conflict_id)


async def about(house: House, conflict_id: str | None = None) -> dict[str, Any]:
    return (await show(house, conflict_id)).about


def compared(about: dict[str, Any]) -> dict[str, str]:
    return {field["name"]: field["compared"] for field in about["fields"]}


@pytest.fixture
async def frozen(house: House) -> House:
    """`ext/a` in an open conflict of values with several fields."""
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    house.there.put("kv/a", {"k": "base"})
    await house.run()
    await house.write(A, OURS)
    house.there.put("kv/a", THEIRS)
    await house.run()
    return house


async def test_fields_are_same_or_different_or_on_one_side_only(frozen: House) -> None:
    """Equal is what fingerprints call equal: 1.10 is 1.1."""
    told = await about(frozen)
    assert told["fields"] == [
        {"name": "same", "compared": "same",
         "local": {"type": "number", "bytes": 4}, "remote": {"type": "number", "bytes": 3}},
        {"name": "other", "compared": "different",
         "local": {"type": "string", "bytes": 4}, "remote": {"type": "string", "bytes": 6}},
        {"name": "mine", "compared": "only_local",
         "local": {"type": "object", "bytes": 10}, "remote": None},
        {"name": "theirs", "compared": "only_remote",
         "local": None, "remote": {"type": "boolean", "bytes": 4}},
        {"name": "none", "compared": "only_remote",
         "local": None, "remote": {"type": "null", "bytes": 4}},
    ]  # fmt: skip


async def test_versions_and_times_are_told_and_no_value(frozen: House) -> None:
    shown = await show(frozen)
    told: Any = shown.about
    version = await frozen.row("versions", version=2)
    assert (told["local_version"], told["remote_order"]) == (2, 2)
    assert told["local_created_at"] == version["created_at"].isoformat().replace("+00:00", "Z")
    assert told["detected_at"] is not None
    assert (told["kind"], told["state"], told["path"]) == ("modify_modify", "open", A)
    assert "there!" not in json.dumps(told) + repr(shown)
    assert "here" not in json.dumps(told)


async def test_both_values_are_there_to_the_byte_for_whoever_may_see_them(frozen: House) -> None:
    shown = await show(frozen)
    assert (shown.local, shown.remote) == (OURS, THEIRS)


@pytest.mark.parametrize("kind", KINDS)
async def test_side_that_is_gone_says_so(house: House, kind: str) -> None:
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await disagree(house, kind)
    await house.run()
    told = await about(house)
    ours = "deleted" if kind in ("delete_modify", "add_delete") else "live"
    theirs = "deleted" if kind == "modify_delete" else "live"
    assert (told["local"], told["remote"]) == (ours, theirs)
    both = {("live", "live"): "different", ("live", "deleted"): "only_local"}
    assert compared(told) == {"k": both.get((ours, theirs), "only_remote")}
    assert (told["local_version"] == 0) is (ours == "deleted")


@pytest.mark.parametrize("side", ["local", "remote"])
async def test_side_whose_value_does_not_open_says_so(frozen: House, side: str) -> None:
    """What the other side has is then not known to be its alone."""
    table, column = ("versions", "sealed") if side == "local" else ("conflicts", "remote_sealed")
    await frozen.admin.execute(
        f"UPDATE {table} SET {column} = set_byte({column}, 0, get_byte({column}, 0) # 1)"
    )
    told = await about(frozen)
    assert told[side] == "unreadable"
    assert set(compared(told).values()) == {"unknown"}


async def test_local_side_of_an_open_conflict_is_the_secret_as_it_stands(frozen: House) -> None:
    await frozen.write(A, THEIRS)
    told = await about(frozen)
    assert told["local_version"] == 3
    assert set(compared(told).values()) == {"same"}


async def test_earlier_sides_are_named_and_can_be_shown(frozen: House) -> None:
    assert (await about(frozen))["earlier"] == {"count": 0, "conflict_ids": []}
    frozen.there.put("kv/a", {"k": "later"})
    await frozen.run()
    told = await about(frozen)
    [earlier] = told["earlier"]["conflict_ids"]
    assert told["earlier"]["count"] == 1
    kept = await show(frozen, earlier)
    assert kept.about["state"] == "superseded"
    assert (kept.local, kept.remote) == (OURS, THEIRS)


async def test_conflict_that_was_settled_still_shows_the_sides_it_had(frozen: House) -> None:
    await frozen.app.conflicts.resolve(TENANT, BACKEND, A, Resolution.USE_REMOTE, by="user:ann")
    shown = await show(frozen)
    assert (shown.about["state"], shown.about["resolved_by"]) == ("resolved", "user:ann")
    assert (shown.local, shown.remote) == (OURS, THEIRS)


async def test_open_conflict_is_shown_before_one_that_was_settled(frozen: House) -> None:
    await frozen.app.conflicts.resolve(TENANT, BACKEND, A, Resolution.USE_LOCAL, by="user:ann")
    frozen.there.put("kv/a", {"k": "later"})
    await frozen.run()
    await frozen.admin.execute(
        "UPDATE conflicts SET detected_at = now() + interval '1 day' WHERE state = 'resolved'"
    )
    assert (await about(frozen))["state"] == "open"


async def test_path_without_a_conflict_has_none_to_show(frozen: House) -> None:
    await frozen.write("ext/b", {"k": "1"})
    for path, wanted in (("ext/b", None), ("no/such", None), (A, "cfl_none")):
        with pytest.raises(NotFoundError) as none:
            await frozen.app.conflicts.show(TENANT, BACKEND, LocalPath(path), conflict_id=wanted)
        assert none.value.code == "conflict_not_found"


async def test_list_comes_in_pages(house: House) -> None:
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    names = ("a", "b", "c")
    for name in names:
        await house.write(f"ext/{name}", {"k": "here"})
        house.there.put(f"kv/{name}", {"k": "there"})
    await house.run()
    found: list[Any] = []
    cursor: Any = ""
    while cursor is not None:
        page: Any = await house.app.conflicts.list_conflicts(
            TENANT, BACKEND, limit=2, cursor=cursor
        )
        found += page["conflicts"]
        cursor = page["next_cursor"]
    assert sorted(c["path"] for c in found) == [f"ext/{name}" for name in names]
