"""Tenants: made, and shredded."""

from collections.abc import Sequence
from typing import Final

from svsync.domain.errors import NotFoundError
from svsync.domain.ids import BackendId, SecretId, TenantId
from svsync.store.database import Database, Row, Transaction

CLEARED: Final = (
    "pushes",
    "conflicts",
    "sync_state",
    "deliveries",
    "endpoints",
    "outbox",
    "feed_secrets",
    "idempotency",
    "dirty_paths",
    "stage_scopes",
    "run_skips",
    "stage",
    "todo",
    "runs",
)
"""Tables that lose what they hold of a tenant that was shredded; secrets go last."""


async def list_all(db: Database, tenants: Sequence[TenantId]) -> list[Row]:
    async with db.transaction_of(tenants, read_only=True) as tx:
        return await tx.fetch("tenants.list", list(tenants))


async def find(db: Database, slug: str) -> tuple[TenantId, str]:
    """A tenant's row id and status, whatever that is. Raises NotFoundError."""
    rows = await db.fetch_global("federation.tenant", slug)
    if not rows:
        raise NotFoundError(f"there is no tenant {slug!r}", code="tenant_not_found")
    return TenantId(rows[0]["tenant_id"]), rows[0]["status"]


async def begin(db: Database, slug: str) -> TenantId | None:
    """A new tenant, shut; None: the slug is taken."""
    rows = await db.fetch_global("tenants.begin", slug)
    return TenantId(rows[0]["tenant_id"]) if rows else None


async def open_begun(tx: Transaction) -> bool:
    """Let it be used; False: it was open before."""
    return await tx.execute("tenants.open", tx.tenant) == 1


async def shredded(db: Database) -> dict[TenantId, str]:
    """Those that were shredded, by their names."""
    rows = await db.fetch_global("tenants.shredded")
    return {TenantId(row["tenant_id"]): row["slug"] for row in rows}


async def status(tx: Transaction) -> str:
    word: str = await tx.fetchval("tenants.status", tx.tenant)
    return word


async def lock_leases(tx: Transaction) -> None:
    await tx.fetch("tenants.lock_leases", tx.tenant)


async def lock_backends(tx: Transaction) -> list[BackendId]:
    rows = await tx.fetch("tenants.lock_backends", tx.tenant)
    return [BackendId(row["backend_id"]) for row in rows]


async def end_queued(tx: Transaction, backend: BackendId) -> int:
    """The runs that wait for a backend end; how many."""
    return await tx.execute("federation.end_queued", tx.tenant, backend)


async def pause_backends(tx: Transaction) -> int:
    return await tx.execute("tenants.pause_backends", tx.tenant)


async def disable_endpoints(tx: Transaction) -> None:
    await tx.execute("tenants.disable_endpoints", tx.tenant)


async def destroy_keys(tx: Transaction) -> int:
    """Nothing that they sealed is ever opened again; how many there were."""
    await tx.fetch("tenants.lock_keys", tx.tenant)
    return await tx.execute("tenants.destroy_keys", tx.tenant)


async def keys_left(db: Database) -> bool:
    """May the database's files hold keys that were destroyed, as they were wrapped?"""
    rows = await db.fetch_global("tenants.keys_left")
    return bool(rows[0]["exists"])


async def erase_keys(tx: Transaction) -> None:
    """Write the table of keys anew, of every tenant. Raises StoreError: it is in use, or our role
    does not own it."""
    await tx.fetch("tenants.wait_briefly")
    await tx.execute("tenants.write_keys_anew")
    await tx.execute("tenants.mark_erased")


async def tell(tx: Transaction, event: str, type_: str, payload: str) -> None:
    """The event that stays. It is delivered to nobody."""
    await tx.execute("tenants.tell", tx.tenant, event, type_, payload)


async def shred(tx: Transaction) -> None:
    """Mark it for good."""
    await tx.execute("tenants.shred", tx.tenant)


async def anything_active(tx: Transaction) -> bool:
    """Is there a backend or an endpoint of webhooks that is not shut?"""
    return bool(await tx.fetchval("tenants.anything_active", tx.tenant))


async def withdraw_pushes(tx: Transaction) -> int:
    return await tx.execute("tenants.withdraw_pushes", tx.tenant)


async def clear(tx: Transaction, table: str, limit: int) -> int:
    """A page of what one of `CLEARED` holds goes; how much that was."""
    return await tx.execute(f"tenants.clear_{table}", tx.tenant, limit)


async def count_secrets(tx: Transaction) -> int:
    return int(await tx.fetchval("tenants.count_secrets", tx.tenant))


async def clear_secrets(tx: Transaction, limit: int) -> int:
    """A page of secrets goes, with all versions; how many secrets that were."""
    rows = await tx.fetch("tenants.lock_secrets", tx.tenant, limit)
    secrets = [SecretId(row["secret_id"]) for row in rows]
    await tx.execute("tenants.clear_versions", tx.tenant, secrets)
    return await tx.execute("tenants.clear_secrets", tx.tenant, secrets)
