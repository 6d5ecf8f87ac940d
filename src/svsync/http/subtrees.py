"""How far a migration is, over HTTP."""

from datetime import timedelta
from typing import Final

from aiohttp import web

from svsync.config.document import Node
from svsync.config.kinds import Key, Kind, duration, text_of
from svsync.domain.access import Caller, Scope
from svsync.domain.paths import IllegalPath, parse_local
from svsync.http.body import read_query
from svsync.http.identity import RIGHTS, for_scope
from svsync.services.subtrees import Subtrees

_DAY_S: Final = 86_400
_IDLE_S: Final = 7 * _DAY_S
"""As the guides have it, where nobody says otherwise."""


def _read_folder(node: Node) -> str:
    given = text_of(node, "a folder of local paths").removesuffix("/")
    if not given:
        return ""
    try:
        return parse_local(given) + "/"
    except IllegalPath as problem:
        raise node.error(problem.message, code="illegal_path") from None


_QUERY: Final = (
    Key("prefix", Kind(_read_folder, {"type": "string"}, "a folder"), "Below what."),
    Key("idle", duration(60, 365 * _DAY_S), "Within what an application must have read here."),
)


class SubtreeRoutes:
    """`/v1/migration`."""

    def __init__(self, subtrees: Subtrees) -> None:
        self._subtrees = subtrees

    def routes(self) -> list[web.RouteDef]:
        look = for_scope(Scope.FEDERATION_READ, "federation.migration", self.look)
        return [web.get("/v1/migration", look)]

    async def look(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _QUERY)
        idle = timedelta(seconds=asked.get("idle", _IDLE_S))
        permissions = request[RIGHTS].permissions
        found = await self._subtrees.look(caller, permissions, asked.get("prefix", ""), idle)
        return web.json_response(found)
