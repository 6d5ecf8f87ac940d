"""Backends that Event Grid may tell of changes by a token of its own, in every tenant."""

from svsync.domain.federation import BackendSpec, from_json
from svsync.domain.ids import BackendId
from svsync.store import federation
from svsync.store.database import Database, Row


async def find(db: Database, backend: BackendId) -> list[tuple[Row, BackendSpec]]:
    """Those of this id in the active tenants: the tenant, and the backend as configured."""
    tenants = await federation.active(db)
    async with db.transaction_of(tenants, read_only=True) as tx:
        rows = await tx.fetch("feed_tokens.find", tenants, backend)
    return [(row, from_json(row["spec"])) for row in rows]
