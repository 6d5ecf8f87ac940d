"""When does the schedule look for what is due, and how does it end?"""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from tests.patience import PATIENCE_S

from svsync.services.scheduling import Scheduling, keep_schedule


class Ticks(Scheduling):
    """A schedule on which something is due at every moment."""

    def __init__(self) -> None:
        self.seen = 0
        self.third = asyncio.Event()

    async def tick(self, *, care: bool = True) -> float:
        self.seen += 1
        if self.seen == 3:
            self.third.set()
        return 0.02


@contextmanager
def no_thread_free() -> Iterator[None]:
    """The loop has one thread, which has something else to do until the block ends."""
    free = threading.Event()
    threads = ThreadPoolExecutor(1)
    threads.submit(free.wait)
    asyncio.get_running_loop().set_default_executor(threads)
    try:
        yield
    finally:
        free.set()


async def test_the_schedule_waits_for_no_thread_and_its_end_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticks = Ticks()
    with no_thread_free():
        keeping = asyncio.create_task(keep_schedule(ticks))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await ticks.third.wait()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
