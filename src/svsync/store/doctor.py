"""What an examination asks of the database that nobody else does."""

from svsync.store.database import Database, Row, Transaction


async def server(db: Database) -> Row:
    """Version, role, clock, and what the server writes into its log."""
    [row] = await db.fetch_global("doctor.server")
    return row


async def neglected(tx: Transaction, late_s: float) -> list[Row]:
    """What nobody has in hand any more, of each backend of the transaction's tenants;
    `late_s`: seconds after a push's deadline."""
    return await tx.fetch("doctor.neglected", late_s)


async def receivers(tx: Transaction) -> list[Row]:
    """Endpoints of the transaction's tenants: how they stand, how many deliveries wait and
    how many were given up, and why the newest of those that did not arrive did not."""
    return await tx.fetch("doctor.receivers")
