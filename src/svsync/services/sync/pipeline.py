"""Stages that work at the same time: one makes what the next one will need."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, TypeVar

T = TypeVar("T")

AHEAD: Final = 2
"""Batches that may wait between two stages; they bound the memory."""


async def ahead(batches: AsyncGenerator[T], most: int = AHEAD) -> AsyncGenerator[T]:
    """The same batches, made while the ones before are being worked on.

    So the backend is listed while the database copies, and read while it looks up
    and writes. At most `most` wait. The producer is a task of this generator: it
    ends with it, and its error is raised where the next batch would have come.
    """
    made: asyncio.Queue[T | None] = asyncio.Queue()
    room = asyncio.Semaphore(most)

    async def produce() -> None:
        try:
            async with aclosing(batches):
                async for batch in batches:
                    await room.acquire()
                    made.put_nowait(batch)
        finally:
            made.put_nowait(None)

    producer = asyncio.create_task(produce(), name="work ahead")
    try:
        while (batch := await made.get()) is not None:
            room.release()
            yield batch
        await producer
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)
