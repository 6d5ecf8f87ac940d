"""Deliveries: events of the outbox are handed out to endpoints, and sent.

Several processes do this side by side. One at a time hands out a tenant's events, so that
they stay in order, and one at a time has an endpoint in hand. Each endpoint is worked on by
a task of its own, so one that is slow or dead delays no other; the longest unserved is taken
up first, whosever it is.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

from svsync.domain.errors import StoreError, SvsyncError
from svsync.domain.ids import BackendId, EndpointId, TenantId
from svsync.domain.webhooks import GIVE_UP_S, Subscription, wanted_by
from svsync.observe.logs import get_logger
from svsync.observe.meter import SILENT, Meter
from svsync.observe.tracer import UNTRACED, Tracer
from svsync.ports import Signals, Waker
from svsync.services.delivering import CLAIM_S, Delivering, Outside
from svsync.services.scheduling import EVENTS
from svsync.services.sealing import Sealing
from svsync.services.webhooks import Sender
from svsync.store import federation, outbox
from svsync.store import webhooks as store
from svsync.store.database import Database, Row, Transaction
from svsync.store.outbox import NewDelivery
from svsync.store.webhooks import Claim

CONCURRENCY: Final = 64
"""Endpoints that one process has in hand at one time."""
HEAR_S: Final = 1.0
"""While something is on its way, new events are looked for at least this often."""
_SOONEST_S: Final = 0.05
_EVENTS: Final = 200
"""Events handed out at once; each may name hundreds of paths."""
_PRUNED: Final = 1_000


class Deliveries:
    """Sends what there is to tell to whom it may concern, for all active tenants."""

    def __init__(
        self,
        db: Database,
        sealing: Sealing,
        sender: Sender,
        *,
        random: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        concurrency: int = CONCURRENCY,
        meter: Meter = SILENT,
        tracer: Tracer = UNTRACED,
    ) -> None:
        """`random` gives numbers from 0 up to 1; `clock` monotonic seconds."""
        self._db = db
        self._sealing = sealing
        self._outside = Outside(sender, now, clock, random, self._told)
        self._concurrency = concurrency
        self._meter = meter
        self._tracer = tracer
        self._slugs: dict[TenantId, str] = {}

    async def deliver_due(self, waker: Waker | None = None) -> int:
        """Hand out what is new and send what is due, until nothing is; how many messages were
        sent. `waker` tells that there may be something new while others are on their way.

        Cancelled, it writes down what arrived; what was on its way is sent again.

        Raises:
            StoreError: the rest is due still.
        """
        serving: dict[asyncio.Task[None], Delivering] = {}
        sent = 0
        try:
            while True:
                self._slugs = await federation.active_slugs(self._db)
                tenants = list(self._slugs)
                more = await self._hand_out(tenants)
                free = self._concurrency - len(serving)
                for held, failures in await self._claim(tenants, free):
                    one = Delivering(self._db, self._sealing, self._outside, held, failures)
                    serving[asyncio.create_task(_served(one, held))] = one
                if not serving and not more:
                    return sent
                if serving and not more:
                    await _next(serving, waker)
                for task in [task for task in serving if task.done()]:
                    sent += serving.pop(task).sent
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def next_due(self) -> float | None:
        """Seconds until something is due; None: nothing is. Raises StoreError."""
        seconds = await store.next_due(self._db, await federation.active(self._db))
        return None if seconds is None else max(0.0, seconds)

    def _told(self, tenant: TenantId, status: str, seconds: float) -> None:
        if tenant in self._slugs:
            self._meter.webhook_delivered(self._slugs[tenant], status, seconds)
            self._tracer.webhook_delivered(self._slugs[tenant], status, seconds)

    async def _claim(self, tenants: Sequence[TenantId], free: int) -> list[tuple[Claim, int]]:
        return await store.claim(self._db, tenants, free, CLAIM_S) if free > 0 else []

    async def _hand_out(self, tenants: Sequence[TenantId]) -> bool:
        """Make deliveries of new events, a batch of each tenant; is there more?"""
        more = False
        for tenant in await outbox.waiting(self._db, tenants):
            async with self._db.transaction(tenant) as tx:
                if await outbox.lock(tx):
                    more = await _hand_out_batch(tx) == _EVENTS or more
        return more


async def _hand_out_batch(tx: Transaction) -> int:
    events = await outbox.pending(tx, _EVENTS)
    listeners = [
        (
            EndpointId(row["endpoint_id"]),
            wanted_by(
                Subscription(
                    tuple(row["types"]), tuple(row["path_patterns"]), row["only_if_changed"]
                )
            ),
        )
        for row in await store.listeners(tx)
    ]
    made = [
        NewDelivery(
            endpoint,
            event["event_id"],
            BackendId(event["backend_id"]),
            event["sequence"],
            wanted.payload,
        )
        for event in events
        for endpoint, judge in listeners
        if (wanted := judge(event["type"], event["payload"])) is not None
    ]
    if events:
        named = [event["event_id"] for event in events]
        await outbox.fan_out(tx, named, made, give_up_s=GIVE_UP_S)
    return len(events)


async def _served(one: Delivering, held: Claim) -> None:
    """What goes wrong with one endpoint is told, and keeps nobody from the others."""
    try:
        await one.run()
    except SvsyncError as error:
        get_logger().warning("webhooks_interrupted", endpoint_id=held.endpoint, error=error)
    except Exception as bug:  # noqa: BLE001 - a defect at one endpoint keeps nobody from the others
        get_logger().error("webhooks_broke", endpoint_id=held.endpoint, exc_info=bug)


async def _next(serving: dict[asyncio.Task[None], Delivering], waker: Waker | None) -> None:
    """Until an endpoint is done with, something new was told of, or a second passed."""
    if waker is None:
        await asyncio.wait(serving, timeout=HEAR_S, return_when=asyncio.FIRST_COMPLETED)
        return
    hearing = asyncio.create_task(waker.wait(HEAR_S))
    try:
        await asyncio.wait([*serving, hearing], return_when=asyncio.FIRST_COMPLETED)
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


# --- retention --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many of each were removed."""

    deliveries: int
    events: int


