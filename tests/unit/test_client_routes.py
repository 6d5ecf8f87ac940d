"""Does each method of the client call a route of the document, with what that takes?"""

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

import pytest

from svsync.client import Client, SyncClient, records
from svsync.client.calls import Answer
from svsync.http.openapi import document

DOCUMENT: dict[str, Any] = json.loads(document())
METHODS = {"get", "post", "put", "patch", "delete"}
RULES: Any = [{"path_pattern": "a/**", "permissions": ["read"]}]
NOT_CALLED = {"healthz", "readyz", "openapi"}
"""Operations for others than programs: probes, and whoever reads the document."""

Call = Callable[[Client], Awaitable[object]]
CALLS: dict[str, Call] = {
    "secrets.read": lambda c: c.secrets.read("a/b", version=1),
    "secrets.write": lambda c: c.secrets.write("a/b", {}, cas=1),
    "secrets.delete": lambda c: c.secrets.delete("a/b", cas=1),
    "secrets.restore": lambda c: c.secrets.restore("a/b", 1, cas=2),
    "secrets.history": lambda c: c.secrets.history("a/b"),
    "secrets.list": lambda c: c.secrets.list("a/"),
    "secrets.page": lambda c: c.secrets.page("a/", limit=1, cursor="a/b"),
    "federation.overview": lambda c: c.federation.overview(),
    "federation.status": lambda c: c.federation.status("fed_a"),
    "federation.sync": lambda c: c.federation.sync("fed_a", paths=["a/b"], allow=["mass_delete"]),
    "federation.plan": lambda c: c.federation.plan("fed_a", paths=["a/b"]),
    "federation.test_mapping": lambda c: c.federation.test_mapping("fed_a", ["a/b"]),
    "federation.migration": lambda c: c.federation.migration("a/", idle="7d"),
    "federation.runs": lambda c: c.federation.runs("fed_a", cursor="run_1"),
    "federation.last_runs": lambda c: c.federation.last_runs(["fed_a", "fed_b"], last=5),
    "federation.run": lambda c: c.federation.run("fed_a", "run_1"),
    "federation.secrets": lambda c: c.federation.secrets("fed_a", state="in_sync"),
    "federation.conflicts": lambda c: c.federation.conflicts("fed_a", settled=True, reveal=True),
    "federation.conflict": lambda c: c.federation.conflict("fed_a", "a/b", conflict_id="cfl_1"),
    "federation.resolve": lambda c: c.federation.resolve("fed_a", "a/b", "use_value", data={}),
    "federation.backends.list": lambda c: c.federation.backends.list(),
    "federation.backends.get": lambda c: c.federation.backends.get("fed_a"),
    "federation.backends.create": lambda c: c.federation.backends.create({}, require_healthy=True),
    "federation.backends.patch": lambda c: c.federation.backends.patch("fed_a", {}, rev=1),
    "federation.backends.delete": lambda c: c.federation.backends.delete("fed_a"),
    "federation.backends.test": lambda c: c.federation.backends.test("fed_a"),
    "federation.backends.pause": lambda c: c.federation.backends.pause("fed_a"),
    "federation.backends.resume": lambda c: c.federation.backends.resume("fed_a"),
    "federation.feed_secrets.list": lambda c: c.federation.feed_secrets.list("fed_a"),
    "federation.feed_secrets.create": lambda c: c.federation.feed_secrets.create("fed_a", "http"),
    "federation.feed_secrets.revoke": lambda c: c.federation.feed_secrets.revoke("fed_a", "fds_1"),
    "policies.list": lambda c: c.policies.list(),
    "policies.get": lambda c: c.policies.get("p"),
    "policies.create": lambda c: c.policies.create("p", RULES, description="d"),
    "policies.patch": lambda c: c.policies.patch("p", name="q", rules=RULES, rev=1),
    "policies.delete": lambda c: c.policies.delete("p", rev=1),
    "policies.bindings": lambda c: c.policies.bindings("p"),
    "policies.bind": lambda c: c.policies.bind("p", "sa:a"),
    "policies.unbind": lambda c: c.policies.unbind("p", "group:a"),
    "policies.test": lambda c: c.policies.test("a", "read", identity="sa:a", groups=["g"]),
    "audit.query": lambda c: c.audit.query(identity_id="sa:a", start="1 hour ago", end="now"),
    "audit.chains": lambda c: c.audit.chains(cursor="1"),
    "auth.whoami": lambda c: c.auth.whoami(),
    "tokens.list": lambda c: c.tokens.list(),
    "tokens.create": lambda c: c.tokens.create("sa:a", ["admin"], expires_in="30d"),
    "tokens.revoke": lambda c: c.tokens.revoke("tok_1"),
    "keys.list": lambda c: c.keys.list(),
    "webhooks.list": lambda c: c.webhooks.list(),
    "webhooks.get": lambda c: c.webhooks.get("whk_1"),
    "webhooks.create": lambda c: c.webhooks.create("https://a.example", types=["x"]),
    "webhooks.patch": lambda c: c.webhooks.patch("whk_1", state="disabled", types=[]),
    "webhooks.delete": lambda c: c.webhooks.delete("whk_1"),
    "webhooks.deliveries": lambda c: c.webhooks.deliveries("whk_1", state="dead", cursor="evt_1"),
    "webhooks.test": lambda c: c.webhooks.test("whk_1"),
    "webhooks.replay": lambda c: c.webhooks.replay("whk_1", event="evt_1"),
    "webhooks.rotate": lambda c: c.webhooks.rotate("whk_1", at_once=True),
}


