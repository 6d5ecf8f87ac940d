"""The API as its callers meet it: a real server on a house's store, and a client.

Each answer that the client gets is held against the document: its status and its body
must be those that the document has for the route.
"""

import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

import aiohttp
import pytest_asyncio
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from multidict import CIMultiDict, CIMultiDictProxy
from tests.docs.error_codes import told
from tests.house import TENANT, House

from svsync.app import new_id, open_webhooks
from svsync.bus.local import LocalSignals
from svsync.domain.access import Identity, Scope
from svsync.domain.ids import TenantId
from svsync.domain.limits import UNLIMITED, ApiRates
from svsync.http.console import Console
from svsync.http.limits import Limits
from svsync.http.listening import Listener, listening
from svsync.http.openapi import document
from svsync.http.server import Api, make_server
from svsync.observe.meter import SILENT, Meter
from svsync.services.access import Access
from svsync.services.audit import AuditLog
from svsync.services.audit_chains import AuditChains
from svsync.services.authority import Authority, Voucher
from svsync.services.authorizing import Authorizing
from svsync.services.feed_tokens import FeedTokens
from svsync.services.mapping_tests import MappingTests
from svsync.services.notices import Notices
from svsync.services.plans import Plans
from svsync.services.readiness import Readiness
from svsync.services.reports import Reports
from svsync.services.scheduling import Scheduling
from svsync.services.subtrees import Subtrees
from svsync.services.webhooks import Webhooks

