"""Policies over HTTP: who may do what on which paths, and to whom it is given."""

import json
from typing import Any, Final, cast

from aiohttp import web

from svsync.config.document import Node
from svsync.config.kinds import (
    Key,
    Kind,
    choice,
    integer,
    object_schema,
    read_object,
    sequence,
    text_of,
)
from svsync.config.kinds import text as matching
from svsync.domain.access import Caller, Identity, Scope
from svsync.domain.bindings import Bound, BoundType, group_name
from svsync.domain.errors import NotFoundError, UsageError
from svsync.domain.ids import LocalPath
from svsync.domain.paths import IllegalPath, parse_local
from svsync.domain.patterns import PatternError
from svsync.domain.policies import MAX_RULES, Permission, is_name, is_reference, new_pattern
from svsync.http.body import RequestError, read_body, read_query
from svsync.http.idempotency import once
from svsync.http.identity import AUTHORIZING, CallersHandler, Handler, call_of, for_scope
from svsync.http.revisions import tag_of, told_as_condition, wanted_revision
from svsync.services.policies import NewRule, Policies, PolicyChange
from svsync.services.policy_tests import PolicyTests, Question

MAX_DESCRIPTION: Final = 1024
"""Characters."""
MOST_GROUPS: Final = 500
"""Groups that a test may name."""
_PAGE: Final = 100


# --- what a body holds --------------------------------------------------------------


def _read_name(node: Node) -> str:
    given = text_of(node, "a name")
    if not is_name(given):
        raise node.error(
            "is made of letters, digits and . _ -, at most 128, begins with a letter or digit, and"
            " is no policy's id"
        )
    return given


def _read_pattern(node: Node) -> str:
    given = text_of(node, "a pattern of local paths")
    try:
        new_pattern(given)
    except PatternError as problem:
        raise node.error(str(problem)) from None
    return given


def _read_permissions(node: Node) -> tuple[Permission, ...]:
    given: tuple[Permission, ...] = _PERMISSION_LIST.read(node)
    if not given:
        raise node.error(f"is empty: give it one of {', '.join(Permission)}")
    return given


def _read_rule(node: Node) -> NewRule:
    given = read_object(node, _RULE_KEYS, api=True)
    return NewRule(given["path_pattern"], given["permissions"])


def _read_description(node: Node) -> str | None:
    if node.value is None:
        return None
    given = text_of(node)
    if len(given) > MAX_DESCRIPTION:
        raise node.error(f"has more than {MAX_DESCRIPTION:,} characters")
    return given


def _read_path(node: Node) -> LocalPath:
    try:
        return parse_local(text_of(node, "a local path"))
    except IllegalPath as problem:
        raise node.error(problem.message, code="illegal_path") from None


def _read_identity(node: Node) -> Identity:
    try:
        return Identity.parse(text_of(node, "an identity"))
    except UsageError as problem:
        raise node.error(problem.message) from None


def _read_group(node: Node) -> str:
    try:
        return group_name(text_of(node, "a group's name"))
    except UsageError as problem:
        raise node.error(problem.message) from None


