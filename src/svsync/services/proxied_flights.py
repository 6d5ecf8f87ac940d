"""One call of a backend for all who wait for the same path.

Whoever asks for a path while somebody else's call for it is under way shares its answer.
A caller who goes takes nobody's call away; the last one who goes ends it. Nothing of an
answer is kept once those who wait for it were told.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from svsync.domain.changes import RemoteGone, RemoteValue
from svsync.domain.errors import BackendTimeoutError, StoreUnavailableError
from svsync.domain.ids import BackendId, LocalPath, TenantId
from svsync.services.proxied_paths import Through

_Said = RemoteValue | RemoteGone
_Key = tuple[TenantId, LocalPath, BackendId, int]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a backend said of a path, or what kept it from saying anything.

    Attributes:
        epoch: of the owners who gave `through`.
    """

    through: Through
    epoch: int
    found: _Said | None = field(default=None, repr=False)
    failed: Exception | None = None

    def is_of(self, through: Through, epoch: int) -> bool:
        """Is it what a call by this way would say?"""
        return (self.through.backend, self.epoch) == (through.backend, epoch)

    def given(self) -> _Said:
        """Raises what failed."""
        if self.found is None:
            assert self.failed is not None
            raise self.failed
        return self.found


@dataclass(slots=True, eq=False)
class _Flight:
    """One call, and how many wait for its answer."""

    task: "asyncio.Task[_Said]"
    waiting: int = 0


class ProxiedFlights:
    """The calls under way, of every tenant."""

    def __init__(
        self,
        call: Callable[[TenantId, LocalPath, Through], Awaitable[_Said]],
        *,
        patience: float,
    ) -> None:
        """`patience`: seconds that somebody waits for a call."""
        self._call = call
        self._patience = patience
        self._flights: dict[_Key, _Flight] = {}
        self._under_way: set[asyncio.Task[_Said]] = set()

    @property
    def under_way(self) -> int:
        """Calls that have not ended."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """Those who wait for them."""
        return sum(flight.waiting for flight in self._flights.values())

    async def share(self, tenant: TenantId, path: LocalPath, way: Through, epoch: int) -> _Said:
        """What a call says that is under way, or is made for this.

        Raises what the call raised; BackendTimeoutError: nothing in time;
        StoreUnavailableError (`stopping`).
        """
        told: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()

        def tell(heard: Heard) -> None:
            if not told.done():  # who waited is cancelled, and has not come to leave yet
                told.set_result(heard)

        leave = self.hear(tenant, path, way, epoch, tell)
        try:
            return (await told).given()
        finally:
            leave()

    def hear(
        self,
        tenant: TenantId,
        path: LocalPath,
        way: Through,
        epoch: int,
        then: Callable[[Heard], None],
    ) -> Callable[[], None]:
        """The same for whoever does not wait: `then` is called once, with what was said, unless
        what is given back is called before; it raises nothing."""
        key = (tenant, path, way.backend, epoch)
        flight = self._flights.get(key) or self._begin(key, way)
        return _Hearing(self, key, flight, way, then, self._patience).leave

    def _begin(self, key: _Key, way: Through) -> _Flight:
        task = asyncio.ensure_future(self._call(key[0], key[1], way))
        flight = self._flights[key] = _Flight(task)
        self._under_way.add(task)

        def ended(task: "asyncio.Task[_Said]") -> None:
            self._under_way.discard(task)
            self.forget(key, flight)
            if not task.cancelled():
                task.exception()  # nobody may be left to be told

        task.add_done_callback(ended)
        return flight

    def forget(self, key: _Key, flight: _Flight) -> None:
        """Whoever comes now makes another call."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def close(self) -> None:
        """End the calls under way."""
        ending = list(self._under_way)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


class _Hearing:
    """One who is told what came of a call."""

    def __init__(
        self,
        flights: ProxiedFlights,
        key: _Key,
        flight: _Flight,
        way: Through,
        then: Callable[[Heard], None],
        patience: float,
    ) -> None:
        self._flights = flights
        self._key = key
        self._flight = flight
        self._way = way
        self._then: Callable[[Heard], None] | None = then
        flight.waiting += 1
        flight.task.add_done_callback(self._ended)
        late = asyncio.get_running_loop().call_later
        self._late = late(patience, self._is_late, patience)

    def leave(self) -> None:
        """Nobody is to be told."""
        if self._take() is not None and not self._flight.waiting:
            self._flights.forget(self._key, self._flight)
            self._flight.task.cancel()

    def _take(self) -> Callable[[Heard], None] | None:
        then, self._then = self._then, None
        if then is not None:
            self._flight.waiting -= 1
            self._late.cancel()
        return then

    def _is_late(self, patience: float) -> None:
        self._flights.forget(self._key, self._flight)
        late = BackendTimeoutError(
            f"{self._key[1]} is read through {self._way.backend}, which did not answer within"
            f" {patience:g} seconds: try again",
            operation="read",
        )
        self._tell(None, late)

    def _ended(self, task: "asyncio.Task[_Said]") -> None:
        if task.cancelled():
            self._tell(None, StoreUnavailableError("svsync is stopping", code="stopping"))
            return
        try:
            found = task.result()
        except Exception as failed:  # noqa: BLE001 - told of by whoever answers it
            self._tell(None, failed)
        else:
            self._tell(found, None)

    def _tell(self, found: _Said | None, failed: Exception | None) -> None:
        if (then := self._take()) is not None:
            then(Heard(self._way, self._key[3], found, failed))
