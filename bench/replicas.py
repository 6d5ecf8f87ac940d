"""Several replicas on one Postgres: the cycles that they make together."""

import asyncio
from typing import Any, Final

import asyncpg

from bench.programs import Result, ended, started

_REPLICA: Final = "bench.svsync_replica"
_POLL_S: Final = 0.1
_TOO_LATE_S: Final = 120.0
_READY = """
SELECT (SELECT count(*) FROM backend_health WHERE last_success_at IS NOT NULL) AS synced,
  (SELECT count(*) FROM instances) AS up
"""
_RUNS = "SELECT count(*) FROM runs WHERE state = 'completed' AND kind = 'full'"


async def cycles_a_minute(
    dsn: str, state: str, *, replicas: int, backends: int, seconds: float, answers_after_s: float
) -> Result:
    """Cycles that so many processes make in a minute, with more of them due than they can make.

    The database is empty: what earlier measurements left in it would be counted as well.
    """
    given: Result = {
        "dsn": dsn,
        "state_dir": state,
        "count": backends,
        "answers_after_s": answers_after_s,
    }
    processes = [await started(_REPLICA, **given) for _ in range(replicas)]
    connection: asyncpg.Connection[Any] | None = None
    try:
        connection = await _connected(dsn)
        await _until_ready(connection, backends, replicas)
        # One round first, in which connections open and statements are prepared.
        warm: int = await connection.fetchval(_RUNS) + backends
        await _until_made(connection, warm)
        # What the database does by itself within the first minute of new tables.
        await connection.execute("ANALYZE")
        await _until_made(connection, warm + backends)
        before: int = await connection.fetchval(_RUNS)
        clock = asyncio.get_running_loop().time
        began = clock()
        await asyncio.sleep(seconds)
        made = await connection.fetchval(_RUNS) - before
        took = clock() - began
        waiting = await connection.fetchval("SELECT count(*) FROM runs WHERE state = 'queued'")
    finally:
        ends = await asyncio.gather(*(ended(_REPLICA, process) for process in processes))
        if connection is not None:
            await connection.close()
    assert waiting > 0, "all that was due was done: nothing is known of what could be"
    assert all(end["runs"] for end in ends), ends
    return {
        "per_minute": made / took * 60,
        "runs": [end["runs"] for end in ends],
        "cpu_s": [end["cpu_s"] for end in ends],
    }


async def _connected(dsn: str) -> "asyncpg.Connection[Any]":
    connection: asyncpg.Connection[Any] = await asyncpg.connect(dsn)
    await connection.execute("SELECT set_config('svsync.tenants', '1', false)")
    return connection


async def _until_ready(connection: "asyncpg.Connection[Any]", backends: int, replicas: int) -> None:
    """All processes are up, and all backends were synced once."""
    async with asyncio.timeout(_TOO_LATE_S):
        while True:
            try:
                row = await connection.fetchrow(_READY)
            except asyncpg.UndefinedTableError:  # the first one makes the schema still
                row = None
            if row is not None and row["synced"] == backends and row["up"] == replicas:
                return
            await asyncio.sleep(_POLL_S)


async def _until_made(connection: "asyncpg.Connection[Any]", runs: int) -> None:
    async with asyncio.timeout(_TOO_LATE_S):
        while True:
            if await connection.fetchval(_RUNS) >= runs:
                return
            await asyncio.sleep(_POLL_S)
