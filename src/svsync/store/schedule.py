"""What is due and who works on it: the schedule, the notices, the processes that are up.

Statements here look after all tenants at once (`Database.transaction_of`), unless their
transaction has a tenant of its own. All times are the database's.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from svsync.domain.ids import BackendId, RemotePath, RunId, TenantId
from svsync.store.database import Database, Row, Transaction
from svsync.store.migrate import CODE_LEVEL
from svsync.store.queue import LEASE_S

LIVE_S = 30.0
"""A process that has not been heard of for so many seconds counts as gone."""


async def beat(db: Database, instance: str, roles: Sequence[str], version: str) -> tuple[int, int]:
    """Say that this process is up; how many are, this one included, and how many of those
    answer the API."""
    await db.fetch_global("schedule.beat", instance, list(roles), version)
    rows = await db.fetch_global("schedule.count_live", LIVE_S)
    return max(1, int(rows[0]["live"])), int(rows[0]["answering"])


async def leave(db: Database, instance: str) -> None:
    await db.fetch_global("schedule.leave", instance)


async def next_due(tx: Transaction) -> tuple[int, float | None, int]:
    """How many backends are due; seconds until the next one is, None where none ever is; how
    many processes look for that, this one included."""
    row = await tx.fetchrow("schedule.next_due", LIVE_S)
    assert row is not None
    return row["due"], row["seconds"], max(1, row["looking"])


async def enqueue_due(tx: Transaction, ids: Sequence[str], *, probe_every: float) -> int:
    """Queue a run for each backend that is due, as many as there are ids at most; those
    that have no cycles are probed every so many seconds. The number of runs made."""
    return len(await tx.fetch("schedule.enqueue_due", list(ids), probe_every))


class Candidate(NamedTuple):
    """A run that could begin; `urgent`: the schedule alone did not ask for it."""

    tenant: TenantId
    run: RunId
    urgent: bool


async def candidates(tx: Transaction, limit: int) -> list[Candidate]:
    """Runs that this program could begin now, best first."""
    rows = await tx.fetch("schedule.candidates", limit, CODE_LEVEL)
    return [
        Candidate(TenantId(row["tenant_id"]), RunId(row["run_id"]), row["urgent"]) for row in rows
    ]


async def share(tx: Transaction, instance: str) -> tuple[int, int]:
    """How many processes work runs, and which of them this one is, from 0 on."""
    row = await tx.fetchrow("schedule.share", LIVE_S, instance)
    assert row is not None
    return max(1, row["many"]), row["before"]


async def next_begin(tx: Transaction) -> float | None:
    """Seconds until a waiting run that may not begin yet may."""
    seconds: float | None = await tx.fetchval("schedule.next_begin")
    return seconds


async def enqueue_probe(tx: Transaction, backend: BackendId, run: RunId, *, after_s: float) -> None:
    await tx.execute("schedule.enqueue_probe", tx.tenant, backend, run, after_s)


async def ask_for_probe(tx: Transaction, backend: BackendId, run: RunId) -> None:
    """Somebody could not reach it: look at once, unless a look is under way or waits for its
    time anyway."""
    await tx.execute("schedule.ask_for_probe", tx.tenant, backend, run)


async def enqueue_hinted(
    tx: Transaction, backend: BackendId, run: RunId, kind: str, *, apart_s: float
) -> bool:
    """Queue a run that a change feed asked for; False where one waits already, or the
    backend takes none."""
    made = await tx.fetchval("schedule.enqueue_hinted", tx.tenant, backend, run, kind, apart_s)
    return made is not None


async def add_dirty(
    tx: Transaction, backend: BackendId, paths: Collection[RemotePath], feed: str
) -> None:
    await tx.execute("schedule.add_dirty", tx.tenant, backend, sorted(paths), feed)


async def dirty(tx: Transaction, backend: BackendId) -> dict[RemotePath, int]:
    """The paths that notices named, each with the number of the last one."""
    rows = await tx.fetch("schedule.dirty", tx.tenant, backend)
    return {RemotePath(row["remote_path"]): row["seq"] for row in rows}


async def dirty_if_few(tx: Transaction, backend: BackendId, most: int) -> dict[RemotePath, int]:
    """As `dirty`; nothing where more than so many are named."""
    rows = await tx.fetch("schedule.dirty_first", tx.tenant, backend, most + 1)
    if len(rows) > most:
        return {}
    return {RemotePath(row["remote_path"]): row["seq"] for row in rows}


async def clean(tx: Transaction, backend: BackendId, seen: Mapping[RemotePath, int]) -> None:
    """These were looked at, as far as they stood for these numbers."""
    if seen:
        await tx.execute(
            "schedule.clean", tx.tenant, backend, list(seen.keys()), list(seen.values())
        )


async def overdue_pushes(tx: Transaction, late_s: float) -> list[Row]:
    return await tx.fetch("schedule.overdue_pushes", late_s)


async def abandoned(tx: Transaction) -> list[tuple[TenantId, BackendId, bool]]:
    """Backends with a run whose worker is gone, for which no other run waits, and whether
    they have cycles."""
    rows = await tx.fetch("schedule.abandoned")
    return [
        (TenantId(row["tenant_id"]), BackendId(row["backend_id"]), row["syncs"]) for row in rows
    ]


async def lost_at_rest(tx: Transaction) -> list[tuple[TenantId, BackendId]]:
    """Backends that are not run any more, with a run whose worker is gone."""
    rows = await tx.fetch("schedule.lost_at_rest")
    return [(TenantId(row["tenant_id"]), BackendId(row["backend_id"])) for row in rows]


async def stale(tx: Transaction) -> list[tuple[TenantId, BackendId]]:
    rows = await tx.fetch("schedule.stale")
    return [(TenantId(row["tenant_id"]), BackendId(row["backend_id"])) for row in rows]


async def tell_stale(tx: Transaction, backend: BackendId) -> Row | None:
    """What to tell of a stale backend; None where somebody else did, or it is stale no more."""
    return await tx.fetchrow("schedule.tell_stale", tx.tenant, backend)


async def take_turn(tx: Transaction, task: str, holder: str, every_s: float) -> int | None:
    """The fence of a task's lease; None where somebody has it, or did it a moment ago."""
    fence: int | None = await tx.fetchval(
        "schedule.take_turn", tx.tenant, task, holder, LEASE_S, every_s
    )
    return fence
