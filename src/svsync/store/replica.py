"""A replica of the database that answers what may be a moment old.

How far it is behind is told by no clock but this process's own. Once a second, while
somebody asks, the primary says how far its log of changes is; the replica says how far it
has come, in the transaction that answers. What the primary said last of what the replica
has is as old as that is now, and no older is the answer.

It is not asked where it is too far behind, away, no replica any more, one of another server,
or would show the rows of all tenants; whoever asks is answered by the primary then. So is who
asks for what it does not have: that may have been made a moment ago.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from svsync.domain.errors import NotFoundError, StoreError
from svsync.domain.ids import TenantId
from svsync.observe.logs import get_logger
from svsync.observe.replica_lag import tell_lag
from svsync.store.database import Database, Transaction, open_spare

T = TypeVar("T")
SAMPLE_S: Final = 1.0
"""Seconds for which the primary need not be asked how far it is."""
PATIENCE_S: Final = 3.0
"""Seconds after which an answer of the replica is not waited for."""
AWAY_S: Final = 5.0
"""Seconds for which one that could not be asked is left alone."""
_CONNECTIONS: Final = 4
_SAMPLES: Final = 4_000
"""Longer ago than the longest lag that may be allowed."""


class _UnfitError(Exception):
    """It may not be asked; the text says why."""


class _BehindError(Exception):
    """It is too far behind."""

    def __init__(self, lag_s: float | None) -> None:
        super().__init__()
        self.lag_s = lag_s


@dataclass(frozen=True, slots=True)
class Standing:
    """How the replica stands. `lag_s`: seconds that it is behind at most; None: longer than
    anybody has looked. `problem`: why it is not asked; empty: it is."""

    lag_s: float | None
    problem: str = ""


class Replica:
    """One replica. Made by `open_replica`."""

    def __init__(
        self,
        primary: Database,
        spare: Database,
        *,
        max_lag: float,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE_S,
    ) -> None:
        """`max_lag`: seconds; one that is further behind is not asked. `clock`: monotonic
        seconds; `patience`: of them an answer may take."""
        self._primary = primary
        self._spare = spare
        self._max_lag = max_lag
        self._clock = clock
        self._patience = patience
        self._written: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        self._looking = asyncio.Lock()
        self._same_server = False
        self._left_alone_until = 0.0
        self._problem = ""

    async def read(
        self, tenant: TenantId, work: Callable[[Transaction], Awaitable[T]]
    ) -> tuple[T] | None:
        """What `work` finds there; None: the primary is to be asked."""
        if self._clock() < self._left_alone_until:
            return None
        try:
            async with asyncio.timeout(self._patience):
                found, lag = await self._read(tenant, work)
        except (NotFoundError, _BehindError):
            return None
        except (StoreError, TimeoutError, _UnfitError) as problem:
            self._leave_alone(problem)
            return None
        if self._problem:
            get_logger().info("replica_asked_again")
            self._problem = ""
        tell_lag(lag)
        return (found,)

    async def look(self, tenant: TenantId) -> Standing:
        """How it stands now."""

        async def nothing(_tx: Transaction) -> None:
            return None

        try:
            async with asyncio.timeout(self._patience):
                _, lag = await self._read(tenant, nothing)
        except _BehindError as behind:
            return Standing(behind.lag_s)
        except _UnfitError as problem:
            return Standing(None, str(problem))
        except (StoreError, TimeoutError):
            return Standing(None, "it does not answer")
        return Standing(lag)

    async def _read(
        self, tenant: TenantId, work: Callable[[Transaction], Awaitable[T]]
    ) -> tuple[T, float]:
        """What `work` finds, and how many seconds old that is at most."""
        await self._ask_primary()
        await self._compare_servers()
        async with self._spare.transaction(tenant, read_only=True) as tx:
            # Before anything else is read, so that all that is read is no older.
            row = await tx.fetchrow("replica.standing")
            assert row is not None
            if row["powerful"]:
                raise _UnfitError("its role is not held by row-level security")
            if not row["is_replica"]:
                raise _UnfitError("it is no replica")
            lag = self._lag(row["replayed"])
            if lag is None or lag > self._max_lag:
                raise _BehindError(lag)
            return await work(tx), lag

    async def _ask_primary(self) -> None:
        """How far its log of changes is, unless that was asked just now."""
        if self._is_fresh():
            return
        async with self._looking:
            if self._is_fresh():
                return
            now = self._clock()  # before: what it says was so then, or later
            [row] = await self._primary.fetch_global("replica.written")
            self._written.append((now, row["written"]))

    def _is_fresh(self) -> bool:
        return bool(self._written) and self._clock() - self._written[-1][0] < SAMPLE_S

    def _lag(self, replayed: int | None) -> float | None:
        if replayed is None:
            return None
        for at, written in reversed(self._written):
            if written <= replayed:
                return self._clock() - at
        return None

    async def _compare_servers(self) -> None:
        """Once: places in the logs of two servers mean nothing to each other."""
        if self._same_server:
            return
        try:
            [there] = await self._spare.fetch_global("replica.system")
            [here] = await self._primary.fetch_global("replica.system")
        except StoreError as problem:
            if problem.code != StoreError.code:
                raise
            self._same_server = True  # our role may not know
            return
        if there["system"] != here["system"]:
            raise _UnfitError("it is a replica of another server")
        self._same_server = True

    def _leave_alone(self, problem: Exception) -> None:
        self._left_alone_until = self._clock() + AWAY_S
        why = str(problem) if isinstance(problem, _UnfitError) else "it does not answer"
        if why != self._problem:
            self._problem = why
            get_logger().warning("replica_not_asked", detail=f"the primary is asked: {why}")


@asynccontextmanager
async def open_replica(dsn: str, primary: Database, *, max_lag: float) -> AsyncIterator[Replica]:
    """The replica at an address, connected to when it is first asked.

    Raises StoreUnavailableError: the address is none.
    """
    async with open_spare(dsn, size=_CONNECTIONS) as spare:
        yield Replica(primary, spare, max_lag=max_lag)
