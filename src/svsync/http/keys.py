"""Keys over HTTP: how old each is, how it stands, and how much it seals."""

from aiohttp import web

from svsync.domain.access import Caller, Scope
from svsync.http.body import read_query
from svsync.http.identity import for_scope
from svsync.services.keys import Keys


class KeyRoutes:
    """`/v1/keys`."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/keys", for_scope(Scope.ADMIN, "keys.status", self.list_keys))]

    async def list_keys(self, request: web.Request, caller: Caller) -> web.Response:
        """What wraps the root keys is the operator's, and no tenant's to know."""
        read_query(request, ())
        return web.json_response({"keys": await self._keys.ages(caller.tenant)})
