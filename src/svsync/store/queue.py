"""Runs and leases: who may work on a backend now, and how far it has got.

A run is born queued, is claimed together with its backend's lease in one
transaction, and every later transaction of it locks the fence that the lease
gave (`database.Held`). Time is the database's clock; what a worker does with its
own clock is its own business (`services/sync/lease.py`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from svsync.domain.errors import BackendBusyError
from svsync.domain.ids import BackendId, Fence, RunId
from svsync.domain.suspects import Suspicion
from svsync.store import suspects
from svsync.store.columns import columns
from svsync.store.database import Held, Row, Transaction

LEASE_S = 30.0
"""A lease lasts this many seconds after its last renewal."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that this process works on now."""

    run_id: RunId
    run_no: int
    held: Held
    holder: str
    kind: str
    trigger: str
    started_at: datetime
    suspicion: Suspicion
    allow: tuple[str, ...]
    paths: tuple[str, ...] | None


async def claim(
    tx: Transaction,
    backend: BackendId,
    run: RunId,
    *,
    kind: str,
    trigger: str,
    holder: str,
    allow: Sequence[str] = (),
    paths: Sequence[str] | None = None,
) -> tuple[Claimed, list[Row]]:
    """Queue a run and claim it at once, with the lease; and the lost runs this ended.

    Raises:
        BackendBusyError: somebody holds the lease. The transaction is rolled back
            by it, so the row that was queued is withdrawn.
    """
    fence = await tx.fetchval("queue.take_lease", tx.tenant, backend, holder, run, LEASE_S)
    if fence is None:
        row = await tx.fetchrow("queue.holder", tx.tenant, backend)
        who = row["holder"] if row else "somebody else"
        raise BackendBusyError(
            f"{who} is running {backend} now: wait for it, or add --wait",
            holder=who,
            expires_at=row["expires_at"] if row else None,
        )
    lost = await tx.fetch("queue.end_lost", tx.tenant, backend)
    made = await tx.fetchval(
        "queue.enqueue", tx.tenant, run, backend, kind, trigger,
        None if paths is None else list(paths), list(allow),
    )  # fmt: skip
    chosen = made or await tx.fetchval("queue.waiting", tx.tenant, backend, kind)
    suspicion = await suspects.inherited(tx, backend, RunId(lost[0]["run_id"]) if lost else None)
    row = await tx.fetchrow(
        "queue.start", tx.tenant, chosen, fence, holder, suspicion.deaths,
        list(suspicion.paths) or None,
    )  # fmt: skip
    assert row is not None
    return (
        Claimed(
            run_id=RunId(chosen),
            run_no=row["run_no"],
            held=Held(tx.tenant, backend, Fence(fence)),
            holder=holder,
            kind=row["kind"],
            trigger=row["trigger"],
            started_at=row["started_at"],
            suspicion=suspicion,
            allow=tuple(row["allow"]),
            paths=None if row["paths"] is None else tuple(row["paths"]),
        ),
        lost,
    )


async def renew(tx: Transaction, held: Held, holder: str) -> bool:
    """Is the lease still ours? Then for LEASE_S more."""
    return (
        await tx.execute(
            "queue.renew_lease", held.tenant, held.backend, held.fence, holder, LEASE_S
        )
        == 1
    )


async def release(tx: Transaction, held: Held) -> None:
    await tx.execute("queue.release_lease", held.tenant, held.backend, held.fence)


async def lock_lease(tx: Transaction, backend: BackendId) -> None:
    """Wait for a run's open transaction, and keep the next one waiting for ours."""
    await tx.fetch("queue.lock_lease", tx.tenant, backend)


async def raise_fence(tx: Transaction, backend: BackendId) -> None:
    """What runs on this backend now is superseded, and loses its next commit."""
    await tx.execute("queue.raise_fence", tx.tenant, backend)
    await tx.execute("queue.supersede_running", tx.tenant, backend)


async def set_stage(tx: Transaction, run: RunId, stage: str) -> None:
    await tx.execute("queue.set_stage", tx.tenant, run, stage)


async def record_staged(tx: Transaction, run: RunId, staged: int, scope_hash: str) -> None:
    await tx.execute("queue.record_staged", tx.tenant, run, staged, scope_hash)


async def record_todo(tx: Transaction, run: RunId, todo: int) -> None:
    await tx.execute("queue.record_todo", tx.tenant, run, todo)


async def advance(tx: Transaction, run: RunId, cursor: int, size: int) -> None:
    """Name what is in hand: rows `cursor + 1 … cursor + size` of the work list."""
    await tx.execute("queue.advance", tx.tenant, run, cursor, size)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, ready for its row."""

    state: str
    result: str
    stage: str
    counts: Mapping[str, Any]
    calls: Mapping[str, int]
    stages_ms: Mapping[str, int]
    error: tuple[str, str, str] | None
    skips: Sequence[tuple[str, str, str]]


async def finish(tx: Transaction, run: RunId, ending: Ending) -> Row:
    """Write the run's end; its `started_at` and `ended_at` by the database's clock."""
    code, stage, message = ending.error or (None, None, None)
    row = await tx.fetchrow(
        "queue.finish", tx.tenant, run, ending.state, ending.result, ending.stage,
        json.dumps(ending.counts), json.dumps(ending.calls), json.dumps(ending.stages_ms),
        code, stage, message,
    )  # fmt: skip
    assert row is not None
    if ending.skips:
        rows = [(n, *skip) for n, skip in enumerate(ending.skips)]
        await tx.execute("queue.add_skips", tx.tenant, run, *columns(rows, 4))
    return row


async def get(tx: Transaction, run: RunId) -> Row | None:
    return await tx.fetchrow("queue.get", tx.tenant, run)


async def skips(tx: Transaction, run: RunId) -> list[Row]:
    return await tx.fetch("queue.skips", tx.tenant, run)


async def recent(tx: Transaction, backend: BackendId, limit: int) -> list[Row]:
    """The backend's last runs, newest first."""
    return await tx.fetch("queue.recent", tx.tenant, backend, limit)


async def calls_of_last_day(tx: Transaction, backend: BackendId) -> int:
    """Calls of the backend's runs that ended within 24 hours, of every kind of run and call.

    No more than were made: a run whose worker died, or that was superseded, tells none.
    """
    made: int = await tx.fetchval("queue.calls_of_last_day", tx.tenant, backend)
    return made


async def calls_of_cycles(tx: Transaction, backend: BackendId) -> list[dict[str, int]]:
    """Calls by operation of each of the last 10 full runs that completed, newest first."""
    rows = await tx.fetch("queue.calls_of_cycles", tx.tenant, backend)
    return [json.loads(row["calls"]) for row in rows]
