"""What becomes of a secret that its backend no longer has, or no longer shows."""

import pytest
from tests.house import House, counts, skips

from svsync.domain.federation import OnRemoteDelete
from svsync.domain.runs import RunResult, SkipReason

SOFT = {"on_remote_delete": OnRemoteDelete.SOFT_DELETE}


async def test_secret_gone_there_is_retained_here(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.remove("kv/a")
    assert counts(await house.run()) == {"unlisted": 1, "retained": 1}
    assert await house.status("ext/a") == "retained"
    assert await house.data("ext/a") == {"k": "1"}
    assert (await house.row("sync_state"))["base_kind"] == "absent"


async def test_soft_delete_makes_a_tombstone_with_its_history(house: House) -> None:
    await house.configure(**SOFT)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.delete("kv/a")
    assert counts(await house.run()) == {"listed": 1, "deleted": 1}
    row = await house.row("secrets")
    assert (row["state"], row["propagate"], row["current_version"]) == ("deleted", False, 1)
    assert await house.data("ext/a", version=1) == {"k": "1"}
    assert await house.paths() == []


@pytest.mark.parametrize("settings", [{}, SOFT], ids=["retain", "soft_delete"])
async def test_secret_that_comes_back_is_a_higher_version(
    house: House, settings: dict[str, OnRemoteDelete]
) -> None:
    await house.configure(**settings)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.remove("kv/a")
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    assert counts(await house.run())["updated"] == 1
    assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}]
    assert await house.status("ext/a") == "in_sync"


async def test_retained_secret_that_comes_back_equal_makes_no_version(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.delete("kv/a")
    await house.run()
    house.there.undelete("kv/a")
    await house.run()
    assert await house.versions("ext/a") == [{"k": "1"}]
    assert await house.status("ext/a") == "in_sync"


@pytest.mark.parametrize("how", ["delete", "remove"])
async def test_gone_secret_is_not_looked_at_again(house: House, how: str) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    getattr(house.there, how)("kv/a")
    await house.run()
    made = dict(house.there.calls)
    await house.run()
    again = {op: n - made.get(op, 0) for op, n in house.there.calls.items()}
    assert (again["read"], again.get("metadata", 0)) == (0, 0)


async def test_tombstone_is_not_resurrected_by_a_listing(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.bury("ext/a")
    for _ in range(2):
        await house.run()
        assert await house.paths() == []
        assert await house.status("ext/a") == "diverged"


async def test_unlisted_secret_is_asked_by_name_and_stays(house: House) -> None:
    """Unlisted is not gone (S5)."""
    await house.configure(**SOFT)
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    house.there.lag()
    await house.run()
    house.there.catch_up()
    await house.run()
    secrets, asked = dict(house.there.listed_names()), house.there.calls["metadata"]
    house.there._listed = {name: secrets[name] for name in ("kv/b", "kv/c")}
    ended = await house.run()
    assert counts(ended) == {"listed": 2, "unlisted": 1, "listing_missed": 1, "unchanged": 3}
    assert house.there.calls["metadata"] == asked + 1
    assert await house.status("ext/a") == "in_sync"


async def test_value_of_an_unlisted_secret_is_still_pulled(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    secrets = dict(house.there.listed_names())
    house.there._listed = {"kv/b": secrets["kv/b"]}
    assert counts(await house.run())["updated"] == 1
    assert await house.data("ext/a") == {"k": "2"}


async def test_hidden_key_is_denied_and_keeps_its_value(house: House) -> None:
    """A listing that answers 200 may leave keys out, and deny them when asked (E3)."""
    await house.configure(**SOFT)
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    house.there.hidden.add("kv/a")
    ended = await house.run()
    assert (ended.record.result, skips(ended)) == (RunResult.PARTIAL, {"kv/a": "denied"})
    assert await house.status("ext/a") == "denied"
    assert await house.data("ext/a") == {"k": "1"}
    house.there.hidden.clear()
    await house.run()
    assert await house.status("ext/a") == "in_sync"


async def test_key_that_is_readable_again_but_still_not_listed_is_in_sync(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    house.there.hidden.add("kv/a")
    await house.run()
    house.there.hidden.clear()
    secrets = dict(house.there.listed_names())
    house.there._listed = {"kv/b": secrets["kv/b"]}
    await house.run()
    assert await house.status("ext/a") == "in_sync"


async def test_denied_folder_is_unknown_and_recovers(house: House) -> None:
    await house.configure(**SOFT)
    for name in ("app/a", "app/b", "c"):
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.denied.add("kv/app/")
    ended = await house.run()
    assert skips(ended) == {"kv/app/a": "denied", "kv/app/b": "denied"}
    assert counts(ended) == {"listed": 1, "unchanged": 1}
    assert await house.paths() == ["ext/app/a", "ext/app/b", "ext/c"]
    assert await house.status("ext/app/a") == "denied"
    assert await house.status("ext/c") == "in_sync"
    house.there.denied.clear()
    house.there.put("kv/app/b", {"k": "2"})
    assert (await house.run()).record.result is RunResult.OK
    assert await house.status("ext/app/a") == "in_sync"
    assert await house.data("ext/app/b") == {"k": "2"}


async def test_folder_that_could_not_be_listed_is_unknown(house: House) -> None:
    await house.configure(**SOFT)
    for name in ("app/a", "app/b", "c"):
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.failed.add("kv/app/")
    ended = await house.run()
    assert skips(ended) == {"kv/app/a": "unlisted", "kv/app/b": "unlisted"}
    assert await house.paths() == ["ext/app/a", "ext/app/b", "ext/c"]


async def test_gone_while_the_folder_was_denied_is_seen_afterwards(house: House) -> None:
    for name in ("app/a", "c"):
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.denied.add("kv/app/")
    await house.run()
    house.there.remove("kv/app/a")
    await house.run()
    assert await house.status("ext/app/a") == "denied"
    house.there.denied.clear()
    await house.run()
    assert await house.status("ext/app/a") == "retained"


async def test_new_secret_that_may_not_be_read_is_denied_and_comes_later(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})

    async def shut(operation: str, path: str) -> None:
        if operation == "read":
            house.there.denied.add("kv/a")

    house.there.before = shut
    ended = await house.run()
    assert skips(ended) == {"kv/a": "denied"}
    house.there.before = None
    house.there.denied.clear()
    await house.run()
    assert await house.data("ext/a") == {"k": "1"}
    assert await house.status("ext/a") == "in_sync"


async def test_name_that_was_denied_and_is_gone_leaves_no_pair(house: House) -> None:
    """Nothing was ever settled, so nothing is kept, and the path is free again."""
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})

    async def shut(operation: str, path: str) -> None:
        house.there.denied.add("kv/a") if operation == "read" else None

    house.there.before = shut
    await house.run()
    house.there.before = None
    house.there.denied.clear()
    house.there.remove("kv/a")
    await house.run()
    assert not await house.rows("sync_state", path="ext/a")
    made = house.there.calls["metadata"]
    await house.run()
    assert house.there.calls["metadata"] == made


async def test_counts_of_a_run_with_a_denied_folder_add_up(house: House) -> None:
    """Retained and never settled names below it were not `unchanged` before either."""
    for name in ("app/a", "app/b", "app/c", "d", "e"):
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.remove("kv/app/a")
    house.there.remove("kv/app/b")
    await house.run()
    house.there.denied.add("kv/app/")
    ended = await house.run()
    assert counts(ended) == {"listed": 2, "unchanged": 2}
    assert ended.report.reasons[SkipReason.DENIED] == 3
