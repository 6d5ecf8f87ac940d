"""One endpoint in hand: what is due to it is sent, and what became of it written down.

The events of one backend are a lane. A lane sends one message after the other, so that they
arrive in order; lanes go side by side, so that a backend with much to tell delays no other.
What arrived is written down many at a time, but within a second: a process that dies sends
no more than that twice, under the same `webhook-id`.

An endpoint whose deliveries fail one after the other is down. It is left alone for a while
that grows to a minute, then one message tries it, and when that arrives everything that
failed meanwhile goes out in its old order.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from svsync.domain import webhooks as rules
from svsync.domain.errors import KeyServiceError, StoreUnavailableError
from svsync.domain.ids import BackendId, TenantId
from svsync.domain.webhooks import OUTAGE_AFTER, Answer, Failure
from svsync.observe.logs import get_logger
from svsync.services.sealing import Sealing
from svsync.services.webhooks import Sender, open_secrets
from svsync.store import webhooks as store
from svsync.store.database import Database, Row
from svsync.store.webhooks import Claim, Settled

CLAIM_S: Final = 60.0
"""An endpoint is in hand for so long after it was last renewed."""
RENEW_S: Final = 1.0
"""An endpoint in hand is renewed, and asked for what became due, at least this often."""
LANES: Final = 8
"""Messages that are on their way to one endpoint at one time."""
_ROWS: Final = 100
"""Deliveries read at once; each may name thousands of paths."""
_SETTLE_S: Final = 1.0
_MARGIN_S: Final = 5.0
BROKEN_HOLD_S: Final = 60.0
"""Seconds for which an endpoint is left alone whose secrets do not open, or that met a defect."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What is no part of this: the time messages carry, monotonic seconds, numbers from 0
    up to 1, who carries a message, and who is told how each attempt ended and how many
    seconds it took (`delivered`, `failed`, `dead`)."""

    sender: Sender
    now: Callable[[], datetime]
    clock: Callable[[], float]
    random: Callable[[], float]
    told: Callable[[TenantId, str, float], None]


class Delivering:
    """Sends what is due to one endpoint until nothing is, or the endpoint is to be left alone.

    `sent` counts attempts.
    """

    def __init__(
        self, db: Database, sealing: Sealing, outside: Outside, held: Claim, failures: int
    ) -> None:
        """`failures`: how many of its deliveries failed since the last that did not."""
        self._db = db
        self._sealing = sealing
        self._outside = outside
        self._held = held
        self._failures = failures
        self._deadline = 0.0
        self._over = False
        self._lanes: dict[BackendId, asyncio.Task[None]] = {}
        self._url = ""
        self._secrets: Sequence[str] = ()
        self.sent = 0

    async def run(self) -> None:
        """
        Raises:
            StoreError: what was not written down is sent again.
        """
        hold_s: float | None = None
        try:
            if self._failures >= OUTAGE_AFTER:
                async with self._db.transaction(self._held.tenant) as tx:
                    await store.expire(tx, self._held)
            while await self._start_lanes():
                await asyncio.wait(
                    self._lanes.values(), timeout=RENEW_S, return_when=asyncio.FIRST_COMPLETED
                )
                for backend in [b for b, lane in self._lanes.items() if lane.done()]:
                    self._lanes.pop(backend).result()
        except StoreUnavailableError:
            raise
        except Exception:
            hold_s = BROKEN_HOLD_S  # else it would be taken in hand again at once, and again
            raise
        finally:
            for lane in self._lanes.values():
                lane.cancel()
            await asyncio.gather(*self._lanes.values(), return_exceptions=True)
            async with self._db.transaction(self._held.tenant) as tx:
                if hold_s is not None:
                    await store.settle(tx, self._held, [], failures=self._failures, hold_s=hold_s)
                await store.release(tx, self._held)

    async def _start_lanes(self) -> bool:
        """Keep the endpoint in hand, and begin with what became due; is anything on its way?"""
        free = (1 if self._failures >= OUTAGE_AFTER else LANES) - len(self._lanes)
        asked = self._outside.clock()
        rows: list[Row] = []
        async with self._db.transaction(self._held.tenant) as tx:
            endpoint = await store.renew(tx, self._held, CLAIM_S)
            if endpoint is not None and free > 0 and not self._over:
                limit = 1 if self._failures >= OUTAGE_AFTER else _ROWS
                rows = await store.due(tx, self._held, list(self._lanes), limit)
        if endpoint is None:
            self._over = True
        elif rows:
            self._url = endpoint["url"]
            await self._open_secrets(endpoint)
        self._deadline = asked + CLAIM_S - self._outside.sender.timeout - _MARGIN_S
        if not self._over:
            for backend, lane in list(_by_backend(rows).items())[:free]:
                self._lanes[backend] = asyncio.create_task(
                    self._lane(lane), name=f"webhooks of {backend} to {self._held.endpoint}"
                )
        return bool(self._lanes)

    async def _open_secrets(self, endpoint: Row) -> None:
        try:
            self._secrets = await open_secrets(self._sealing, self._held.tenant, endpoint)
        except KeyServiceError as error:
            self._over = True
            get_logger().error(
                "webhook_secret_unreadable", endpoint_id=self._held.endpoint, error_code=error.code
            )
            async with self._db.transaction(self._held.tenant) as tx:
                await store.settle(
                    tx, self._held, [], failures=self._failures + 1, hold_s=BROKEN_HOLD_S
                )

    async def _lane(self, rows: Sequence[Row]) -> None:
        """Deliveries of one backend, one after the other, up to the first that fails."""
        arrived: list[Settled] = []
        written = self._outside.clock()
        try:
            for row in rows:
                # Beyond the deadline the endpoint may be in another process's hand.
                if self._over or self._outside.clock() >= self._deadline:
                    return
                answer = await self._send(row)
                self.sent += 1
                if answer.error is not None:
                    settled, arrived = arrived, []
                    await self._failed(settled, row, answer)
                    return
                arrived.append(Settled(row["event_id"], answer.status, None, None))
                if self._outside.clock() - written >= _SETTLE_S:
                    settled, arrived = arrived, []
                    await self._arrived(settled)
                    written = self._outside.clock()
        finally:
            if arrived:
                await self._arrived(arrived)

    async def _send(self, row: Row) -> Answer:
        message = rules.message_id(row["event_id"], self._held.endpoint)
        body = rules.body_of(row["type"], row["created_at"], row["payload"])
        timestamp = int(self._outside.now().timestamp())
        headers = rules.signed_headers(message, timestamp, body, self._secrets)
        began = self._outside.clock()
        answer = await self._outside.sender.send(self._url, headers, body)
        status = "delivered" if answer.error is None else "dead" if answer.gone else "failed"
        self._outside.told(self._held.tenant, status, self._outside.clock() - began)
        return answer

    async def _arrived(self, settled: Sequence[Settled]) -> None:
        was_down = self._failures >= OUTAGE_AFTER
        self._failures = 0
        async with self._db.transaction(self._held.tenant) as tx:
            await store.settle(tx, self._held, settled, failures=0, hold_s=None)
            if was_down:
                await store.resume(tx, self._held)

    async def _failed(self, before: Sequence[Settled], row: Row, answer: Answer) -> None:
        """The last of a lane did not arrive, after those before it did."""
        self._failures = 1 if before else self._failures + 1
        hold = rules.hold_time(self._failures, answer.retry_after)
        self._over = self._over or answer.gone or hold is not None
        jitter = self._outside.random()
        delay = rules.retry_delay(row["attempts"] + 1, jitter, answer.retry_after)
        failed = Settled(
            row["event_id"], answer.status, answer.error, None if answer.gone else delay
        )
        async with self._db.transaction(self._held.tenant) as tx:
            await store.settle(
                tx, self._held, [*before, failed], failures=self._failures, hold_s=hold
            )
            if answer.gone and await store.disable(tx, self._held, Failure.GONE):
                await store.bury(tx, self._held.endpoint, Failure.ENDPOINT_DISABLED)
        get_logger().warning(
            "webhook_failed",
            endpoint_id=self._held.endpoint,
            event_id=row["event_id"],
            status=answer.status,
            error_code=answer.error,
            attempts=row["attempts"] + 1,
        )


def _by_backend(rows: Sequence[Row]) -> dict[BackendId, list[Row]]:
    lanes: dict[BackendId, list[Row]] = {}
    for row in rows:
        lanes.setdefault(BackendId(row["backend_id"]), []).append(row)
    return lanes
