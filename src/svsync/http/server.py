"""The API as an aiohttp application: its services, its middlewares, its one table of errors.

A request passes, from outside in: its id and its line in the log; the table that makes an
answer of each error; the look at who calls; the handler. The size of bodies is limited
where they are read, for all routes alike.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from svsync.app import passing_id
from svsync.domain import errors
from svsync.domain.access import ForbiddenError, TenantShreddedError, UnauthenticatedError
from svsync.domain.errors import SvsyncError
from svsync.domain.policies import PolicyExistsError
from svsync.domain.runs import SkipReason
from svsync.domain.scaikey import IssuerUnavailableError
from svsync.http import access, console, openapi, probes
from svsync.http.addresses import Addresses
from svsync.http.answers import HEADERS, NOT_KEPT, error_of
from svsync.http.audit import AuditRoutes
from svsync.http.audit_chains import AuditChainRoutes
from svsync.http.backends import BackendRoutes
from svsync.http.body import MAX_BODY, MAX_VALUE_BODY, RequestError
from svsync.http.conflicts import ConflictRoutes
from svsync.http.console import Console
from svsync.http.federation import FederationRoutes, Trigger
from svsync.http.feeds import FeedRoutes
from svsync.http.idempotency import IDEMPOTENCY
from svsync.http.identity import (
    ADDRESS,
    AUTHORIZING,
    REQUEST_ID,
    Failures,
    Handler,
    TooManyFailuresError,
    asked_often,
    identify,
)
from svsync.http.keys import KeyRoutes
from svsync.http.limits import Limits, RateLimitedError
from svsync.http.mapping_tests import MappingTestRoutes
from svsync.http.not_served import not_served
from svsync.http.plans import PlanRoutes
from svsync.http.policies import PolicyRoutes
from svsync.http.request_log import ERROR_CODE, RequestLog
from svsync.http.secret_writes import SecretWriteRoutes
from svsync.http.secrets import SecretRoutes
from svsync.http.short_way import GIVEN_ID, ShortWay
from svsync.http.subtrees import SubtreeRoutes
from svsync.http.tokens import TokenRoutes
from svsync.http.tracing import traced
from svsync.http.webhooks import WebhookRoutes
from svsync.observe.logs import get_logger, log_context
from svsync.observe.meter import SILENT, Meter
from svsync.observe.tracer import UNTRACED, Tracer
from svsync.services.access import Access
from svsync.services.audit import AuditLog
from svsync.services.audit_chains import AuditChains
from svsync.services.authority import Authority
from svsync.services.authorizing import Authorizing
from svsync.services.backends import ManagedBackends
from svsync.services.conflicts import Conflicts
from svsync.services.federation import Federation
from svsync.services.feed_secrets import FeedSecrets
from svsync.services.feed_tokens import FeedTokens
from svsync.services.idempotency import Idempotency, KeyReusedError, KeyTakenError
from svsync.services.keys import Keys
from svsync.services.listing import Listing
from svsync.services.mapping_tests import MappingTests
from svsync.services.notices import Notices
from svsync.services.overview import Overview
from svsync.services.pair_states import PairStates
from svsync.services.plans import Plans
from svsync.services.policies import Policies
from svsync.services.policy_tests import PolicyTests
from svsync.services.readiness import Readiness
from svsync.services.reading import Reading
from svsync.services.removal import Removal
from svsync.services.reports import Reports
from svsync.services.secret_writes import SecretWrites
from svsync.services.secrets import Secrets
from svsync.services.strangers import Strangers
from svsync.services.subtrees import Subtrees
from svsync.services.webhook_rights import WebhookRights
from svsync.services.webhooks import Webhooks

Middleware = Callable[..., Awaitable[web.StreamResponse]]

SHORT_WAY: Final = web.AppKey("short_way", ShortWay)
"""There unless requests are traced."""


@dataclass(frozen=True, slots=True)
class Api:
    """The services that handlers use."""

    authority: Authority
    tokens: Access
    keys: Keys
    authorizing: Authorizing
    strangers: Strangers
    audit: AuditLog
    audit_chains: AuditChains
    reading: Reading
    secrets: Secrets
    listing: Listing
    writes: SecretWrites
    idempotency: Idempotency
    federation: Federation
    backends: ManagedBackends
    pair_states: PairStates
    conflicts: Conflicts
    removal: Removal
    overview: Overview
    reports: Reports
    plans: Plans
    mapping_tests: MappingTests
    subtrees: Subtrees
    policies: Policies
    policy_tests: PolicyTests
    scheduling: Trigger
    webhooks: Webhooks
    feed_secrets: FeedSecrets
    feed_tokens: FeedTokens
    notices: Notices
    readiness: Readiness


def make_server(
    api: Api,
    *,
    trusted_proxies: Sequence[str] = (),
    ids: Callable[[str], str] = passing_id,
    clock: Callable[[], float] = time.monotonic,
    limits: Limits | None = None,
    tracer: Tracer = UNTRACED,
    meter: Meter = SILENT,
    page: Console | None = Console(),  # noqa: B008 - it is frozen
) -> web.Application:
    """The application; `listening` serves it.

    Args:
        trusted_proxies: networks whose `X-Forwarded-For` is believed.
        ids: draws the id of a request that brings none.
        clock: seconds that never go back.
        limits: how often one identity may call; None: as often as it likes.
        meter: is told of reads.
        page: the console; None where there is none.
    """
    limits = limits or Limits(clock=clock)
    addresses, log = Addresses(trusted_proxies), RequestLog(clock)
    app = web.Application(
        client_max_size=MAX_VALUE_BODY,  # what a route takes of that, it says itself
        middlewares=[
            *([] if tracer is UNTRACED else [traced(tracer)]),
            _noted(addresses, ids, clock, log),
            _answering_errors(),
            identify(
                api.authority,
                api.feed_secrets,
                api.feed_tokens,
                Failures(clock),
                api.strangers,
                limits,
            ),
        ],
    )
    app[AUTHORIZING] = api.authorizing
    app[IDEMPOTENCY] = api.idempotency
    if tracer is UNTRACED:
        app[SHORT_WAY] = ShortWay(
            api.reading, api.authority, limits, addresses,
            ids=ids, meter=meter, tell=log.told, clock=clock,
        )  # fmt: skip
    app.add_routes(probes.routes(api.readiness))
    app.add_routes(openapi.routes())
    if page is not None:
        app.add_routes(console.routes(page))
    app.add_routes(
        FederationRoutes(
            api.federation, api.overview, api.removal, api.reports, api.scheduling
        ).routes()
    )
    app.add_routes(
        BackendRoutes(api.backends, api.federation, api.removal, api.pair_states).routes()
    )
    app.add_routes(PlanRoutes(api.plans).routes())
    app.add_routes(SubtreeRoutes(api.subtrees).routes())
    app.add_routes(MappingTestRoutes(api.mapping_tests).routes())
    app.add_routes(ConflictRoutes(api.conflicts).routes())
    app.add_routes(WebhookRoutes(api.webhooks, WebhookRights(api.authorizing)).routes())
    app.add_routes(FeedRoutes(api.notices, api.feed_secrets).routes())
    app.add_routes(AuditRoutes(api.audit).routes())
    app.add_routes(AuditChainRoutes(api.audit_chains).routes())
    app.add_routes(access.routes())
    app.add_routes(TokenRoutes(api.tokens).routes())
    app.add_routes(KeyRoutes(api.keys).routes())
    app.add_routes(PolicyRoutes(api.policies, api.policy_tests).routes())
    secrets = SecretRoutes(api.reading, api.authority, api.secrets, api.listing, meter=meter)
    app.add_routes(secrets.routes())
    app.add_routes(SecretWriteRoutes(api.writes).routes())
    return app


# --- the request's id and its line in the log -------------------------------------


def _noted(
    addresses: Addresses,
    ids: Callable[[str], str],
    clock: Callable[[], float],
    log: RequestLog,
) -> Middleware:
    @web.middleware
    async def noted(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = clock()
        given = request.headers.get("X-Request-Id", "")
        request_id = given if GIVEN_ID.fullmatch(given) else ids("req")
        request[REQUEST_ID] = request_id
        request[ADDRESS] = addresses.of(request)
        if asked_often(request):
            answer = _marked(await handler(request), request_id)
            log.often(request, answer.status, clock() - began, request_id)
            return answer
        with log_context(request_id=request_id):
            answer = _marked(await handler(request), request_id)
            log.one(request, answer.status, clock() - began)
        return answer

    return noted


def _marked(answer: web.StreamResponse, request_id: str) -> web.StreamResponse:
    """With the headers of every answer."""
    headers = answer.headers
    headers.update(HEADERS if "Cache-Control" in headers else _HEADERS_NOT_KEPT)
    headers["X-Request-Id"] = request_id
    return answer


_HEADERS_NOT_KEPT: Final = {**HEADERS, **NOT_KEPT}


# --- errors as answers ------------------------------------------------------------


_STATUS: Final[tuple[tuple[type[SvsyncError], int], ...]] = (
    (IssuerUnavailableError, 503),
    (UnauthenticatedError, 401),
    (TenantShreddedError, 410),
    (ForbiddenError, 403),
    (TooManyFailuresError, 429),
    (RateLimitedError, 429),
    (errors.NotFoundError, 404),
    (errors.UsageError, 422),
    (errors.ConfigError, 422),
    (errors.UndecodableError, 422),
    (PolicyExistsError, 409),
    (errors.VersionConflictError, 409),
    (errors.ConflictChangedError, 409),
    (errors.BackendBusyError, 409),
    (errors.GuardError, 409),
    (errors.WriteOutcomeUnknownError, 504),
    (errors.BackendTimeoutError, 504),
    (errors.BackendError, 502),
    (errors.StoreUnavailableError, 503),
    (errors.SchemaError, 503),
    (errors.FenceLostError, 409),
    (errors.KeyServiceError, 503),
    (errors.SetupError, 503),
    (KeyReusedError, 422),
    (KeyTakenError, 409),
)
"""First match counts. What is not here is a 500, whose text nobody outside sees."""

_READ_ONLY: Final = frozenset({"federated_path_read_only", "proxied_path_read_only"})
_OF_CODES: Final = {
    **dict.fromkeys(_READ_ONLY, 405),
    **dict.fromkeys(("remote_changed", "write_in_progress", "initial_sync_running"), 409),
    "remote_unreadable": 502,
    # Why a backend cannot take a write: most often something in its state, else the value,
    # else that it said so itself.
    **dict.fromkeys(map(str, SkipReason), 409),
    SkipReason.ILLEGAL_PATH: 422,
    SkipReason.UNDECODABLE: 422,
    SkipReason.TOO_DEEP: 422,
    SkipReason.VALUE_TOO_LARGE: 422,
    SkipReason.BAD_METADATA: 422,
    SkipReason.NUMBER_WOULD_CHANGE: 422,
    SkipReason.NAME_NOT_ALLOWED: 422,
    SkipReason.PUSH_REFUSED: 502,
    SkipReason.PUSH_THROTTLED: 429,
    SkipReason.DENIED: 502,
    SkipReason.UNREADABLE: 502,
    SkipReason.WRITE_OUTCOME_UNKNOWN: 504,
    "plan_too_long": 504,
}
"""Codes of errors that have no class of their own."""

_STATES: Final = frozenset(
    {
        "managed_by_file",
        "backend_exists",
        "backend_removed",
        "backend_paused",
        "not_synced",
        "mapping_overlap",
        "authorisation_changed",
        "endpoint_disabled",
        "hides_local_secrets",
        "unpushed_local_changes",
    }
)
"""Codes of ConfigError that tell of the state that something is in: nothing is wrong with
what was sent, so they are 409."""

_LOST: Final = frozenset({"value_unreadable", "key_destroyed"})
"""What is kept and cannot be read any more is told as that, and no wait mends it: 500."""

_HTTP_CODES: Final = {
    404: ("not_found", "there is nothing at this path"),
    405: ("method_not_allowed", "this path does not take this method"),
    413: ("body_too_large", f"the body is larger than {MAX_BODY:,} bytes"),
}
_INTERNAL: Final = ("internal", "svsync failed in a way it should not; its log says more")


def status_of(error: SvsyncError) -> int:
    """The one place where errors become statuses."""
    if isinstance(error, RequestError):
        return error.status
    if error.code in _STATES:
        return 409
    if error.code in _LOST:
        return 500
    if error.code == SkipReason.PUSH_THROTTLED:  # a BackendError, and nothing is broken there
        return _OF_CODES[error.code]
    found = (status for kind, status in _STATUS if isinstance(error, kind))
    return next(found, _OF_CODES.get(error.code, 500))


def _answering_errors() -> Middleware:
    @web.middleware
    async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as stopped:
            answer = _of_http(request, stopped)
        except SvsyncError as known:
            answer = _of_error(request, known)
        except Exception as bug:  # noqa: BLE001 - no foreign text reaches anybody
            with log_context(request_id=request[REQUEST_ID]):
                get_logger().error("request_failed", exc_info=bug)
            answer = _error(request, 500, *_INTERNAL)
        return answer

    return answering


def _of_http(request: web.Request, stopped: web.HTTPException) -> web.Response:
    """What aiohttp itself stops a request with."""
    if stopped.status not in _HTTP_CODES:
        get_logger().error("request_failed", exc_info=stopped)
        return _error(request, 500, *_INTERNAL)
    told = _HTTP_CODES[stopped.status]
    if stopped.status == 404 and (elsewhere := not_served(request.path)):
        told = ("not_served_here", elsewhere)
    answer = _error(request, stopped.status, *told)
    if "Allow" in stopped.headers:
        answer.headers["Allow"] = stopped.headers["Allow"]
    return answer


def _of_error(request: web.Request, error: SvsyncError) -> web.Response:
    status = status_of(error)
    if status == 500:
        get_logger().error("request_failed", exc_info=error)
        if error.code not in _LOST:
            return _error(request, 500, *_INTERNAL)
    field = error.field if isinstance(error, RequestError) else ""
    push = error.push_id if isinstance(error, errors.WriteOutcomeUnknownError) else ""
    moved = error.conflict if isinstance(error, errors.ConflictChangedError) else None
    # A backend of somebody else's may have codes of its own.
    code = error.code if error.code in openapi.codes() else type(error).code
    answer = _error(request, status, code, error.message, field, push, moved)
    if error.code in _READ_ONLY:
        answer.headers["Allow"] = "GET, HEAD"
    if status == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="svsync"'
    if isinstance(error, TooManyFailuresError | RateLimitedError):
        answer.headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, errors.BackendError) and error.retry_after is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif status == 503 or error.code == "write_in_progress":
        answer.headers["Retry-After"] = "1"
    elif status == 408:
        answer.force_close()  # the rest of the body is not waited for
    return answer


def _error(
    request: web.Request,
    status: int,
    code: str,
    message: str,
    field: str = "",
    push: str = "",
    conflict: Mapping[str, object] | None = None,
) -> web.Response:
    request[ERROR_CODE] = code
    told = error_of(code, message, request[REQUEST_ID], field, push, conflict)
    return web.json_response(told, status=status)
