"""A changed mapping detaches, attaches and moves; it deletes nothing on either side."""

from pathlib import Path

import pytest
from tests.house import (
    TENANT,
    House,
    backend,
    counts,
    failure,
    open_house,
    skips,
)

from svsync.domain.errors import MappingError
from svsync.domain.federation import Mode, OnRemoteDelete, Overrides, RuleSpec, Writes
from svsync.domain.ids import BackendId, LocalPath

SOFT = {"on_remote_delete": OnRemoteDelete.SOFT_DELETE}
NARROW = (RuleSpec("ext/app/**", "kv/app/**"),)
WIDE = (RuleSpec("ext/**", "kv/**"),)


async def test_path_that_left_the_mapping_is_detached_and_stays(house: House) -> None:
    await house.configure(**SOFT)
    house.there.put("kv/app/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    await house.configure(rules=NARROW)
    assert counts(await house.run())["detached"] == 1
    assert await house.paths() == ["ext/app/a", "ext/b"]
    assert (await house.row("sync_state", path="ext/b"))["status"] == "detached"
    assert await house.data("ext/b") == {"k": "1"}
    shown, _ = await house.app.secrets.get(TENANT, LocalPath("ext/b"))
    assert shown["federation"] is None


async def test_excluded_path_is_detached(house: House) -> None:
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    await house.configure(rules=(RuleSpec("", "kv/app/**", exclude=True), *WIDE))
    assert counts(await house.run())["detached"] == 1
    assert await house.paths() == ["ext/app/a"]


async def test_unchanged_path_is_attached_again_without_a_new_version(house: House) -> None:
    house.there.put("kv/b", {"k": "1"})
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    await house.configure(rules=NARROW)
    await house.run()
    await house.configure(rules=WIDE)
    await house.run()
    assert await house.status("ext/b") == "in_sync"
    assert await house.versions("ext/b") == [{"k": "1"}]
    house.there.put("kv/b", {"k": "2"})
    await house.run()
    assert await house.versions("ext/b") == [{"k": "1"}, {"k": "2"}]
    assert not await house.rows("conflicts")


async def test_remote_change_while_detached_is_pulled_when_attached_again(house: House) -> None:
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    await house.configure(rules=NARROW)
    await house.run()
    house.there.put("kv/b", {"k": "2"})
    await house.configure(rules=WIDE)
    await house.run()
    assert await house.versions("ext/b") == [{"k": "1"}, {"k": "2"}]
    assert not await house.rows("conflicts")


async def test_local_write_while_detached_makes_attaching_a_conflict(house: House) -> None:
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    await house.configure(rules=NARROW)
    await house.run()
    await house.write("ext/b", {"k": "mine"})
    await house.configure(rules=WIDE)
    await house.run()
    assert (await house.row("conflicts"))["kind"] == "add_add"
    assert await house.versions("ext/b") == [{"k": "1"}, {"k": "mine"}, {"k": "1"}]


async def test_moved_local_path_is_created_there_and_the_old_one_stays(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.configure(rules=(RuleSpec("new/**", "kv/**"),))
    ended = await house.run()
    assert counts(ended) == {"listed": 1, "created": 1, "detached": 1, "moved": 1}
    assert await house.paths() == ["ext/a", "new/a"]
    old = await house.row("sync_state", path="ext/a")
    assert (old["status"], old["moved_to"]) == ("detached", "new/a")


async def test_other_endpoint_has_no_base(house: House) -> None:
    """A base speaks of one store only: what the other store lacks was not deleted there."""
    await house.configure(config={"endpoint": "https://one"}, **SOFT)
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    await house.configure(config={"endpoint": "https://two"})
    house.there.remove("kv/a")
    house.there.identity = "two"
    ended = await house.run()
    assert failure(ended) is None
    assert counts(ended)["detached"] == 2
    assert await house.paths() == ["ext/a", "ext/b"]
    assert await house.status("ext/b") == "in_sync"


async def test_other_endpoint_after_a_first_run_that_broke_has_no_base(house: House) -> None:
    await house.configure(config={"endpoint": "https://one"}, **SOFT)
    for n in range(700):
        house.there.put(f"kv/{n:03}", {"k": "1"})

    async def break_off(operation: str, path: str) -> None:
        if operation == "read" and path == "kv/600":
            while len(await house.paths()) < 500:
                pass
            raise ValueError("the worker breaks")

    house.there.before = break_off
    with pytest.raises(ValueError, match="breaks"):
        await house.run()
    house.there.before = None
    assert len(await house.paths()) == 500
    await house.admin.execute("UPDATE leases SET expires_at = now()")
    await house.configure(config={"endpoint": "https://two"})
    for n in range(700):
        house.there.remove(f"kv/{n:03}")
    house.there.put("kv/other", {"k": "1"})
    await house.run()
    assert len(await house.paths()) == 501
    assert {r["status"] for r in await house.rows("sync_state", path="ext/000")} == {"detached"}


async def test_mapping_that_came_and_went_without_a_whole_run_leaves_no_trace(
    house: House,
) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    await house.configure(rules=(RuleSpec("other/**", "kv/**"),), max_error_ratio=0.1)
    house.there.denied.add("kv/b")
    await house.run()
    house.there.denied.clear()
    await house.configure(rules=WIDE)
    await house.run()
    active = [r["path"] for r in await house.rows("sync_state") if r["status"] != "detached"]
    assert sorted(active) == ["ext/a", "ext/b"]


async def test_path_of_another_backend_is_skipped(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    """The first owner keeps a local path (S24)."""
    async with open_house(database_url, admin_url, state_dir) as house:
        house.there.put("kv/a", {"k": "1"})
        house.there.put("kv/b", {"k": "1"})
        await house.run()
        await house.admin.execute(
            "UPDATE sync_state SET backend_id = 'fed_other' WHERE path = 'ext/a'"
        )
        ended = await house.run()
        assert skips(ended) == {"kv/a": "claimed_by"}
        assert len(await house.rows("sync_state")) == 2


async def test_rules_of_two_backends_that_meet_are_refused(house: House) -> None:
    other = backend((RuleSpec("ext/x/**", "kv/**"),), id=BackendId("fed_other"))
    with pytest.raises(MappingError, match="ext/x/") as refused:
        await house.app.federation.apply([house.spec, other])
    assert refused.value.code == "mapping_overlap"


async def test_read_and_write_work_between_a_change_and_its_first_run(house: House) -> None:
    await house.configure(rules=(RuleSpec("one/**", "kv/one/**"), RuleSpec("two/**", "kv/two/**")))
    house.there.put("kv/two/a", {"k": "1"})
    await house.run()
    await house.configure(rules=(RuleSpec("two/**", "kv/two/**"),))
    assert await house.data("two/a") == {"k": "1"}
    await house.write("two/a", {"k": "2"})


async def test_rule_of_another_number_does_not_lend_its_settings(house: House) -> None:
    shut = Overrides(writes=Writes.DISABLED)
    one, two = RuleSpec("one/**", "kv/one/**"), RuleSpec("two/**", "kv/two/**")
    await house.configure(rules=(one, two))
    house.there.put("kv/two/a", {"k": "1"})
    await house.run()
    await house.configure(rules=(two, RuleSpec("one/**", "kv/one/**", overrides=shut)))
    await house.write("two/a", {"k": "2"})


async def test_proxied_rule_of_a_synced_backend_stores_nothing(house: House) -> None:
    proxied = RuleSpec("p/**", "kv/p/**", overrides=Overrides(mode=Mode.PROXY))
    await house.configure(rules=(proxied, RuleSpec("s/**", "kv/s/**")))
    house.there.put("kv/p/a", {"k": "1"})
    house.there.put("kv/s/b", {"k": "1"})
    ended = await house.run()
    assert await house.paths() == ["s/b"]
    assert not await house.rows("sync_state", path="p/a")
    assert not skips(ended)


async def test_backend_named_in_the_file_again_is_active_again(house: House) -> None:
    other = backend((RuleSpec("o/**", "kv/**"),), id=BackendId("fed_other"))
    await house.app.federation.apply([other])
    assert (await house.row("backends", backend_id=house.spec.id))["state"] == "paused"
    await house.app.federation.apply([house.spec, other])
    assert (await house.row("backends", backend_id=house.spec.id))["state"] == "active"
