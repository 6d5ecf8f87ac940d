"""Static tokens over HTTP: listed without what they are made of, made and shown once, revoked.

A token speaks for whomever it names, with all that policies give them. So only who may do
everything in the tenant anyway makes one.
"""

import json
from typing import Any, Final

from aiohttp import web

from svsync.config.document import Node
from svsync.config.kinds import Key, Kind, choice, duration, integer, sequence, text, text_of
from svsync.domain.access import Caller, Identity, Scope
from svsync.domain.errors import UsageError
from svsync.http.body import RequestError, read_body, read_query
from svsync.http.idempotency import once
from svsync.http.identity import AUTHORIZING, call_of, for_scope
from svsync.services.access import Access

_PAGE: Final = 100
_DAY_S: Final = 86_400
_LASTS_S: Final = 90 * _DAY_S
"""How long a token is good where nobody says otherwise."""
_NEVER: Final = "never"


def _read_identity(node: Node) -> Identity:
    try:
        return Identity.parse(text_of(node, "an identity"))
    except UsageError as problem:
        raise node.error(problem.message) from None


def _read_expiry(node: Node) -> int | None:
    if node.value == _NEVER:
        return None
    seconds: int = _LENGTH.read(node)
    return seconds


_LENGTH: Final = duration(60, 3_650 * _DAY_S)
_EXPIRY: Final = Kind(_read_expiry, {"type": "string"}, "how long it is good: 12h, 30d, or never")
_ID: Final = text(r"tok_[0-9a-f]{32}", "the next_cursor of the page before")
_LIST_QUERY: Final = (
    Key("limit", integer(1, 1000), "Items of one page."),
    Key("cursor", _ID, "Go on there."),
)
_CREATE_KEYS: Final = (
    Key(
        "identity_id",
        Kind(_read_identity, {"type": "string"}, "an identity"),
        "Who calls with it.",
        required=True,
    ),
    Key(
        "scopes",
        sequence(choice(Scope), "a list of scopes", max_items=len(Scope)),
        "What it is good for.",
        required=True,
    ),
    Key("expires_in", _EXPIRY, "How long it is good."),
)


class TokenRoutes:
    """`/v1/auth/tokens` and below."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        tokens = "/v1/auth/tokens"
        # What is no id is no route, and in no log: it may be a token's own text.
        one = tokens + "/{token_id:tok_[0-9a-f]{32}}"
        return [
            web.get(tokens, for_scope(Scope.ADMIN, "token.list", self.list_tokens)),
            # Recorded by the handlers, with what they are about.
            web.post(tokens, for_scope(Scope.ADMIN, "token.create", self.create, recorded=False)),
            web.delete(one, for_scope(Scope.ADMIN, "token.revoke", self.revoke, recorded=False)),
        ]

    async def list_tokens(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _LIST_QUERY)
        limit = asked.get("limit", _PAGE)
        found = await self._access.list_tokens(
            caller.tenant, before=asked.get("cursor"), limit=limit + 1
        )
        following = found[limit - 1]["token_id"] if len(found) > limit else None
        return web.json_response({"tokens": found[:limit], "next_cursor": following})

    async def create(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        asked = await read_body(request, _CREATE_KEYS)
        identity: Identity = asked["identity_id"]
        scopes: tuple[Scope, ...] = asked["scopes"]
        if not scopes:
            raise RequestError(
                422, "is empty: a token without a scope is good for nothing",
                code="invalid_field", field="scopes",
            )  # fmt: skip
        lasts = asked.get("expires_in", _LASTS_S)
        about = {
            "identity_id": identity.id,
            "scopes": list(map(str, scopes)),
            "expires_in": lasts,
        }
        await _note(request, "token.create", **about)

        async def make() -> web.Response:
            made = await self._access.create(
                caller.tenant, identity, scopes, expires_in=lasts, by=caller.identity.id
            )
            told = {"token_id": made.token_id, "token": made.text.reveal(), **made.about}
            return web.json_response(told, status=201)

        return await once(request, await request.read(), make, holds_secret=True)

    async def revoke(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        await read_body(request, ())
        token_id = request.match_info["token_id"]
        await _note(request, "token.revoke", token_id=token_id)
        await self._access.revoke(caller.tenant, token_id)
        return web.Response(status=204)


async def _note(request: web.Request, action: str, **about: Any) -> None:
    await request.app[AUTHORIZING].note(call_of(request), action, detail=json.dumps(about))
