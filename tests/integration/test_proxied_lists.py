"""Lists with what is read through: all of it, in order, at a bounded cost, or marked."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api import Front, front, open_front
from tests.house import TENANT, House, Pause, backend, house
from tests.integration.test_listing import SECRETS, fill, listed, lister
from tests.waiting import queued, try_once

from svsync.domain.errors import BackendError, BackendUnreachableError
from svsync.domain.federation import Mode, Overrides, RuleSpec
from svsync.domain.ids import BackendId
from svsync.domain.patterns import Pattern
from svsync.domain.policies import ADMIN, Permission, Permissions, Rule
from svsync.services.proxied_folders import ProxiedFolder
from svsync.services.proxied_walk import ProxiedWalk

__all__ = ["front", "house"]

NOBODY = Permissions([])
PROXIED = Overrides(mode=Mode.PROXY)


@pytest.fixture(autouse=True)
def _tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    try_once(monkeypatch)


@pytest.fixture
async def proxied(house: House) -> House:
    """A house that reads `kv/**` through, with one secret there."""
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    return house


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many folders a page asks for; a test changes it."""
    made, most = ProxiedWalk.__init__, [50]

    def init(self: ProxiedWalk, *args: Any, **named: Any) -> None:
        made(self, *args, **named, calls=most[0])

    monkeypatch.setattr(ProxiedWalk, "__init__", init)
    return most


def put(house: House, *paths: str) -> None:
    for path in paths:
        house.there.put(path, {"k": "canary-78"})


async def pages(front: Front, query: str = "") -> list[tuple[list[str], bool]]:
    """The paths of each page, and whether it is incomplete."""
    found = []
    cursor = ""
    for _ in range(1_000):
        page = (await front.client.get(f"{SECRETS}?{query}{cursor}".replace("?&", "?"))).body
        found.append(([one["path"] for one in page["secrets"]], page["incomplete"]))
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"
    raise AssertionError("the list does not end")


# --- a folder at a time ---------------------------------------------------------------


async def folder_of(house: House, folder: str, permissions: Permissions = ADMIN) -> ProxiedFolder:
    through = house.app.proxying
    return await through.folders.look(TENANT, await through.owners(TENANT), permissions, folder)


async def test_folder_is_listed_alone_by_one_call(proxied: House) -> None:
    put(proxied, "kv/b", "kv/app/c", "kv/app/deep/d", "kv/ill egal/e", "kv/gone")
    proxied.there.delete("kv/gone")
    proxied.there.tag("kv/b", {"team": "x"})
    found = await folder_of(proxied, "ext/")
    assert sorted(found.secrets) == ["ext/a", "ext/b"]
    assert found.secrets["ext/b"]["metadata"]["tags"] == ["team=x"]  # type: ignore[index]
    assert (found.folders, found.incomplete, found.calls) == ({"ext/app/"}, False, 1)
    assert proxied.there.calls == {"list": 1}
    found = await folder_of(proxied, "ext/app/")
    assert (sorted(found.secrets), found.folders) == (["ext/app/c"], {"ext/app/deep/"})


async def test_folder_above_a_rule_is_told_without_a_call(proxied: House) -> None:
    found = await folder_of(proxied, "")
    assert (found.secrets, found.folders, found.incomplete) == ({}, {"ext/"}, False)
    assert not proxied.there.calls


async def test_nobody_is_asked_for_what_may_not_be_listed(proxied: House) -> None:
    assert not (await folder_of(proxied, "ext/", NOBODY)).folders
    one = Rule("pol_1", "one", 0, Pattern.parse("ext/b*"), frozenset({Permission.LIST}))
    assert not (await folder_of(proxied, "ext/app/", Permissions([one]))).secrets
    assert not proxied.there.calls
    put(proxied, "kv/b1")
    found = await folder_of(proxied, "ext/", Permissions([one]))
    assert list(found.secrets) == ["ext/b1"]


