"""Tasks that one process does for all, now and then: under a lease, as runs have theirs.

The lease stands under no tenant. Who takes it has the task until it is done; who died
with it loses it after 30 seconds, and the next one begins the task anew.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from svsync.domain.ids import BackendId, Fence
from svsync.services.sync.lease import held_lease
from svsync.store import queue, schedule
from svsync.store.database import NO_TENANT, Database, Held


@asynccontextmanager
async def turn_at(db: Database, task: str, holder: str, *, every_s: float) -> AsyncIterator[bool]:
    """Is it this process's turn at the task? At most one has it, and none sooner than so
    many seconds after the last turn began.

    Raises:
        FenceLostError: the lease was lost while the block worked.
        StoreError: the database is away.
    """
    name = BackendId(task)
    async with db.transaction(NO_TENANT) as tx:
        fence = await schedule.take_turn(tx, name, holder, every_s)
    if fence is None:
        yield False
        return
    held = Held(NO_TENANT, name, Fence(fence))
    async with held_lease(db, held, holder, time.monotonic):
        yield True
    async with db.transaction(NO_TENANT) as tx:
        await queue.release(tx, held)
