"""One replica of svsync with many small backends in memory, all of them always due.

It has what `svsync serve` runs for its runs, on the same event loop, and ends when its input
does. Each replica has the same store in its own memory: as one server that all of them ask
would look, each call answered after `answers_after_s`.
"""

import asyncio
import os
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.programs import Result, answer
from bench.svsync_many import backends
from svsync import __version__
from svsync.app import new_id, open_app, open_webhooks
from svsync.bus.local import LocalSignals
from svsync.config.model import Settings
from svsync.daemon.service import POOL, SLOTS
from svsync.domain.values import SecretValue
from svsync.observe.meter import Meter
from svsync.services.deliveries import keep_delivering
from svsync.services.instances import keep_beating
from svsync.services.scheduling import Scheduling, keep_schedule
from svsync.services.workers import Workers
from svsync.testing.memory import MemoryDriver, MemoryStore

ALWAYS_S: Final = 1
"""An interval that no number of replicas on one machine keeps for hundreds of backends."""


class _Counting(Meter):
    """Counts the runs that ended here."""

    def __init__(self) -> None:
        self.runs = 0

    def run_ended(
        self,
        tenant: str,
        backend: str,
        kind: str,
        result: str,
        seconds: float,
        counts: Mapping[str, int],
    ) -> None:
        self.runs += 1


async def main(given: Result) -> Result:
    """How many runs it worked until its input ended, and what processor time that took."""
    store, meter = MemoryStore(), _Counting()
    if given["answers_after_s"]:
        store.before = lambda _operation, _path: asyncio.sleep(given["answers_after_s"])
    settings = Settings(
        database_url=SecretValue(given["dsn"]),
        state_dir=str(Path(given["state_dir"])),
        backends=tuple(backends(given["count"], store, interval_s=ALWAYS_S)),
    )
    drivers = {"memory": MemoryDriver(store)}
    async with (
        open_app(settings, environ={}, drivers=drivers, meter=meter, pool=POOL) as app,
        open_webhooks(app) as (_, deliveries),
    ):
        signals = LocalSignals()
        scheduling = Scheduling(app.db, signals, ids=new_id, health_interval=60)
        name = f"bench:{os.getpid()}"
        workers = Workers(app.db, app.runs, signals, slots=SLOTS, name=name)
        works: list[Coroutine[Any, Any, None]] = [
            keep_beating(app.db, signals, name, roles=["scheduler", "worker"], version=__version__),
            keep_schedule(scheduling),
            keep_delivering(deliveries, signals),
        ]
        tasks = [asyncio.create_task(work) for work in works]
        working = asyncio.create_task(workers.serve(grace=20))
        await asyncio.to_thread(sys.stdin.read)
        workers.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(working, *tasks, return_exceptions=True)
    return {"runs": meter.runs, "cpu_s": time.process_time()}


if __name__ == "__main__":
    answer(main, loop=uvloop.new_event_loop)
