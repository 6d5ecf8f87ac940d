"""Plans over HTTP: what a run would do, and nothing of it is done."""

from aiohttp import web

from svsync.domain.access import Caller, Scope
from svsync.http.body import RequestError, read_body, read_query
from svsync.http.federation import PATHS, backend_named
from svsync.http.identity import RIGHTS, for_scope
from svsync.services.plans import Plans


class PlanRoutes:
    """`/v1/federation/backends/{id}/plan`."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def routes(self) -> list[web.RouteDef]:
        # It calls the backend and reads values there, as a run does.
        plan = for_scope(Scope.FEDERATION_WRITE, "federation.plan", self.plan)
        return [web.post("/v1/federation/backends/{id}/plan", plan)]

    async def plan(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        backend = backend_named(request)
        paths: tuple[str, ...] | None = (await read_body(request, (PATHS,))).get("paths")
        if paths == ():
            raise RequestError(
                422, "names nothing: leave it out for everything", code="invalid_field",
                field="paths",
            )  # fmt: skip
        found = await self._plans.plan(caller.tenant, request[RIGHTS].permissions, backend, paths)
        return web.json_response(found)
