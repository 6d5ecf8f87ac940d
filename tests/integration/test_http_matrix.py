"""Each documented route, called by whoever may not: what are they told, and what is recorded?

The routes are those of the document, so that one that is added is asked about here as well.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from tests.api import BACKENDS, DOCUMENT, Answer, Client, Front, documented
from tests.house import BACKEND, House
from tests.integration.test_scaikey import NOW, Door, open_door
from tests.scaikey import Key, b64, hmac_sign, joined

from svsync.domain.access import Scope

POLICIES: Final = "/v1/policies"
WEBHOOKS: Final = "/v1/webhooks"
_BODIES: Final[Mapping[str, Any]] = {
    "createBackend": {
        "name": "new",
        "type": "memory",
        "config": {"endpoint": "https://vault.internal", "auth_config_path": "infra/new"},
        "path_mapping": {"team/**": "kv/**"},
    },
    "changeBackend": {"path_mapping": [{"local": "other/**", "remote": "kv/**"}]},
    "resolveConflict": {"path": "ext/a", "resolution": "use_local"},
    "createFeedSecret": {"feed": "http"},
    "createPolicy": {"name": "mine", "rules": []},
    "changePolicy": {"description": "x"},
    "bindPolicy": {"identity_type": "user", "identity_id": "user:eve"},
    "testPolicies": {"path": "app/a", "permission": "read", "identity_id": "sa:x"},
    "createWebhook": {"url": "https://hooks.invalid/x", "types": ["federation.secret.changed"]},
    "changeWebhook": {"only_if_changed": True},
    "writeSecret": {"data": {"k": "2"}},
    "testMapping": {"paths": ["kv/a"]},
    "createToken": {"identity_id": "sa:new", "scopes": ["secrets:read"]},
}
"""What a route is sent that needs a body."""


@dataclass(frozen=True)
class Route:
    """One operation of the document."""

    method: str
    template: str

    @property
    def about(self) -> Any:
        return DOCUMENT["paths"][self.template][self.method.lower()]

    @property
    def name(self) -> str:
        operation: str = self.about["operationId"]
        return operation

    @property
    def body(self) -> Any:
        wanted = self.about.get("requestBody", {})
        return _BODIES[self.name] if wanted.get("required") else None

    def path(self, ids: Mapping[str, str]) -> str:
        """With what stands in it: by its name, or, of an `id`, by what it is one of."""
        collection = self.template.partition("/{")[0]
        named = {**ids, "id": ids.get(collection, "")}
        return re.sub(r"\{(\w+)\}", lambda name: named[name[1]], self.template)

    async def call(self, client: Client, ids: Mapping[str, str], **options: Any) -> Answer:
        return await client.call(self.method, self.path(ids), json=self.body, **options)


ROUTES: Final = sorted(
    (
        Route(method, template)
        for method, template in documented()
        # What change feeds send shows a secret of its own: its tests are those of feeds.
        if template.startswith("/v1/") and not template.startswith("/v1/events/")
    ),
    # What removes comes last.
    key=lambda route: (route.method == "DELETE", route.template, route.method),
)
NOBODYS: Final = {
    BACKENDS: "fed_nobody",
    POLICIES: "pol_" + "0" * 32,
    WEBHOOKS: "whk_" + "0" * 32,
    "secret_id": "fds_" + "0" * 32,
    "token_id": "tok_" + "0" * 32,
    "run": "run_" + "0" * 32,
    "path": "app/nothing",
    "identity_type": "user",
    "identity_id": "user:nobody",
}


async def furnished(front: Front) -> dict[str, str]:
    """Something of everything, and its ids."""
    house = front.house
    house.there.put("kv/a", {"k": "1"})
    run = (await house.run()).record.run_id
    await house.write("app/a", {"k": "1"})
    rules = [{"path_pattern": "app/**", "permissions": ["read", "write"]}]
    policy = await front.client.post(POLICIES, json={"name": "theirs", "rules": rules})
    bound = {"identity_type": "user", "identity_id": "user:ada"}
    assert (await front.client.post(f"{POLICIES}/theirs/bindings", json=bound)).status == 201
    ids = {BACKENDS: str(BACKEND), POLICIES: policy.body["id"], "run": str(run), "path": "app/a"}
    made = await front.client.post(WEBHOOKS, json=_BODIES["createWebhook"])
    ids[WEBHOOKS] = made.body["id"]
    token = await front.client.post("/v1/auth/tokens", json=_BODIES["createToken"])
    ids["token_id"] = token.body["token_id"]
    return ids | bound | {"secret_id": NOBODYS["secret_id"]}


async def belongings(house: House) -> dict[str, list[str]]:
    """Every row of the first tenant."""
    tables = await house.admin.fetch(
        "SELECT table_name FROM information_schema.columns JOIN information_schema.tables"
        " USING (table_schema, table_name) WHERE column_name = 'tenant_id'"
        " AND table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    return {
        name: sorted(
            row["line"]
            for row in await house.admin.fetch(
                f"SELECT t::text AS line FROM {name} t WHERE tenant_id = 1"
            )
        )
        for name in sorted(row["table_name"] for row in tables)
    }


def without(text: str, *ids: Mapping[str, str]) -> str:
    for one in ids:
        for word in sorted(one.values(), key=len, reverse=True):
            text = text.replace(word, "…")
    return text


async def rows_about(front: Front, answer: Answer) -> list[tuple[str, str, str | None]]:
    rows = await front.house.admin.fetch(
        "SELECT action, decision, secret_path FROM audit WHERE request_id = $1 ORDER BY seq",
        answer.headers["X-Request-Id"],
    )
    return [tuple(row) for row in rows]


# --- another tenant -------------------------------------------------------------------


async def test_another_tenants_ids_are_told_as_those_of_nobody_word_for_word(front: Front) -> None:
    ids = await furnished(front)
    before = await belongings(front.house)
    stranger = front.client.with_token(await front.other_tenant())
    asked = 0
    for route in ROUTES:
        if "{" not in route.template:
            continue
        if route.name == "writeSecret":  # a path is nobody's, and each tenant has its own
            made = await route.call(stranger, {**ids, "path": "app/mine"})
            assert (made.status, made.body["version"]) == (201, 1)
            continue
        foreign = await route.call(stranger, ids)
        unknown = await route.call(stranger, NOBODYS)
        assert foreign.told == unknown.told, route
        assert foreign.status == 404, route
        messages = [answer.body["error"]["message"] for answer in (foreign, unknown)]
        assert without(messages[0], ids, NOBODYS) == without(messages[1], ids, NOBODYS), route
        assert foreign.headers.keys() == unknown.headers.keys(), route
        asked += 1
    assert asked > 20
    assert await belongings(front.house) == before


async def test_lists_show_nothing_of_another_tenant(front: Front) -> None:
    ids = await furnished(front)
    stranger = front.client.with_token(await front.other_tenant())
    for route in ROUTES:
        if route.method != "GET" or "{" in route.template:
            continue
        shown = json.dumps((await route.call(stranger, ids)).body)
        for word in (*ids.values(), "theirs", "ext/", "hooks.invalid"):
            assert word not in shown, (route, word)


# --- without a permission -------------------------------------------------------------

DENIED: Final = {
    "readSecret": (404, "secret_not_found"),
    "deleteSecret": (404, "secret_not_found"),
    "writeSecret": (403, "forbidden"),
    "restoreSecret": (403, "forbidden"),
    "listSecrets": (403, "forbidden"),
    "createBackend": (403, "forbidden"),
    "changeBackend": (403, "forbidden"),
    "resolveConflict": (403, "forbidden"),
    "createWebhook": (403, "forbidden"),
}
"""What needs a permission on a path. All else shows no more than what the caller may list."""


async def test_without_a_permission_nothing_is_done_and_the_denial_is_recorded(
    front: Front,
) -> None:
    ids = await furnished(front)
    made = await front.client.post(BACKENDS, json=_BODIES["createBackend"])
    ids[BACKENDS] = made.body["id"]  # the other one is the configuration file's
    scopes = set(Scope) - {Scope.ADMIN}
    nobody = front.client.with_token(await front.token(*scopes))
    for route in ROUTES:
        if route.name not in DENIED:
            continue
        before = await belongings(front.house)
        there = await route.call(nobody, ids)
        rows = await rows_about(front, there)
        assert there.told == DENIED[route.name], route
        assert [decision for _, decision, _ in rows].count("deny") == 1, route
        if "path" in route.template:
            missing = await route.call(nobody, NOBODYS)
            assert missing.told == there.told
            told = [answer.body["error"]["message"] for answer in (there, missing)]
            assert without(told[0], ids, NOBODYS) == without(told[1], ids, NOBODYS)
        after = await belongings(front.house)
        assert {name for name in after if after[name] != before[name]} <= noted(after), route


def noted(tables: Mapping[str, object]) -> set[str]:
    """Where an access is written down."""
    return {name for name in tables if name.startswith("audit")} | {"tokens"}


async def test_whatever_needs_no_permission_shows_no_path_that_may_not_be_listed(
    front: Front,
) -> None:
    ids = await furnished(front)
    scopes = set(Scope) - {Scope.ADMIN, Scope.AUDIT_READ}
    nobody = front.client.with_token(await front.token(*scopes))
    for route in ROUTES:
        if route.name in DENIED or route.name in (
            "testPolicies", "listAuditLogs", "listAuditChains"
        ):  # fmt: skip
            continue
        if f"Scope: `{Scope.ADMIN}`" in route.about["description"]:  # who has that has all
            continue
        answer = await route.call(nobody, ids)
        assert answer.status != 403, (route, answer.body)
        shown = json.dumps(answer.body)
        assert "app/a" not in shown.replace("app/a**", ""), route
        assert "ext/a" not in shown, route


# --- without a token that counts ------------------------------------------------------

CLAIMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "foreign audience": {"aud": "scaidrive"},
    "foreign issuer": {"iss": "https://other.example.com"},
    "expired": {"exp": NOW - 61, "nbf": NOW - 3600, "iat": NOW - 3600},
    "not yet valid": {"nbf": NOW + 61},
    "no tenant": {"tenant": None},
    "a tenant that is none": {"tenant": "nowhere"},
    "no end": {"exp": None},
    "no subject": {"sub": None},
}


async def refused_tokens(door: Door) -> dict[str, str | None]:
    """Tokens of both kinds that do not count, each for one reason."""
    front, issuer = door.front, door.issuer
    rsa = Key.new("rsa", "RS256")
    issuer.keys = [rsa]
    claims = issuer.claims(scope="admin")
    good = issuer.token(scope="admin")
    header, _, signature = good.split(".")
    other = b64(json.dumps(issuer.claims(sub="root", scope="admin")).encode())
    revoked = await front.token(Scope.ADMIN)
    assert (await front.client.with_token(good).get("/v1/auth/whoami")).status == 200
    assert (await front.client.with_token(revoked).get("/v1/auth/whoami")).status == 200
    token_id = f"tok_{revoked.split('_')[2]}"
    await front.access.revoke((await front.access.verify(revoked)).tenant, token_id)

    def made(about: Mapping[str, Any], sign: Any) -> str:
        return joined({"typ": "JWT", "kid": "rsa", **about}, claims, sign)

    return {
        "none at all": None,
        "a word": "secret",
        "unknown": f"svt_1_{'0' * 32}_{'0' * 64}",
        "revoked": revoked,
        "expired, static": await front.token(Scope.ADMIN, expires_in=0),
        "another payload": f"{header}.{other}.{signature}",
        "forged by another key": issuer.token(Key.new("rsa", "RS256"), scope="admin"),
        "by an unknown key": issuer.token(Key.new("new", "RS256"), scope="admin"),
        "alg none": made({"alg": "none"}, lambda data: b""),
        "alg none, signed": made({"alg": "none"}, rsa.sign),
        "HS256 by the public key": made({"alg": "HS256"}, hmac_sign(rsa.pem)),
        "HS256 by its modulus": made({"alg": "HS256"}, hmac_sign(rsa.jwk["n"].encode())),
        **{name: issuer.token(scope="admin", **claim) for name, claim in CLAIMS.items()},
    }


async def test_a_token_that_does_not_count_opens_no_route_and_is_counted(house: House) -> None:
    async with open_door(house) as door:
        front = door.front
        ids = await furnished(front)
        tokens = await refused_tokens(door)
        before = await belongings(front.house)
        for name, text in tokens.items():
            client = front.client.with_token(text)
            for route in ROUTES:
                front.now[0] += 10  # so many failures are none too many
                answer = await route.call(client, ids)
                assert answer.told == (401, "unauthenticated"), (name, route)
                assert answer.headers["WWW-Authenticate"] == 'Bearer realm="svsync"'
                assert text is None or text not in json.dumps(answer.body)
        assert await belongings(front.house) == before, "nothing was done, or looked at"
        await front.house.app.strangers.record()
        rows = await front.house.rows("audit", action="auth.fail")
        counted: Counter[str] = Counter()
        for row in rows:
            assert (row["decision"], row["identity_type"]) == ("deny", "anonymous")
            counted.update(json.loads(row["detail"])["codes"])
        assert counted["unauthenticated"] == len(tokens) * len(ROUTES)


async def test_a_valid_token_opens_each_of_those_routes(house: House) -> None:
    """So the tokens above fail for what is wrong with them."""
    async with open_door(house) as door:
        front = door.front
        ids = await furnished(front)
        door.issuer.keys = [Key.new("rsa", "RS256")]
        client = front.client.with_token(door.issuer.token(scope="admin"))
        for route in ROUTES:
            answer = await route.call(client, ids)
            assert answer.status not in (401, 403), (route, answer.body)


@pytest.mark.parametrize("scope", sorted(set(Scope) - {Scope.ADMIN}))
async def test_a_scope_opens_its_own_routes_and_the_rest_is_denied_and_recorded(
    front: Front, scope: Scope
) -> None:
    ids = await furnished(front)
    holder = front.client.with_token(await front.token(scope))
    for route in ROUTES:
        named = re.search(r"Scope: `([a-z:]+)`", route.about["description"])
        if named is None or named[1] == scope:
            continue
        answer = await route.call(holder, ids)
        assert answer.told == (403, "forbidden"), route
        assert named[1] in answer.body["error"]["message"]
        assert [decision for _, decision, _ in await rows_about(front, answer)] == ["deny"], route
