"""Change feeds that arrive over HTTP: their door, and the secrets that open it."""

import json
from typing import Final

from aiohttp import web

from svsync.config.kinds import Key, choice
from svsync.domain.access import Caller, Scope
from svsync.domain.audit import Decision
from svsync.domain.errors import NotFoundError
from svsync.domain.feeds import HTTP_FEEDS
from svsync.http.body import RequestError, read_body, read_json, read_query, told_by_field
from svsync.http.federation import backend_named
from svsync.http.idempotency import once
from svsync.http.identity import AUTHORIZING, call_of, for_scope, for_sender
from svsync.services.feed_secrets import FeedSecrets, Sender
from svsync.services.notices import Door, Notices

_CREATE_KEYS: Final = (Key("feed", choice(HTTP_FEEDS), "Which it is for.", required=True),)
_ORIGIN: Final = "WebHook-Request-Origin"


class FeedRoutes:
    """`/v1/events`, and the secrets below a backend."""

    def __init__(self, notices: Notices, secrets: FeedSecrets) -> None:
        self._notices = notices
        self._secrets = secrets

    def routes(self) -> list[web.RouteDef]:
        # What has not the form of names is no route, and so not in the log: it may be the secret.
        door = "/v1/events/{feed:[a-z-]{1,32}}/{backend_id:[A-Za-z0-9][A-Za-z0-9_-]{0,63}}"
        secrets = "/v1/federation/backends/{id}/feed-secrets"
        read, write = Scope.FEDERATION_READ, Scope.FEDERATION_WRITE
        return [
            web.post(door, for_sender(self.take)),
            web.options(door, for_sender(self.shake_hands)),
            web.get(secrets, for_scope(read, "feed_secret.list", self.list_secrets)),
            web.post(secrets, for_scope(write, "feed_secret.create", self.create, recorded=False)),
            web.delete(
                secrets + "/{secret_id:fds_[0-9a-f]{32}}",
                for_scope(write, "feed_secret.revoke", self.revoke, recorded=False),
            ),
        ]

    # --- the door -------------------------------------------------------------------

    async def take(self, request: web.Request, sender: Sender) -> web.Response:
        door = await self._door(request, sender, "feed.notice")
        said = await read_json(request)
        with told_by_field():
            arrived = door.read(said)
        if arrived.reply is not None:
            await _note_sent(request, sender, "feed.handshake")
            return web.json_response(arrived.reply)
        named = len(arrived.paths) + arrived.unusable
        await _note_sent(request, sender, "feed.notice", paths=named)
        whole = await self._notices.take(door, arrived)
        return web.json_response({"paths": named, "full_run": whole}, status=202)

    async def shake_hands(self, request: web.Request, sender: Sender) -> web.Response:
        """CloudEvents' question whether somebody may send. The callback that it may bring is
        not called."""
        door = await self._door(request, sender, "feed.handshake")
        origin = door.reader.origin
        if not origin:
            raise web.HTTPMethodNotAllowed("OPTIONS", ["POST"])
        if request.headers.get(_ORIGIN, "").lower() != origin:
            raise RequestError(422, f"must be {origin}", code="invalid_field", field=_ORIGIN)
        await _note_sent(request, sender, "feed.handshake")
        allowed = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*", "Allow": "POST"}
        return web.json_response({"feed": sender.feed}, headers=allowed)

    async def _door(self, request: web.Request, sender: Sender, action: str) -> Door:
        named = request.match_info
        try:
            return await self._notices.door(sender, named["feed"], named["backend_id"])
        except NotFoundError:
            await _note_sent(request, sender, action, Decision.DENY)
            raise

    # --- the secrets ----------------------------------------------------------------

    async def list_secrets(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        found = await self._secrets.list_secrets(caller.tenant, backend_named(request))
        return web.json_response({"feed_secrets": found})

    async def create(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        backend = backend_named(request)
        asked = await read_body(request, _CREATE_KEYS)
        await _note(request, "feed_secret.create", backend, feed=asked["feed"])

        async def make() -> web.Response:
            with told_by_field():
                made = await self._secrets.create(
                    caller.tenant, backend, asked["feed"], by=caller.identity.id
                )
            return web.json_response(made, status=201)

        return await once(request, await request.read(), make, holds_secret=True)

    async def revoke(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        await read_body(request, ())
        backend, secret_id = backend_named(request), request.match_info["secret_id"]
        await _note(request, "feed_secret.revoke", backend, feed_secret=secret_id)
        await self._secrets.revoke(caller.tenant, secret_id, backend)
        return web.Response(status=204)


async def _note(request: web.Request, action: str, backend: str, **about: object) -> None:
    await request.app[AUTHORIZING].note(
        call_of(request), action, backend=backend, detail=json.dumps(about)
    )


async def _note_sent(
    request: web.Request,
    sender: Sender,
    action: str,
    decision: Decision = Decision.ALLOW,
    **about: object,
) -> None:
    await request.app[AUTHORIZING].note(
        call_of(request),
        action,
        backend=sender.backend,
        detail=json.dumps({"feed": sender.feed, **about}),
        decision=decision,
    )
