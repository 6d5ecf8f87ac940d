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

from svsync.domain.errors import BackendBusyError, NotFoundError
from svsync.domain.ids import BackendId, Fence, RunId
from svsync.domain.suspects import Suspicion
from svsync.store import suspects
from svsync.store.columns import columns
from svsync.store.database import Held, Row, Transaction
from svsync.store.migrate import CODE_LEVEL

LEASE_S = 30.0
"""A lease lasts this many seconds after its last renewal."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that this process works on now.

    `asked_for`: a person wants it, whoever was first. `after_death`: the worker of the
    backend's last run died, nobody knows of what yet.
    """

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
    left: "Left | None" = None
    asked_for: bool = False
    after_death: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """What a stopped worker left of this run: the stage, where it was complete, tied to
    what it was listed under; and what it had counted."""

    staged: int | None
    scope_hash: str | None
    counts: Mapping[str, Any]
    calls: Mapping[str, int]
    stages_ms: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks a run to do. `paths`: globs over local paths; None: full, or, of
    a targeted run, what change feeds named."""

    kind: str
    trigger: str
    allow: Sequence[str] = ()
    paths: Sequence[str] | None = None


async def enqueue(
    tx: Transaction, backend: BackendId, run: RunId, wanted: Wanted
) -> tuple[RunId, bool]:
    """The run that waits from now on for what is wanted; True where it waited already, and
    now has this leave and these paths as well.

    Raises NotFoundError where the backend was removed.
    """
    paths = None if wanted.paths is None else list(wanted.paths)
    while True:
        made = await tx.fetchval(
            "queue.enqueue", tx.tenant, run, backend, wanted.kind, wanted.trigger, paths,
            list(wanted.allow),
        )  # fmt: skip
        if made is not None:
            return RunId(made), False
        joined = await tx.fetchval(
            "queue.join_waiting", tx.tenant, backend, wanted.kind, list(wanted.allow), paths,
            wanted.trigger,
        )  # fmt: skip
        if joined is not None:
            return RunId(joined), True
        # It was claimed in between; or there is nothing to run any more.
        if await tx.fetchval("federation.stand_by", tx.tenant, backend) is None:
            raise NotFoundError(f"there is no backend {backend!r}", code="backend_not_found")


async def claim(
    tx: Transaction, backend: BackendId, run: RunId, wanted: Wanted, *, holder: str
) -> tuple[Claimed, list[Row]]:
    """Queue a run and claim it at once, with the lease; and the lost runs this ended.

    Raises:
        BackendBusyError: somebody holds the lease. The transaction is rolled back
            by it, so the row that was queued is withdrawn.
    """
    chosen, _ = await enqueue(tx, backend, run, wanted)
    fence, lost = await _take_lease(tx, backend, chosen, holder)
    return await _start(tx, backend, chosen, fence, holder, lost), lost


async def claim_queued(
    tx: Transaction, run: RunId, *, holder: str
) -> tuple[Claimed, list[Row]] | None:
    """Claim a run that waits, with the lease; None where somebody else is about to, or did,
    where all runs are stopped, or where the schema asks for newer code.

    Raises:
        BackendBusyError: somebody holds the lease of its backend.
    """
    backend = await tx.fetchval("queue.lock_queued", tx.tenant, run, CODE_LEVEL)
    if backend is None:
        return None
    fence, lost = await _take_lease(tx, BackendId(backend), run, holder)
    return await _start(tx, BackendId(backend), run, fence, holder, lost), lost


async def put_off(
    tx: Transaction, run: RunId, reason: str, until: datetime | None, *, rev: int, asked_for: bool
) -> None:
    """Let a run wait until then, by the database's clock, or for a minute; `reason` is a
    published code, and `status` shows it. Not where its backend is not of this revision any
    more, somebody has asked for it meanwhile, or has it in hand: then it is looked at again."""
    backend = await tx.fetchval("queue.lock_queued", tx.tenant, run, CODE_LEVEL)
    if backend is not None and await tx.fetchval("federation.stand_by", tx.tenant, backend) == rev:
        await tx.execute("queue.put_off", tx.tenant, run, reason, until, asked_for)


async def grant(tx: Transaction, run: RunId, calls: int) -> None:
    """A running run may make so many more calls; they count as made until it ends."""
    await tx.execute("queue.grant", tx.tenant, run, calls)


async def withdraw(tx: Transaction, run: RunId) -> None:
    """End a run that waits, and that nobody can work any more."""
    await tx.execute("queue.withdraw", tx.tenant, run)


async def _take_lease(
    tx: Transaction, backend: BackendId, run: RunId, holder: str
) -> tuple[Fence, list[Row]]:
    fence = await tx.fetchval("queue.take_lease", tx.tenant, backend, holder, run, LEASE_S)
    if fence is None:
        row = await tx.fetchrow("queue.holder", tx.tenant, backend)
        who = row["holder"] if row else "somebody else"
        raise BackendBusyError(
            f"{who} is running {backend} now: wait for it, or add --wait",
            holder=who,
            expires_at=row["expires_at"] if row else None,
        )
    return Fence(fence), await tx.fetch("queue.end_lost", tx.tenant, backend)


async def _start(
    tx: Transaction,
    backend: BackendId,
    run: RunId,
    fence: Fence,
    holder: str,
    lost: Sequence[Row],
) -> Claimed:
    dead = RunId(lost[0]["run_id"]) if lost else None
    suspicion, after_death = await suspects.inherited(tx, backend, dead)
    row = await tx.fetchrow(
        "queue.start", tx.tenant, run, fence, holder, suspicion.deaths,
        list(suspicion.paths) or None,
    )  # fmt: skip
    assert row is not None
    left = None
    if row["handed_over"]:
        left = Left(
            row["staged_count"],
            row["scope_hash"],
            *(json.loads(row[column] or "{}") for column in ("counts", "calls", "stages_ms")),
        )
    return Claimed(
        run_id=run,
        run_no=row["run_no"],
        held=Held(tx.tenant, backend, fence),
        holder=holder,
        kind=row["kind"],
        trigger=row["trigger"],
        started_at=row["started_at"],
        suspicion=suspicion,
        asked_for=row["asked_for"],
        after_death=after_death,
        allow=tuple(row["allow"]),
        paths=None if row["paths"] is None else tuple(row["paths"]),
        left=left,
    )


async def end_lost(tx: Transaction, backend: BackendId, *, holder: str) -> list[Row]:
    """End what dead workers left of a backend that nobody runs any more; none where somebody
    holds its lease after all. Should a worker not be dead, it writes no more."""
    fence = await tx.fetchval("queue.take_lease", tx.tenant, backend, holder, None, LEASE_S)
    if fence is None:
        return []
    lost = await tx.fetch("queue.end_lost", tx.tenant, backend)
    await release(tx, Held(tx.tenant, backend, Fence(fence)))
    return lost


async def hand_over(
    tx: Transaction,
    run: RunId,
    *,
    counts: Mapping[str, Any],
    calls: Mapping[str, int],
    stages_ms: Mapping[str, int],
    keep_stage: bool,
) -> None:
    """Give a run back in the middle: it waits again, or the one of its kind that waits
    already goes on with its stage."""
    told = [json.dumps(told) for told in (counts, calls, stages_ms)]
    heir = await tx.fetchval("queue.inherit", tx.tenant, run, *told, keep_stage)
    if heir is None:
        await tx.execute("queue.requeue", tx.tenant, run, *told, keep_stage)
    else:
        await tx.execute("queue.pass_scopes", tx.tenant, run, heir)
        await tx.execute("queue.supersede", tx.tenant, run)


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
    """What runs on this backend now is superseded, and loses its next commit; what was put
    off is looked at again."""
    await tx.execute("queue.raise_fence", tx.tenant, backend)
    await tx.execute("queue.supersede_running", tx.tenant, backend)
    await tx.execute("queue.look_again", tx.tenant, backend)


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
    """Calls of the backend's runs that ended within 24 hours, or have not ended, of every kind
    of run and call.

    Of one that is under way, or whose worker died, or that was superseded, those that were
    granted to it; where its backend had no budget, none.
    """
    made: int = await tx.fetchval("queue.calls_of_last_day", tx.tenant, backend)
    return made


async def calls_come_free(tx: Transaction, backend: BackendId, calls: int) -> datetime | None:
    """When so many of the calls that count now are older than a day; None: nobody can tell,
    for runs are under way."""
    at: datetime | None = await tx.fetchval("queue.calls_come_free", tx.tenant, backend, calls)
    return at


async def calls_of_short_cycle(tx: Transaction, backend: BackendId) -> int:
    """What the last full run called, where it ended within a day and for want of calls; else 0."""
    calls: int | None = await tx.fetchval("queue.calls_of_short_cycle", tx.tenant, backend)
    return calls or 0


async def calls_of_cycles(tx: Transaction, backend: BackendId) -> list[dict[str, int]]:
    """Calls by operation of each of the last 10 full runs that completed, newest first."""
    rows = await tx.fetch("queue.calls_of_cycles", tx.tenant, backend)
    return [json.loads(row["calls"]) for row in rows]
