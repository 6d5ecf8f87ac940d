"""Identities that ScaiKey vouches for: their groups, and who is super_admin."""

from collections.abc import Sequence
from datetime import datetime

from svsync.domain.ids import TenantId
from svsync.store.database import Database, Row, Transaction


async def tenant_of(db: Database, slug: str) -> TenantId | None:
    """None: there is no such tenant. One that is shut is found too."""
    rows = await db.fetch_global("scaikey.tenant", slug)
    return TenantId(rows[0]["tenant_id"]) if rows else None


async def find(tx: Transaction, identity: str) -> Row:
    row = await tx.fetchrow("scaikey.find", tx.tenant, identity)
    assert row is not None
    return row


async def tell_groups(
    tx: Transaction, identity: str, groups: Sequence[str], issued_at: datetime
) -> None:
    """In place of those that were known. The tenant's row must be locked."""
    await tx.execute("scaikey.tell_groups", tx.tenant, identity, list(groups), issued_at)


async def promote(tx: Transaction, identity: str, by: str) -> bool:
    """Make an identity super_admin; False: there is one. The tenant's row must be locked."""
    return await tx.execute("scaikey.promote", tx.tenant, identity, by) == 1


async def has_super_admin(tx: Transaction) -> bool:
    return bool(await tx.fetchval("scaikey.has_super_admin", tx.tenant))
