"""Two backends of one tenant, each with its own part of the paths."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.house import ENDINGS, TENANT, WORK, House, backend, failure, open_house

from svsync.domain.errors import MappingError
from svsync.domain.federation import Mode, RuleSpec
from svsync.domain.ids import BackendId

OTHER = BackendId("fed_other")
LEFT, RIGHT = (RuleSpec("left/**", "kv/left/**"),), (RuleSpec("right/**", "kv/right/**"),)


async def _rows(house: House, backend_id: str) -> list[str]:
    found = await house.admin.fetch(
        "SELECT p::text AS pair, s::text AS secret FROM sync_state p JOIN secrets s USING (path)"
        " WHERE backend_id = $1 ORDER BY path",
        backend_id,
    )
    return [row["pair"] + row["secret"] for row in found]


async def test_backends_with_disjoint_rules_never_touch_each_others_pairs(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    one = backend(LEFT)
    other = backend(RIGHT, OTHER)
    async with open_house(database_url, admin_url, state_dir, one) as house:
        await house.app.federation.apply([one, other])
        for side in ("left", "right"):
            house.there.put(f"kv/{side}/a", {"k": side})
            house.there.put(f"kv/{side}/b", {"k": side})
        await house.run()
        await house.run(backend=OTHER)
        theirs = await _rows(house, OTHER)
        assert len(theirs) == 2

        house.there.put("kv/left/a", {"k": "2"})
        house.there.delete("kv/left/b")
        house.there.delete("kv/right/b")
        await house.write("left/c", {"k": "mine"})
        assert failure(await house.run()) is None
        assert await _rows(house, OTHER) == theirs

        ours = await _rows(house, one.id)
        assert failure(await house.run(backend=OTHER)) is None
        assert await _rows(house, one.id) == ours
        assert await house.status("right/b") == "retained"

        await house.app.removal.remove(TENANT, OTHER, purge=True)
        assert await _rows(house, one.id) == ours


@pytest.mark.parametrize("mode", Mode)
async def test_standby_is_looked_at_and_never_writes(
    database_url: str, admin_url: str, state_dir: Path, mode: Mode
) -> None:
    one = backend(LEFT)
    standby = backend(LEFT, OTHER, mode=Mode.SYNC, extra={"standby_for": one.id})
    async with open_house(database_url, admin_url, state_dir, one) as house:
        house.there.put("kv/left/a", {"k": "1"})
        await house.run()
        await house.app.federation.apply([one, replace(standby, mode=mode)])
        await house.app.federation.apply([one, standby])
        before = await house.dump(without=WORK | ENDINGS | {"backends"})
        house.there.put("kv/left/a", {"k": "2"})
        house.there.calls.clear()
        for paths in ((), ("left/a",)):
            assert failure(await house.run(*paths, backend=OTHER)) is None
        assert set(house.there.calls) <= {"login"}
        assert await house.dump(without=WORK | ENDINGS | {"backends"}) == before
        await house.write("left/b", {"k": "mine"})
        await house.run()
        assert await house.data("left/a") == {"k": "2"}


async def test_backend_that_becomes_a_standby_lets_go_of_its_pairs(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    one, other = backend(LEFT), backend(RIGHT, OTHER)
    async with open_house(database_url, admin_url, state_dir, one) as house:
        await house.app.federation.apply([one, other])
        house.there.put("kv/right/a", {"k": "1"})
        await house.run(backend=OTHER)
        standby = replace(other, extra={"standby_for": one.id})
        await house.app.federation.apply([replace(one, rules=(*LEFT, *RIGHT)), standby])
        await house.run(backend=OTHER)
        assert await house.rows("sync_state", backend_id=OTHER, status="detached")
        await house.run()
        assert (await house.row("sync_state", backend_id=one.id))["status"] == "in_sync"
        assert await house.versions("right/a") == [{"k": "1"}]


async def test_two_backends_that_claim_one_path_are_refused_unless_one_stands_by(
    house: House,
) -> None:
    other = backend(house.spec.rules, OTHER)
    with pytest.raises(MappingError) as refused:
        await house.app.federation.apply([house.spec, other])
    assert refused.value.code == "mapping_overlap"
    standby = replace(other, extra={"standby_for": house.spec.id})
    assert await house.app.federation.apply([house.spec, standby]) == [OTHER]
