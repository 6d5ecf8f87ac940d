"""svsync with many small backends in memory, each due every 30 seconds, on one process.

The schedule and the pool of workers are those of `svsync serve`; what is measured is
how long a run waits once it is due, and the processor time of this process.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.programs import Result, answer
from svsync.app import new_id, open_app
from svsync.bus.local import LocalSignals
from svsync.config.model import Settings
from svsync.daemon.service import POOL, SLOTS
from svsync.domain.federation import BackendSpec, Mode, RuleSpec
from svsync.domain.ids import BackendId
from svsync.domain.values import SecretValue
from svsync.services.scheduling import Scheduling, keep_schedule
from svsync.services.workers import Workers
from svsync.testing.memory import MemoryDriver, MemoryStore

INTERVAL_S: Final = 30
_SECRETS: Final = 5
_WAITS: Final = """
SELECT count(*) AS runs,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - queued_at)) AS p50,
  percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - queued_at)) AS p99
FROM runs WHERE state = 'completed' AND kind = 'full' AND queued_at >= $1
"""
"""A run is queued by the tick that finds it due, at most a tick after it was."""


def backends(count: int, store: MemoryStore, *, interval_s: int = INTERVAL_S) -> list[BackendSpec]:
    found = []
    for number in range(count):
        for secret in range(_SECRETS):
            store.put(f"kv{number}/s{secret}", {"k": "v"})
        found.append(
            BackendSpec(
                id=BackendId(f"fed_{number:04}"),
                name=f"backend {number}",
                type="memory",
                rules=(RuleSpec(f"ext{number}/**", f"kv{number}/**"),),
                mode=Mode.SYNC,
                sync_interval=interval_s,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Looking:
    connection: "asyncpg.Connection[Any]"

    async def until_all_ran(self, count: int) -> None:
        while True:
            ran: int = await self.connection.fetchval(
                "SELECT count(*) FROM backend_health WHERE last_success_at IS NOT NULL"
            )
            if ran >= count:
                return
            await asyncio.sleep(0.5)

    async def spread(self) -> Any:
        """Due times as they are after a while, not all at one moment; the time it is now."""
        await self.connection.execute(
            "UPDATE backend_health SET next_due_at = now() + make_interval(secs => $1 * random())",
            INTERVAL_S,
        )
        return await self.connection.fetchval("SELECT now()")


async def main(given: Result) -> Result:
    """Runs begun in `seconds`, how long they waited, and the share of one core that took."""
    store = MemoryStore()
    specs = backends(given["count"], store)
    settings = Settings(
        database_url=SecretValue(given["dsn"]),
        state_dir=str(Path(given["state_dir"])),
        backends=tuple(specs),
    )
    drivers = {"memory": MemoryDriver(store)}
    connection: asyncpg.Connection[Any] = await asyncpg.connect(given["dsn"])
    await connection.execute("SELECT set_config('svsync.tenants', '1', false)")
    looking = _Looking(connection)
    async with open_app(settings, environ={}, drivers=drivers, pool=POOL) as app:
        signals = LocalSignals()
        scheduling = Scheduling(app.db, signals, ids=new_id, health_interval=60)
        workers = Workers(app.db, app.runs, signals, slots=SLOTS)
        schedule = asyncio.create_task(keep_schedule(scheduling))
        working = asyncio.create_task(workers.serve(grace=20))
        await looking.until_all_ran(given["count"])
        began = await looking.spread()
        clock, spent = time.monotonic(), time.process_time()
        await asyncio.sleep(given["seconds"])
        took, used = time.monotonic() - clock, time.process_time() - spent
        waits = await connection.fetchrow(_WAITS, began)
        assert waits is not None
        workers.stop()
        schedule.cancel()
        await asyncio.gather(schedule, working, return_exceptions=True)
    await connection.close()
    expected = given["count"] * given["seconds"] / INTERVAL_S
    assert waits["runs"] >= 0.8 * expected, f"{waits['runs']} runs, {expected:.0f} were due"
    return {
        "runs": waits["runs"],
        "p50_s": float(waits["p50"]),
        "p99_s": float(waits["p99"]),
        "cores": used / took,
    }


if __name__ == "__main__":
    answer(main)
