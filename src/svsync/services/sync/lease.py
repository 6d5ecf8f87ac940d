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
from contextlib import asynccontextmanager, suppress
from typing import Final

from svsync.domain.errors import FenceLostError, StoreError
from svsync.store import queue
from svsync.store.database import Database
from svsync.store.queue import Claimed

RENEW_S: Final = 10.0
"""Seconds between renewals; a lease lasts `queue.LEASE_S` after the last one."""
DEADLINE_S: Final = 20.0
"""Seconds without a confirmed renewal after which the worker stops by itself."""


@asynccontextmanager
async def held_lease(
    db: Database, claimed: Claimed, clock: Callable[[], float]
) -> AsyncIterator[None]:
    """Keep the lease renewed inside the block; cancel the block when it is lost.

    Raises:
        FenceLostError: the lease was lost while the block worked.
    """
    owner = asyncio.current_task()
    assert owner is not None
    lost = False

    async def renew() -> None:
        nonlocal lost
        proven = clock()
        while not lost:
            await asyncio.sleep(RENEW_S)
            asked = clock()
            try:
                async with asyncio.timeout(max(0.1, DEADLINE_S - (asked - proven))):
                    async with db.transaction(claimed.held.tenant) as tx:
                        lost = not await queue.renew(tx, claimed.held, claimed.holder)
                    proven = asked
            except (StoreError, TimeoutError):
                lost = clock() - proven >= DEADLINE_S
        owner.cancel()

    task = asyncio.create_task(renew(), name=f"lease of {claimed.held.backend}")
    try:
        yield
    except asyncio.CancelledError:
        if lost and owner.uncancel() == 0:
            raise FenceLostError(
                f"the lease of {claimed.held.backend} was lost: this run stops, another one goes on"
            ) from None
        raise
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
