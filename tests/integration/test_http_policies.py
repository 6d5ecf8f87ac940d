"""Policies over HTTP: made, changed, bound, tested, and counted from the next request on."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.api import ROBOT, Answer, Client, Front, open_front
from tests.house import House

from svsync.app import open_app
from svsync.domain.access import Scope

POLICIES = "/v1/policies"
SECRET = "/v1/secrets/billing/stripe"
READER: dict[str, Any] = {
    "name": "billing-reader",
    "rules": [{"path_pattern": "billing/**", "permissions": ["read"]}],
}
THEM = {"identity_type": "service_account", "identity_id": ROBOT.id}


async def made(front: Front, **changes: Any) -> Any:
    answer = await front.client.post(POLICIES, json=READER | changes)
    assert answer.status == 201
    return answer.body


async def reader(front: Front) -> Client:
    """Somebody with the scope, and without a policy yet."""
    return front.client.with_token(await front.token(Scope.SECRETS_READ))


async def recorded(front: Front, action: str) -> list[Any]:
    rows = await front.house.admin.fetch(
        "SELECT * FROM audit WHERE action = $1 ORDER BY chain_id, seq", action
    )
    return [{**row, "detail": json.loads(row["detail"] or "null")} for row in rows]


@asynccontextmanager
async def second_process(house: House) -> AsyncIterator[Front]:
    """Another svsync on the same store: its own caches, its own audit chains."""
    async with (
        open_app(house.app.settings, environ={}, apply_backends=False, pool=2) as app,
        open_front(replace(house, app=app)) as front,
    ):
        yield front


# --- policies ---------------------------------------------------------------------


async def test_policy_is_made_shown_and_listed(front: Front) -> None:
    policy = await made(front, description="for billing")
    assert policy["id"].startswith("pol_")
    assert (policy["rules"], policy["bindings"]) == (READER["rules"], 0)
    assert (policy["description"], policy["created_by"]) == ("for billing", ROBOT.id)
    for reference in (policy["id"], policy["name"]):
        assert (await front.client.get(f"{POLICIES}/{reference}")).body == policy
    await made(front, name="another")
    first = await front.client.get(f"{POLICIES}?limit=1")
    second = await front.client.get(f"{POLICIES}?limit=1&cursor={first.body['next_cursor']}")
    assert [p["name"] for p in first.body["policies"]] == ["another"]
    assert second.body == {"policies": [policy], "next_cursor": None}


async def test_name_is_taken_once(front: Front) -> None:
    first, second = await made(front), await made(front, name="other")
    assert (await front.client.post(POLICIES, json=READER)).told == (409, "policy_exists")
    renamed = await front.client.call(
        "PATCH", f"{POLICIES}/{second['id']}", json={"name": first["name"]}
    )
    assert renamed.told == (409, "policy_exists")
    assert (await front.client.get(f"{POLICIES}/other")).body == second


async def test_permissions_are_kept_once_and_in_their_order(front: Front) -> None:
    rules = [{"path_pattern": "a", "permissions": ["use", "read", "use"]}]
    assert (await made(front, rules=rules))["rules"][0]["permissions"] == ["read", "use"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "no spaces"}, "name"),
        ({"name": "pol_" + "0" * 32}, "name"),
        ({"name": None}, "name"),
        ({"description": "x" * 1025}, "description"),
        ({"rules": [{"path_pattern": "/a/**", "permissions": ["read"]}]}, "rules[0].path_pattern"),
        ({"rules": [{"path_pattern": "a b/**", "permissions": ["read"]}]}, "rules[0].path_pattern"),
        ({"rules": [{"path_pattern": "a/%2e", "permissions": ["read"]}]}, "rules[0].path_pattern"),
        (
            {"rules": [{"path_pattern": "a", "permissions": ["read", "own"]}]},
            "rules[0].permissions",
        ),
        ({"rules": [{"path_pattern": "a", "permissions": []}]}, "rules[0].permissions"),
        ({"rules": [{"path_pattern": "a"}]}, "rules[0].permissions"),
        ({"rules": [{"path_pattern": "a", "permissions": ["read"], "deny": 1}]}, "rules[0].deny"),
        ({"rules": [{"path_pattern": "a", "permissions": ["read"]}] * 201}, "rules"),
        ({"rules": None}, "rules"),
    ],
)
async def test_what_cannot_be_used_is_refused_by_its_field(
    front: Front, change: dict[str, Any], field: str
) -> None:
    there = await made(front, name="there")
    for answer in (
        await front.client.post(POLICIES, json=READER | change),
        await front.client.call("PATCH", f"{POLICIES}/there", json=change),
    ):
        assert answer.status == 422
        assert answer.body["error"]["field"].startswith(field)
    assert (await front.client.get(POLICIES)).body["policies"] == [there]


async def test_change_merges_and_replaces_lists(front: Front) -> None:
    policy = await made(front, description="old")
    at = f"{POLICIES}/{policy['id']}"
    two = [
        {"path_pattern": "a/*", "permissions": ["list"]},
        {"path_pattern": "b/**", "permissions": ["read", "write"]},
    ]
    ruled = (await front.client.call("PATCH", at, json={"rules": two})).body
    assert (ruled["rules"], ruled["description"], ruled["rev"]) == (two, "old", 2)
    fewer = (
        await front.client.call("PATCH", at, json={"rules": two[1:], "description": None})
    ).body
    assert (fewer["rules"], fewer["description"]) == (two[1:], None)
    named = (await front.client.call("PATCH", at, json={"name": "new"})).body
    assert (named["name"], named["rules"]) == ("new", two[1:])


async def test_policy_goes_with_its_bindings(front: Front) -> None:
    await made(front)
    at = f"{POLICIES}/{READER['name']}"
    assert (await front.client.post(f"{at}/bindings", json=THEM)).status == 201
    assert (await front.client.call("DELETE", at)).status == 204
    assert (await front.client.call("DELETE", at)).told == (404, "policy_not_found")
    assert await front.house.rows("bindings") == await front.house.rows("policy_rules") == []


async def test_another_tenants_policies_are_as_unknown_as_those_of_nobody(front: Front) -> None:
    policy = await made(front)
    stranger = front.client.with_token(await front.other_tenant())
    binding = f"/bindings/service_account/{ROBOT.id}"
    for method, below, body in (
        ("GET", "", None),
        ("PATCH", "", {"description": "mine"}),
        ("DELETE", "", None),
        ("GET", "/bindings", None),
        ("POST", "/bindings", THEM),
        ("DELETE", binding, None),
    ):
        told = []
        for reference in (policy["id"], policy["name"], "pol_" + "0" * 32, "%00", "a b"):
            answer = await stranger.call(method, f"{POLICIES}/{reference}{below}", json=body)
            told.append((answer.told, answer.body["error"]["message"]))
        assert len(set(told)) == 1
        assert told[0][0] == (404, "policy_not_found")
    assert (await stranger.get(POLICIES)).body["policies"] == []
    assert (await stranger.post(POLICIES, json=READER)).status == 201
    assert (await front.client.get(f"{POLICIES}/{policy['id']}")).body == policy


async def test_a_change_is_made_at_the_revision_that_was_looked_at_or_not_at_all(
    front: Front,
) -> None:
    answer = await front.client.post(POLICIES, json=READER)
    at, first = f"{POLICIES}/{answer.body['id']}", answer.headers["ETag"]
    assert first == (await front.client.get(at)).headers["ETag"] == '"r1"'
    change = {"description": "mine"}
    moved = await front.client.call("PATCH", at, json=change, headers={"If-Match": first})
    assert (moved.status, moved.headers["ETag"]) == (200, '"r2"')
    for method, body in (("PATCH", {"description": "theirs"}), ("DELETE", None)):
        late = await front.client.call(method, at, json=body, headers={"If-Match": first})
        assert (late.told, late.body["error"]["field"]) == ((412, "version_conflict"), "If-Match")
        for odd in ('W/"r2"', '"v2"', "r2", '"r1", "r2"', '"r0"'):
            answer = await front.client.call(method, at, json=body, headers={"If-Match": odd})
            assert (answer.status, answer.body["error"]["field"]) == (422, "If-Match")
    assert (await front.client.get(at)).body["description"] == "mine"
    gone = await front.client.call("DELETE", at, headers={"If-Match": moved.headers["ETag"]})
    assert gone.status == 204


async def test_a_policy_and_a_binding_are_made_once_for_a_key(front: Front) -> None:
    first, again = [
        await front.client.post(POLICIES, json=READER, headers={"Idempotency-Key": "a"})
        for _ in range(2)
    ]
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert (again.headers["Idempotency-Replayed"], again.headers["ETag"]) == ("true", '"r1"')
    at = f"{POLICIES}/{first.body['id']}/bindings"
    bound = [
        await front.client.post(at, json=THEM, headers={"Idempotency-Key": "b"}) for _ in range(2)
    ]
    assert [answer.status for answer in bound] == [201, 201]
    other = await front.client.post(at, json=THEM, headers={"Idempotency-Key": "a"})
    assert other.told == (422, "idempotency_key_reused")
    assert len(await recorded(front, "policy.create")) == 2  # each is decided and told of
    refused = READER | {"name": "x"}
    key = {"Idempotency-Key": "c"}
    taken = await front.client.post(POLICIES, json=READER, headers=key)
    assert taken.told == (409, "policy_exists")
    assert (await front.client.post(POLICIES, json=refused, headers=key)).status == 201


# --- bindings ---------------------------------------------------------------------


async def test_policy_is_bound_shown_and_taken_back(front: Front) -> None:
    policy = await made(front)
    at = f"{POLICIES}/{policy['id']}/bindings"
    bound = [
        {"identity_type": "group", "identity_id": "eng/pay ments"},
        {"identity_type": "service_account", "identity_id": "sa:robot"},
        {"identity_type": "user", "identity_id": "user:ada@example.com"},
    ]
    for one in reversed(bound):
        first, again = [await front.client.post(at, json=one) for _ in range(2)]
        assert (first.status, again.status) == (201, 200)
        assert first.body == again.body
    assert first.body["policy_id"] == policy["id"]
    pages = [(await front.client.get(f"{at}?limit=2")).body]
    pages.append(
        (await front.client.get(at, params={"cursor": pages[0]["next_cursor"], "limit": 2})).body
    )
    listed = [binding for page in pages for binding in page["bindings"]]
    assert [{key: b[key] for key in bound[0]} for b in listed] == bound
    assert (await front.client.get(f"{POLICIES}/{policy['id']}")).body["bindings"] == 3
    for gone in (
        "group/eng%2Fpay%20ments",
        "service_account/sa:robot",
        "user/user%3Aada@example.com",
    ):
        assert (await front.client.call("DELETE", f"{at}/{gone}")).status == 204
        again = await front.client.call("DELETE", f"{at}/{gone}")
        assert again.told == (404, "binding_not_found")
    assert (await front.client.get(at)).body["bindings"] == []


@pytest.mark.parametrize(
    ("kind", "identity"),
    [
        ("service_account", "user:ada"),
        ("user", "sa:robot"),
        ("service_account", "robot"),
        ("group", ""),
        ("group", "group:"),
        ("group", " a"),
        ("group", "a\u202eb"),
        ("group", "x" * 257),
    ],
)
async def test_nobody_of_that_type_can_be_called_so(front: Front, kind: str, identity: str) -> None:
    await made(front)
    answer = await front.client.post(
        f"{POLICIES}/{READER['name']}/bindings",
        json={"identity_type": kind, "identity_id": identity},
    )
    assert answer.told == (422, "invalid_field")
    assert answer.body["error"]["field"] == "identity_id"


# --- what counts ------------------------------------------------------------------


async def test_binding_counts_for_the_next_read_of_every_process(front: Front) -> None:
    await front.house.write("billing/stripe", {"k": "1"})
    policy = await made(front)
    at = f"{POLICIES}/{policy['id']}"
    here = await reader(front)
    async with second_process(front.house) as other:
        there = other.client.with_token(here.token)

        async def read() -> list[int]:
            return [(await one.get(SECRET)).status for one in (here, there, here, there)]

        assert await read() == [404] * 4
        assert (await front.client.post(f"{at}/bindings", json=THEM)).status == 201
        assert await read() == [200] * 4
        gone = f"{at}/bindings/service_account/{ROBOT.id}"
        assert (await front.client.call("DELETE", gone)).status == 204
        assert await read() == [404] * 4
        assert (await other.client.post(f"{at}/bindings", json=THEM)).status == 201
        assert await read() == [200] * 4
        none: dict[str, Any] = {"rules": []}
        assert (await other.client.call("PATCH", at, json=none)).status == 200
        assert await read() == [404] * 4
        back = {"rules": READER["rules"]}
        assert (await front.client.call("PATCH", at, json=back)).status == 200
        assert await read() == [200] * 4
        assert (await other.client.call("DELETE", at)).status == 204
        assert await read() == [404] * 4


async def test_group_gives_what_its_members_have(front: Front) -> None:
    await front.house.write("billing/stripe", {"k": "1"})
    await made(front)
    group = {"identity_type": "group", "identity_id": "group:payments"}
    await front.client.post(f"{POLICIES}/{READER['name']}/bindings", json=group)
    client = await reader(front)
    assert (await client.get(SECRET)).status == 404
    tenant = (await front.access.verify(client.token or "")).tenant
    await front.house.app.groups.set_groups(tenant, ROBOT, ["payments"])
    assert (await client.get(SECRET)).status == 200
    assert (await client.get("/v1/auth/whoami")).body["groups"] == ["payments"]
    await front.house.app.groups.set_groups(tenant, ROBOT, [])
    assert (await client.get(SECRET)).status == 404


async def test_change_is_recorded_with_what_it_gives(front: Front) -> None:
    policy = await made(front)
    at = f"{POLICIES}/{policy['id']}"
    await front.client.post(f"{at}/bindings", json=THEM)
    await front.client.call("PATCH", at, json={"rules": []})
    await front.client.call("DELETE", f"{at}/bindings/service_account/{ROBOT.id}")
    await front.client.call("DELETE", at)
    [created] = await recorded(front, "policy.create")
    assert (created["identity_id"], created["decision"]) == (ROBOT.id, "allow")
    assert created["detail"] == {"policy": READER["name"], "rules": [["billing/**", "read"]]}
    [bound] = await recorded(front, "policy.bind")
    assert bound["detail"] == {"policy": policy["id"], **THEM}
    [changed] = await recorded(front, "policy.update")
    assert changed["detail"] == {"policy": policy["id"], "rules": []}
    assert [len(await recorded(front, f"policy.{word}")) for word in ("unbind", "delete")] == [1, 1]


async def test_what_cannot_be_recorded_is_not_done(front: Front) -> None:
    policy = await made(front)
    at = f"{POLICIES}/{policy['id']}"
    await front.house.admin.execute("ALTER TABLE audit RENAME TO away")
    for answer in (
        await front.client.post(POLICIES, json=READER | {"name": "other"}),
        await front.client.call("PATCH", at, json={"rules": []}),
        await front.client.post(f"{at}/bindings", json=THEM),
        await front.client.call("DELETE", at),
    ):
        assert answer.told == (503, "audit_unavailable")
    await front.house.admin.execute("ALTER TABLE away RENAME TO audit")
    assert (await front.client.get(POLICIES)).body["policies"] == [policy]


async def test_who_lacks_the_scope_is_refused_and_recorded(front: Front) -> None:
    client = front.client.with_token(await front.token(Scope.SECRETS_READ, Scope.AUDIT_READ))
    assert (await client.post(POLICIES, json=READER)).told == (403, "forbidden")
    [row] = await recorded(front, "policy.create")
    assert row["decision"] == "deny"


# --- the test of policies ---------------------------------------------------------


async def asked(front: Front, path: str, permission: str, **who: Any) -> Answer:
    body = {"path": path, "permission": permission, **who}
    return await front.client.post(f"{POLICIES}/test", json=body)


async def test_the_test_names_the_rule_that_decides(front: Front) -> None:
    two = [
        {"path_pattern": "billing/db", "permissions": ["list"]},
        {"path_pattern": "billing/**", "permissions": ["read"]},
    ]
    policy = await made(front, rules=two)
    await front.client.post(f"{POLICIES}/{policy['id']}/bindings", json=THEM)
    told = (await asked(front, "billing/db", "read", identity_id=ROBOT.id)).body
    assert told == {
        "allowed": True,
        "path": "billing/db",
        "permission": "read",
        "identity": ROBOT.id,
        "groups": [],
        "rule": {
            "policy_id": policy["id"],
            "policy": READER["name"],
            "rule": 1,
            "path_pattern": "billing/**",
            "permissions": ["read"],
            "through": [ROBOT.id],
        },
        "near": [],
    }
    [row] = await recorded(front, "policy.test")
    assert row["secret_path"] == "billing/db"
    assert row["detail"] == {"permission": "read", "identity_id": ROBOT.id}


async def test_the_test_names_a_group_that_the_identity_is_not_in(front: Front) -> None:
    """The failure that the guide tells of: bound by a group that it does not belong to."""
    policy = await made(front)
    group = {"identity_type": "group", "identity_id": "payments"}
    await front.client.post(f"{POLICIES}/{policy['id']}/bindings", json=group)
    told = (await asked(front, "billing/stripe", "read", identity_id=ROBOT.id)).body
    assert (told["allowed"], told["rule"]) == (False, None)
    [near] = told["near"]
    assert (near["reason"], near["bound_to"]) == ("not_bound", ["group:payments"])
    for who in ({"groups": ["payments"]}, {"identity_id": ROBOT.id, "groups": ["group:payments"]}):
        told = (await asked(front, "billing/stripe", "read", **who)).body
        assert told["allowed"]
        assert (told["groups"], told["rule"]["through"]) == (["payments"], ["group:payments"])


async def test_the_test_tells_what_came_near(front: Front) -> None:
    rules = [
        {"path_pattern": "billing/*", "permissions": ["read"]},
        {"path_pattern": "billing/db/*", "permissions": ["list"]},
        {"path_pattern": "other/**", "permissions": ["read"]},
    ]
    policy = await made(front, rules=rules)
    await front.client.post(f"{POLICIES}/{policy['id']}/bindings", json=THEM)
    told = (await asked(front, "billing/db/main", "read", identity_id=ROBOT.id)).body
    assert not told["allowed"]
    assert [(near["path_pattern"], near["reason"]) for near in told["near"]] == [
        ("billing/db/*", "permission_missing"),
        ("billing/*", "pattern_differs"),
    ]


async def test_a_rule_for_the_folder_beside_came_near(front: Front) -> None:
    rules = [
        {"path_pattern": "apps/web/**", "permissions": ["read"]},
        {"path_pattern": "apps/invoices/**", "permissions": ["list"]},
        {"path_pattern": "elsewhere/**", "permissions": ["read"]},
        {"path_pattern": "apps/db/*", "permissions": ["read"]},
        {"path_pattern": "apps/db/*/deep", "permissions": ["read"]},
    ]
    policy = await made(front, rules=rules)
    await made(front, name="theirs", rules=[{"path_pattern": "apps/a/**", "permissions": ["read"]}])
    await front.client.post(f"{POLICIES}/{policy['id']}/bindings", json=THEM)

    async def near(path: str) -> list[tuple[str, str]]:
        told = (await asked(front, path, "read", identity_id=ROBOT.id)).body
        return [(one["path_pattern"], one["reason"]) for one in told["near"]]

    differs = "pattern_differs"
    assert await near("apps/billing/key") == [
        ("apps/web/**", differs), ("apps/db/*", differs), ("apps/db/*/deep", differs),
    ]  # fmt: skip
    # What is closest comes first; a folder further away is none beside.
    assert (await near("apps/db/main/key"))[:2] == [
        ("apps/db/*", differs), ("apps/db/*/deep", differs),
    ]  # fmt: skip
    assert ("elsewhere/**", differs) not in await near("apps/db/main/key")
    assert ("elsewhere/**", differs) in await near("apps2/key")


async def test_the_test_says_what_a_read_meets(front: Front) -> None:
    await front.house.write("billing/stripe", {"k": "1"})
    policy = await made(front)
    client = await reader(front)
    for bound in (False, True):
        if bound:
            await front.client.post(f"{POLICIES}/{policy['id']}/bindings", json=THEM)
        told = (await asked(front, "billing/stripe", "read", identity_id=ROBOT.id)).body
        assert told["allowed"] == bound
        assert ((await client.get(SECRET)).status == 200) == bound


async def test_the_test_is_of_this_tenant_alone(front: Front) -> None:
    policy = await made(front)
    await front.client.post(f"{POLICIES}/{policy['id']}/bindings", json=THEM)
    stranger = front.client.with_token(await front.other_tenant())
    body = {"path": "billing/stripe", "permission": "read", "identity_id": ROBOT.id}
    told = (await stranger.post(f"{POLICIES}/test", json=body)).body
    assert (told["allowed"], told["near"]) == (False, [])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"permission": "read", "identity_id": "sa:a"}, "path"),
        ({"path": "a/../b", "permission": "read", "identity_id": "sa:a"}, "path"),
        ({"path": "a", "permission": "own", "identity_id": "sa:a"}, "permission"),
        ({"path": "a", "permission": "read", "identity_id": "a"}, "identity_id"),
        ({"path": "a", "permission": "read"}, "identity_id"),
        ({"path": "a", "permission": "read", "groups": [" "]}, "groups[0]"),
    ],
)
async def test_a_test_of_nothing_is_refused(front: Front, body: dict[str, Any], field: str) -> None:
    answer = await front.client.post(f"{POLICIES}/test", json=body)
    assert (answer.status, answer.body["error"]["field"]) == (422, field)


# --- whoami -----------------------------------------------------------------------


async def test_any_token_is_told_whose_it_is(front: Front) -> None:
    text = await front.token(Scope.METRICS_READ, Scope.AUDIT_READ)
    told = (await front.client.with_token(text).get("/v1/auth/whoami")).body
    assert told["scopes"] == ["audit:read", "metrics:read"]
    assert (told["identity_type"], told["identity_id"]) == ("service_account", ROBOT.id)
    assert (told["tenant"], told["groups"]) == ("default", [])
    assert told["token_id"] == f"tok_{text.split('_')[2]}"
    assert told["expires_at"].endswith("Z")
    forever = front.client.with_token(await front.token(Scope.ADMIN, expires_in=None))
    assert (await forever.get("/v1/auth/whoami")).body["expires_at"] is None
