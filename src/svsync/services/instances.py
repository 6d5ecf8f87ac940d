"""Which processes are up: each says so every few seconds."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from svsync.domain.errors import SvsyncError
from svsync.ports import Signals
from svsync.store import schedule
from svsync.store.database import Database

BEAT_S: Final = 10.0


async def keep_beating(
    db: Database,
    signals: Signals,
    instance: str,
    *,
    roles: Sequence[str],
    version: str,
    each: Callable[[int], None] = lambda answering: None,
) -> None:
    """Say that this process is up until cancelled, and tell the signals how many are; a
    process that was stopped in order is taken from the list at once.

    `each` is called with every beat; with how many processes answer the API.
    """
    answering = 1
    try:
        while True:
            with suppress(SvsyncError):  # others count one less, until the next beat
                live, answering = await schedule.beat(db, instance, roles, version)
                signals.divide_by(live)
            each(answering)
            await asyncio.sleep(BEAT_S)
    finally:
        leaving = asyncio.ensure_future(_leave(db, instance))
        await asyncio.wait({leaving}, timeout=2.0)
        leaving.cancel()


async def _leave(db: Database, instance: str) -> None:
    with suppress(SvsyncError):  # it is forgotten once it was not heard of for half a minute
        await schedule.leave(db, instance)
