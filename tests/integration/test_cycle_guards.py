"""A guard stops a run before its first write, and one word lets that run through."""

from collections.abc import Callable

import pytest
from tests.house import ENDINGS, WORK, House, counts, failure
from tests.writes import put

from svsync.domain.federation import ConflictPolicy, Guard, OnRemoteDelete, RuleSpec, Writes
from svsync.domain.guards import Allow

NOTHING = Allow()
SOFT = {"on_remote_delete": OnRemoteDelete.SOFT_DELETE}


def emptied(house: House) -> None:
    for n in range(30):
        house.there.remove(f"kv/{n}")


def thinned(house: House) -> None:
    for n in range(5):
        house.there.remove(f"kv/{n}")


def deleted(house: House) -> None:
    for n in range(5):
        house.there.delete(f"kv/{n}")


def overwritten(house: House) -> None:
    for n in range(25):
        house.there.put(f"kv/{n}", {"k": "other"})


def restored(house: House) -> None:
    for n in range(6):
        house.there.rollback(f"kv/{n}", 1)


@pytest.mark.parametrize(
    ("happens", "code", "allow", "counted"),
    [
        (emptied, "mass_delete_guard", Allow(mass_delete=True), {"deleted": 30}),
        (thinned, "mass_delete_guard", Allow(mass_delete=True), {"deleted": 5}),
        (deleted, "mass_delete_guard", Allow(mass_delete=True), {"deleted": 5}),
        (overwritten, "mass_overwrite_guard", Allow(mass_overwrite=True), {"updated": 25}),
        (restored, "mass_regression_guard", Allow(regression=True), {"rolled_back": 6}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_guard_stops_before_the_first_write_and_can_be_told_to_let_through(
    house: House,
    happens: Callable[[House], None],
    code: str,
    allow: Allow,
    counted: dict[str, int],
) -> None:
    await house.configure(**SOFT)
    for n in range(30):
        house.there.put(f"kv/{n}", {"k": "0"})
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    happens(house)
    before = await house.dump(without=WORK | ENDINGS)
    ended = await house.run(allow=NOTHING)
    assert failure(ended) == code
    assert ended.report.plan is not None
    assert await house.dump(without=WORK | ENDINGS) == before
    assert (await house.events())[-1] == "federation.sync.failed"
    ended = await house.run(allow=allow)
    assert failure(ended) is None
    assert counted.items() <= counts(ended).items()


async def test_emptied_listing_asks_for_no_name(house: House) -> None:
    for n in range(30):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    emptied(house)
    asked = house.there.calls["metadata"]
    await house.run(allow=NOTHING)
    assert house.there.calls["metadata"] == asked


async def test_guard_stops_before_a_denied_folder_is_marked(house: House) -> None:
    for n in range(30):
        house.there.put(f"kv/{n}", {"k": "1"})
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    house.there.denied.add("kv/app/")
    thinned(house)
    before = await house.dump(without=WORK | ENDINGS)
    assert failure(await house.run(allow=NOTHING)) == "mass_delete_guard"
    assert await house.dump(without=WORK | ENDINGS) == before


async def test_everything_denied_deletes_nothing(house: House) -> None:
    await house.configure(**SOFT)
    for n in range(3):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    house.there.denied.add("kv/")
    ended = await house.run(allow=NOTHING)
    assert failure(ended) is not None
    assert len(await house.paths()) == 3
    house.there.denied.clear()
    assert failure(await house.run(allow=NOTHING)) is None
    assert await house.status("ext/0") == "in_sync"


async def test_equal_values_written_again_are_no_mass_overwrite(house: House) -> None:
    for n in range(30):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    for n in range(30):
        house.there.put(f"kv/{n}", {"k": "1"})
    ended = await house.run(allow=NOTHING)
    assert counts(ended) == {"listed": 30, "unchanged": 30, "retokened": 30}


async def test_paths_that_left_the_mapping_are_no_mass_delete(house: House) -> None:
    for n in range(30):
        house.there.put(f"kv/{n}", {"k": "1"})
    house.there.put("kv/app/a", {"k": "1"})
    await house.run()
    await house.configure(rules=(RuleSpec("ext/app/**", "kv/app/**"),))
    ended = await house.run(allow=NOTHING)
    assert failure(ended) is None
    assert counts(ended)["detached"] == 30


async def test_targeted_run_of_many_gone_paths_is_stopped_too(house: House) -> None:
    await house.configure(**SOFT)
    for n in range(30):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    emptied(house)
    assert failure(await house.run("ext/**", allow=NOTHING)) == "mass_delete_guard"
    assert len(await house.paths()) == 30


async def test_first_run_meets_no_guard(house: House) -> None:
    for n in range(30):
        await house.write(f"ext/{n}", {"k": "local"})
    ended = await house.run(allow=NOTHING)
    assert failure(ended) is None


async def test_limits_are_those_of_the_backend(house: House) -> None:
    await house.configure(guard=Guard(max_delete_ratio=0.5))
    for n in range(30):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    thinned(house)
    assert failure(await house.run(allow=NOTHING)) is None


async def test_another_store_behind_the_endpoint_fails_the_run(house: House) -> None:
    for n in range(3):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.run()
    house.there.identity = "another"
    before = await house.dump(without=WORK | ENDINGS)
    ended = await house.run()
    assert failure(ended) == "backend_identity_changed"
    assert await house.dump(without=WORK | ENDINGS) == before


@pytest.mark.parametrize("policy", list(ConflictPolicy))
async def test_secret_that_both_sides_changed_is_overwritten_once(
    house: House, policy: ConflictPolicy
) -> None:
    for n in range(15):
        house.there.put(f"kv/{n}", {"k": "1"})
    await house.configure(writes=Writes.WRITE_THROUGH, conflict_resolution=policy)
    await house.run()
    # While it is kept here alone, a write meets no backend that could refuse it.
    await house.configure(writes=Writes.LOCAL, conflict_resolution=policy)
    for n in range(15):
        house.there.put(f"kv/{n}", {"k": "theirs"})
        await put(house, f"ext/{n}", {"k": "ours"})
    await house.configure(writes=Writes.WRITE_THROUGH, conflict_resolution=policy)
    ended = await house.run(allow=NOTHING)
    assert failure(ended) is None
    assert counts(ended)["conflicts"] == 15
