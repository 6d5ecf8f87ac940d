"""What is removed once its time is over, a batch at a time.

Nobody is waited for: what somebody else has in hand is left for the next time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from svsync.domain.ids import BackendId, RunId, SecretId
from svsync.store.columns import field_columns
from svsync.store.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class Kept:
    """How many versions a backend's secrets keep, and for how many seconds each is kept
    whatever their number; in the column order of `retention.trim`."""

    backend: BackendId
    max_versions: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept of each secret: that of its backend's, else that of all others."""

    max_versions: int
    grace_s: float
    backends: Sequence[Kept] = ()


async def page(
    tx: Transaction, after: int, limit: int, limits: Limits, tombstone_s: float
) -> list[Row]:
    """Secrets by number, with `expired` and `crowded`: what may be due of each."""
    backends, most, _ = field_columns(limits.backends, Kept)
    return await tx.fetch(
        "retention.page", tx.tenant, after, limit, tombstone_s, limits.max_versions, backends, most
    )


async def lock(tx: Transaction, secrets: Sequence[SecretId]) -> list[SecretId]:
    """Those of these secrets that nobody else has in hand, locked."""
    rows = await tx.fetch("retention.lock", tx.tenant, list(secrets))
    return [SecretId(row["secret_id"]) for row in rows]


async def trim(tx: Transaction, locked: Sequence[SecretId], most: int, limits: Limits) -> int:
    """Remove versions that are not kept, at most so many; how many there were."""
    return await tx.execute(
        "retention.trim", tx.tenant, list(locked), most, limits.max_versions, limits.grace_s,
        *field_columns(limits.backends, Kept),
    )  # fmt: skip


async def expired(
    tx: Transaction, locked: Sequence[SecretId], tombstone_s: float
) -> dict[SecretId, bool]:
    """The tombstones among them whose time is over, with their pairs locked; True where
    the marker must stay."""
    rows = await tx.fetch("retention.lock_pairs", tx.tenant, list(locked))
    whole = [row["secret_id"] for row in rows]
    found = await tx.fetch("retention.expired", tx.tenant, whole, tombstone_s)
    return {SecretId(row["secret_id"]): row["marks"] for row in found}


async def empty(tx: Transaction, tombstones: Sequence[SecretId]) -> int:
    """Remove the values of tombstones; how many had any."""
    return await tx.execute("retention.empty", tx.tenant, list(tombstones))


async def forget(tx: Transaction, tombstones: Sequence[SecretId]) -> int:
    """Leave nothing of tombstones but the counters of their versions."""
    return await tx.execute("retention.forget", tx.tenant, list(tombstones))


async def last_runs(tx: Transaction, count: int) -> list[RunId]:
    """The newest runs of each backend, and those that tell what its cycles cost."""
    return [row["run_id"] for row in await tx.fetch("retention.last_runs", tx.tenant, count)]


async def conflicts(tx: Transaction, after: Row | None, limit: int, seconds: float) -> list[Row]:
    return await tx.fetch("retention.conflicts", tx.tenant, *_key(after, 1), limit, seconds)


async def runs(
    tx: Transaction, after: Row | None, limit: int, seconds: float, kept: Sequence[RunId]
) -> list[Row]:
    return await tx.fetch("retention.runs", tx.tenant, *_key(after, 1), limit, seconds, list(kept))


async def pushes(tx: Transaction, after: Row | None, limit: int, seconds: float) -> list[Row]:
    return await tx.fetch("retention.pushes", tx.tenant, *_key(after, 1), limit, seconds)


async def detached(tx: Transaction, after: Row | None, limit: int, seconds: float) -> list[Row]:
    return await tx.fetch("retention.detached", tx.tenant, *_key(after, 3), limit, seconds)


async def tokens(tx: Transaction, after: Row | None, limit: int, seconds: float) -> list[Row]:
    return await tx.fetch("retention.tokens", tx.tenant, *_key(after, 1), limit, seconds)


def _key(after: Row | None, width: int) -> tuple[str, ...]:
    """Where a page begins: behind the last row of the one before."""
    return ("",) * width if after is None else tuple(after)[:width]
