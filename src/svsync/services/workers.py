"""The worker pool of one process: claims runs that wait, works them, gives them back.

Several processes have one each. Which runs could begin is looked up for all tenants at
once, best first, some more of them than there is room for; each is then claimed by itself,
and whoever comes second finds nothing. So that they seldom meet, each process begins with
its own share of what the schedule made, by the names of the runs; what is urgent is begun by
whoever can. It looks again when a signal comes, when it has come to the end of what it found,
or after a second.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final
from zlib import crc32

from svsync.domain.errors import (
    BackendBusyError,
    FenceLostError,
    HandedOverError,
    StoreError,
    SvsyncError,
)
from svsync.domain.ids import RunId, TenantId
from svsync.observe.logs import get_logger
from svsync.ports import Signals, Waker
from svsync.services.runs import Runs
from svsync.services.scheduling import EVENTS, RUNS
from svsync.store import federation, schedule
from svsync.store.database import Database
from svsync.store.schedule import Candidate

POLL_S: Final = 1.0
"""Seconds between two looks when no signal comes."""
AHEAD: Final = 4
"""So many times as many runs are looked up as all processes work at a time."""
AGAIN_S: Final = 5.0
"""Seconds for which this process leaves a run alone that it could not begin."""
LAST_S: Final = 5.0
"""Of the time to stop in, what is kept for giving back what does not come to a batch's end."""


class Workers:
    """Works runs, some at a time."""

    def __init__(
        self,
        db: Database,
        runs: Runs,
        signals: Signals,
        *,
        slots: int,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name`: of this process, as it tells it (`instances`)."""
        self._db = db
        self._runs = runs
        self._signals = signals
        self._slots = slots
        self._clock = clock
        self._at_work: dict[RunId, asyncio.Task[None]] = {}
        self._left_alone: dict[RunId, float] = {}
        self._name = name
        self._found: deque[Candidate] = deque()
        self._look_at = 0.0
        self._stopping = False
        self._changed = asyncio.Event()

    @property
    def at_work(self) -> int:
        return len(self._at_work)

    def stop(self) -> None:
        """Claim no more; runs under way are given back at the end of their batch."""
        self._stopping = True
        self._changed.set()

    async def serve(self, grace: float) -> None:
        """Work until `stop`, then be done within `grace` seconds. When cancelled, runs
        under way are given back where they stand."""
        away = False
        try:
            with self._signals.listen(RUNS) as waker:
                while not self._stopping:
                    self._changed.clear()
                    wait = POLL_S
                    try:
                        wait = await self._fill()
                        away = False
                    except StoreError as problem:
                        if not away:
                            get_logger().warning("workers_wait", error_code=problem.code)
                        away = True
                    if await self._until_something(waker, wait):
                        self._look_at = 0.0
            await self._finish(grace)
        finally:
            await self._cancel()

    async def _fill(self) -> float:
        """Begin what may begin, as far as there is room; seconds until to look again."""
        room = self._slots - len(self._at_work)
        if room <= 0:
            return POLL_S
        if not self._found or self._clock() >= self._look_at:
            await self._look()
        while room and self._found:
            tenant, run, _ = self._found.popleft()
            if run not in self._at_work and run not in self._left_alone:
                task = asyncio.create_task(self._work(tenant, run), name=f"run {run}")
                self._at_work[run] = task
                room -= 1
        return max(0.01, self._look_at - self._clock())

    async def _look(self) -> None:
        now = self._clock()
        self._left_alone = {run: at for run, at in self._left_alone.items() if at > now}
        tenants = await federation.active(self._db)
        async with self._db.transaction_of(tenants, read_only=True) as tx:
            many, mine = await schedule.share(tx, self._name)
            most = AHEAD * many * self._slots + len(self._left_alone)
            found = await schedule.candidates(tx, most)
            later = await schedule.next_begin(tx)
        # In their order within each half, for sorting keeps it.
        found.sort(key=lambda one: not one.urgent and crc32(one.run.encode()) % many != mine)
        self._found = deque(found)
        self._look_at = now + (POLL_S if later is None else min(POLL_S, max(0.01, later)))

    async def _work(self, tenant: TenantId, run: RunId) -> None:
        try:
            if await self._runs.work(tenant, run, lambda: self._stopping) is None:
                self._left_alone[run] = self._clock() + POLL_S
        except (BackendBusyError, HandedOverError, FenceLostError) as ended:
            if not isinstance(ended, HandedOverError):
                self._left_alone[run] = self._clock() + POLL_S
        except SvsyncError as problem:
            # Of the store or the key service: the run itself, once begun, tells its end.
            self._left_alone[run] = self._clock() + AGAIN_S
            get_logger().warning("run_waits", run_id=run, error_code=problem.code)
        except Exception as bug:  # noqa: BLE001 - a defect in one run ends no other; its end is written
            self._left_alone[run] = self._clock() + AGAIN_S
            get_logger().error("run_failed_unexpectedly", run_id=run, exc_info=bug)
        finally:
            self._at_work.pop(run, None)
            self._changed.set()
            await self._signals.wake(EVENTS)

    async def _until_something(self, waker: Waker, seconds: float) -> bool:
        """Until a run waits, or one here has ended, or the time is up. Whether a signal came."""
        signal = asyncio.create_task(waker.wait(seconds))
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait(
                (signal, changed), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            return signal.done()
        finally:
            for task in (signal, changed):
                task.cancel()
            await asyncio.gather(signal, changed, return_exceptions=True)

    async def _finish(self, grace: float) -> None:
        """Let what is at work come to the end of its batch, if that is soon."""
        if self._at_work:
            await asyncio.wait(self._at_work.values(), timeout=max(0.0, grace - LAST_S))

    async def _cancel(self) -> None:
        self._stopping = True
        tasks = list(self._at_work.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
