"""Who calls, told to the caller."""

from aiohttp import web

from svsync.http.body import read_query
from svsync.http.identity import CALLER
from svsync.services.access import describe


def routes() -> list[web.RouteDef]:
    return [web.get("/v1/auth/whoami", whoami)]


async def whoami(request: web.Request) -> web.Response:
    """Whom the token vouches for. It needs no scope, and tells nothing but of itself."""
    read_query(request, ())
    return web.json_response(describe(request[CALLER]))