@dataclass(frozen=True)
class Asked:
    """One call, and the operation of the document that it is."""

    operation: Mapping[str, Any]
    shared: list[Any]
    query: set[str]
    headers: set[str]
    body: str | None

    def parameters(self, place: str) -> set[str]:
        given = [*self.shared, *self.operation.get("parameters", [])]
        return {p["name"] for p in map(resolved, given) if p["in"] == place}


def resolved(part: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in part:
        return part
    found: Any = DOCUMENT
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return resolved(found)


async def asked_by(call: Call) -> Asked:
    """What a method sends; nothing is called."""
    seen: list[Asked] = []
    client = Client("https://svsync.internal", "svt_1")

    async def kept(
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Answer:
        item, operation = operation_of(method, path)
        given = {name for name, value in (query or {}).items() if value is not None}
        told = {*(headers or {}), *(["Idempotency-Key"] if key is not None else [])}
        seen.append(Asked(operation, item.get("parameters", []), given, told, body))
        return Answer(200, {}, json.dumps(NOTHING))

    client._calls.call = kept  # type: ignore[method-assign]
    await call(client)
    [asked] = seen
    return asked


NOTHING: dict[str, Any] = {
    **dict.fromkeys(("at", "runs")),
    **dict.fromkeys(("path", "version", "secret_type", "created_at", "metadata", "federation")),
    "next_cursor": None,
    "incomplete": False,
    "data": {},
    "conflicts": [{}],
    **{name: [] for name in ("secrets", "versions", "backends", "policies", "bindings")},
    "webhooks": [],
    "feed_secrets": [],
    **{name: [] for name in ("tokens", "keys")},
}
"""Enough of every answer."""


def operation_of(method: str, path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    for template in sorted(
        DOCUMENT["paths"], key=lambda one: (one.count("{path}"), one.count("{"))
    ):
        pattern = re.sub(r"\{(?!path)\w+\}", "[^/]+", template).replace("{path}", ".+")
        item = DOCUMENT["paths"][template]
        if re.fullmatch(pattern, path) and method.lower() in item:
            return item, item[method.lower()]
    raise AssertionError(f"the document has no {method} {path}")


def methods_of(noun: object, above: str = "") -> set[str]:
    """Names of all public methods below a client."""
    found: set[str] = set()
    for name, member in vars(noun).items():
        if not name.startswith("_"):
            at = f"{above}{name}."
            names = {n for n, m in vars(type(member)).items() if inspect.isfunction(m)}
            found |= {f"{at}{n}" for n in names if not n.startswith("_")}
            found |= methods_of(member, at)
    return found


@pytest.mark.parametrize("name", CALLS)
async def test_method_sends_what_its_route_takes(name: str) -> None:
    asked = await asked_by(CALLS[name])
    assert asked.query <= asked.parameters("query")
    assert asked.headers <= asked.parameters("header")
    takes_key = "Idempotency-Key" in asked.parameters("header")
    assert ("Idempotency-Key" in asked.headers) is takes_key
    body = resolved(asked.operation.get("requestBody", {}))
    if asked.body is None:
        assert not body.get("required", False)
    else:
        schema = resolved(body["content"]["application/json"]["schema"])
        if "additionalProperties" in schema:
            assert set(json.loads(asked.body)) <= set(schema["properties"])


async def test_every_method_is_tried_and_every_route_has_one() -> None:
    client = Client("https://svsync.internal", "svt_1")
    assert methods_of(client) == set(CALLS)
    called = {(await asked_by(call)).operation["operationId"] for call in CALLS.values()}
    there = {
        operation["operationId"]
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method in METHODS and not path.startswith(("/v1/events/", "/ui"))
    }
    assert there - called == NOT_CALLED


def test_waiting_client_has_the_same_methods_with_the_same_arguments() -> None:
    waiting = SyncClient("https://svsync.internal", "svt_1")
    awaited = Client("https://svsync.internal", "svt_1")
    assert methods_of(waiting) == methods_of(awaited)
    for name in CALLS:
        ours, theirs = (_found(client, name) for client in (waiting, awaited))
        assert list(inspect.signature(ours).parameters) == list(
            inspect.signature(theirs).parameters
        )
        assert ours.__doc__ == theirs.__doc__
    waiting.close()


def _found(client: object, name: str) -> Any:
    for part in name.split("."):
        client = getattr(client, part)
    return client


# --- types ----------------------------------------------------------------------------


def _typed() -> dict[str, Any]:
    return {
        name: kind
        for name, kind in vars(records).items()
        if isinstance(kind, type) and hasattr(kind, "__required_keys__")
    }


def _schema(name: str) -> Mapping[str, Any] | None:
    """The object of the document that has this name; RunInBrief and Run share their fields."""
    found = DOCUMENT["components"]["schemas"].get(name)
    if found is not None and "anyOf" in found:  # or null
        [found] = [one for one in found["anyOf"] if one["type"] == "object"]
    if found is None or "allOf" not in found:
        return found
    [base] = map(resolved, found["allOf"])
    return {
        "properties": {**base["properties"], **found.get("properties", {})},
        "required": [*base["required"], *found.get("required", [])],
    }


def test_types_have_the_fields_of_the_document() -> None:
    known = {name: schema for name in _typed() if (schema := _schema(name)) is not None}
    assert len(known) > 20
    for name, schema in known.items():
        kind = _typed()[name]
        required = set(schema.get("required", ()))
        assert kind.__required_keys__ == required, name
        assert kind.__optional_keys__ == set(schema["properties"]) - required, name


@pytest.mark.parametrize(
    ("alias", "schema"),
    [
        ("Health", "Health"),
        ("BackendState", "State"),
        ("PairStatus", "PairStatus"),
        ("Permission", "Permission"),
        ("BoundType", "BoundType"),
    ],
)
def test_words_are_those_of_the_document(alias: str, schema: str) -> None:
    words = getattr(records, alias)
    assert get_origin(words) is not None
    assert list(words.__args__) == DOCUMENT["components"]["schemas"][schema]["enum"]
