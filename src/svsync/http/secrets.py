"""Secrets over HTTP."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from svsync.config.kinds import BOOLEAN, Key, integer, text
from svsync.domain.access import Caller, ForbiddenError, Scope, token_hash
from svsync.domain.audit import Decision
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    NotFoundError,
    SvsyncError,
    UsageError,
)
from svsync.domain.ids import LocalPath
from svsync.domain.paths import IllegalPath, parse_local
from svsync.domain.policies import Permission
from svsync.http.body import RequestError, read_query
from svsync.http.identity import (
    AUTHORIZING,
    FRESH,
    RIGHTS,
    bearer,
    call_of,
    for_scope,
    origin_of,
    recalling,
)
from svsync.http.replica import age_of, aged
from svsync.http.short_way import ASKED
from svsync.observe.meter import SILENT, Meter
from svsync.observe.replica_lag import told_of_lag
from svsync.services.answers import Secret
from svsync.services.authority import Authority
from svsync.services.listing import Listing, may_list
from svsync.services.proxied_answers import NotThereError
from svsync.services.reading import Reading, StaleRightsError
from svsync.services.secrets import Secrets

_PAGE: Final = 100
_FIRST: Final = 2**31 - 1
_LIMIT: Final = Key("limit", integer(1, 1000), "Items of one page.")
_READ_QUERY: Final = (
    Key("version", integer(1, 2**31 - 1), "An earlier version."),
    Key("versions", BOOLEAN, "The history in place of the secret."),
    _LIMIT,
    Key("cursor", text(r"[1-9][0-9]{0,9}", "the next_cursor of the page before"), "Go on there."),
)
_LIST_QUERY: Final = (
    Key("prefix", text(r"[A-Za-z0-9._/-]*", "the beginning of local paths"), "Only these."),
    _LIMIT,
    Key("cursor", text(r"[A-Za-z0-9._/~-]+", "the next_cursor of the page before", max_length=1024),
        "Go on there."),
)  # fmt: skip


class SecretRoutes:
    """`/v1/secrets` and below."""

    def __init__(
        self,
        reading: Reading,
        authority: Authority,
        secrets: Secrets,
        listing: Listing,
        *,
        meter: Meter = SILENT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`meter` is told of each read of a value; `clock`: seconds that never go back."""
        self._reading = reading
        self._authority = authority
        self._secrets = secrets
        self._listing = listing
        self._meter = meter
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        # Whether a list is recorded as allowed depends on its prefix.
        listed = for_scope(Scope.SECRETS_READ, "secret.list", self.list_secrets, recorded=False)
        return [
            web.get("/v1/secrets", aged(listed)),
            web.get("/v1/secrets/{path:(?s:.+)}", recalling(self.read)),
        ]

    async def read(self, request: web.Request) -> web.Response:
        path, version = path_of(request), None
        if request.query_string:
            asked = read_query(request, _READ_QUERY)
            if asked.get("versions"):
                return await self._history(request, path, asked)
            for name in ("limit", "cursor"):
                if name in asked:
                    problem = "is for versions=true"
                    raise RequestError(422, problem, code="invalid_field", field=name)
            version = asked.get("version")
        slug, began = request[RIGHTS].caller.slug, self._clock()
        try:
            found = await self._found(request, path, version)
        except Exception as failed:
            mode, status = _outcome(failed)
            self._meter.read_served(slug, mode, status, self._clock() - began)
            raise
        mode = "local" if found.source is None else "proxy"
        self._meter.read_served(slug, mode, "ok", self._clock() - began)
        headers = {} if found.version is None else {"ETag": f'"v{found.version}"'}
        if found.in_conflict:
            headers["X-SVSync-Conflict"] = "true"
        if found.source is not None:
            headers["X-SVSync-Source"] = str(found.source)
        return web.Response(body=found.body, content_type="application/json", headers=headers)

    async def _found(self, request: web.Request, path: LocalPath, version: int | None) -> Secret:
        rights, call = request[RIGHTS], call_of(request)
        asked, heard = request.get(ASKED), None
        if asked is not None:
            if asked.told.error is not None:
                raise asked.told.error  # what kept it from being recorded
            heard = asked.heard
        try:
            return await self._reading.read(
                call, rights, path, version, fresh=request[FRESH], heard=heard
            )
        except StaleRightsError:
            self._drop(request)
            rights = request[RIGHTS] = await self._authority.verify(
                bearer(request), origin_of(request)
            )
            call = replace(call, caller=rights.caller)
            return await self._reading.read(call, rights, path, version, fresh=True, heard=heard)
        except ForbiddenError as refused:
            if refused.code != ForbiddenError.code:  # its tenant is shut
                self._drop(request)
            raise

    def _drop(self, request: web.Request) -> None:
        """Where nobody vouches for a caller any more, no backend is asked for them again by what
        was remembered."""
        self._authority.drop(token_hash(bearer(request)))

    async def _history(
        self, request: web.Request, path: LocalPath, asked: dict[str, Any]
    ) -> web.Response:
        """Numbers, times and names, and no value: for whoever may read the path or list it."""
        if "version" in asked:
            raise RequestError(
                422, "is for one of them: leave it or versions out", code="invalid_field",
                field="version",
            )  # fmt: skip
        if not request[FRESH]:
            request[RIGHTS] = await self._authority.verify(bearer(request), origin_of(request))
        rights = request[RIGHTS]
        call = replace(call_of(request), caller=rights.caller)
        reads = rights.permissions.decide(path, Permission.READ) is not None
        await request.app[AUTHORIZING].require(
            call, rights.permissions, Permission.READ if reads else Permission.LIST, path,
            "secret.history", scope=Scope.SECRETS_READ,
        )  # fmt: skip
        with told_of_lag() as lags:
            found = await self._secrets.history(
                call.tenant,
                path,
                limit=asked.get("limit", _PAGE),
                before=min(int(asked.get("cursor", _FIRST)), _FIRST),
            )
        following = found["next_cursor"]
        cursor = None if following is None else str(following)
        return web.json_response({**found, "next_cursor": cursor}, headers=age_of(lags))

    async def list_secrets(self, request: web.Request, caller: Caller) -> web.Response:
        asked = read_query(request, _LIST_QUERY)
        prefix: str = asked.get("prefix", "")
        call, permissions = call_of(request), request[RIGHTS].permissions
        allowed = may_list(permissions, prefix)
        await request.app[AUTHORIZING].note(
            call, "secret.list", path=prefix or None,
            decision=Decision.ALLOW if allowed else Decision.DENY,
        )  # fmt: skip
        if not allowed:
            raise ForbiddenError(
                f"no policy lets you list anything below {prefix!r}"
                if prefix
                else "no policy lets you list anything"
            )
        try:
            page = await self._listing.page(
                call.tenant, permissions, prefix,
                limit=asked.get("limit", _PAGE), cursor=asked.get("cursor", ""),
            )  # fmt: skip
        except UsageError as error:
            raise RequestError(422, error.message, code="invalid_field", field="cursor") from None
        return web.json_response(page)


def _outcome(failed: Exception) -> tuple[str, str]:
    """How a read that was refused or failed is counted: what was asked, and what came of it."""
    paused = isinstance(failed, SvsyncError) and failed.code == "backend_paused"
    through = paused or isinstance(failed, BackendError | NotThereError)
    match failed:
        case NotFoundError():
            status = "not_found"
        case ForbiddenError():
            status = "denied"
        case BackendUnreachableError():
            status = "unreachable"
        case _:
            status = "error"
    return "proxy" if through else "local", status


def path_of(request: web.Request) -> LocalPath:
    """The secret's path. Raises RequestError: no secret can have it."""
    try:
        return parse_local(request.match_info["path"])
    except IllegalPath as error:
        raise RequestError(422, error.message, code="illegal_path", field="path") from None
