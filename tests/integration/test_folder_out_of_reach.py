"""A folder that may not be listed, of which nothing is known yet: it must not go unmentioned."""

import pytest
from tests.house import House, skips

from svsync.domain.runs import RunResult


@pytest.mark.parametrize("dry", [True, False], ids=["plan", "run"])
async def test_denied_folder_is_reported_at_a_first_run(house: House, dry: bool) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    house.there.put("kv/closed/c", {"k": "1"})
    house.there.denied.add("kv/closed/")
    ended = await house.run(dry=dry)
    assert skips(ended) == {"kv/closed/": "denied"}
    assert ended.record.result is RunResult.PARTIAL


async def test_backend_of_which_nothing_may_be_listed_is_no_success(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.denied.add("kv/")
    ended = await house.run()
    assert ended.record.result is RunResult.FAILED
    assert ended.record.error is not None
    assert ended.record.error.code == "backend_denied"


async def test_known_secrets_of_a_denied_folder_are_named_instead_of_it(house: House) -> None:
    for name in ("a", "b", "closed/c"):
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.denied.add("kv/closed/")
    assert skips(await house.run()) == {"kv/closed/c": "denied"}
