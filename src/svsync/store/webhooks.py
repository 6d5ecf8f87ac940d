"""Endpoints, and what is to be delivered to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from svsync.domain.ids import BackendId, EndpointId, TenantId
from svsync.domain.webhooks import OVERLAP_S, Failure, Subscription
from svsync.store.columns import columns
from svsync.store.database import Database, Row, Transaction


@dataclass(frozen=True, slots=True)
class SealedSecrets:
    """An endpoint's signing secrets as they are stored."""

    key_id: int
    nonce: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """An endpoint in hand: what is settled under another number is not settled."""

    tenant: TenantId
    endpoint: EndpointId
    number: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one delivery; without `failure` it arrived. `delay_s`: seconds until
    it is tried again; None: never."""

    event: str
    status_code: int | None
    failure: Failure | None
    delay_s: float | None


# --- endpoints --------------------------------------------------------------------


async def add(
    tx: Transaction,
    endpoint: EndpointId,
    url: str,
    wants: Subscription,
    secrets: SealedSecrets,
    by: str | None,
) -> None:
    await tx.execute(
        "webhooks.add", tx.tenant, endpoint, url, list(wants.types), list(wants.path_patterns),
        wants.only_if_changed, secrets.key_id, secrets.nonce, secrets.sealed, by,
    )  # fmt: skip


async def get(tx: Transaction, endpoint: str) -> Row | None:
    return await tx.fetchrow("webhooks.get", tx.tenant, endpoint, OVERLAP_S)


async def list_endpoints(tx: Transaction) -> list[Row]:
    return await tx.fetch("webhooks.list", tx.tenant)


async def lock(tx: Transaction, endpoint: str) -> Row | None:
    """The endpoint as it stays until the transaction ends."""
    return await tx.fetchrow("webhooks.lock", tx.tenant, endpoint)


async def change(
    tx: Transaction,
    endpoint: EndpointId,
    url: str,
    wants: Subscription,
    *,
    state: str,
    reason: str | None,
) -> None:
    await tx.execute(
        "webhooks.change", tx.tenant, endpoint, url, list(wants.types), list(wants.path_patterns),
        wants.only_if_changed, state, reason,
    )  # fmt: skip


async def set_secrets(tx: Transaction, endpoint: EndpointId, secrets: SealedSecrets) -> None:
    await tx.execute(
        "webhooks.set_secrets", tx.tenant, endpoint, secrets.key_id, secrets.nonce, secrets.sealed
    )


async def remove(tx: Transaction, endpoint: str) -> None:
    """With its deliveries."""
    await tx.execute("webhooks.remove", tx.tenant, endpoint)


async def listeners(tx: Transaction) -> list[Row]:
    return await tx.fetch("webhooks.listeners", tx.tenant)


async def bury(tx: Transaction, endpoint: EndpointId, failure: Failure) -> int:
    """What is due to an endpoint is dead; how much that was."""
    return await tx.execute("webhooks.bury", tx.tenant, endpoint, failure)


# --- an endpoint in hand ----------------------------------------------------------


async def claim(
    db: Database, tenants: Sequence[TenantId], limit: int, seconds: float
) -> list[tuple[Claim, int]]:
    """Take in hand endpoints to which something is due; with each, how often in a row its
    deliveries failed."""
    async with db.transaction_of(tenants) as tx:
        await tx.execute("webhooks.by_key")
        rows = await tx.fetch("webhooks.claim", limit, seconds)
    return [
        (
            Claim(TenantId(row["tenant_id"]), EndpointId(row["endpoint_id"]), row["claim"]),
            row["failures"],
        )
        for row in rows
    ]


async def renew(tx: Transaction, held: Claim, seconds: float) -> Row | None:
    """Keep it in hand; None where it is somebody else's now, disabled or gone. `rotating`:
    its earlier secret is valid still."""
    await tx.execute("webhooks.by_key")
    return await tx.fetchrow(
        "webhooks.renew", held.tenant, held.endpoint, held.number, seconds, OVERLAP_S
    )


async def due(tx: Transaction, held: Claim, without: Sequence[BackendId], limit: int) -> list[Row]:
    """What is due to it now, in the order in which it goes out."""
    return await tx.fetch("webhooks.due", held.tenant, held.endpoint, list(without), limit)


async def settle(
    tx: Transaction,
    held: Claim,
    settled: Sequence[Settled],
    *,
    failures: int,
    hold_s: float | None,
) -> int:
    """Write down what became of deliveries, and how often in a row they failed; how many of
    them were still ours to settle."""
    rows = [(s.event, s.status_code, s.failure, s.delay_s) for s in settled]
    await tx.execute("webhooks.by_key")
    return await tx.execute(
        "webhooks.settle", held.tenant, held.endpoint, held.number, failures, hold_s,
        *columns(rows, 4),
    )  # fmt: skip


async def resume(tx: Transaction, held: Claim) -> None:
    await tx.execute("webhooks.resume", held.tenant, held.endpoint)


async def expire(tx: Transaction, held: Claim) -> None:
    await tx.execute("webhooks.expire", held.tenant, held.endpoint, Failure.EXPIRED)


async def disable(tx: Transaction, held: Claim, reason: str) -> bool:
    """False: it is not in hand any more, or disabled already."""
    return await tx.execute("webhooks.disable", held.tenant, held.endpoint, held.number, reason) > 0


async def release(tx: Transaction, held: Claim) -> None:
    await tx.execute("webhooks.release", held.tenant, held.endpoint, held.number)


async def next_due(db: Database, tenants: Sequence[TenantId]) -> float | None:
    """Seconds until something is due to somebody, or may be; none or fewer: by now."""
    async with db.transaction_of(tenants, read_only=True) as tx:
        await tx.execute("webhooks.by_key")
        seconds: float | None = await tx.fetchval("webhooks.next_due", list(tenants))
    return seconds


# --- deliveries as people look at them --------------------------------------------


async def deliveries(
    tx: Transaction, endpoint: str, state: str | None, before: str | None, limit: int
) -> list[Row]:
    return await tx.fetch("webhooks.deliveries", tx.tenant, endpoint, state, before, limit)


async def replay(
    tx: Transaction, endpoint: EndpointId, event: str | None, *, give_up_s: float
) -> int:
    """Dead ones anew, or the one of an event; how many."""
    return await tx.execute("webhooks.replay", tx.tenant, endpoint, event, give_up_s)


async def prune(
    tx: Transaction, *, endpoint: str, after: str, limit: int, seconds: float
) -> list[Row]:
    """A page of an endpoint's deliveries above `after`; `removed` says which are gone."""
    return await tx.fetch("webhooks.prune", tx.tenant, endpoint, after, limit, seconds)
