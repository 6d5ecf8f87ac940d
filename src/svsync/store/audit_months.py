"""The audit log by months: its partitions."""

from collections.abc import Sequence
from datetime import date, datetime

from svsync.domain.ids import TenantId
from svsync.store.database import Database, Row, Transaction


async def months(db: Database) -> Row:
    """`names` of the partitions, and `now`."""
    [row] = await db.fetch_global("audit_months.months")
    return row


async def all_tenants(db: Database) -> list[TenantId]:
    rows = await db.fetch_global("audit_months.all_tenants")
    return [TenantId(row["tenant_id"]) for row in rows]


async def make(tx: Transaction, first_day: date) -> bool:
    """The partition of a month; False where it is there already. It waits for a second at most."""
    await tx.fetch("audit_months.wait_briefly")
    return bool(await tx.fetchval("audit_months.make", first_day))


async def drop(tx: Transaction, first_day: date) -> str:
    """Remove a month; `removed`, `absent`, or `uncovered`: it has to wait for a checkpoint."""
    return str(await tx.fetchval("audit_months.drop", first_day))


async def have_rows(
    tx: Transaction, tenants: Sequence[TenantId], low: datetime, high: datetime
) -> list[TenantId]:
    """Those of the tenants that have rows from `low` on and before `high`."""
    rows = await tx.fetch("audit_months.have_rows", list(tenants), low, high)
    return [TenantId(row["tenant_id"]) for row in rows]


async def uncovered(
    tx: Transaction, tenants: Sequence[TenantId], low: datetime, high: datetime
) -> int:
    """Chains that have rows of that time which no checkpoint covers, and one may: a tenant that
    was shredded has no key to sign it."""
    return int(await tx.fetchval("audit_months.uncovered", list(tenants), low, high))
