"""Backends over HTTP: made, changed, removed, tried; and the state of their secrets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from svsync.config.backend_document import describe_stored
from svsync.config.kinds import BOOLEAN, Key, choice, integer, text
from svsync.domain.access import Caller, Scope
from svsync.domain.changes import PairStatus
from svsync.domain.errors import ConfigError, UsageError
from svsync.http.body import RequestError, read_body, read_document, read_query
from svsync.http.federation import backend_named
from svsync.http.idempotency import once
from svsync.http.identity import RIGHTS, CallersHandler, Handler, call_of, for_scope
from svsync.http.revisions import tag_of, told_as_condition, wanted_revision
from svsync.services.backends import ManagedBackends
from svsync.services.federation import Federation
from svsync.services.pair_states import PairStates
from svsync.services.removal import Removal

_CREATE_QUERY: Final = (Key("require_healthy", BOOLEAN, "Make it only if it is healthy."),)
_DELETE_QUERY: Final = (
    Key("local_copies", choice(("keep", "purge")), "What becomes of what is here."),
)
_LIMIT: Final = Key("limit", integer(1, 1000), "Items of one page.")
_CURSOR: Final = text(r"[^\x00-\x1f\x7f]+", "the next_cursor of the page before", max_length=5000)
_STATES_QUERY: Final = (
    _LIMIT,
    Key("cursor", _CURSOR, "Go on there."),
    Key("prefix", text(r"[A-Za-z0-9._/-]*", "the beginning of local paths"), "Only these."),
    Key("state", choice(PairStatus), "These alone."),
)
_PAGE: Final = 100


class BackendRoutes:
    """What makes, changes and tries backends, in `/v1/federation/backends`."""

    def __init__(
        self,
        backends: ManagedBackends,
        federation: Federation,
        removal: Removal,
        states: PairStates,
    ) -> None:
        self._backends = backends
        self._federation = federation
        self._removal = removal
        self._states = states

    def routes(self) -> list[web.RouteDef]:
        backends = "/v1/federation/backends"
        one = backends + "/{id}"

        def managed(action: str, handler: CallersHandler) -> Handler:
            # Recorded by the service, with what was decided.
            return for_scope(Scope.FEDERATION_WRITE, action, handler, recorded=False)

        def shown(action: str, handler: CallersHandler, *, recorded: bool) -> Handler:
            return for_scope(Scope.FEDERATION_READ, action, handler, recorded=recorded)

        return [
            web.post(backends, managed("federation.create", self.create)),
            web.get(one, shown("federation.show", self.show, recorded=False)),
            web.patch(one, managed("federation.update", self.change)),
            web.delete(one, managed("federation.delete", self.delete)),
            web.post(
                f"{one}/test", for_scope(Scope.FEDERATION_WRITE, "federation.test", self.test)
            ),
            # It names secrets, so it is recorded.
            web.get(f"{one}/secrets", shown("federation.secrets", self.list_states, recorded=True)),
        ]

    async def create(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        asked = read_query(request, _CREATE_QUERY)
        body = await read_document(request)
        with _told_by_field():
            wanted = await self._backends.prepare(
                call_of(request), request[RIGHTS].permissions, body
            )

        async def make() -> web.Response:
            with _told_by_field():
                made = await self._backends.create(
                    call_of(request), wanted, require_healthy=asked.get("require_healthy", False)
                )
            headers = {"Location": f"/v1/federation/backends/{made['id']}"}
            return web.json_response(made, status=201, headers=headers)

        return await once(request, await request.read(), make)

    async def show(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        return await self._shown(caller, backend_named(request))

    async def change(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        backend = backend_named(request)
        patch = await read_document(request)
        rev = wanted_revision(request)
        with told_as_condition(rev), _told_by_field():
            await self._backends.change(
                call_of(request), request[RIGHTS].permissions, backend, patch, rev=rev
            )
        return await self._shown(caller, backend)

    async def delete(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _DELETE_QUERY)
        backend = backend_named(request)
        await read_body(request, ())
        rev = wanted_revision(request)
        with told_as_condition(rev):
            gone = await self._backends.remove(
                call_of(request),
                request[RIGHTS].permissions,
                self._removal,
                backend,
                purge=asked.get("local_copies") == "purge",
                rev=rev,
            )
        return web.json_response(
            {
                "id": gone.backend,
                "kept": gone.kept,
                "destroyed": gone.destroyed,
                "conflicts_closed": gone.conflicts,
                "pushes_withdrawn": gone.withdrawn,
            }
        )

    async def test(self, request: web.Request, caller: Caller) -> web.Response:
        read_query(request, ())
        await read_body(request, ())
        with _told_by_field():
            found = await self._backends.test(caller.tenant, backend_named(request))
        return web.json_response(found)

    async def list_states(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _STATES_QUERY)
        state = asked.get("state")
        try:
            page = await self._states.page(
                caller.tenant,
                request[RIGHTS].permissions,
                backend_named(request),
                prefix=asked.get("prefix", ""),
                state=None if state is None else PairStatus(state),
                limit=asked.get("limit", _PAGE),
                cursor=asked.get("cursor", ""),
            )
        except UsageError as problem:
            message = problem.message.removeprefix("cursor: ")
            raise RequestError(422, message, code="invalid_field", field="cursor") from None
        return web.json_response(page)

    async def _shown(self, caller: Caller, backend: str) -> web.Response:
        """The configuration in the words of the file; a credential's reference, never itself."""
        found = await self._federation.show(caller.tenant, backend)
        document = describe_stored(found)
        return web.json_response(document, headers=tag_of(found["rev"]))


@contextmanager
def _told_by_field() -> Iterator[None]:
    """What is wrong with one field of a backend is told by its name."""
    try:
        yield
    except ConfigError as error:
        if not error.where or error.code == "mapping_overlap":
            raise
        code = "invalid_field" if error.code == ConfigError.code else error.code
        message = error.message.removeprefix(f"{error.where}: ")
        raise RequestError(422, message, code=code, field=error.where) from None
