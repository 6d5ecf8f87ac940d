"""How all backends stand, for metrics: one statement a kind, for all tenants, no table read
that grows with the secrets."""

from svsync.domain.ids import TenantId
from svsync.observe.meter import BackendStanding, Standing, TenantStanding
from svsync.store.database import Database


async def read(db: Database) -> Standing:
    """What the store says of all active tenants now.

    Raises:
        StoreUnavailableError: it cannot be reached, or has no answer within seconds.
    """
    tenants = [TenantId(row["tenant_id"]) for row in await db.fetch_global("gauges.tenants")]
    async with db.transaction_of(tenants, read_only=True) as tx:
        await tx.fetch("gauges.hurry")
        backends = await tx.fetch("gauges.backends")
        waiting = await tx.fetch("gauges.waiting")
    return Standing(
        tuple(BackendStanding(**row) for row in backends),
        tuple(TenantStanding(**row) for row in waiting),
    )
