"""A backend's mapping over HTTP, tried on some paths."""

from typing import Final

from aiohttp import web

from svsync.config.document import Node
from svsync.config.kinds import Key, Kind, sequence, text_of
from svsync.domain.access import Caller, Scope
from svsync.http.body import RequestError, read_body, read_query
from svsync.http.federation import backend_named
from svsync.http.identity import RIGHTS, for_scope
from svsync.services.mapping_tests import MappingTests

MOST_PATHS: Final = 100
"""Of one test."""
_LONGEST: Final = 4_096
"""Characters of a path: no backend's names are longer."""


def _read_path(node: Node) -> str:
    given = text_of(node, "a path")
    if not 1 <= len(given) <= _LONGEST:
        raise node.error(f"must have 1 to {_LONGEST:,} characters")
    if any("\ud800" <= letter <= "\udfff" for letter in given):
        raise node.error("is no text: it holds half a character")
    return given


_PATH: Final = Kind(_read_path, {"type": "string"}, "a path")
_KEYS: Final = (
    Key("paths", sequence(_PATH, "a list of paths", max_items=MOST_PATHS), "Which.", required=True),
)


class MappingTestRoutes:
    """`/v1/federation/backends/{id}/map/test`."""

    def __init__(self, tests: MappingTests) -> None:
        self._tests = tests

    def routes(self) -> list[web.RouteDef]:
        test = for_scope(Scope.FEDERATION_READ, "federation.map_test", self.test)
        return [web.post("/v1/federation/backends/{id}/map/test", test)]

    async def test(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        backend = backend_named(request)
        paths: tuple[str, ...] = (await read_body(request, _KEYS))["paths"]
        if not paths:
            raise RequestError(
                422, "names nothing: give it one path at least", code="invalid_field",
                field="paths",
            )  # fmt: skip
        permissions = request[RIGHTS].permissions
        return web.json_response(await self._tests.test(caller.tenant, permissions, backend, paths))
