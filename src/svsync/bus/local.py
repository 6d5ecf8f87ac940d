"""Signals inside one process: all there is without Redis, and what is left when it is away.

Whoever listens is woken at once. A rate is shared with the other replicas by
dividing it: each takes its turns at `per_second / replicas`, evenly spaced.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

_MOST_RATES: Final = 1024
"""Rates kept before those that are idle are forgotten; an idle one needs no memory."""


@dataclass(slots=True)
class SignalCounts:
    """What happened since the start, for the metrics.

    Attributes:
        joined: times that other processes could be heard, or heard again.
        lost: times that they could be heard no more.
        sent: wake-ups told to other processes; equal ones that waited together are one.
        heard: wake-ups heard from other processes.
        shared_turns: turns taken of a rate that all processes share.
        divided_turns: turns taken of this process's own part of a rate.
    """

    joined: int = 0
    lost: int = 0
    sent: int = 0
    heard: int = 0
    shared_turns: int = 0
    divided_turns: int = 0


class LocalWaker:
    """One listener's ear; one task at a time waits on it."""

    def __init__(self) -> None:
        self._woken = False
        self._sleeper: asyncio.Future[None] | None = None

    def wake(self) -> None:
        self._woken = True
        self._settle()

    async def wait(self, seconds: float) -> bool:
        """Until woken (True), or so many seconds passed (False)."""
        if not self._woken:
            # A timer and a future instead of asyncio.timeout: listeners also wait while
            # they are being cancelled, where Python 3.11.2 mistakes the one for the other.
            loop = asyncio.get_running_loop()
            self._sleeper = loop.create_future()
            timer = loop.call_later(max(seconds, 0.0), self._settle)
            try:
                await self._sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        woken, self._woken = self._woken, False
        return woken

    def _settle(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)


@dataclass(frozen=True, slots=True)
class _Next:
    """The moment before which no turn of a rate begins, and whether all know of it."""

    moment: float
    agreed: bool


class LocalSignals:
    """The `Signals` of a process that has nobody to hear.

    Attributes:
        counts: what happened so far.
        shared: always False.
    """

    shared = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = SignalCounts()
        self._clock = clock
        self._replicas = 1
        self._wakers: dict[str, set[LocalWaker]] = {}
        self._next: dict[str, _Next] = {}

    async def wake(self, topic: str) -> None:
        self.wake_here(topic)

    def wake_here(self, topic: str) -> None:
        for waker in self._wakers.get(topic, ()):
            waker.wake()

    def wake_all(self) -> None:
        """Wake every topic: something may have been missed."""
        for topic in self._wakers:
            self.wake_here(topic)

    @contextlib.contextmanager
    def listen(self, topic: str) -> Iterator[LocalWaker]:
        waker = LocalWaker()
        self._wakers.setdefault(topic, set()).add(waker)
        try:
            yield waker
        finally:
            self._wakers[topic].discard(waker)
            if not self._wakers[topic]:
                del self._wakers[topic]

    async def turn(self, key: str, per_second: float) -> float:
        return self.take_part(key, per_second)

    def take_part(self, key: str, per_second: float) -> float:
        """The next turn of this process's part of the rate; seconds until it is due.

        Not before those on which all agreed, so that losing the others is no burst.
        """
        interval = self._replicas / checked_rate(per_second)
        now = self._clock()
        due = max(now, self._next[key].moment if key in self._next else now)
        self._note(key, _Next(due + interval, agreed=False))
        self.counts.divided_turns += 1
        return due - now

    def booked_alone(self, key: str) -> float:
        """Seconds for which this process has turns of which the others do not know.

        They are to be told of them, so that finding them again is no burst either.
        """
        last = self._next.get(key)
        return max(0.0, last.moment - self._clock()) if last and not last.agreed else 0.0

    def agree(self, key: str, delay: float, per_second: float) -> None:
        """Note a turn, due in `delay` seconds, on which all agreed."""
        self._note(key, _Next(self._clock() + delay + 1.0 / per_second, agreed=True))
        self.counts.shared_turns += 1

    def divide_by(self, replicas: int) -> None:
        self._replicas = max(1, replicas)

    def _note(self, key: str, last: _Next) -> None:
        if len(self._next) >= _MOST_RATES and key not in self._next:
            now = self._clock()
            self._next = {name: kept for name, kept in self._next.items() if kept.moment > now}
        self._next[key] = last


def checked_rate(per_second: float) -> float:
    """The rate itself. Raises ValueError where it is not above 0."""
    if not per_second > 0:
        raise ValueError("a rate is a number above 0 a second")
    return per_second
