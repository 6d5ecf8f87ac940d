"""Are tokens made, shown once, listed and revoked over HTTP, by who may do everything anyway?"""

import json
from io import StringIO
from typing import Any

import pytest
from tests.api import Front
from tests.house import TENANT

from svsync.config.model import LogFormat, LogLevel
from svsync.domain.access import Scope
from svsync.observe.logs import configure

TOKENS = "/v1/auth/tokens"
BILLING = {"identity_id": "sa:billing", "scopes": ["secrets:read"]}
NOBODYS = "tok_" + "0" * 32


async def created(front: Front, **about: Any) -> dict[str, Any]:
    made = await front.client.post(TOKENS, json={**BILLING, **about})
    assert made.status == 201
    body: dict[str, Any] = made.body
    return body


async def test_a_token_that_was_made_calls_as_whom_it_names(front: Front) -> None:
    made = await created(front, scopes=["secrets:read", "federation:read"])
    who = await front.client.with_token(made["token"]).get("/v1/auth/whoami")
    assert (who.body["identity_id"], who.body["token_id"]) == ("sa:billing", made["token_id"])
    assert who.body["scopes"] == ["federation:read", "secrets:read"]


async def test_a_token_is_good_for_ninety_days_unless_it_is_said(front: Front) -> None:
    async def days(**about: Any) -> float | None:
        made = await created(front, **about)
        seconds: float | None = await front.house.admin.fetchval(
            "SELECT extract(epoch FROM expires_at - created_at)::float8 FROM tokens"
            " WHERE token_id = $1",
            made["token_id"],
        )
        assert (made["expires_at"] is None) == (seconds is None)
        return None if seconds is None else seconds / 86_400

    assert await days() == 90
    assert await days(expires_in="12h") == 0.5
    assert await days(expires_in="never") is None


async def test_tokens_are_listed_newest_first_without_their_text(front: Front) -> None:
    made = [await created(front) for _ in range(2)]
    first = (await front.client.get(f"{TOKENS}?limit=2")).body
    assert [one["token_id"] for one in first["tokens"]] == [m["token_id"] for m in made[::-1]]
    [newest, _] = first["tokens"]
    assert (newest["created_by"], newest["state"]) == ("sa:robot", "active")
    second = (await front.client.get(f"{TOKENS}?limit=2&cursor={first['next_cursor']}")).body
    assert second["next_cursor"] is None
    assert [one["identity_id"] for one in second["tokens"]] == ["sa:robot"]
    told = json.dumps([first, second])
    rows = await front.house.rows("tokens")
    assert not [row for row in rows if row["hash"].hex() in told]
    assert not [one for one in made if one["token"].rpartition("_")[2] in told]


async def test_a_revoked_token_counts_no_more_and_may_be_revoked_again(front: Front) -> None:
    made = await created(front)
    holder = front.client.with_token(made["token"])
    assert (await holder.get("/v1/auth/whoami")).status == 200
    for _ in range(2):
        assert (await front.client.call("DELETE", f"{TOKENS}/{made['token_id']}")).status == 204
        assert (await holder.get("/v1/auth/whoami")).told == (401, "unauthenticated")
    [shown, _] = (await front.client.get(TOKENS)).body["tokens"]
    assert shown["state"] == "revoked"


async def test_whoever_revokes_their_own_token_has_signed_out(front: Front) -> None:
    own = (await front.client.get("/v1/auth/whoami")).body["token_id"]
    assert (await front.client.call("DELETE", f"{TOKENS}/{own}")).status == 204
    assert (await front.client.get(TOKENS)).told == (401, "unauthenticated")


async def test_a_token_is_made_once_for_each_key_and_not_shown_again(front: Front) -> None:
    key = {"Idempotency-Key": "one"}
    assert (await front.client.post(TOKENS, json=BILLING, headers=key)).status == 201
    again = await front.client.post(TOKENS, json=BILLING, headers=key)
    assert again.told == (409, "idempotency_answer_not_kept")
    assert len(await front.house.rows("tokens", identity_id="sa:billing")) == 1


async def test_no_lesser_scope_makes_lists_or_revokes_a_token(front: Front) -> None:
    lesser = front.client.with_token(await front.token(*(set(Scope) - {Scope.ADMIN})))
    made = await created(front)
    assert (await lesser.post(TOKENS, json=BILLING)).told == (403, "forbidden")
    assert (await lesser.get(TOKENS)).told == (403, "forbidden")
    gone = await lesser.call("DELETE", f"{TOKENS}/{made['token_id']}")
    assert gone.told == (403, "forbidden")
    assert (await front.house.row("tokens", token_id=made["token_id"]))["revoked_at"] is None


async def test_another_tenants_token_is_as_unknown_as_that_of_nobody(front: Front) -> None:
    made = await created(front)
    stranger = front.client.with_token(await front.other_tenant())
    for token_id in (made["token_id"], NOBODYS):
        gone = await stranger.call("DELETE", f"{TOKENS}/{token_id}")
        assert gone.told == (404, "token_not_found")
        assert token_id not in gone.body["error"]["message"]
    assert (await front.client.with_token(made["token"]).get("/v1/auth/whoami")).status == 200
    [own] = (await stranger.get(TOKENS)).body["tokens"]
    assert own["identity_id"] == "sa:robot"


@pytest.mark.parametrize(
    ("about", "field"),
    [
        ({"identity_id": "billing"}, "identity_id"),
        ({"identity_id": None}, "identity_id"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["secrets:read", "all"]}, "scopes[1]"),
        ({"scopes": "admin"}, "scopes"),
        ({"expires_in": "5s"}, "expires_in"),
        ({"expires_in": "11y"}, "expires_in"),
        ({"expires_in": "3651d"}, "expires_in"),
    ],
)
async def test_what_makes_no_token_is_refused_by_name(
    front: Front, about: dict[str, Any], field: str
) -> None:
    refused = await front.client.post(TOKENS, json={**BILLING, **about})
    assert refused.told == (422, "invalid_field")
    assert refused.body["error"]["field"] == field
    assert len(await front.house.rows("tokens")) == 1


async def test_what_was_done_with_tokens_is_recorded_with_whom_it_is_about(front: Front) -> None:
    made = await created(front)
    await front.client.call("DELETE", f"{TOKENS}/{made['token_id']}")
    row = await front.house.row("audit", action="token.create")
    told = {"identity_id": "sa:billing", "scopes": ["secrets:read"], "expires_in": 7_776_000}
    assert json.loads(row["detail"]) == told
    row = await front.house.row("audit", action="token.revoke")
    assert json.loads(row["detail"]) == {"token_id": made["token_id"]}
    assert (row["tenant_id"], row["identity_id"]) == (TENANT, "sa:robot")


async def test_a_tokens_own_text_in_place_of_its_id_is_no_route_and_in_no_log(
    front: Front,
) -> None:
    made = await created(front)
    stream = StringIO()
    configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    try:
        gone = await front.client.call("DELETE", f"{TOKENS}/{made['token']}")
    finally:
        configure(LogLevel.INFO, LogFormat.JSON)
    assert gone.told == (404, "not_found")
    assert '"request"' in stream.getvalue()
    secret = made["token"].rpartition("_")[2]
    assert secret not in stream.getvalue()
    assert not [row for row in await front.house.rows("audit") if secret in str(row)]
