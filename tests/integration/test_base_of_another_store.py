"""What was agreed with one store decides nothing about another one."""

import pytest
from tests.house import House, counts, skips

from svsync.domain.changes import RemoteUnknown
from svsync.domain.federation import OnRemoteDelete, RuleSpec
from svsync.domain.guards import Allow


async def settled(house: House, **settings: object) -> None:
    await house.configure(on_remote_delete=OnRemoteDelete.SOFT_DELETE, **settings)
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/z", {"k": "1"})
    await house.run()


@pytest.mark.parametrize("written", [False, True], ids=["untouched", "written"])
async def test_pair_that_could_not_be_read_at_a_new_endpoint_has_no_base_there(
    house: House, written: bool
) -> None:
    await settled(house, config={"endpoint": "https://one"})
    await house.configure(config={"endpoint": "https://two"})
    house.there.unreadable["kv/a"] = RemoteUnknown("unreadable")
    assert skips(await house.run(allow=Allow())) == {"kv/a": "unreadable"}
    assert (await house.row("sync_state", remote_path="kv/a"))["status"] == "detached"
    if written:
        await house.write("ext/a", {"k": "mine"})
    house.there.unreadable.clear()
    house.there.remove("kv/a")
    assert "deleted" not in counts(await house.run(allow=Allow()))
    assert await house.paths() == ["ext/a", "ext/z"]
    assert await house.data("ext/a") == {"k": "mine" if written else "1"}


async def test_write_to_a_detached_path_outlives_an_unreadable_return_of_its_pair(
    house: House,
) -> None:
    await settled(house)
    await house.configure(rules=(RuleSpec("ext/z", "kv/z"),))
    await house.run()
    await house.write("ext/a", {"k": "mine"})
    await house.configure(rules=(RuleSpec("ext/**", "kv/**"),))
    house.there.unreadable["kv/a"] = RemoteUnknown("unreadable")
    await house.run()
    house.there.unreadable.clear()
    house.there.remove("kv/a")
    await house.run(allow=Allow())
    assert await house.data("ext/a") == {"k": "mine"}
