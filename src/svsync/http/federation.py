"""Backends over HTTP: looked at, paused, resumed, and asked to run."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from aiohttp import web

from svsync.config.backend_keys import BACKEND_ID
from svsync.config.document import Node
from svsync.config.kinds import BOOLEAN, Key, Kind, choice, integer, sequence, text, text_of
from svsync.domain.access import Caller, Scope
from svsync.domain.errors import ConfigError, NotFoundError
from svsync.domain.ids import BackendId, RunId, TenantId
from svsync.domain.patterns import Pattern, PatternError
from svsync.http.body import RequestError, read_body, read_query
from svsync.http.identity import CallersHandler, Handler, for_scope
from svsync.http.replica import aged
from svsync.services.federation import IN_BRIEF, Federation
from svsync.services.overview import Overview
from svsync.services.removal import Removal
from svsync.services.reports import Reports

MAX_PATHS: Final = 1_000
"""Paths of one trigger; beyond that a full run is the better question."""


MOST_NAMED: Final = 100
"""Backends that one question names."""
MOST_LAST: Final = 50
"""Last runs of each of them."""


class Triggered(Protocol):
    """A run that waits now. `coalesced`: it waited already."""

    @property
    def run_id(self) -> RunId: ...

    @property
    def coalesced(self) -> bool: ...


class Trigger(Protocol):
    async def trigger(
        self,
        tenant: TenantId,
        backend: str,
        *,
        paths: Sequence[str] | None,
        full: bool,
        allow: Sequence[str],
    ) -> Triggered:
        """Queue a run of a backend: of some local paths or globs, or a full one.

        Raises:
            NotFoundError: there is no such backend.
            ConfigError: `backend_paused`, `not_synced`: it cannot run.
        """
        ...


def _read_glob(node: Node) -> str:
    given = text_of(node, "a local path or a glob")
    try:
        Pattern.parse(given)
    except PatternError as problem:
        raise node.error(f"is no local path or glob: {problem}") from None
    return given


_GLOB: Final = Kind(_read_glob, {"type": "string"}, "a local path or a glob")
_GUARDS: Final = choice(("mass_delete", "mass_overwrite", "mass_regression"))
PATHS: Final = Key("paths", sequence(_GLOB, "a list of paths", max_items=MAX_PATHS), "Only these.")
_SYNC_KEYS: Final = (
    PATHS,
    Key("full", BOOLEAN, "Everything."),
    Key("allow", sequence(_GUARDS, "a list of guards", max_items=3), "Guards to pass by."),
)
_LIMIT: Final = Key("limit", integer(1, 1000), "Items of one page.")
_RUNS_QUERY: Final = (
    _LIMIT,
    Key("cursor", text(r"run_[0-9a-f]{32}", "the next_cursor of the page before"), "Go on there."),
)
_BACKENDS_QUERY: Final = (_LIMIT, Key("cursor", BACKEND_ID, "Go on there."))


def _read_ids(node: Node) -> tuple[BackendId, ...]:
    ids = text_of(node, "ids of backends").split(",")
    if len(ids) > MOST_NAMED:
        raise node.error(f"names more than {MOST_NAMED} backends: ask in parts")
    try:
        return tuple(BackendId(BACKEND_ID.read(Node(one))) for one in ids)
    except ConfigError:
        raise node.error("must be ids of backends, with commas between them") from None


_IDS: Final = Kind(_read_ids, {"type": "string"}, "ids of backends")
_STATUS_QUERY: Final = (*_BACKENDS_QUERY, Key("backend_ids", _IDS, "These alone."))
_LAST_QUERY: Final = (
    Key("backend_ids", _IDS, "Whose.", required=True),
    Key("last", integer(1, MOST_LAST), "So many of each."),
)
_PAGE: Final = 100


class FederationRoutes:
    """`/v1/federation/status` and `runs`, `/v1/federation/backends` and below."""

    def __init__(
        self,
        federation: Federation,
        overview: Overview,
        removal: Removal,
        reports: Reports,
        scheduling: Trigger,
    ) -> None:
        self._federation = federation
        self._overview = overview
        self._removal = removal
        self._reports = reports
        self._scheduling = scheduling

    def routes(self) -> list[web.RouteDef]:
        backends = "/v1/federation/backends"
        one = backends + "/{id}"

        def shown(action: str, handler: CallersHandler) -> Handler:
            # It changes nothing, and names no secret but those that a run left out.
            return for_scope(Scope.FEDERATION_READ, action, handler, recorded=False)

        def done(action: str, handler: CallersHandler) -> Handler:
            return for_scope(Scope.FEDERATION_WRITE, action, handler)

        return [
            web.get("/v1/federation/status", shown("federation.overview", self.look)),
            web.get("/v1/federation/runs", aged(shown("federation.runs", self.last_runs))),
            web.get(backends, shown("federation.list", self.list_backends)),
            web.get(f"{one}/status", shown("federation.status", self.status)),
            web.get(f"{one}/runs", aged(shown("federation.runs", self.list_runs))),
            web.get(one + "/runs/{run}", aged(shown("federation.run", self.show_run))),
            web.post(f"{one}/sync", done("federation.sync", self.sync)),
            web.post(f"{one}/pause", done("federation.pause", self.pause)),
            web.post(f"{one}/resume", done("federation.resume", self.resume)),
        ]

    async def list_backends(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _BACKENDS_QUERY)
        limit = asked.get("limit", _PAGE)
        found: list[dict[str, Any]] = await self._federation.list_backends(
            caller.tenant, after=asked.get("cursor", ""), limit=limit + 1
        )
        page = [{name: backend[name] for name in IN_BRIEF} for backend in found[:limit]]
        following = page[-1]["id"] if len(found) > limit else None
        return web.json_response({"backends": page, "next_cursor": following})

    async def look(self, request: web.Request, caller: Caller) -> web.Response:
        """What all tenants share, processes and the stop of all runs, is no tenant's to know."""
        asked = read_query(request, _STATUS_QUERY)
        page = await self._overview.page(
            caller.tenant,
            only=asked.get("backend_ids"),
            after=asked.get("cursor", ""),
            limit=asked.get("limit", _PAGE),
        )
        return web.json_response(page)

    async def last_runs(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _LAST_QUERY)
        found = await self._reports.last(
            caller.tenant, asked["backend_ids"], each=asked.get("last", MOST_LAST)
        )
        return web.json_response({"backends": found})

    async def status(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        found = await self._federation.status(caller.tenant, backend_named(request))
        found["last_run"] = await self._reports.brief(caller.tenant, found["last_run"])
        return web.json_response(found)

    async def list_runs(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _RUNS_QUERY)
        runs, following = await self._reports.page(
            caller.tenant,
            backend_named(request),
            limit=asked.get("limit", _PAGE),
            before=asked.get("cursor"),
        )
        return web.json_response({"runs": runs, "next_cursor": following})

    async def show_run(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        backend, run = backend_named(request), request.match_info["run"]
        return web.json_response(await self._reports.show(caller.tenant, backend, run))

    async def sync(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        backend = backend_named(request)
        asked = await read_body(request, _SYNC_KEYS)
        paths: tuple[str, ...] | None = asked.get("paths")
        if paths is not None and asked.get("full"):
            raise RequestError(
                422, "is for everything: leave it or paths out", code="invalid_field", field="full"
            )
        if paths == ():
            raise RequestError(
                422, "names nothing: leave it out for a full run", code="invalid_field",
                field="paths",
            )  # fmt: skip
        made = await self._scheduling.trigger(
            caller.tenant,
            backend,
            paths=paths,
            full=paths is None,
            allow=asked.get("allow", ()),
        )
        return web.json_response({"run_id": made.run_id, "coalesced": made.coalesced}, status=202)

    async def pause(self, request: web.Request, caller: Caller) -> web.Response:
        await _nothing_asked(request)
        done = await self._removal.pause(caller.tenant, backend_named(request))
        return web.json_response({"id": done, "state": "paused"})

    async def resume(self, request: web.Request, caller: Caller) -> web.Response:
        await _nothing_asked(request)
        done = await self._removal.resume(caller.tenant, backend_named(request))
        return web.json_response({"id": done, "state": "active"})


async def _nothing_asked(request: web.Request) -> None:
    read_query(request, ())
    await read_body(request, ())


def backend_named(request: web.Request) -> BackendId:
    """The id in the path. What cannot be one is as unknown as any other."""
    given = request.match_info["id"]
    try:
        return BackendId(BACKEND_ID.read(Node(given)))
    except ConfigError:
        raise NotFoundError("there is no such backend", code="backend_not_found") from None