_TEXT: Final = {"type": "string"}
_PERMISSION_LIST: Final = sequence(choice(Permission), "a list of permissions", max_items=32)
_RULE_KEYS: Final = (
    Key("path_pattern", Kind(_read_pattern, _TEXT, "a pattern"), "Paths.", required=True),
    Key(
        "permissions",
        Kind(_read_permissions, _PERMISSION_LIST.schema, "a list of permissions"),
        "What is allowed there.",
        required=True,
    ),
)
_RULES: Final = sequence(
    Kind(_read_rule, object_schema(_RULE_KEYS), "a rule"), "a list of rules", max_items=MAX_RULES
)
_NAME: Final = Kind(_read_name, _TEXT, "a name")
_DESCRIPTION: Final = Key("description", Kind(_read_description, _TEXT, "text"), "What it is for.")
_NEW_KEYS: Final = (
    Key("name", _NAME, "Unique.", required=True),
    _DESCRIPTION,
    Key("rules", _RULES, "What is allowed.", required=True),
)
_CHANGE_KEYS: Final = (
    Key("name", _NAME, "Another name."),
    _DESCRIPTION,
    Key("rules", _RULES, "In place of all those that it had."),
)
_BIND_KEYS: Final = (
    Key("identity_type", choice(BoundType), "Of what kind.", required=True),
    Key("identity_id", Kind(text_of, _TEXT, "text"), "Whom.", required=True),
)
_TEST_KEYS: Final = (
    Key("path", Kind(_read_path, _TEXT, "a local path"), "Of a secret.", required=True),
    Key("permission", choice(Permission), "What is asked for.", required=True),
    Key("identity_id", Kind(_read_identity, _TEXT, "an identity"), "Who."),
    Key(
        "groups",
        sequence(Kind(_read_group, _TEXT, "a group"), "a list of groups", max_items=MOST_GROUPS),
        "Of theirs.",
    ),
)
_LIMIT: Final = Key("limit", integer(1, 1000), "Items of one page.")
_POLICIES_QUERY: Final = (_LIMIT, Key("cursor", _NAME, "Go on there."))
_AFTER: Final = matching(
    r"(service_account|user|group)/.{1,512}", "the next_cursor of the page before", max_length=600
)
_BINDINGS_QUERY: Final = (_LIMIT, Key("cursor", _AFTER, "Go on there."))


# --- the routes ---------------------------------------------------------------------


