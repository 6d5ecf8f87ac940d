"""Webhooks over HTTP: endpoints, their secrets, their deliveries."""

import json
import re
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from svsync.config.document import Node
from svsync.config.kinds import BOOLEAN, Key, Kind, choice, integer, sequence, text, text_of
from svsync.domain.access import Caller, Scope
from svsync.domain.errors import NotFoundError, VersionConflictError
from svsync.domain.patterns import Pattern, PatternError
from svsync.domain.webhooks import MAX_PATTERNS, EventType, Subscription
from svsync.http.body import read_body, read_query, told_by_field
from svsync.http.idempotency import once
from svsync.http.identity import (
    AUTHORIZING,
    RIGHTS,
    CallersHandler,
    Handler,
    call_of,
    for_scope,
)
from svsync.http.revisions import tag_of, told_as_condition, wanted_revision
from svsync.services.webhook_rights import WebhookRights
from svsync.services.webhooks import EndpointChange, Target, Webhooks

_ENDPOINT: Final = re.compile(r"whk_[0-9a-f]{32}")
_TRIES: Final = 3
_PAGE: Final = 100


# --- what a body holds --------------------------------------------------------------


def _read_pattern(node: Node) -> str:
    given = text_of(node, "a pattern of local paths")
    try:
        Pattern.parse(given)
    except PatternError as problem:
        raise node.error(str(problem)) from None
    return given


def _or_all(kind: Kind) -> Kind:
    """A list, or null for an empty one: all."""

    def read(node: Node) -> Any:
        return () if node.value is None else kind.read(node)

    return Kind(read, kind.schema, kind.words)


_URL: Final = Kind(lambda node: text_of(node, "a URL"), {"type": "string"}, "a URL")
_TYPES: Final = _or_all(sequence(choice(EventType), "a list of event types", max_items=32))
_PATTERNS: Final = _or_all(
    sequence(
        Kind(_read_pattern, {"type": "string"}, "a pattern"),
        "a list of patterns",
        max_items=MAX_PATTERNS,
    )
)
_WANTS: Final = (
    Key("types", _TYPES, "Events that it is told; none: all."),
    Key("path_patterns", _PATTERNS, "Of what names secrets these alone; none: all."),
    Key("only_if_changed", BOOLEAN, "Of completed cycles those that changed something."),
)
_NEW_KEYS: Final = (Key("url", _URL, "Where it is.", required=True), *_WANTS)
_CHANGE_KEYS: Final = (
    Key("url", _URL, "Where it is."),
    *_WANTS,
    Key("state", choice(("active", "disabled")), "Whether it is told anything."),
)
_ROTATE_KEYS: Final = (Key("at_once", BOOLEAN, "The one before signs no more."),)
_EVENT_ID: Final = text(r"evt_[0-9a-f]{32}", "an event's id, as `evt_…`")
_REPLAY_KEYS: Final = (Key("event_id", _EVENT_ID, "This one, also where it was delivered."),)
_LIMIT: Final = Key("limit", integer(1, 1000), "Items of one page.")
_LIST_QUERY: Final = (
    _LIMIT,
    Key("cursor", text(r"whk_[0-9a-f]{32}", "the next_cursor of the page before"), "Go on there."),
)
_DELIVERIES_QUERY: Final = (
    _LIMIT,
    Key("cursor", text(r"evt_[0-9a-f]{32}", "the next_cursor of the page before"), "Go on there."),
    Key("state", choice(("due", "delivered", "dead")), "These alone."),
)


# --- the routes ---------------------------------------------------------------------


