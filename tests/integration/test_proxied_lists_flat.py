"""Lists of what is read through from stores whose names have no folders: they are listed as a
whole, once a page, and what is picked out of that is complete where the listing was."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from tests.api import Front, open_front
from tests.aws_house import Database
from tests.azure_fake import AzureFake
from tests.azure_house import house_of as house_of_azure
from tests.azure_vault import Vault
from tests.gcp import Gcp, drivers, gcp_spec
from tests.house import BACKEND, open_house
from tests.integration.test_listing import SECRETS, lister
from tests.integration.test_proxied_lists import pages
from tests.waiting import try_once

from svsync.domain.federation import Mode, RuleSpec

RULES = (
    RuleSpec("ext/hidden", "app--hidden", exclude=True),
    RuleSpec("ext/**", "app--**", separator="--"),
    RuleSpec("db/{name}/url", "{name}-db-url"),
    RuleSpec("one/key", "one-key"),
)
THERE = (
    "app--a",
    "app--hidden",
    "app--team--b",
    "app--team--deep--c",
    "app--z",
    "main-db-url",
    "one-key",
    "others",
)
LISTED = ["db/main/url", "ext/a", "ext/team/b", "ext/team/deep/c", "ext/z", "one/key"]


@dataclass
class Flat:
    """A store, its API, and what a person does there."""

    front: Front
    put: Callable[[str], object]
    disable: Callable[[str], object]
    deny: Callable[[], object]
    calls: Callable[[], int]
    """How often the whole was asked for."""


@pytest.fixture(autouse=True)
def _tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    try_once(monkeypatch)


@pytest_asyncio.fixture
async def flat_azure(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> AsyncIterator[Flat]:
    settings: dict[str, Any] = {"mode": Mode.PROXY, "rules": RULES}
    async with (
        house_of_azure(azure_fake, vault, database, **settings) as house,
        open_front(house) as front,
    ):
        yield Flat(
            front,
            lambda name: vault.put(name, '{"k": "1"}', tags={"team": "x"}),
            lambda name: vault.touch(name, enabled=False),
            vault.permissions.clear,
            lambda: azure_fake.calls("^GET /secrets$"),
        )


@pytest_asyncio.fixture
async def flat_gcp(gcp: Gcp, database: Database) -> AsyncIterator[Flat]:
    spec = gcp_spec(id=BACKEND, name=str(BACKEND), mode=Mode.PROXY, rules=RULES)
    environ = {"GCP_KEY": gcp.tokens.key.json()}
    async with (
        open_house(*database, spec, environ=environ, drivers=drivers(gcp)) as house,
        open_front(house) as front,
    ):

        def put(name: str) -> None:
            gcp.fake.add(name, b'{"k": "1"}')
            gcp.fake.label(name, {"team": "x"})

        yield Flat(
            front,
            put,
            gcp.fake.delete,
            lambda: gcp.fake.deny("secrets.list"),
            lambda: gcp.fake.calls("ListSecrets"),
        )


@pytest.fixture(params=["azure", "gcp"])
def flat(request: pytest.FixtureRequest) -> Flat:
    found: Flat = request.getfixturevalue(f"flat_{request.param}")
    for name in THERE:
        found.put(name)
    return found


async def listed(flat: Flat, query: str = "") -> tuple[list[str], bool]:
    [page] = await pages(flat.front, query)
    return page


async def test_list_has_all_that_the_rules_federate_and_is_complete(flat: Flat) -> None:
    assert await listed(flat) == (LISTED, False)
    assert flat.calls() == 1, "in one listing, though it has five folders here"
    page = (await flat.front.client.get(f"{SECRETS}?prefix=ext/a")).body
    [one] = page["secrets"]
    assert (one["metadata"]["tags"], one["status"]) == (["team=x"], "proxied")
    assert await flat.front.house.rows("secrets") == []


@pytest.mark.parametrize(
    ("prefix", "paths"),
    [
        ("ext/team/", ["ext/team/b", "ext/team/deep/c"]),
        ("ext/te", ["ext/team/b", "ext/team/deep/c"]),
        ("db/", ["db/main/url"]),
        ("one/key", ["one/key"]),
        ("one/keys", []),
        ("elsewhere/", []),
    ],
)
async def test_part_of_it_is_complete_as_well(flat: Flat, prefix: str, paths: list[str]) -> None:
    assert await listed(flat, f"prefix={prefix}") == (paths, False)


async def test_nobody_is_asked_where_nothing_is_read_through(flat: Flat) -> None:
    await listed(flat, "prefix=elsewhere/")
    assert flat.calls() == 0


async def test_pages_go_on_where_the_last_one_ended(flat: Flat) -> None:
    found = await pages(flat.front, "limit=2")
    assert [path for paths, _ in found for path in paths] == LISTED
    assert not any(incomplete for _, incomplete in found)


async def test_many_pages_of_the_store_are_one_listing(flat: Flat) -> None:
    for n in range(60):
        flat.put(f"app--many--{n:02}")
    paths, incomplete = await listed(flat, "prefix=ext/many/&limit=100")
    assert (len(paths), incomplete) == (60, False)


async def test_what_is_gone_there_is_not_listed(flat: Flat) -> None:
    flat.disable("app--a")
    assert await listed(flat) == ([path for path in LISTED if path != "ext/a"], False)


async def test_listing_that_is_denied_is_incomplete_and_no_error(flat: Flat) -> None:
    flat.deny()
    assert await listed(flat) == ([], True)


async def test_only_what_may_be_listed_is_shown(flat: Flat) -> None:
    client = await lister(flat.front, "ext/team/*", "one/*")
    page = (await client.get(SECRETS)).body
    assert [one["path"] for one in page["secrets"]] == ["ext/team/b", "one/key"]
    assert page["incomplete"] is False
