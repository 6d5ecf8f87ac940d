"""Lists of what is read through, by a real OpenBao."""

import pytest
from tests.api import Front
from tests.integration.test_proxied_lists import pages
from tests.integration.test_proxy_openbao import Fronts, between, fronts
from tests.openbao import Bao, detailed_policy, guide_policy
from tests.servers import FaultyTcp
from tests.waiting import try_once

__all__ = ["between", "fronts"]


@pytest.fixture(autouse=True)
def _tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    try_once(monkeypatch)


async def filled(bao: Bao, *names: str) -> None:
    for name in names:
        await bao.put(name, {"k": "canary-79"})


async def shown(front: Front, query: str = "") -> list[str]:
    found = await pages(front, query)
    assert not any(incomplete for _, incomplete in found)
    return [path for page, _ in found for path in page]


NAMES = ("a", "a-b", "app/db", "app/deep/er/x", "b", "z/1")
WHOLE = ["ext/a", "ext/a-b", "ext/app/db", "ext/app/deep/er/x", "ext/b", "ext/z/1"]


async def test_a_tree_is_listed_in_order_on_pages_of_any_size(fronts: Fronts, kv2: Bao) -> None:
    front = await fronts.open(kv2)
    await filled(kv2, *NAMES)
    await front.house.write("ext-own", {"k": "1"})
    await front.house.write("zoo", {"k": "1"})
    for limit in (1, 2, 100):
        assert await shown(front, f"limit={limit}") == ["ext-own", *WHOLE, "zoo"]
    assert await shown(front, "prefix=ext/app/") == ["ext/app/db", "ext/app/deep/er/x"]
    assert await shown(front, "prefix=ext/a") == WHOLE[:4]
    assert await shown(front, "prefix=ext/none/") == []


async def test_versions_and_tags_are_told_where_the_listing_does(fronts: Fronts, kv2: Bao) -> None:
    token = await kv2.token(guide_policy(kv2.mount) + detailed_policy(kv2.mount))
    front = await fronts.open(kv2, token=token)
    await filled(kv2, "a", "a")
    await kv2.tag("a", {"team": "billing"})
    [one] = (await front.client.get("/v1/secrets")).body["secrets"]
    assert (one["version"], one["metadata"]["tags"]) == (2, ["team=billing"])
    assert (one["secret_type"], one["updated_at"], one["status"]) == (None, None, "proxied")


async def test_the_guides_policy_suffices(fronts: Fronts, kv2: Bao) -> None:
    front = await fronts.open(kv2, token=await kv2.token(guide_policy(kv2.mount)))
    await filled(kv2, *NAMES)
    assert await shown(front) == WHOLE


async def test_kv1_is_listed_too(fronts: Fronts, kv1: Bao) -> None:
    front = await fronts.open(kv1)
    await filled(kv1, *NAMES)
    assert await shown(front, "limit=2") == WHOLE


async def test_what_was_deleted_there_is_not_listed_where_the_listing_tells(
    fronts: Fronts, kv2: Bao
) -> None:
    front = await fronts.open(kv2)
    await filled(kv2, "a", "b")
    await kv2.delete("a")
    assert await shown(front) == ["ext/b"]


async def test_a_folder_that_openbao_denies_leaves_the_others(fronts: Fronts, kv2: Bao) -> None:
    policy = guide_policy(kv2.mount) + (
        f'path "{kv2.mount}/metadata/app/*" {{ capabilities = ["deny"] }}\n'
    )
    token = await kv2.token(policy)
    front = await fronts.open(kv2, token=token)
    await filled(kv2, *NAMES)
    [(paths, incomplete)] = await pages(front)
    assert (paths, incomplete) == (["ext/a", "ext/a-b", "ext/b", "ext/z/1"], True)


async def test_an_openbao_that_is_down_leaves_what_is_here(
    fronts: Fronts, kv2: Bao, between: FaultyTcp
) -> None:
    front = await fronts.open(kv2)
    await filled(kv2, "a")
    await front.house.write("own/a", {"k": "1"})
    assert await shown(front) == ["ext/a", "own/a"]
    await between.shut()
    [(paths, incomplete)] = await pages(front)
    assert (paths, incomplete) == (["own/a"], True)
