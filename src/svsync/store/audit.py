"""The audit log: what a batch of accesses looks up, the rows that it leaves, and pages of them.

The statements of the read path name their tenants by themselves, each in one round trip and
committed by itself.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from svsync.domain.audit import Entry
from svsync.domain.ids import TenantId
from svsync.store.database import Database, Line, Row, Transaction

Asked = tuple[TenantId, str, int | None, bytes | None, int | None]
"""Tenant, path (empty: none), version (None: the current one), and of what is known already
the nonce and the `row_rev`. Rows are handed over as tuples: for a column of each the driver
needs ten times as long."""
Linked = tuple[TenantId, *tuple[object, ...]]
"""A row of the log, as `linked` makes it."""


async def look(line: Line, asked: Sequence[Asked], seconds: float) -> list[Row]:
    """For each asked, with `n` from 1 on: epoch, moment, and the secret as it is now. A
    tenant that is not there has no row."""
    named = _named({one[0] for one in asked})
    return await line.call("audit.look", named, asked, seconds=seconds)


def linked(entry: Entry, chain: int, seq: int, at: datetime, digest: bytes) -> Linked:
    """A row in its place, in the order of the table's columns."""
    return entry[0], chain, seq, at, *entry[1:], digest


async def record(line: Line, rows: Sequence[Linked], seconds: float) -> None:
    """Append rows; they are on disk when this returns."""
    named = _named({row[0] for row in rows})
    await line.call("audit.record", named, rows, seconds=seconds)


async def open_chains(
    line: Line, tenants: Sequence[TenantId], writer: str, seconds: float
) -> dict[TenantId, int]:
    """Begin a chain for each tenant; their ids."""
    rows = await line.call("audit.open_chains", _named(tenants), tenants, writer, seconds=seconds)
    return {TenantId(row["tenant_id"]): int(row["chain_id"]) for row in rows}


async def end_chains(
    db: Database | Line,
    ends: Sequence[tuple[TenantId, int, int, bytes]],
    reason: str,
    seconds: float,
) -> None:
    """Say where chains end: tenant, chain, last number and hash."""
    named = _named({end[0] for end in ends})
    columns = zip(*ends, strict=True)
    await db.call("audit.end_chains", named, *columns, reason, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Asking:
    """Which rows of the log.

    Attributes:
        begin, end: from when on, and before when.
        path: a path, or with `/**` at its end whatever is below one.
        before: moment, chain and number of a row; those that come after it in a list whose
            newest are first. None: from the newest on.
    """

    begin: datetime
    end: datetime
    limit: int
    identity: str | None = None
    path: str | None = None
    action: str | None = None
    decision: str | None = None
    before: tuple[datetime, int, int] | None = None


async def now(tx: Transaction) -> datetime:
    """The database's time."""
    found: datetime = await tx.fetchval("audit.now")
    return found


async def page(tx: Transaction, asking: Asking) -> list[Row]:
    """Rows of the log, newest first."""
    at, chain, seq = asking.before or (asking.end, _NO_CHAIN, 0)
    args: list[object] = [
        tx.tenant, asking.begin, asking.end, at, chain, seq, asking.limit, asking.identity,
        asking.action, asking.decision,
    ]  # fmt: skip
    if asking.path is not None and asking.path.endswith("/**"):
        folder = asking.path.removesuffix("**")
        return await tx.fetch("audit.below_path", *args, folder, _after(folder))
    if asking.path is not None:
        return await tx.fetch("audit.of_path", *args, asking.path)
    if asking.identity is not None:
        return await tx.fetch("audit.of_identity", *args)
    if asking.decision == "deny":
        return await tx.fetch("audit.of_denied", *args)
    return await tx.fetch("audit.of_all", *args)


def _after(folder: str) -> str:
    """The first text after all that begin with a folder, slash included."""
    return folder[:-1] + chr(ord("/") + 1)


_NO_CHAIN: Final = 2**63 - 1


def _named(tenants: Collection[TenantId]) -> str:
    return ",".join(str(int(tenant)) for tenant in tenants)
