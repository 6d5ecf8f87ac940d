"""Conflicts over HTTP: listed, looked at side by side, and resolved.

Values are shown only to who asks for them and may `reveal` the path, and each look at them
is recorded before they are opened.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from svsync.config.document import Node
from svsync.config.kinds import BOOLEAN, Key, Kind, choice, integer, text, text_of
from svsync.domain.access import Caller, Scope
from svsync.domain.audit import Decision
from svsync.domain.errors import NotFoundError
from svsync.domain.ids import LocalPath
from svsync.domain.paths import IllegalPath, parse_local
from svsync.domain.policies import Permission
from svsync.domain.resolutions import Resolution
from svsync.domain.values import Payload
from svsync.http.body import RequestError, read_query, read_value_body
from svsync.http.federation import backend_named
from svsync.http.idempotency import once
from svsync.http.identity import AUTHORIZING, RIGHTS, call_of, for_scope
from svsync.http.values import unusable_value, value_of
from svsync.services.conflict_sides import Shown
from svsync.services.conflicts import Conflicts

MOST_REVEALED: Final = 50
"""Conflicts of one page whose values are shown."""
_PAGE: Final = 100
_SIDES: Final = {
    Resolution.USE_LOCAL: ("local", "local_version"),
    Resolution.USE_REMOTE: ("remote", "remote_token"),
}
"""The side that each takes, and what names it."""
_KNOWN_BY: Final = (Permission.LIST, Permission.READ, Permission.REVEAL)
"""With any of these somebody may know that a path is in conflict."""


def _read_path(node: Node) -> LocalPath:
    try:
        return parse_local(text_of(node, "a local path"))
    except IllegalPath as problem:
        raise node.error(problem.message, code="illegal_path") from None


_PATH: Final = Kind(_read_path, {"type": "string"}, "a local path")
_ID: Final = text(r"cfl_[0-9a-f]{32}", "a conflict's id")
_QUERY: Final = (
    Key("limit", integer(1, 1000), "Items of one page."),
    Key("cursor", _ID, "Go on there."),
    Key("state", choice(("open", "all")), "Those that wait, or all."),
    Key("path", _PATH, "That of this path alone, side by side."),
    Key("conflict_id", _ID, "This one of the path."),
    Key("reveal", BOOLEAN, "With both values."),
)
_RESOLVE_KEYS: Final = (
    Key("path", _PATH, "Whose.", required=True),
    Key("resolution", choice(Resolution), "What counts.", required=True),
    Key("conflict_id", _ID, "Only if it is this one that waits."),
    Key("local_version", integer(0, 2**31 - 1), "Only if the local side is at this version."),
    Key(
        "remote_token",
        text(r"[!-~]+", "the remote_token of a conflict"),
        "Only if the remote side is this one.",
    ),
)


class ConflictRoutes:
    """`/v1/federation/backends/{id}/conflicts` and below."""

    def __init__(self, conflicts: Conflicts) -> None:
        self._conflicts = conflicts

    def routes(self) -> list[web.RouteDef]:
        conflicts = "/v1/federation/backends/{id}/conflicts"
        return [
            web.get(
                conflicts,
                for_scope(Scope.FEDERATION_READ, "federation.conflicts", self.list_conflicts),
            ),
            # Recorded by the handler, with the path and what is decided.
            web.post(
                f"{conflicts}/resolve",
                for_scope(Scope.FEDERATION_WRITE, "conflict.resolve", self.resolve, recorded=False),
            ),
        ]

    async def list_conflicts(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _QUERY)
        if "conflict_id" in asked and "path" not in asked:
            raise RequestError(
                422, "is one of a path: name that too", code="invalid_field", field="conflict_id"
            )
        reveal = asked.get("reveal", False)
        backend = backend_named(request)
        limit = asked.get("limit", _PAGE)
        if "path" in asked:
            return await self._one(request, caller, asked)
        page: dict[str, Any] = await self._conflicts.list_conflicts(
            caller.tenant,
            backend,
            closed=asked.get("state") == "all",
            limit=min(limit, MOST_REVEALED) if reveal else limit,
            cursor=asked.get("cursor", ""),
            may_know=lambda path: _may_any(request, path),
        )
        items = [
            await self._side_by_side(request, caller, found, reveal=True)
            if reveal
            else json.dumps(found).encode()
            for found in page["conflicts"]
        ]
        return _page_of(page["backend_id"], items, page["next_cursor"])

    async def _one(
        self, request: web.Request, caller: Caller, asked: Mapping[str, Any]
    ) -> web.Response:
        """The conflict of one path, side by side; an empty page where there is none, and where
        the caller may not know."""
        backend, found = await self._conflicts.standing(
            caller.tenant,
            backend_named(request),
            asked["path"],
            conflict_id=asked.get("conflict_id"),
        )
        items = []
        if found is not None and _may_any(request, asked["path"]):
            reveal = asked.get("reveal", False)
            items.append(await self._side_by_side(request, caller, found, reveal=reveal))
        return _page_of(backend, items, None)

    async def _side_by_side(
        self, request: web.Request, caller: Caller, about: Mapping[str, Any], *, reveal: bool
    ) -> bytes:
        """A conflict with as much of its two sides as the caller may see: names and sizes of
        fields with `read` or `reveal`, values with `reveal`. Recorded before any is opened."""
        path = about["path"]
        shows = reveal and _may(request, path, Permission.REVEAL)
        if reveal:
            await _note(request, "conflict.reveal", about, allowed=shows)
        if not shows:
            if not _may(request, path, Permission.READ, Permission.REVEAL):
                return _joined(about, b"null") if reveal else json.dumps(about).encode()
            await _note(request, "conflict.show", about, allowed=True)
        try:
            found = await self._conflicts.show(
                caller.tenant, backend_named(request), path, conflict_id=about["conflict_id"]
            )
        except NotFoundError:  # its time is over
            return _joined(about, b"null") if reveal else json.dumps(about).encode()
        values = _values(found) if shows else b"null"
        return _joined(found.about, values) if reveal else json.dumps(found.about).encode()

    async def resolve(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        backend = backend_named(request)
        asked, exact = await read_value_body(request, _RESOLVE_KEYS, "data")
        path, resolution = asked["path"], Resolution(asked["resolution"])
        payload = _payload(exact, resolution)
        await _require(request, Permission.WRITE, path, resolution)
        seen: dict[str, Any] = {
            name: asked[name]
            for name in ("conflict_id", "local_version", "remote_token")
            if name in asked
        }
        if resolution is not Resolution.USE_VALUE:
            seen = await self._may_take(request, caller, path, resolution) | seen

        async def settle() -> web.Response:
            done = await self._conflicts.resolve(
                caller.tenant,
                backend,
                path,
                resolution,
                payload=payload,
                by=caller.identity.id,
                **seen,
            )
            return web.json_response(done)

        return await once(request, await request.read(), settle)

    async def _may_take(
        self, request: web.Request, caller: Caller, path: LocalPath, resolution: Resolution
    ) -> dict[str, Any]:
        """Taking a side that is deleted deletes the other one, here or in the backend, which
        takes `delete`. It is decided about the side that stands now, so no other may be taken
        then; what names it is given."""
        _, found = await self._conflicts.standing(caller.tenant, backend_named(request), path)
        if found is None or found["state"] != "open":
            return {}  # nothing waits, and that is what will be said
        side, name = _SIDES[resolution]
        if found[side] == "deleted":
            await _require(request, Permission.DELETE, path, resolution)
        return {"conflict_id": found["conflict_id"], name: found[name]}


# --- who may see what ---------------------------------------------------------------


def _may(request: web.Request, path: str, *permissions: Permission) -> bool:
    given = request[RIGHTS].permissions
    return any(given.decide(path, one) is not None for one in permissions)


def _may_any(request: web.Request, path: str) -> bool:
    return _may(request, path, *_KNOWN_BY)


async def _require(
    request: web.Request, permission: Permission, path: str, resolution: Resolution
) -> None:
    await request.app[AUTHORIZING].require(
        call_of(request), request[RIGHTS].permissions, permission, path, "conflict.resolve",
        scope=Scope.FEDERATION_WRITE, backend=backend_named(request),
        detail=json.dumps({"resolution": str(resolution), "permission": str(permission)}),
    )  # fmt: skip


async def _note(
    request: web.Request, action: str, about: Mapping[str, Any], *, allowed: bool
) -> None:
    await request.app[AUTHORIZING].note(
        call_of(request),
        action,
        path=about["path"],
        backend=backend_named(request),
        detail=json.dumps({"conflict_id": about["conflict_id"]}),
        decision=Decision.ALLOW if allowed else Decision.DENY,
    )


# --- values -------------------------------------------------------------------------


def _values(found: Shown) -> bytes:
    """Both values, each byte for byte as it is kept."""
    sides = {b"local": found.local, b"remote": found.remote}
    return b"{%b}" % b", ".join(
        b'"%b": %b' % (side, b"null" if value is None else value.data_text())
        for side, value in sides.items()
    )


def _joined(about: Mapping[str, Any], values: bytes) -> bytes:
    return json.dumps(about).encode().removesuffix(b"}") + b', "values": %b}' % values


def _page_of(backend: str, items: list[bytes], following: str | None) -> web.Response:
    body = b'{"backend_id": %b, "conflicts": [%b], "next_cursor": %b}' % (
        json.dumps(backend).encode(),
        b", ".join(items),
        json.dumps(following).encode(),
    )
    return web.Response(body=body, content_type="application/json")


def _payload(exact: str | None, resolution: Resolution) -> Payload | None:
    """The value that `use_value` brings. Raises RequestError; nothing of it is in that."""
    if resolution is not Resolution.USE_VALUE:
        if exact is not None:
            raise unusable_value("is for use_value alone: leave it out")
        return None
    if exact is None:
        raise unusable_value("is missing: use_value takes the value there")
    return value_of(exact)
