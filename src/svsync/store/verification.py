"""The audit log as it is verified: page by page, each in a transaction of its own."""

from collections.abc import Sequence
from datetime import datetime

from svsync.domain.audit import TRIM, TRIMMER, Head
from svsync.store.database import Row, Transaction


async def chains(tx: Transaction, after: int, limit: int) -> list[Row]:
    return await tx.fetch("verification.chains", tx.tenant, after, limit)


async def chain(tx: Transaction, number: int) -> Row | None:
    return await tx.fetchrow("verification.chain", tx.tenant, number)


async def rows(tx: Transaction, after: tuple[int, int], begin: datetime, limit: int) -> list[Row]:
    """Rows from a moment on, in the order of chains, from behind a chain's number on."""
    return await tx.fetch("verification.rows", tx.tenant, *after, begin, limit)


async def row_hash(tx: Transaction, chain: int, seq: int) -> bytes | None:
    found: bytes | None = await tx.fetchval("verification.row_hash", tx.tenant, chain, seq)
    return found


async def hashes(tx: Transaction, heads: Sequence[Head]) -> list[bytes | None]:
    """Of each head the hash of its row, None where there is no such row."""
    chains, numbers = [head.chain for head in heads], [head.seq for head in heads]
    found = await tx.fetch("verification.heads", tx.tenant, chains, numbers)
    return [row["hash"] for row in found]


async def trims(tx: Transaction) -> list[str]:
    """JSON texts of what retention said that it would remove."""
    found = await tx.fetch("verification.trims", tx.tenant, TRIMMER, TRIM)
    return [row["detail"] for row in found]


async def newest(tx: Transaction) -> int:
    """The number of the newest checkpoint; 0 where there is none."""
    return int(await tx.fetchval("verification.newest", tx.tenant))
