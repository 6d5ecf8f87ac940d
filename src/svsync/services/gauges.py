"""How all backends stand, asked of the store once for all who want to know it now.

Several Prometheus servers may scrape one process, and a store that hangs may be asked
again and again: whoever comes while the store is being asked waits for that answer, so
no more than one connection is ever taken. What is counted of a backend or tenant that
is no more is forgotten then.
"""

import asyncio

from svsync.domain.errors import StoreError, StoreUnavailableError
from svsync.observe.meter import Meter, Standing
from svsync.store import gauges
from svsync.store.database import Database


class Gauges:
    """What the store knows for metrics."""

    def __init__(self, db: Database, meter: Meter, *, within: float = 5.0) -> None:
        """`within`: seconds that an asker waits at most."""
        self._db = db
        self._meter = meter
        self._within = within
        self._reading: asyncio.Task[Standing | StoreError] | None = None

    async def read(self) -> Standing:
        """How things stand in the store.

        Raises:
            StoreError: the store is away, or has not answered in time.
        """
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._look())
        await asyncio.wait({self._reading}, timeout=self._within)
        if not self._reading.done():
            raise StoreUnavailableError("the database has not answered in time: see its log")
        found = self._reading.result()
        if isinstance(found, StoreError):
            raise found
        return found

    async def _look(self) -> Standing | StoreError:
        """An error is an answer too: maybe nobody waits for it any more."""
        known = self._meter.known()
        try:
            standing = await gauges.read(self._db)
        except StoreError as error:
            return error
        self._meter.prune(known, standing)
        return standing

    async def aclose(self) -> None:
        """Give up what is being asked."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