BACKENDS: Final = "/v1/federation/backends"
DOCUMENT: Final[dict[str, Any]] = json.loads(document())
ROBOT: Final = Identity.parse("sa:robot")
_METHODS: Final = {"get", "post", "put", "patch", "delete", "options"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is parsed where it is JSON, text elsewhere."""

    status: int
    headers: CIMultiDictProxy[str]
    body: Any

    @property
    def code(self) -> str:
        """The code of an error."""
        code: str = self.body["error"]["code"]
        return code

    @property
    def told(self) -> tuple[int, str]:
        return self.status, self.code


@dataclass
class Client:
    """Calls one server, with a token unless it is None."""

    session: aiohttp.ClientSession
    url: str
    token: str | None

    def with_token(self, token: str | None) -> "Client":
        return replace(self, token=token)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.call("POST", path, **options)

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        headers = CIMultiDict(options.pop("headers", {}))
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        async with self.session.request(
            method, self.url + path, headers=headers, allow_redirects=False, **options
        ) as response:
            raw = await response.read()
            body: Any = raw.decode()
            if response.content_type == "application/json" and raw:
                body = json.loads(raw)
            answer = Answer(response.status, response.headers, body)
        if method != "HEAD":
            check(method, path.partition("?")[0], answer)
        return answer


@cache
def _validator(method: str, template: str, status: str) -> Draft202012Validator:
    operation = DOCUMENT["paths"][template][method]
    response = operation["responses"][status]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    [content] = response["content"].values()
    return schema_of(content["schema"])


def schema_of(schema: dict[str, Any]) -> Draft202012Validator:
    """Whose references are those of the whole document."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def check(method: str, path: str, answer: Answer) -> None:
    """The answer is one that the document has for this request, and the page of errors."""
    assert answer.headers["X-Request-Id"]
    if answer.status >= 400 and path.startswith("/v1/"):
        assert answer.status in told()[answer.code]
    for template in sorted(DOCUMENT["paths"], key=lambda one: one.count("{path}")):
        pattern = re.sub(r"\{(?!path)\w+\}", "[^/]+", template).replace("{path}", ".+")
        if re.fullmatch(pattern, path) and method.lower() in DOCUMENT["paths"][template]:
            if answer.status in (204, 304, 308):  # all that is told stands in the head
                answers = DOCUMENT["paths"][template][method.lower()]["responses"]
                assert (answer.body, "content" in answers[str(answer.status)]) == ("", False)
                return
            _validator(method.lower(), template, str(answer.status)).validate(answer.body)
            return
    assert answer.status in (401, 404, 405, 429)
    schema_of({"$ref": "#/components/schemas/Error"}).validate(answer.body)


def documented() -> set[tuple[str, str]]:
    """Method and path of each operation of the document."""
    return {
        (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
        if method in _METHODS
    }


@dataclass
class Front:
    """A house with its API open.

    Attributes:
        client: calls with a token of the scope `admin`.
        now: what the server's clock shows; a test moves it.
    """

    house: House
    access: Access
    listener: Listener
    client: Client
    now: list[float] = field(default_factory=lambda: [0.0])

    async def token(
        self, *scopes: Scope, tenant: TenantId = TENANT, expires_in: float | None = 3600
    ) -> str:
        made = await self.access.create(tenant, ROBOT, scopes, expires_in=expires_in, by="cli:test")
        return made.text.reveal()

    async def other_tenant(self) -> str:
        """An admin token of a tenant that has nothing."""
        other = await self.house.admin.fetchval(
            "INSERT INTO tenants (slug) VALUES ('other') RETURNING tenant_id"
        )
        return await self.token(Scope.ADMIN, tenant=TenantId(other))


def api_of(
    house: House,
    access: Access,
    clock: Any = time.monotonic,
    voucher: Voucher | None = None,
    webhooks: Webhooks | None = None,
    feed_tokens: FeedTokens | None = None,
) -> Api:
    """`webhooks`: None where nothing is sent; `feed_tokens`: in place of the app's."""
    app = house.app
    scheduling = Scheduling(app.db, LocalSignals(), ids=new_id, health_interval=60)
    nowhere: Any = None
    return Api(
        authority=Authority(app.db, voucher or access, clock=clock),
        tokens=access,
        keys=app.keys,
        authorizing=Authorizing(app.recorder),
        strangers=app.strangers,
        audit=AuditLog(app.db),
        audit_chains=AuditChains(app.db, app.checkpoints.places),
        reading=app.reading,
        secrets=app.secrets,
        listing=app.listing,
        writes=app.writes,
        idempotency=app.idempotency,
        federation=app.federation,
        backends=app.backends,
        pair_states=app.pair_states,
        conflicts=app.conflicts,
        removal=app.removal,
        overview=app.overview,
        reports=Reports(app.db),
        plans=Plans(app.runs, app.federation),
        mapping_tests=MappingTests(app.db, app.registry),
        subtrees=Subtrees(app.db, app.registry),
        policies=app.policies,
        policy_tests=app.policy_tests,
        scheduling=scheduling,
        webhooks=webhooks or Webhooks(app.db, app.sealing, nowhere, ids=new_id),
        feed_secrets=app.feed_secrets,
        feed_tokens=feed_tokens or app.feed_tokens,
        notices=Notices(app.db, app.registry, app.registry.arriving, scheduling.notice),
        readiness=Readiness(app.db, clock),
    )


@asynccontextmanager
async def open_front(
    house: House,
    *,
    voucher: Voucher | None = None,
    rates: ApiRates = UNLIMITED,
    meter: Meter = SILENT,
    feed_tokens: FeedTokens | None = None,
    **settings: Any,
) -> AsyncIterator[Front]:
    """The API on a free port; `settings` as the configuration names them. `voucher` vouches
    for tokens in place of that for static ones."""
    now = [0.0]
    access = Access(house.app.db, ids=new_id, random=secrets.token_bytes)
    made = replace(house.app.settings, bind_address="127.0.0.1:0", **settings)
    own: set[tuple[str, int]] = set()
    async with (
        open_webhooks(replace(house.app, settings=made), own_listeners=lambda: frozenset(own)) as (
            webhooks,
            _,
        ),
        aiohttp.ClientSession() as session,
        listening(
            make_server(
                api_of(house, access, lambda: now[0], voucher, webhooks, feed_tokens),
                trusted_proxies=made.trusted_proxies,
                clock=lambda: now[0],
                limits=Limits(rates, clock=lambda: now[0]),
                meter=meter,
                page=Console(made.scaikey_url, made.console_client_id) if made.console else None,
            ),
            made,
            grace=5,
        ) as listener,
    ):
        own.add((listener.host, listener.port))
        front = Front(house, access, listener, Client(session, listener.url, None), now)
        front.client.token = await front.token(Scope.ADMIN)
        yield front


@pytest_asyncio.fixture
async def front(house: House) -> AsyncIterator[Front]:
    async with open_front(house) as opened:
        yield opened