async def prune(db: Database, tenant: TenantId, seconds: float) -> Pruned:
    """Remove deliveries that ended so long ago, then events so old that nobody is told of any
    more. The newest event of each backend stays, and so does what is due.

    Raises:
        StoreError: what was removed before stays removed.
    """
    async with db.transaction(tenant, read_only=True) as tx:
        endpoints = [row["endpoint_id"] for row in await store.list_endpoints(tx)]
    deliveries = 0
    for endpoint in endpoints:
        page = partial(store.prune, endpoint=endpoint, limit=_PRUNED, seconds=seconds)
        deliveries += await _prune(db, tenant, page)
    events = await _prune(db, tenant, partial(outbox.prune, limit=_PRUNED, seconds=seconds))
    return Pruned(deliveries, events)


class _Page(Protocol):
    async def __call__(self, tx: Transaction, *, after: str) -> list[Row]: ...


async def _prune(db: Database, tenant: TenantId, page: _Page) -> int:
    """Page after page until nothing of one is old: event ids begin with their moment."""
    total, after = 0, ""
    while True:
        async with db.transaction(tenant) as tx:
            rows = await page(tx, after=after)
        total += sum(bool(row["removed"]) for row in rows)
        if len(rows) < _PRUNED or not any(row["old"] for row in rows):
            return total
        after = rows[-1]["event_id"]


async def keep_delivering(deliveries: Deliveries, signals: Signals) -> None:
    """Deliver until cancelled, as soon as there is something to tell or a try is due."""
    with signals.listen(EVENTS) as waker:
        while True:
            wait = HEAR_S
            try:
                due = await deliveries.next_due()
                if due is not None and due <= 0:
                    await deliveries.deliver_due(waker)
                    due = await deliveries.next_due()
                wait = HEAR_S if due is None else min(HEAR_S, max(_SOONEST_S, due))
            except StoreError:
                pass  # what is due stays due
            except SvsyncError as problem:
                get_logger().warning("deliveries_wait", error_code=problem.code)
            if await waker.wait(wait):
                await asyncio.sleep(_SOONEST_S)  # runs end by the hundred: one look for several
