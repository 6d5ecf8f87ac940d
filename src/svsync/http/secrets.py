"""Secrets over HTTP."""

from dataclasses import replace
from typing import Final

from aiohttp import web

from svsync.config.kinds import Key, integer
from svsync.domain.ids import LocalPath
from svsync.domain.paths import IllegalPath, parse_local
from svsync.http.body import RequestError, read_query
from svsync.http.identity import FRESH, RIGHTS, bearer, call_of, recalling
from svsync.services.authority import Authority
from svsync.services.reading import Reading, StaleRightsError

_READ_QUERY: Final = (Key("version", integer(1, 2**31 - 1), "An earlier version."),)


class SecretRoutes:
    """`/v1/secrets` and below."""

    def __init__(self, reading: Reading, authority: Authority) -> None:
        self._reading = reading
        self._authority = authority

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/secrets/{path:.+}", recalling(self.read))]

    async def read(self, request: web.Request) -> web.Response:
        asked = read_query(request, _READ_QUERY) if request.query_string else {}
        path = path_of(request)
        rights, fresh = request[RIGHTS], FRESH in request
        call = call_of(request)
        version = asked.get("version")
        try:
            found = await self._reading.read(call, rights, path, version, fresh=fresh)
        except StaleRightsError:
            rights = request[RIGHTS] = await self._authority.verify(bearer(request))
            call = replace(call, caller=rights.caller)
            found = await self._reading.read(call, rights, path, version, fresh=True)
        headers = {} if found.version is None else {"ETag": f'"v{found.version}"'}
        if found.in_conflict:
            headers["X-SVSync-Conflict"] = "true"
        if found.source is not None:
            headers["X-SVSync-Source"] = str(found.source)
        return web.Response(body=found.body, content_type="application/json", headers=headers)


def path_of(request: web.Request) -> LocalPath:
    """The secret's path. Raises RequestError: no secret can have it."""
    try:
        return parse_local(request.match_info["path"])
    except IllegalPath as error:
        raise RequestError(422, error.message, code="illegal_path", field="path") from None
