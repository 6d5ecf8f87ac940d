"""A decision holds only for the local state it was made for; a write in between is not lost."""

import json
from collections.abc import Awaitable, Callable

from tests.house import House, counts, skips

from svsync.domain.federation import ConflictPolicy, OnRemoteDelete
from svsync.domain.runs import RunResult
from svsync.services.sync.apply import TRIES


def at_each_read(
    house: House, path: str, happens: Callable[[], Awaitable[object]], times: int
) -> None:
    """Between the point read of a path and its commit, so many times."""
    left = times

    async def before(operation: str, asked: str) -> None:
        nonlocal left
        if operation in ("read", "metadata") and asked == path and left:
            left -= 1
            await happens()

    house.there.before = before


async def test_local_write_that_overtakes_a_pull_makes_it_a_conflict(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "there"})
    at_each_read(house, "kv/a", lambda: house.write("ext/a", {"k": "here"}), 1)
    assert counts(await house.run()) == {"listed": 1, "updated": 1, "conflicts": 1}
    assert await house.versions("ext/a") == [{"k": "1"}, {"k": "here"}, {"k": "there"}]
    row = await house.row("conflicts")
    assert (row["kind"], row["local_version"]) == ("modify_modify", 2)


async def test_local_create_that_overtakes_a_create_makes_it_a_conflict(house: House) -> None:
    house.there.put("kv/a", {"k": "there"})
    at_each_read(house, "kv/a", lambda: house.write("ext/a", {"k": "here"}), 1)
    await house.run()
    assert await house.versions("ext/a") == [{"k": "here"}, {"k": "there"}]
    assert (await house.row("conflicts"))["kind"] == "add_add"


async def test_local_write_of_the_same_value_that_overtakes_converges(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    at_each_read(house, "kv/a", lambda: house.write("ext/a", {"k": "2"}), 1)
    await house.run()
    assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}]
    assert not await house.rows("conflicts")


async def test_local_write_that_overtakes_a_deletion_is_not_deleted(house: House) -> None:
    await house.configure(
        on_remote_delete=OnRemoteDelete.SOFT_DELETE,
        conflict_resolution=ConflictPolicy.MANUAL,
    )
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.remove("kv/a")
    at_each_read(house, "kv/a", lambda: house.write("ext/a", {"k": "here"}), 1)
    await house.run()
    assert await house.paths() == ["ext/a"]
    assert await house.data("ext/a") == {"k": "here"}
    assert (await house.row("conflicts"))["kind"] == "modify_delete"


async def test_local_write_that_overtakes_a_change_of_tags_keeps_its_value(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.tag("kv/a", {"team": "x"})

    async def before(operation: str, path: str) -> None:
        if operation == "list":
            await house.write("ext/a", {"k": "here"})

    house.there.before = before
    await house.run()
    house.there.before = None
    assert await house.data("ext/a") == {"k": "here"}
    assert await house.status("ext/a") == "diverged"


async def test_path_that_is_overtaken_again_and_again_is_left_to_the_next_run(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "there"})
    house.there.put("kv/b", {"k": "2"})
    written = 0

    async def write() -> None:
        nonlocal written
        written += 1
        await house.write("ext/a", {"k": f"here {written}"})

    at_each_read(house, "kv/a", write, 1_000)
    ended = await house.run()
    assert written == TRIES + 1
    assert (ended.record.result, skips(ended)) == (RunResult.PARTIAL, {"kv/a": "overtaken"})
    assert await house.data("ext/b") == {"k": "2"}
    assert await house.data("ext/a") == {"k": f"here {written}"}
    house.there.before = None
    await house.run()
    assert await house.data("ext/a") == {"k": "there"}
    assert await house.data("ext/a", version=written + 1) == {"k": f"here {written}"}


async def test_local_write_right_after_the_commit_is_seen_by_the_next_run(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.write("ext/a", {"k": "here"})
    await house.run()
    assert await house.status("ext/a") == "diverged"
    await house.write("ext/a", {"k": "1"})
    await house.run()
    assert await house.status("ext/a") == "in_sync"


async def test_local_tags_survive_a_change_of_the_remote_ones(house: House) -> None:
    """Tags are merged against what both sides had (S3)."""
    house.there.put("kv/a", {"k": "1"})
    house.there.tag("kv/a", {"team": "x", "env": "prod"})
    await house.run()
    await house.write("ext/a", {"k": "1"}, tags=("mine", "team=x", "env=prod"))
    house.there.tag("kv/a", {"team": "y", "env": "prod"})
    await house.run()
    assert (await house.row("secrets"))["tags"] == ["env=prod", "mine", "team=y"]


async def test_local_tags_survive_a_pulled_value(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.tag("kv/a", {"team": "x"})
    await house.run()
    await house.write("ext/a", {"k": "1"}, tags=("mine", "team=x"))
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    await house.run()
    assert await house.data("ext/a") == {"k": "2"}
    assert (await house.row("secrets"))["tags"] == ["mine", "team=x"]


async def test_local_custom_fields_survive_a_pulled_value(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.tag("kv/a", {"team": "x"})
    await house.run()
    await house.write("ext/a", {"k": "1"}, custom={"team": "x", "note": "mine"})
    house.there.put("kv/a", {"k": "2"})
    house.there.tag("kv/a", {"team": "y"})
    await house.run()
    custom = json.loads((await house.row("secrets"))["custom"])
    assert custom == {"team": "y", "note": "mine"}


async def test_tag_that_was_removed_there_is_removed_here(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.tag("kv/a", {"team": "x", "old": "1"})
    await house.run()
    house.there.tag("kv/a", {"team": "x"})
    await house.run()
    row = await house.row("secrets")
    assert (row["tags"], json.loads(row["custom"])) == (["team=x"], {"team": "x"})


async def test_versions_made_while_it_was_gone_are_imported_when_it_comes_back(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.delete("kv/a")
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    house.there.put("kv/a", {"k": "3"})
    await house.run()
    assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}, {"k": "3"}]
