"""Two backends of one tenant, each with its own part of the paths."""

from pathlib import Path

from tests.house import TENANT, House, backend, failure, open_house

from svsync.domain.federation import RuleSpec
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