class WebhookRoutes:
    """`/v1/webhooks` and below."""

    def __init__(self, webhooks: Webhooks, rights: WebhookRights) -> None:
        self._webhooks = webhooks
        self._rights = rights

    def routes(self) -> list[web.RouteDef]:
        webhooks = "/v1/webhooks"
        one = webhooks + "/{id}"

        def shown(action: str, handler: CallersHandler) -> Handler:
            return for_scope(Scope.FEDERATION_READ, action, handler, recorded=False)

        def done(action: str, handler: CallersHandler) -> Handler:
            # Recorded by the handler, with what is asked for.
            return for_scope(Scope.FEDERATION_WRITE, action, handler, recorded=False)

        return [
            # Patterns may name secrets, so who looks at them is recorded.
            web.get(
                webhooks, for_scope(Scope.FEDERATION_READ, "webhook.list", self.list_endpoints)
            ),
            web.post(webhooks, done("webhook.create", self.create)),
            web.get(one, shown("webhook.show", self.show)),
            web.patch(one, done("webhook.update", self.change)),
            web.delete(one, done("webhook.delete", self.delete)),
            # No secret is named there.
            web.get(f"{one}/deliveries", shown("webhook.deliveries", self.list_deliveries)),
            web.post(f"{one}/test", done("webhook.test", self.test)),
            web.post(f"{one}/replay", done("webhook.replay", self.replay)),
            web.post(f"{one}/rotate", done("webhook.rotate", self.rotate)),
        ]

    async def list_endpoints(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _LIST_QUERY)
        limit = asked.get("limit", _PAGE)
        found: list[dict[str, Any]] = await self._webhooks.list_endpoints(caller.tenant)
        found.sort(key=lambda endpoint: endpoint["id"])  # which is by their age
        rest = [endpoint for endpoint in found if endpoint["id"] > asked.get("cursor", "")]
        following = rest[limit - 1]["id"] if len(rest) > limit else None
        return web.json_response({"webhooks": rest[:limit], "next_cursor": following})

    async def create(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        asked = await read_body(request, _NEW_KEYS)
        wants = Subscription(
            asked.get("types", ()),
            asked.get("path_patterns", ()),
            asked.get("only_if_changed", False),
        )
        with told_by_field():
            self._webhooks.check(Target(asked["url"], wants))
        await self._require(request, "webhook.create", Target(asked["url"], wants))

        async def make() -> web.Response:
            made = await self._webhooks.create(
                caller.tenant, asked["url"], wants, by=caller.identity.id
            )
            headers = {"Location": f"/v1/webhooks/{made['id']}", **tag_of(made["rev"])}
            return web.json_response(made, status=201, headers=headers)

        return await once(request, await request.read(), make, holds_secret=True)

    async def show(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        endpoint = _endpoint(request)
        await _note(request, "webhook.show", endpoint)
        found = await self._webhooks.show(caller.tenant, endpoint)
        return web.json_response(found, headers=tag_of(found["rev"]))

    async def change(self, request: web.Request, caller: Caller) -> web.Response:
        """As RFC 7396 merges: a list takes the place of the one that was there, and null is an
        empty one."""
        read_query(request, ())
        endpoint = _endpoint(request)
        asked = await read_body(request, _CHANGE_KEYS)
        rev = wanted_revision(request)
        state = asked.pop("state", None)
        change = EndpointChange(**asked, active=None if state is None else state == "active")
        for tries_left in reversed(range(_TRIES)):
            seen = await self._permitted(request, caller, endpoint, change)
            try:
                with told_by_field(), told_as_condition(rev):
                    changed = await self._webhooks.update(
                        caller.tenant, endpoint, change, seen=seen, rev=rev
                    )
            except VersionConflictError:
                if not tries_left:
                    raise
                continue
            break
        return web.json_response(changed, headers=tag_of(changed["rev"]))

    async def _permitted(
        self, request: web.Request, caller: Caller, endpoint: str, change: EndpointChange
    ) -> Target | None:
        """The target that a change was permitted for; None: it is of no account."""
        action = "webhook.update"
        told = (change.url, change.types, change.path_patterns)
        if not change.active and told == (None, None, None):
            await _note(request, action, endpoint, active=change.active)
            return None
        try:
            seen = await self._webhooks.target(caller.tenant, endpoint)
        except NotFoundError:
            await _note(request, action, endpoint)
            raise
        wanted = seen.changed(change)
        with told_by_field():
            self._webhooks.check(wanted)
        await self._require(request, action, wanted, endpoint)
        return seen

    async def delete(self, request: web.Request, caller: Caller) -> web.Response:
        await _nothing_asked(request)
        endpoint = _endpoint(request)
        rev = wanted_revision(request)
        await _note(request, "webhook.delete", endpoint)
        with told_as_condition(rev):
            await self._webhooks.delete(caller.tenant, endpoint, rev=rev)
        return web.Response(status=204)

    async def list_deliveries(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _DELIVERIES_QUERY)
        page = await self._webhooks.deliveries(
            caller.tenant,
            _endpoint(request),
            state=asked.get("state"),
            limit=asked.get("limit", _PAGE),
            cursor=asked.get("cursor"),
        )
        return web.json_response(page)

    async def test(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        await _nothing_asked(request)
        endpoint = _endpoint(request)
        await _note(request, "webhook.test", endpoint)

        async def send() -> web.Response:
            return web.json_response(await self._webhooks.send_test(caller.tenant, endpoint))

        return await once(request, await request.read(), send)

    async def replay(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        endpoint = _endpoint(request)
        asked = await read_body(request, _REPLAY_KEYS)
        event: str | None = asked.get("event_id")
        await _note(request, "webhook.replay", endpoint, **asked)

        async def again() -> web.Response:
            many = await self._webhooks.replay(caller.tenant, endpoint, event=event)
            return web.json_response({"id": endpoint, "replayed": many})

        return await once(request, await request.read(), again)

    async def rotate(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        endpoint = _endpoint(request)
        asked = await read_body(request, _ROTATE_KEYS)
        at_once = asked.get("at_once", False)
        await _note(request, "webhook.rotate", endpoint, at_once=at_once)

        async def turn() -> web.Response:
            made = await self._webhooks.rotate_secret(caller.tenant, endpoint, at_once=at_once)
            return web.json_response(made)

        return await once(request, await request.read(), turn, holds_secret=True)

    async def _require(
        self, request: web.Request, action: str, target: Target, endpoint: str | None = None
    ) -> None:
        """Raises ForbiddenError, recorded, where the caller may not have this told there."""
        about = {
            **({} if endpoint is None else {"webhook": endpoint}),
            "host": _host(target.url),
            "types": list(target.wants.types),
            "path_patterns": list(target.wants.path_patterns),
        }
        await self._rights.require(
            call_of(request), request[RIGHTS].permissions, target.wants, action, about
        )


async def _note(request: web.Request, action: str, endpoint: str, **about: object) -> None:
    detail = json.dumps({"webhook": endpoint, **about})
    await request.app[AUTHORIZING].note(call_of(request), action, detail=detail)


def _host(url: str) -> str | None:
    """The rest of a URL may be a secret between its owner and us."""
    with suppress(ValueError):
        return urlsplit(url).hostname
    return None


def _endpoint(request: web.Request) -> str:
    """The id in the path. What cannot be one is as unknown as any other."""
    given = request.match_info["id"]
    if not _ENDPOINT.fullmatch(given):
        raise NotFoundError(
            "there is no such endpoint: `GET /v1/webhooks` shows those there are",
            code="webhook_not_found",
        )
    return given


async def _nothing_asked(request: web.Request) -> None:
    read_query(request, ())
    await read_body(request, ())
