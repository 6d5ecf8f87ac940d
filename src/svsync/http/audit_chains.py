"""The chains of the audit log over HTTP: how far they go, and how far that is signed."""

from typing import Final

from aiohttp import web

from svsync.config.kinds import Key, integer, text
from svsync.domain.access import Caller, Scope
from svsync.http.body import read_query
from svsync.http.identity import for_scope
from svsync.services.audit_chains import AuditChains

_PAGE: Final = 100
_QUERY: Final = (
    Key("limit", integer(1, 1000), "Items of one page."),
    Key("cursor", text(r"[1-9][0-9]{0,17}", "the next_cursor of the page before"), "Go on there."),
)


class AuditChainRoutes:
    """`/v1/audit/chains`."""

    def __init__(self, chains: AuditChains) -> None:
        self._chains = chains

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/audit/chains", for_scope(Scope.AUDIT_READ, "audit.chains", self.look))]

    async def look(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _QUERY)
        before = asked.get("cursor")
        found = await self._chains.look(
            caller.tenant,
            limit=asked.get("limit", _PAGE),
            before=None if before is None else int(before),
        )
        return web.json_response(found)
