"""Holding a lease while a run works, and stopping when it is lost.

The lease is renewed on a connection of its own, so that a long statement of the
run does not keep it from being renewed. A worker never believes that it holds
the lease longer than it can prove: its deadline is counted by its own monotonic
clock from *before* the request that was answered, and when no renewal came back
in time the run's task is cancelled. What it might still write then fails on the
fence anyway.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from svsync.domain.errors import FenceLostError, StoreError
from svsync.store import queue
from svsync.store.database import Database, Held

RENEW_S: Final = 10.0
"""Seconds between renewals; a lease lasts `queue.LEASE_S` after the last one."""
DEADLINE_S: Final = 20.0
"""Seconds without a confirmed renewal after which the worker stops by itself."""


@asynccontextmanager
async def held_lease(
    db: Database, held: Held, holder: str, clock: Callable[[], float]
) -> AsyncIterator[Callable[[], float]]:
    """Keep the lease renewed inside the block; cancel the block when it is lost.

    Yields a function that tells the seconds for which the lease is surely held.

    Raises:
        FenceLostError: the lease was lost while the block worked.
    """
    owner = asyncio.current_task()
    assert owner is not None
    lost = False
    proven = clock()

    async def renew() -> None:
        nonlocal lost, proven
        while True:
            await asyncio.sleep(RENEW_S)
            asked = clock()
            try:
                async with db.transaction(held.tenant, renewal=True) as tx:
                    ours = await queue.renew(tx, held, holder)
            except StoreError:
                continue  # the watch below knows how long this may go on
            if not ours:
                lost = True
                owner.cancel()
                return
            proven = asked

    async def watch() -> None:
        """Whatever a renewal is waiting for, the deadline holds."""
        nonlocal lost
        while (left := proven + DEADLINE_S - clock()) > 0:  # noqa: ASYNC110 - it waits for a moment
            await asyncio.sleep(left)
        lost = True
        owner.cancel()

    name = f"lease of {held.backend}"
    tasks = [asyncio.create_task(renew(), name=name), asyncio.create_task(watch(), name=name)]
    try:
        yield lambda: proven + queue.LEASE_S - clock()
    except asyncio.CancelledError:
        if lost and owner.uncancel() == 0:
            raise FenceLostError(
                f"the lease of {held.backend} was lost: this run stops, another one goes on"
            ) from None
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