@pytest.mark.parametrize("why", ["denied", "away", "late", "paused", "broken"])
async def test_folder_that_could_not_be_asked_is_incomplete(proxied: House, why: str) -> None:
    if why == "denied":
        proxied.there.denied.add("kv/")
    elif why == "away":
        proxied.there.fail("list", BackendUnreachableError("away", operation="list"))
    elif why == "late":
        Pause(proxied.there, "list")
        proxied.app.proxying.folders.patience = 0.0
    elif why == "paused":
        await proxied.app.removal.pause(TENANT, proxied.spec.id)
    else:
        proxied.there.failed.add("kv/")
    found = await folder_of(proxied, "ext/")
    assert (found.secrets, found.incomplete) == ({}, True)
    probed = [("probe", "probe")] if why in ("away", "late") else []
    assert await queued(proxied) == probed


async def test_rule_that_rewrites_paths_is_not_listed_and_that_is_told(house: House) -> None:
    rules = (RuleSpec("ext/*/{name}", "kv/{name}/*"),)
    await house.configure(mode=Mode.PROXY, rules=rules)
    put(house, "kv/a/b")
    found = await folder_of(house, "ext/b/")
    assert (found.secrets, found.incomplete) == ({}, True)


# --- in a list ------------------------------------------------------------------------


