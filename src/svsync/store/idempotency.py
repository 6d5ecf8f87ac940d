"""Keys that requests bring, and what became of each request."""

from dataclasses import dataclass

from svsync.store.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a request under a key.

    Attributes:
        identity: whose key it is.
        id: of the try; another one under the same key has another.
    """

    identity: str
    key: str
    id: str


async def begin(tx: Transaction, attempt: Attempt, request: bytes, kept_s: float) -> bool:
    """Take the key; False: somebody has it, and has had it for less than `kept_s` seconds."""
    taken = await tx.fetchrow(
        "idempotency.begin", tx.tenant, attempt.identity, attempt.key, attempt.id, request, kept_s
    )
    return taken is not None


async def find(tx: Transaction, attempt: Attempt, lost_s: float) -> Row | None:
    """Who has the key, with `lost`: for longer than `lost_s` seconds."""
    return await tx.fetchrow("idempotency.find", tx.tenant, attempt.identity, attempt.key, lost_s)


async def finish(
    tx: Transaction,
    attempt: Attempt,
    state: str,
    status: int | None = None,
    headers: str | None = None,
    answer: str | None = None,
) -> None:
    await tx.execute(
        "idempotency.finish", tx.tenant, attempt.identity, attempt.key, attempt.id, state, status,
        headers, answer,
    )  # fmt: skip


async def release(tx: Transaction, attempt: Attempt) -> None:
    """Give the key back: nothing was done."""
    await tx.execute("idempotency.release", tx.tenant, attempt.identity, attempt.key, attempt.id)


async def remove(tx: Transaction, kept_s: float, most: int) -> int:
    """Remove some that are older; how many there were."""
    return await tx.execute("idempotency.remove", tx.tenant, kept_s, most)
