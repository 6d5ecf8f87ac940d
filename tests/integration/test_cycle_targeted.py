"""A run of named paths asks each by its name, and concludes nothing about others."""

from collections.abc import Sequence

import pytest
from tests.house import House, counts, skips

from svsync.domain.runs import RunKind


async def test_named_path_is_read_and_nothing_is_listed(house: House) -> None:
    for name in "ab":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    for name in "ab":
        house.there.put(f"kv/{name}", {"k": "2"})
    listed = house.there.calls["list"]
    ended = await house.run("ext/a")
    assert ended.record.kind is RunKind.TARGETED
    assert counts(ended) == {"listed": 1, "updated": 1}
    assert house.there.calls["list"] == listed
    assert await house.data("ext/a") == {"k": "2"}
    assert await house.data("ext/b") == {"k": "1"}


async def test_unknown_literal_path_is_found_by_its_name(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    assert counts(await house.run("ext/a")) == {"listed": 1, "created": 1}
    assert await house.status("ext/a") == "in_sync"


async def test_glob_stands_for_known_paths_only(house: House) -> None:
    house.there.put("kv/app/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    house.there.put("kv/app/new", {"k": "1"})
    house.there.put("kv/app/a", {"k": "2"})
    house.there.put("kv/b", {"k": "2"})
    assert counts(await house.run("ext/app/**")) == {"listed": 1, "updated": 1}
    assert await house.paths() == ["ext/app/a", "ext/b"]


@pytest.mark.parametrize("names", [("ext/a", "ext/*"), ("ext/a", "ext/a"), ("ext/*", "ext/**")])
async def test_path_that_is_named_twice_is_one(house: House, names: Sequence[str]) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    assert counts(await house.run(*names)) == {"listed": 1, "updated": 1}


async def test_named_path_that_is_gone_is_gone(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    house.there.remove("kv/a")
    house.there.remove("kv/b")
    assert counts(await house.run("ext/a")) == {"listed": 1, "retained": 1}
    assert await house.status("ext/b") == "in_sync"


async def test_named_path_outside_the_mapping_is_reported(house: House) -> None:
    ended = await house.run("elsewhere/a")
    assert ended.report.reasons == {"unmapped": 1}
    assert not await house.rows("sync_state")


async def test_unknown_named_path_that_is_not_there_leaves_nothing(house: House) -> None:
    ended = await house.run("ext/nothing")
    assert not skips(ended)
    assert not await house.rows("sync_state")


async def test_targeted_run_before_any_full_one_does_not_stand_for_it(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run("ext/a")
    assert (await house.row("backends"))["applied_hash"] is None
    assert counts(await house.run()) == {"listed": 2, "created": 1, "unchanged": 1}
