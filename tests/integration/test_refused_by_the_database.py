"""A secret that the database refuses is skipped and said, and stops no other."""

from tests.house import House, counts, skips

from svsync.domain.runs import RunResult

REFUSE = "ALTER TABLE secrets ADD CONSTRAINT refused CHECK (path <> 'ext/a')"


async def refusing(house: House) -> None:
    for name in "abcd":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.admin.execute(REFUSE)


async def test_refused_secret_is_counted_as_skipped_and_not_as_created(house: House) -> None:
    await refusing(house)
    ended = await house.run()
    assert ended.record.result is RunResult.PARTIAL
    assert counts(ended) == {"listed": 4, "created": 3}
    assert skips(ended) == {"kv/a": "unreadable"}
    assert await house.paths() == ["ext/b", "ext/c", "ext/d"]


async def test_refused_secret_is_quarantined_after_three_times_and_then_left_alone(
    house: House,
) -> None:
    await refusing(house)
    for failures in (1, 2, 3):
        await house.run()
        row = await house.row("sync_state", remote_path="kv/a")
        assert (row["failures"], row["status"] == "quarantined") == (failures, failures == 3)
    read = house.there.calls["read"]
    ended = await house.run()
    assert skips(ended) == {"kv/a": "quarantined"}
    assert house.there.calls["read"] == read


async def test_refused_secret_is_taken_once_the_database_takes_it(house: House) -> None:
    await refusing(house)
    await house.run()
    await house.admin.execute("ALTER TABLE secrets DROP CONSTRAINT refused")
    assert counts(await house.run())["created"] == 1
    assert await house.data("ext/a") == {"k": "1"}
    assert await house.status("ext/a") == "in_sync"
