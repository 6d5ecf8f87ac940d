"""Receivers of webhooks on loopback, and what svsync needs to reach them.

A receiver keeps what it was sent and answers as its test says. `desk` is a house with the
services of webhooks on it, whose messages may go to loopback.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import pytest_asyncio
from aiohttp import web
from standardwebhooks.webhooks import Webhook
from tests.house import BACKEND, TENANT, House
from tests.patience import PATIENCE_S

from svsync.app import new_id
from svsync.clients.webhook import WebhookClient, open_webhook_client
from svsync.domain.ids import BackendId, EndpointId, TenantId
from svsync.domain.webhooks import Subscription
from svsync.services.deliveries import Deliveries
from svsync.services.webhooks import Webhooks
from svsync.store import outbox
from svsync.store.outbox import Event

Answer = Callable[["Message"], Awaitable[web.StreamResponse] | web.StreamResponse]


@dataclass(frozen=True)
class Message:
    """One POST as it arrived."""

    headers: dict[str, str]
    body: str
    request: web.Request = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def number(self) -> int:
        """The event's sequence number."""
        number: int = self.json["data"]["sequence"]
        return number

    def verified_by(self, secret: str) -> Any:
        """The message, accepted by the public verifier. Raises where it is not."""
        return Webhook(secret).verify(self.body, self.headers)


class Receiver:
    """Takes messages at `url`; `answer` may be changed at any time.

    Attributes:
        got: every message, in the order in which they arrived.
        most: messages that were being answered at one time, at most.
    """

    def __init__(self, answer: Answer | int = 200) -> None:
        self.answer = answer
        self.got: list[Message] = []
        self.most = 0
        self.url = ""
        self._now = 0
        self._came = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def numbers(self) -> list[int]:
        return [message.number for message in self.got]

    async def received(self, many: int) -> None:
        """Return when so many messages have arrived."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.got) < many:
                self._came.clear()
                await self._came.wait()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{tail:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        message = Message(dict(request.headers), await request.text(), request)
        self.got.append(message)
        self._came.set()
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            if isinstance(self.answer, int):
                return web.Response(status=self.answer)
            made = self.answer(message)
            return made if isinstance(made, web.StreamResponse) else await made
        finally:
            self._now -= 1


class Hanging:
    """An answer that comes when it is `let_go`. `reached` is set once somebody waits for it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._go = asyncio.Event()

    async def __call__(self, _message: Message) -> web.Response:
        self.reached.set()
        await self._go.wait()
        return web.Response()

    def let_go(self) -> None:
        self._go.set()


@dataclass
class WebhookDesk:
    """A house, its webhooks and their deliveries."""

    house: House
    client: WebhookClient
    webhooks: Webhooks
    deliveries: Deliveries

    async def endpoint(self, url: str, **wants: Any) -> tuple[EndpointId, str]:
        """A new endpoint; its id and its secret."""
        made = await self.webhooks.create(TENANT, url, Subscription(**wants))
        return EndpointId(str(made["id"])), str(made["secret"])

    async def tell(
        self,
        kind: str = "federation.sync.completed",
        *,
        times: int = 1,
        backend: BackendId = BACKEND,
        tenant: TenantId = TENANT,
        **data: object,
    ) -> None:
        """Events, as a run writes them."""
        events = [Event(kind, {"backend_id": backend, **data})] * times
        async with self.house.app.db.transaction(tenant) as tx:
            await outbox.add(tx, backend, events, event_ids=lambda: new_id("evt"))

    async def states(self) -> list[tuple[str, int, str | None]]:
        """State, attempts and error of each delivery, in the order of their events."""
        rows = await self.house.admin.fetch(
            "SELECT state, attempts, error_code FROM deliveries ORDER BY sequence, endpoint_id"
        )
        return [(row["state"], row["attempts"], row["error_code"]) for row in rows]

    async def later(self) -> None:
        """What waits for its next try is due, and no endpoint is held."""
        await self.house.admin.execute(
            "UPDATE deliveries SET next_at = now() WHERE state = 'due' AND next_at > now()"
        )
        await self.house.admin.execute("UPDATE endpoints SET held_until = NULL")

    def another(self, client: WebhookClient | None = None) -> Deliveries:
        """What another process would have."""
        app = self.house.app
        return Deliveries(app.db, app.sealing, client or self.client, random=lambda: 0.5)


@asynccontextmanager
async def webhook_desk(
    house: House, *, private: bool = True, timeout: float = 10.0
) -> AsyncIterator[WebhookDesk]:
    async with open_webhook_client(private=private, timeout=timeout) as client:
        app = house.app
        webhooks = Webhooks(app.db, app.sealing, client, ids=new_id)
        deliveries = Deliveries(app.db, app.sealing, client, random=lambda: 0.5)
        yield WebhookDesk(house, client, webhooks, deliveries)


@pytest_asyncio.fixture
async def desk(house: House) -> AsyncIterator[WebhookDesk]:
    async with webhook_desk(house) as made:
        yield made
