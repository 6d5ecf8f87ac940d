"""Events, written in the transaction of what they tell of; delivered afterwards."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from svsync.domain.errors import NotFoundError
from svsync.domain.ids import BackendId
from svsync.store.columns import columns
from svsync.store.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class Event:
    """`data` is composed from names and numbers; it never holds a value."""

    type: str
    data: Mapping[str, Any]


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