class PolicyRoutes:
    """`/v1/policies` and below. Who reads them sees who may do what everywhere, so that takes
    the same scope as changing them."""

    def __init__(self, policies: Policies, tests: PolicyTests) -> None:
        self._policies = policies
        self._tests = tests

    def routes(self) -> list[web.RouteDef]:
        policies = "/v1/policies"
        one = policies + "/{id}"
        binding = one + "/bindings/{identity_type}/{identity_id:.+}"

        def done(action: str, handler: CallersHandler) -> Handler:
            # Recorded by the handler, with what is asked for.
            return for_scope(Scope.POLICIES_WRITE, action, handler, recorded=False)

        def shown(action: str, handler: CallersHandler) -> Handler:
            return for_scope(Scope.POLICIES_WRITE, action, handler)

        return [
            web.get(policies, shown("policy.list", self.list_policies)),
            web.post(policies, done("policy.create", self.create)),
            web.post(f"{policies}/test", done("policy.test", self.test)),
            web.get(one, done("policy.show", self.show)),
            web.patch(one, done("policy.update", self.change)),
            web.delete(one, done("policy.delete", self.delete)),
            web.get(f"{one}/bindings", done("policy.bindings", self.list_bindings)),
            web.post(f"{one}/bindings", done("policy.bind", self.bind)),
            web.delete(binding, done("policy.unbind", self.unbind)),
        ]

    async def list_policies(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _POLICIES_QUERY)
        found, following = await self._policies.list_policies(
            caller.tenant, limit=asked.get("limit", _PAGE), after=asked.get("cursor", "")
        )
        return web.json_response({"policies": found, "next_cursor": following})

    async def create(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        asked = await read_body(request, _NEW_KEYS)
        await _note(request, "policy.create", policy=asked["name"], rules=_told(asked["rules"]))

        async def make() -> web.Response:
            made = await self._policies.create(
                caller.tenant,
                asked["name"],
                asked["rules"],
                description=asked.get("description"),
                by=caller.identity.id,
            )
            return web.json_response(made, status=201, headers=tag_of(made["rev"]))

        return await once(request, await request.read(), make)

    async def show(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        policy = _policy(request)
        await _note(request, "policy.show", policy=policy)
        found = await self._policies.show(caller.tenant, policy)
        return web.json_response(found, headers=tag_of(found["rev"]))

    async def change(self, request: web.Request, caller: Caller) -> web.Response:
        """As RFC 7396 merges: null takes the description away, a list takes the place of the
        one that was there."""
        read_query(request, ())
        policy = _policy(request)
        asked = await read_body(request, _CHANGE_KEYS)
        rev = wanted_revision(request)
        about = {key: asked[key] for key in ("name",) if key in asked}
        if "rules" in asked:
            about["rules"] = _told(asked["rules"])
        await _note(request, "policy.update", policy=policy, **about)
        with told_as_condition(rev):
            changed = await self._policies.change(
                caller.tenant, policy, cast(PolicyChange, asked), rev=rev
            )
        return web.json_response(changed, headers=tag_of(changed["rev"]))

    async def delete(self, request: web.Request, caller: Caller) -> web.Response:
        await _nothing_asked(request)
        policy = _policy(request)
        rev = wanted_revision(request)
        await _note(request, "policy.delete", policy=policy)
        with told_as_condition(rev):
            await self._policies.delete(caller.tenant, policy, rev=rev)
        return web.Response(status=204)

    async def list_bindings(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _BINDINGS_QUERY)
        policy = _policy(request)
        await _note(request, "policy.bindings", policy=policy)
        found, following = await self._policies.list_bindings(
            caller.tenant, policy, limit=asked.get("limit", _PAGE), after=asked.get("cursor", "/")
        )
        return web.json_response({"bindings": found, "next_cursor": following})

    async def bind(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """201 for a new binding, 200 for one that was there."""
        read_query(request, ())
        policy = _policy(request)
        asked = await read_body(request, _BIND_KEYS)
        try:
            bound = Bound.of(BoundType(asked["identity_type"]), asked["identity_id"])
        except UsageError as problem:
            raise RequestError(
                422, problem.message, code="invalid_field", field="identity_id"
            ) from None
        await _note(request, "policy.bind", policy=policy, **_whom(bound))

        async def give() -> web.Response:
            made, new = await self._policies.bind(
                caller.tenant, policy, bound, by=caller.identity.id
            )
            return web.json_response(made, status=201 if new else 200)

        return await once(request, await request.read(), give)

    async def unbind(self, request: web.Request, caller: Caller) -> web.Response:
        await _nothing_asked(request)
        policy = _policy(request)
        try:
            kind = BoundType(request.match_info["identity_type"])
            bound = Bound.of(kind, request.match_info["identity_id"])
        except (ValueError, UsageError):
            raise NotFoundError("there is no such binding", code="binding_not_found") from None
        await _note(request, "policy.unbind", policy=policy, **_whom(bound))
        await self._policies.unbind(caller.tenant, policy, bound)
        return web.Response(status=204)

    async def test(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        asked = await read_body(request, _TEST_KEYS)
        identity: Identity | None = asked.get("identity_id")
        if identity is None and "groups" not in asked:
            raise RequestError(
                422, "is missing: name an identity, or groups", code="invalid_field",
                field="identity_id",
            )  # fmt: skip
        question = Question(
            asked["path"], asked["permission"], identity, cast(Any, asked.get("groups"))
        )
        about = {"permission": str(question.permission)}
        if identity is not None:
            about["identity_id"] = identity.id
        await _note(request, "policy.test", path=question.path, **about)
        return web.json_response(await self._tests.test(caller.tenant, question))


async def _note(
    request: web.Request, action: str, *, path: str | None = None, **about: object
) -> None:
    await request.app[AUTHORIZING].note(
        call_of(request), action, path=path, detail=json.dumps(about)
    )


def _told(rules: tuple[NewRule, ...]) -> list[list[str]]:
    """Rules as the audit log tells of them: pattern and permissions."""
    return [[rule.path_pattern, ",".join(rule.permissions)] for rule in rules]


def _whom(bound: Bound) -> dict[str, str]:
    return {"identity_type": str(bound.type), "identity_id": bound.id}


def _policy(request: web.Request) -> str:
    """The id or name in the path. What cannot be one is as unknown as any other."""
    given = request.match_info["id"]
    if not is_reference(given):
        raise NotFoundError(
            "there is no such policy: name one by its id or its name", code="policy_not_found"
        )
    return given


async def _nothing_asked(request: web.Request) -> None:
    read_query(request, ())
    await read_body(request, ())