async def test_what_is_read_through_stands_among_what_is_here_without_values(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    put(house, "kv/a", "kv/app/b", "kv/a-b")
    house.there.tag("kv/a", {"team": "billing"})
    await house.write("own/c", {"k": "canary-78"})
    await house.write("early", {"k": "canary-78"})
    before = await house.dump()
    answer = await front.client.get(SECRETS)
    assert [one["path"] for one in answer.body["secrets"]] == [
        "early", "ext/a", "ext/a-b", "ext/app/b", "own/c",
    ]  # fmt: skip
    assert answer.body["secrets"][1] == {
        "path": "ext/a",
        "version": 1,
        "secret_type": None,
        "metadata": {
            "tags": ["team=billing"],
            "owner": None,
            "description": None,
            "custom": {"team": "billing"},
        },
        "updated_at": None,
        "status": "proxied",
    }
    assert (answer.body["next_cursor"], answer.body["incomplete"]) == (None, False)
    assert "canary-78" not in str(answer.body)
    assert house.there.calls == {"list": 2}, "no value was asked for"
    after = await house.dump()
    assert {name for name in after if after[name] != before[name]} <= {
        "audit_chains", "tokens", *(name for name in after if name.startswith("audit_20"))
    }  # fmt: skip


async def test_a_list_is_recorded_before_a_backend_is_asked(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    seen: list[int] = []

    async def look(operation: str, path: str) -> None:
        seen.append(await house.admin.fetchval("SELECT count(*) FROM audit"))

    house.there.before = look
    await front.client.get(f"{SECRETS}?prefix=ext/")
    assert seen == [1]


async def test_no_transaction_is_open_while_a_backend_is_asked(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    open_: list[int] = []

    async def look(operation: str, path: str) -> None:
        open_.append(
            await house.admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state LIKE 'idle in transaction%'"
            )
        )

    house.there.before = look
    await front.client.get(SECRETS)
    assert open_ == [0]


async def test_a_secret_that_is_here_stands_for_itself(front: Front) -> None:
    """A copy that was written here and one that is read through at one path: as a read has it."""
    house = front.house
    await house.configure(mode=Mode.PROXY)
    await fill(front, ["ext/a"])
    await fill(front, ["ext/gone"], "deleted")
    put(house, "kv/a", "kv/gone")
    page = (await front.client.get(SECRETS)).body
    assert [(one["path"], one["status"]) for one in page["secrets"]] == [
        ("ext/a", "local"), ("ext/gone", "proxied"),
    ]  # fmt: skip


async def test_until_the_first_pass_is_over_what_is_not_here_yet_is_listed_too(
    front: Front,
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    put(house, "kv/a", "kv/b", "kv/gone")
    await house.configure(mode=Mode.SYNC)
    await fill(front, ["ext/gone"], "deleted")
    await house.run("ext/a")
    page = (await front.client.get(SECRETS)).body
    assert [(one["path"], one["status"]) for one in page["secrets"]] == [
        ("ext/a", "in_sync"), ("ext/b", "initial"),
    ]  # fmt: skip
    await house.run()
    asked = house.there.calls["list"]
    assert await listed(front.client) == ["ext/a", "ext/b", "ext/gone"]
    assert house.there.calls["list"] == asked, "all is here now"


async def test_only_what_may_be_listed_is_shown_and_asked_for(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    put(house, "kv/app/a1", "kv/app/b1", "kv/db/a1", "kv/z")
    asked: list[str] = []

    async def look(operation: str, path: str) -> None:
        asked.append(path)

    house.there.before = look
    client = await lister(front, "ext/app/a*", "other/**")
    assert await listed(client) == ["ext/app/a1"]
    assert asked == ["kv/app/"]
    nobody = await lister(front, "other/**")
    assert (await nobody.get(f"{SECRETS}?prefix=ext/")).told == (403, "forbidden")
    assert asked == ["kv/app/"]


async def test_a_prefix_may_end_within_a_name(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    put(house, "kv/app/a", "kv/apple", "kv/b/app")
    for prefix, found in (
        ("ext/app", ["ext/app/a", "ext/apple"]),
        ("ext/app/", ["ext/app/a"]),
        ("ex", ["ext/app/a", "ext/apple", "ext/b/app"]),
        ("ext/b/app", ["ext/b/app"]),
        ("exit", []),
    ):
        assert await listed(front.client, f"prefix={prefix}") == found
        assert await listed(front.client, f"prefix={prefix}", limit=1) == found


async def test_each_backend_and_rule_has_its_part(house: House) -> None:
    house.spec = replace(
        house.spec,
        rules=(
            RuleSpec("ext/app/**", "kv/app/**", overrides=PROXIED),
            RuleSpec("ext/private/**", "kv/private/**", exclude=True),
            RuleSpec("ext/**", "kv/**"),
        ),
    )
    second = backend((RuleSpec("more/**", "two/**"),), BackendId("fed_two"), mode=Mode.PROXY)
    await house.app.federation.apply([house.spec, second])
    put(house, "kv/app/a", "kv/private/b", "kv/c", "two/d")
    await house.run()
    async with open_front(house) as front:
        assert await listed(front.client) == ["ext/app/a", "ext/c", "more/d"]


# --- what cannot be had ---------------------------------------------------------------


@pytest.mark.parametrize("why", ["away", "denied", "broken", "refused", "paused"])
async def test_a_backend_that_gives_nothing_makes_the_page_incomplete(
    front: Front, why: str
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    put(house, "kv/a")
    await house.write("own/a", {"k": "1"})
    if why == "away":
        house.there.fail("list", BackendUnreachableError("inner text", operation="list"))
    elif why == "denied":
        house.there.denied.add("kv/")
    elif why == "broken":
        house.there.failed.add("kv/")
    elif why == "refused":
        house.there.fail("list", BackendError("inner text", operation="list", code="odd"))
    else:
        await house.app.removal.pause(TENANT, house.spec.id)
    assert await pages(front) == [(["own/a"], True)]


async def test_a_denied_folder_leaves_the_others(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    put(house, "kv/a/x", "kv/b/x", "kv/c/x")
    house.there.denied.add("kv/b/")
    assert await pages(front) == [(["ext/a/x", "ext/c/x"], True)]
    assert await pages(front, "prefix=ext/c") == [(["ext/c/x"], False)]


async def test_a_backend_that_is_away_is_asked_once_a_page(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    put(house, *(f"kv/{n}/x" for n in range(5)))
    asked: list[str] = []

    async def lost(operation: str, path: str) -> None:
        asked.append(path)
        if path != "kv/":
            raise BackendUnreachableError("away", operation="list")

    house.there.before = lost
    assert await pages(front) == [([], True)]
    assert asked == ["kv/", "kv/0/"]


async def test_a_page_that_does_not_get_to_a_backend_does_not_ask_it(front: Front) -> None:
    """What stands before it is listed in full, whether or not the backend is there."""
    house = front.house
    await house.configure(mode=Mode.PROXY)
    put(house, "kv/a")
    await fill(front, ["app/1", "app/2", "app/3"])
    page = (await front.client.get(f"{SECRETS}?limit=2")).body
    assert ([one["path"] for one in page["secrets"]], page["incomplete"]) == (
        ["app/1", "app/2"], False,
    )  # fmt: skip
    assert not house.there.calls
    assert await listed(front.client, limit=2) == ["app/1", "app/2", "app/3", "ext/a"]


async def test_a_backend_that_is_configured_anew_meanwhile_is_told(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    put(house, "kv/a")
    usual = house.app.proxying.walk

    async def late(*args: Any) -> ProxiedWalk:
        walk = await usual(*args)
        await house.configure(rules=(RuleSpec("elsewhere/**", "kv/**"),))
        return walk

    monkeypatch.setattr(house.app.proxying, "walk", late)
    assert (await front.client.get(SECRETS)).body["incomplete"] is True


# --- a bounded page -------------------------------------------------------------------


async def test_a_page_asks_for_so_many_folders_and_the_next_goes_on(
    house: House, calls: list[int]
) -> None:
    calls[0] = 4
    await house.configure(mode=Mode.PROXY)
    put(house, *(f"kv/{n:02}/hidden/x" for n in range(6)), "kv/03/key")
    async with open_front(house) as front:
        made = 0
        found: list[str] = []
        cursor = ""
        client = await lister(front, "ext/*/key")
        while True:
            before = house.there.calls["list"]
            page = (await client.get(f"{SECRETS}{cursor}")).body
            assert house.there.calls["list"] - before <= 4
            assert page["incomplete"] is False
            assert "hidden" not in str(page)
            found += [one["path"] for one in page["secrets"]]
            made += 1
            if page["next_cursor"] is None:
                break
            cursor = f"?cursor={page['next_cursor']}"
        assert found == ["ext/03/key"]
        assert made > 2


_SEGMENT = st.sampled_from(["a", "a-b", "ab", "b", "c.d"])
_PATHS = st.lists(_SEGMENT, min_size=1, max_size=4).map("/".join)
_PATTERNS = st.sampled_from(
    ["**", "ext/**", "ext/a/**", "ext/a*", "ext/*/b", "own/**", "ext/a/b", "ext/a-b/*"]
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    there=st.sets(_PATHS, max_size=20),
    here=st.sets(_PATHS, max_size=8),
    own=st.sets(_PATHS, max_size=8),
    patterns=st.lists(_PATTERNS, min_size=1, max_size=3),
    prefix=st.sampled_from(["", "e", "ext/", "ext/a", "ext/a/", "ext/a-", "own/a"]),
    limit=st.integers(1, 8),
    most=st.integers(1, 5),
)
async def test_a_list_is_all_that_may_be_listed_once_and_in_order(
    front: Front,
    calls: list[int],
    there: set[str],
    here: set[str],
    own: set[str],
    patterns: list[str],
    prefix: str,
    limit: int,
    most: int,
) -> None:
    calls[0] = most
    house = front.house
    if house.spec.mode is not Mode.PROXY:
        await house.configure(mode=Mode.PROXY)
    await house.admin.execute("DELETE FROM secrets")
    for path in list(house.there.listed_names()):
        house.there.remove(path)
    put(house, *(f"kv/{path}" for path in there))
    await fill(front, [f"ext/{path}" for path in here] + [f"own/{path}" for path in own])
    client = await lister(front, *patterns)
    compiled = [Pattern.parse(pattern) for pattern in patterns]
    wanted = sorted(
        path
        for path in {f"ext/{path}" for path in there | here} | {f"own/{path}" for path in own}
        if path.startswith(prefix) and any(p.read(path.split("/")) is not None for p in compiled)
    )
    first = await client.get(f"{SECRETS}?prefix={prefix}")
    if first.status == 403:
        assert wanted == []
    else:
        assert await listed(client, f"prefix={prefix}", limit=limit) == wanted
