"""A dry run after the rules changed plans by the new rules, whatever their numbers were."""

import pytest
from tests.house import ENDINGS, WORK, House, counts, failure

from svsync.domain.federation import Overrides, RuleSpec, Writes
from svsync.services.run_ends import Ended

ONE, TWO = RuleSpec("ext/a/**", "kv/a/**"), RuleSpec("ext/b/**", "kv/b/**")


def plan(ended: Ended) -> set[tuple[str, str]]:
    return {(planned.path, planned.action) for planned in ended.plan}


async def settled(house: House, *rules: RuleSpec) -> None:
    await house.configure(rules=rules)
    house.there.put("kv/a/x", {"k": "1"})
    house.there.put("kv/b/x", {"k": "1"})
    await house.run()


async def test_fewer_rules_show_what_detaches_and_what_is_pulled(house: House) -> None:
    await settled(house, ONE, TWO)
    await house.configure(rules=(TWO,))
    house.there.put("kv/b/x", {"k": "2"})
    before = await house.dump(without=WORK | ENDINGS)
    ended = await house.run(dry=True)
    assert failure(ended) is None
    assert plan(ended) == {("ext/a/x", "detach"), ("ext/b/x", "update")}
    assert await house.dump(without=WORK | ENDINGS) == before
    assert counts(await house.run()) == counts(ended)
    assert await house.data("ext/b/x") == {"k": "2"}


async def test_rules_in_another_order_show_nothing_to_do(house: House) -> None:
    await settled(house, ONE, TWO)
    await house.configure(rules=(TWO, ONE))
    ended = await house.run(dry=True)
    assert (failure(ended), ended.plan) == (None, ())


async def test_path_that_moves_is_shown_as_detached_here_and_created_there(house: House) -> None:
    await settled(house, ONE, TWO)
    await house.configure(rules=(TWO, RuleSpec("new/**", "kv/a/**")))
    ended = await house.run(dry=True)
    assert failure(ended) is None
    assert ("ext/a/x", "detach") in plan(ended)
    assert counts(ended)["moved"] == 1


@pytest.mark.parametrize("dry", [True, False], ids=["dry", "run"])
async def test_secret_can_be_read_before_fewer_rules_were_applied(house: House, dry: bool) -> None:
    await settled(
        house, ONE, RuleSpec(TWO.local, TWO.remote, overrides=Overrides(writes=Writes.DISABLED))
    )
    await house.configure(rules=(TWO,))
    await house.run(dry=dry)
    assert await house.data("ext/b/x") == {"k": "1"}
