"""The audit log: what a batch of accesses looks up, and the rows that it leaves.

These statements name their tenants by themselves, each in one round trip and committed by
itself: the read path is made of them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from svsync.domain.audit import Entry
from svsync.domain.ids import TenantId
from svsync.store.database import Database, Row

Asked = tuple[TenantId, str, int | None, int | None, int | None]
"""Tenant, path (empty: none), version (None: the current one), and of a ciphertext that is
known already the number of its secret and its version."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A row of the log, in its place."""

    entry: Entry
    chain: int
    seq: int
    at: datetime
    hash: bytes


async def look(db: Database, asked: Sequence[Asked], seconds: float) -> list[Row]:
    """For each asked, with `n` from 1 on: epoch, moment, and the secret as it is now. A
    tenant that is not there has no row."""
    named = _named({one[0] for one in asked})
    return await db.call("audit.look", named, *zip(*asked, strict=True), seconds=seconds)


async def record(db: Database, rows: Sequence[Linked], seconds: float) -> None:
    """Append rows; they are on disk when this returns."""
    columns = zip(
        *(
            (
                row.entry.tenant,
                row.chain,
                row.seq,
                row.at,
                row.entry.identity_type,
                row.entry.identity_id,
                row.entry.action,
                row.entry.secret_path,
                row.entry.decision,
                row.entry.version,
                row.entry.backend_id,
                row.entry.request_id,
                row.entry.source_ip,
                row.entry.detail,
                row.hash,
            )
            for row in rows
        ),
        strict=True,
    )
    named = _named({row.entry.tenant for row in rows})
    await db.call("audit.record", named, *columns, seconds=seconds)


async def open_chains(
    db: Database, tenants: Sequence[TenantId], writer: str, seconds: float
) -> dict[TenantId, int]:
    """Begin a chain for each tenant; their ids."""
    rows = await db.call("audit.open_chains", _named(tenants), tenants, writer, seconds=seconds)
    return {TenantId(row["tenant_id"]): int(row["chain_id"]) for row in rows}


async def end_chains(
    db: Database,
    ends: Sequence[tuple[TenantId, int, int, bytes]],
    reason: str,
    seconds: float,
) -> None:
    """Say where chains end: tenant, chain, last number and hash."""
    named = _named({end[0] for end in ends})
    columns = zip(*ends, strict=True)
    await db.call("audit.end_chains", named, *columns, reason, seconds=seconds)


def _named(tenants: Collection[TenantId]) -> str:
    return ",".join(str(int(tenant)) for tenant in tenants)
