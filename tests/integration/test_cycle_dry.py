"""A dry run says what a run would do, and does none of it."""

from tests.house import WORK, House, counts, skips

from svsync.domain.changes import RemoteUnknown
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete, RuleSpec
from svsync.services.run_ends import Ended


def planned(ended: Ended) -> dict[str, str]:
    return {p.path: p.action for p in ended.plan}


async def test_dry_run_writes_only_its_own_row(house: House) -> None:
    house.there.put("kv/gone", {"k": "1"})
    house.there.put("kv/changed", {"k": "1"})
    house.there.put("kv/both", {"k": "1"})
    house.there.put("kv/tagged", {"k": "1"})
    house.there.put("kv/app/denied", {"k": "1"})
    house.there.put("kv/left/a", {"k": "1"})
    await house.run()
    await house.configure(
        rules=(RuleSpec("", "kv/left/**", exclude=True), RuleSpec("ext/**", "kv/**")),
        on_remote_delete=OnRemoteDelete.SOFT_DELETE,
        conflict_resolution=ConflictPolicy.MANUAL,
    )
    house.there.remove("kv/gone")
    house.there.put("kv/changed", {"k": "2"})
    house.there.put("kv/both", {"k": "there"})
    await house.write("ext/both", {"k": "here"})
    house.there.tag("kv/tagged", {"team": "x"})
    house.there.put("kv/new", {"k": "1"})
    house.there.put("kv/odd", {"k": "1"})
    house.there.unreadable["kv/odd"] = RemoteUnknown("undecodable")
    house.there.denied.add("kv/app/")
    before = await house.dump(without={"runs", "run_skips", "leases", "stage", "todo"})
    ended = await house.run(dry=True)
    assert await house.dump(without={"runs", "run_skips", "leases", "stage", "todo"}) == before
    assert planned(ended) == {
        "ext/gone": "delete",
        "ext/changed": "update",
        "ext/both": "conflict",
        "ext/tagged": "metadata",
        "ext/new": "create",
        "ext/left/a": "detach",
    }
    assert skips(ended) == {"kv/odd": "undecodable", "kv/app/denied": "denied"}


async def test_dry_run_counts_as_the_run_after_it(house: House) -> None:
    for n in range(4):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    house.there.put("kv/0", {"k": "2"})
    house.there.remove("kv/1")
    house.there.put("kv/new", {"k": "1"})
    house.there.put("kv/2", {"k": "there"})
    await house.write("ext/2", {"k": "here"})
    assert counts(await house.run(dry=True)) == counts(await house.run())


async def test_first_run_of_all_may_be_dry(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    without = {"runs", "leases", "data_keys"}
    before = await house.dump(without=without)
    ended = await house.run(dry=True)
    assert await house.dump(without=without) == before
    assert planned(ended) == {"ext/a": "create"}


async def test_dry_run_of_named_paths_plans_those_only(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    assert planned(await house.run("ext/a", dry=True)) == {"ext/a": "create"}


async def test_dry_run_that_died_is_followed_by_no_event(house: House) -> None:
    await house.run()
    await house.admin.execute("UPDATE runs SET kind = 'dry', state = 'running'")
    await house.admin.execute("DELETE FROM outbox")
    await house.run()
    assert await house.events() == ["federation.sync.completed"]
    assert {r["state"] for r in await house.rows("runs")} == {"failed", "completed"}


async def test_work_rows_are_gone_when_a_run_has_ended(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/app/a", {"k": "1"})
    house.there.denied.add("kv/app/")
    for dry in (True, False):
        await house.run(dry=dry)
        assert not any([await house.rows(table) for table in WORK])
