"""Lists over HTTP: only what the caller may list, all of it, and at a bounded cost."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api import Client, Front, front, open_front
from tests.house import TENANT, House, house
from tests.integration.test_reading import allow

from svsync.domain.access import Scope
from svsync.domain.patterns import Pattern
from svsync.services.listing import Listing

__all__ = ["front", "house"]

SECRETS = "/v1/secrets"


async def fill(front: Front, paths: list[str], state: str = "live", tenant: int = TENANT) -> None:
    """Secrets without values, which no list shows."""
    await front.house.admin.execute(
        "INSERT INTO secrets (tenant_id, secret_id, path, state, current_version, last_version)"
        " SELECT $1, nextval('secret_ids'), path, $3, 1, 1 FROM unnest($2::text[]) AS path",
        tenant, paths, state,
    )  # fmt: skip


async def lister(front: Front, *patterns: str) -> Client:
    await front.house.admin.execute("DELETE FROM policies")
    await front.house.admin.execute("UPDATE tenants SET auth_epoch = auth_epoch + 1")
    for pattern in patterns:
        await allow(front, pattern, "list")
    return front.client.with_token(await front.token(Scope.SECRETS_READ))


async def listed(client: Client, query: str = "", *, limit: int = 100) -> list[str]:
    """All pages; each goes on where the one before ended."""
    found: list[str] = []
    cursor = ""
    for _ in range(1_000):
        page = await client.get(f"{SECRETS}?{query}&limit={limit}{cursor}".replace("?&", "?"))
        assert page.status == 200
        assert len(page.body["secrets"]) <= limit
        found += [secret["path"] for secret in page.body["secrets"]]
        if page.body["next_cursor"] is None:
            return found
        cursor = f"&cursor={page.body['next_cursor']}"
    raise AssertionError("the list does not end")


async def test_a_list_shows_secrets_by_path_without_values(front: Front) -> None:
    await front.house.write("app/b", {"k": "canary-77"}, owner="me")
    await front.house.write("app/a", {"k": "canary-77"})
    answer = await front.client.get(SECRETS)
    assert [secret["path"] for secret in answer.body["secrets"]] == ["app/a", "app/b"]
    assert answer.body["secrets"][1]["metadata"]["owner"] == "me"
    assert (answer.body["next_cursor"], answer.body["incomplete"]) == (None, False)
    assert "canary-77" not in str(answer.body)
    [row] = await front.house.admin.fetch("SELECT * FROM audit")
    assert (row["action"], row["secret_path"], row["decision"]) == ("secret.list", None, "allow")


async def test_a_prefix_is_a_string_and_is_recorded(front: Front) -> None:
    await fill(front, ["app/a", "app/ab", "app/b", "apply"])
    assert await listed(front.client, "prefix=app/a") == ["app/a", "app/ab"]
    assert await listed(front.client, "prefix=app") == ["app/a", "app/ab", "app/b", "apply"]
    assert await listed(front.client, "prefix=app/c") == []
    rows = await front.house.admin.fetch("SELECT secret_path FROM audit ORDER BY at")
    assert [row["secret_path"] for row in rows] == ["app/a", "app", "app/c"]


async def test_who_may_list_nothing_there_is_told_so_and_recorded(front: Front) -> None:
    await fill(front, ["app/a", "db/a"])
    client = await lister(front, "db/**")
    await allow(front, "app/**", "read")
    there = await client.get(f"{SECRETS}?prefix=app/")
    missing = await client.get(f"{SECRETS}?prefix=nowhere/")
    assert there.told == missing.told == (403, "forbidden")
    assert await listed(client) == ["db/a"]
    rows = await front.house.admin.fetch("SELECT decision FROM audit ORDER BY at")
    assert [row["decision"] for row in rows] == ["deny", "deny", "allow"]


async def test_deleted_secrets_are_not_listed(front: Front) -> None:
    await fill(front, ["app/a", "app/c"])
    for state in ("deleted", "hidden", "pending", "void"):
        await fill(front, [f"app/b-{state}"], state)
    assert await listed(front.client, limit=1) == ["app/a", "app/c"]


@pytest.mark.parametrize(
    "query",
    ["prefix=a%20b", "prefix=%C3%A9", "limit=0", "cursor=a//b", "cursor=~", "cursor=~AAAA",
     "cursor=~" + "A" * 700, "pre=a"],
)  # fmt: skip
async def test_what_cannot_be_used_is_refused_by_its_name(front: Front, query: str) -> None:
    answer = await front.client.get(f"{SECRETS}?{query}")
    assert (answer.status, answer.body["error"]["field"]) == (422, query.partition("=")[0])


# --- a page that had to pass by too much ----------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page looks at ten secrets."""
    made = Listing.__init__

    def init(self: Listing, *args: Any, **_named: Any) -> None:
        made(self, *args, looked_at=10)

    monkeypatch.setattr(Listing, "__init__", init)


