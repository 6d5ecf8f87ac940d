"""Events, written in the transaction of what they tell of; delivered afterwards."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from svsync.domain.errors import NotFoundError
from svsync.domain.ids import BackendId, EndpointId, TenantId
from svsync.store.columns import columns
from svsync.store.database import Database, Row, Transaction


@dataclass(frozen=True, slots=True)
class Event:
    """`data` is composed from names and numbers; it never holds a value."""

    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """One event for one endpoint. `payload`: what the endpoint asked for of the event's own
    data, JSON text; None where that is all of it."""

    endpoint: EndpointId
    event: str
    backend: BackendId
    sequence: int
    payload: str | None


async def add(
    tx: Transaction,
    backend: BackendId,
    events: Sequence[Event],
    *,
    event_ids: Callable[[], str],
) -> None:
    """Append events in order; each gets the backend's next sequence number.

    Raises:
        NotFoundError: the backend was removed meanwhile.
    """
    if not events:
        return
    last = await tx.fetchval("outbox.sequence", tx.tenant, backend, len(events))
    if last is None:
        raise NotFoundError(
            f"the backend {backend} was removed meanwhile: look at the secret, and try again",
            code="backend_not_found",
        )
    first = last - len(events) + 1
    rows = [
        (
            event_ids(),
            first + n,
            event.type,
            json.dumps({**event.data, "sequence": first + n}, ensure_ascii=False),
        )
        for n, event in enumerate(events)
    ]
    await tx.execute("outbox.add", tx.tenant, backend, *columns(rows, 4))


async def list_events(tx: Transaction, backend: BackendId) -> list[Row]:
    return await tx.fetch("outbox.list", tx.tenant, backend)


# --- handing them out -------------------------------------------------------------


async def waiting(db: Database, tenants: Sequence[TenantId]) -> list[TenantId]:
    """Of these tenants those whose events are to be handed out."""
    async with db.transaction_of(tenants, read_only=True) as tx:
        await tx.execute("webhooks.by_key")
        rows = await tx.fetch("outbox.waiting", list(tenants))
    return [TenantId(row["tenant_id"]) for row in rows]


async def lock(tx: Transaction) -> bool:
    """Be the one who hands out the tenant's events until the transaction ends; False where
    another process is."""
    await tx.execute("webhooks.by_key")
    return bool(await tx.fetchval("outbox.lock", tx.tenant))


async def pending(tx: Transaction, limit: int) -> list[Row]:
    return await tx.fetch("outbox.pending", tx.tenant, limit)


async def fan_out(
    tx: Transaction, events: Sequence[str], made: Sequence[NewDelivery], *, give_up_s: float
) -> None:
    """These events wait no longer; `made` is what became of them."""
    rows = [(d.endpoint, d.event, d.backend, d.sequence, d.payload) for d in made]
    await tx.execute("outbox.fan_out", tx.tenant, list(events), *columns(rows, 5), give_up_s)


async def prune(tx: Transaction, *, after: str, limit: int, seconds: float) -> list[Row]:
    """A page of events above `after`; `removed` says which of them are gone."""
    return await tx.fetch("outbox.prune", tx.tenant, after, limit, seconds)
