"""How many calls reads that pass through were given, and writes and connection tests made, of
backends with a budget of calls."""

from svsync.domain.ids import BackendId
from svsync.store.database import Transaction


async def count(tx: Transaction, backend: BackendId, calls: int) -> None:
    """So many more, in this hour; locks the hour's row."""
    await tx.execute("proxied_calls.count", tx.tenant, backend, calls)


async def made(tx: Transaction, backend: BackendId) -> int:
    """Calls of the last 24 hours, and of the hour that they began in."""
    calls: int = await tx.fetchval("proxied_calls.made", tx.tenant, backend)
    return calls


async def forget_old(tx: Transaction) -> None:
    """Remove what counts no more."""
    await tx.execute("proxied_calls.forget_old", tx.tenant)