@pytest.mark.usefixtures("short")
async def test_a_page_among_what_may_not_be_shown_ends_early_and_says_where_to_go_on(
    house: House,
) -> None:
    async with open_front(house) as front:
        hidden = [f"app/{n:02}/hidden-name" for n in range(35)]
        await fill(front, [*hidden, "app/20/key", "app/34/key"])
        client = await lister(front, "app/*/key")
        page = (await client.get(SECRETS)).body
        assert page["secrets"] == []
        assert page["next_cursor"].startswith("~")
        assert len(page["next_cursor"]) < 1024
        assert "hidden" not in page["next_cursor"]
        assert await listed(client) == ["app/20/key", "app/34/key"]
        stranger = front.client.with_token(await front.other_tenant())
        answer = await stranger.get(f"{SECRETS}?cursor={page['next_cursor']}")
        assert answer.body["error"]["field"] == "cursor"


@pytest.mark.usefixtures("short")
async def test_deleted_secrets_cost_no_more_than_those_that_may_not_be_shown(house: House) -> None:
    async with open_front(house) as front:
        await fill(front, [f"app/{n:02}" for n in range(35)], "deleted")
        await fill(front, ["app/99"])
        page = (await front.client.get(SECRETS)).body
        assert (page["secrets"], page["next_cursor"] is None) == ([], False)
        assert await listed(front.client) == ["app/99"]


async def test_a_narrow_caller_pays_for_what_may_be_seen(front: Front) -> None:
    """No page looks at another's secrets: one suffices, though there are thousands."""
    await fill(front, [f"big/{n:05}" for n in range(12_000)])
    await fill(front, ["a/1", "big2/1", "z/1"])
    client = await lister(front, "a/*", "big2/**", "z/1")
    page = (await client.get(SECRETS)).body
    assert [secret["path"] for secret in page["secrets"]] == ["a/1", "big2/1", "z/1"]
    assert page["next_cursor"] is None


# --- against a list made the slow way -------------------------------------------------

_SEGMENT = st.sampled_from(["a", "ab", "b", "b-1", "c.d"])
_PATHS = st.lists(_SEGMENT, min_size=1, max_size=3).map("/".join)
_PATTERNS = st.lists(
    st.sampled_from(["a", "ab", "b", "*", "**", "a*", "*b", "b-*"]), min_size=1, max_size=3
).map("/".join)


def is_pattern(text: str) -> bool:
    try:
        Pattern.parse(text)
    except ValueError:
        return False
    return True


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    paths=st.sets(_PATHS, max_size=25),
    gone=st.sets(_PATHS, max_size=5),
    patterns=st.lists(_PATTERNS.filter(is_pattern), max_size=4),
    prefix=st.sampled_from(["", "a", "a/", "ab/a", "b", "b-", "b/"]),
    limit=st.integers(1, 8),
)
@pytest.mark.usefixtures("short")
async def test_a_list_is_what_may_be_listed_and_all_of_it(
    front: Front, paths: set[str], gone: set[str], patterns: list[str], prefix: str, limit: int
) -> None:
    await front.house.admin.execute("DELETE FROM secrets")
    await fill(front, sorted(paths - gone))
    await fill(front, sorted(gone), "deleted")
    client = await lister(front, *patterns)
    compiled = [Pattern.parse(pattern) for pattern in patterns]
    wanted = sorted(
        path
        for path in paths - gone
        if path.startswith(prefix) and any(p.read(path.split("/")) is not None for p in compiled)
    )
    first = await client.get(f"{SECRETS}?prefix={prefix}")
    if first.status == 403:
        assert wanted == []
    else:
        assert await listed(client, f"prefix={prefix}", limit=limit) == wanted
