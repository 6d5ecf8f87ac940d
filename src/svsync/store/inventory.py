"""Who reads what here, as the audit log tells it."""

from datetime import datetime

from svsync.domain.audit import LOOK
from svsync.store.database import Row, Transaction


async def readers(tx: Transaction, prefix: str, since: datetime, limit: int) -> list[Row]:
    """Paths that begin so, each with the applications that read it from a moment on, by path."""
    return await tx.fetch("inventory.readers", tx.tenant, prefix, since, limit, LOOK)
