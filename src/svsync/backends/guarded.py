"""The call guard: how hard a backend is called, how often again, and what was called.

Every outgoing call of every backend passes through here, and nothing else
limits, retries or counts. For each operation class there is a number of calls
at one time that adapts itself: it falls by half when the backend throttles or
fails, gently when its answers take much longer than they did, and rises by one
a round while all is well. Where there is a rate as well, throttling halves that
too, and it comes back within seconds. While a backend asks for silence, by its
Retry-After, no call of that class goes out, whoever makes it. A backend that has
failed for a while is left alone (the circuit is open) but for one call now and
then that asks whether it is back. Where calls are billed there may be a budget of
them; once it is spent, none goes out.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    LoginError,
    ThrottledError,
)
from svsync.domain.quotas import OPERATIONS, Limit, Operation

T = TypeVar("T")

_ONCE: Final = frozenset({"write", "delete"})
_SLOW_FACTOR: Final = 4.0
_SLOW_AT_LEAST: Final = 0.05
_SLOWEST_SHARE: Final = 1 / 64
"""Of a rate, what is left of it however often the backend throttles."""
_REGAINED: Final = 0.05
"""Of a rate, what comes back a second while all is well."""
_LONGEST_SILENCE_S: Final = 60.0
"""A backend that asks for a longer silence is asked again after this one."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a call is tried again. Durations in seconds.

    Attributes:
        attempts: tries in all.
        total: no wait is begun that would end later than this after the start.
        first, longest: bounds of the doubling interval that the jitter draws from.
    """

    attempts: int = 5
    total: float = 60.0
    first: float = 0.25
    longest: float = 10.0


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a backend is left alone: after `failures` in a row that lasted `after`
    seconds; asked again after `pause` seconds, doubling up to `longest`."""

    failures: int = 8
    after: float = 3.0
    pause: float = 5.0
    longest: float = 60.0


@dataclass(frozen=True, slots=True)
class CallCounts:
    """What was called so far; every try counts, refused ones too.

    `statuses` is by (operation, status), status being ok, throttled,
    unreachable, denied or error. `seconds` is the sum over the tries of a class.
    """

    statuses: Mapping[tuple[Operation, str], int]
    seconds: Mapping[Operation, float]
    concurrency: Mapping[Operation, int]

    @property
    def calls(self) -> dict[Operation, int]:
        """Calls by operation class, every class named."""
        made: dict[Operation, int] = dict.fromkeys(OPERATIONS, 0)
        for (operation, _), number in self.statuses.items():
            made[operation] += number
        return made

    @property
    def throttled(self) -> int:
        return sum(n for (_, status), n in self.statuses.items() if status == "throttled")


class _Lane:
    """The calls of one operation class: slots, pace, and the limits that adapt.

    Attributes:
        rate, pace: calls a second at most, and now; None: any.
        silent_until: no call goes out before, at the backend's own wish.
    """

    def __init__(self, limit: Limit) -> None:
        self.most = float(limit.concurrency)
        self.allowed = self.most
        self.rate = self.pace = limit.per_second
        self.next_start = 0.0
        self.silent_until = float("-inf")
        self.in_flight = 0
        self.seconds = 0.0
        self.lowered_at = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._usual: float | None = None
        self._recent = 0.0

    async def acquire(self) -> None:
        if self.in_flight < int(self.allowed) and not self._waiting:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # the slot was given and is not used
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def release(self) -> None:
        self.in_flight -= 1
        while self._waiting and self.in_flight < int(self.allowed):
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def went_well(self, started: float, took: float) -> None:
        """Rise by one call a round; fall gently when answers take much longer."""
        self._recent = took if self._usual is None else 0.8 * self._recent + 0.2 * took
        # The usual time follows the fastest answers, and forgets them slowly.
        self._usual = took if self._usual is None else min(self._usual * 1.002, took)
        self._usual = max(self._usual, 1e-4)
        if self._recent > _SLOW_FACTOR * self._usual + _SLOW_AT_LEAST:
            self.lower(started, started + took, 0.8)
        else:
            self.allowed = min(self.most, self.allowed + 1.0 / self.allowed)
        if self.rate is not None and self.pace is not None:
            gained = min(self.pace, _REGAINED * self.rate / self.pace)  # a call's share of it
            self.pace = min(self.rate, self.pace + gained)

    def lower(self, started: float, now: float, factor: float, *, throttled: bool = False) -> None:
        """Once a round: what was already under way when it was lowered says nothing new."""
        if started > self.lowered_at:
            self.allowed = max(1.0, self.allowed * factor)
            self.lowered_at = now
            if throttled and self.rate is not None and self.pace is not None:
                self.pace = max(self.rate * _SLOWEST_SHARE, self.pace * factor)

    def be_silent(self, now: float, seconds: float) -> None:
        self.silent_until = max(self.silent_until, now + min(seconds, _LONGEST_SILENCE_S))


@dataclass
class _Breaker:
    policy: BreakerPolicy
    failures: int = 0
    failing_since: float | None = None
    open_until: float | None = None
    pause: float = field(default=0.0)
    probing: bool = False

    def admits(self, now: float) -> bool:
        """Whether a call may go out; while open, one at a time once the pause is over."""
        if self.open_until is None:
            return True
        if now < self.open_until or self.probing:
            return False
        self.probing = True
        return True

    def answered(self) -> None:
        self.failures, self.failing_since, self.open_until = 0, None, None
        self.probing, self.pause = False, 0.0

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failing_since is None:
            self.failing_since = now
        lasted = now - self.failing_since
        if self.probing or (
            self.open_until is None
            and self.failures >= self.policy.failures
            and lasted >= self.policy.after
        ):
            self.pause = min(max(self.pause * 2, self.policy.pause), self.policy.longest)
            self.open_until = now + self.pause
            self.probing = False


class BackendGuard:
    """The `CallGuard` of one backend in this process.

    Args:
        limits: by operation class; one that is missing has the default.
        calls_left: tries of all classes together that may still go out; None: any.
        more: asked where none is left; how many more may go out. 0: none, and it is not
            asked again. What it raises ends the call.
        turn: takes a turn of a rate that others share, and tells the seconds until it is
            due; None: nobody does.
        patience: seconds within which whoever asks wants an answer, so that no wait is begun
            that would end later; None: as long as `retry` says.
        tell: is told of each try, with its status (see `CallCounts`) and its seconds.
        clock, sleep, draw: monotonic seconds, waiting by them, and a number
            from 0 up to 1; tests bring their own.
    """

    def __init__(
        self,
        limits: Mapping[Operation, Limit] | None = None,
        *,
        calls_left: int | None = None,
        more: Callable[[], Awaitable[int]] | None = None,
        turn: Callable[[Operation, float], Awaitable[float]] | None = None,
        patience: float | None = None,
        tell: Callable[[Operation, str, float], None] | None = None,
        retry: RetryPolicy = RetryPolicy(),
        breaker: BreakerPolicy = BreakerPolicy(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._lanes = {o: _Lane((limits or {}).get(o, Limit())) for o in OPERATIONS}
        self._calls_left = calls_left
        self._more = more
        self._asking = asyncio.Lock()
        self._turn = turn
        self._tell = tell
        self._retry = retry
        self._total = retry.total if patience is None else min(retry.total, patience)
        self._breaker = _Breaker(breaker)
        self._clock = clock
        self._sleep = sleep
        self._draw = draw
        self._statuses: Counter[tuple[Operation, str]] = Counter()

    async def call(self, operation: Operation, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run `attempt`, again where that may help; see `ports.CallGuard`.

        Raises what the last try raised, BackendUnreachableError at once while the
        circuit is open, ThrottledError where the backend wants a longer silence than
        there is time for, or a BackendError with code `call_budget_spent` once no call
        is left.
        """
        started = self._clock()
        tries = 1 if operation in _ONCE else self._retry.attempts
        for number in range(1, tries + 1):
            try:
                return await self._try(operation, attempt, started + self._total)
            except (BackendUnreachableError, ThrottledError) as error:
                wait = self._wait_before(number, error)
                late = self._clock() + wait - started > self._total
                if (
                    number == tries
                    or late
                    or isinstance(error, _LeftAloneError | _BudgetSpentError | _SilenceError)
                ):
                    raise
            await self._sleep(wait)
        raise AssertionError("the last try returns or raises")

    @property
    def calls_left(self) -> int | None:
        """Tries that may still go out; None: any."""
        return self._calls_left

    def allow(self, calls: int) -> None:
        """Let so many more go out, where they are counted at all."""
        if self._calls_left is not None:
            self._calls_left += calls

    def snapshot(self) -> CallCounts:
        return CallCounts(
            dict(self._statuses),
            {o: lane.seconds for o, lane in self._lanes.items()},
            {o: int(lane.allowed) for o, lane in self._lanes.items()},
        )

    async def _try(
        self, operation: Operation, attempt: Callable[[], Awaitable[T]], until: float
    ) -> T:
        lane = self._lanes[operation]
        await lane.acquire()
        try:
            await self._stay_within_budget(operation)  # a refusal waits for no turn
            await self._keep_silence(operation, lane, until)
            await self._keep_pace(operation, lane)
            await self._stay_within_budget(operation)  # others went out meanwhile
            if not self._breaker.admits(self._clock()):
                raise _LeftAloneError(
                    "the backend failed again and again and is left alone for a moment",
                    operation=operation,
                    sent=False,
                )
            if self._calls_left is not None:
                self._calls_left -= 1
            return await self._measured(operation, lane, attempt)
        finally:
            lane.release()

    async def _measured(
        self, operation: Operation, lane: _Lane, attempt: Callable[[], Awaitable[T]]
    ) -> T:
        started = self._clock()
        status = "error"
        try:
            result = await attempt()
        except (_BudgetSpentError, _SilenceError):
            self._breaker.probing = False  # a login within it was refused here, not there
            raise
        except ThrottledError as error:
            status = "throttled"
            lane.lower(started, self._clock(), 0.5, throttled=True)
            if error.retry_after:
                lane.be_silent(self._clock(), error.retry_after)
            self._breaker.answered()
            raise
        except BackendUnreachableError:
            status = "unreachable"
            lane.lower(started, self._clock(), 0.5)
            self._breaker.failed(self._clock())
            raise
        except BackendError as error:
            status = "denied" if isinstance(error, DeniedError | LoginError) else "error"
            self._breaker.answered()
            raise
        except BaseException:
            self._breaker.probing = False  # cancelled: nothing was learned
            raise
        else:
            status = "ok"
            lane.went_well(started, self._clock() - started)
            self._breaker.answered()
            return result
        finally:
            took = self._clock() - started
            lane.seconds += took
            self._statuses[operation, status] += 1
            if self._tell is not None:
                self._tell(operation, status, took)

    async def _stay_within_budget(self, operation: Operation) -> None:
        """Nothing is awaited between a call that is left and its going out."""
        if self._calls_left is None or self._calls_left > 0:
            return
        async with self._asking:
            if self._calls_left <= 0 and self._more is not None:
                given = await self._more()
                self._calls_left += given
                self._more = self._more if given else None
        if self._calls_left <= 0:
            raise _BudgetSpentError(
                "the calls that call_budget.per_day allows in 24 hours are made: raise it, or"
                " wait until earlier runs ended more than 24 hours ago; what was committed stays",
                operation=operation,
                sent=False,
            )

    async def _keep_silence(self, operation: Operation, lane: _Lane, until: float) -> None:
        while (left := lane.silent_until - self._clock()) > 0:
            if lane.silent_until > until:
                raise _SilenceError(
                    "the backend asked for fewer calls and is left alone for a moment",
                    operation=operation,
                    retry_after=left,
                    sent=False,
                )
            await self._sleep(left)

    async def _keep_pace(self, operation: Operation, lane: _Lane) -> None:
        if lane.pace is None:
            return
        if self._turn is not None:
            wait = await self._turn(operation, lane.pace)
        else:
            now = self._clock()
            mine = max(now, lane.next_start)
            lane.next_start = mine + 1.0 / lane.pace
            wait = mine - now
        if wait > 0:
            await self._sleep(wait)

    def _wait_before(self, number: int, error: BackendError) -> float:
        """Full jitter: anything from nothing up to the doubled interval, but
        never earlier than the backend asked for."""
        most = min(self._retry.longest, self._retry.first * 2.0 ** (number - 1))
        return self._draw() * most + (error.retry_after or 0.0)


class _LeftAloneError(BackendUnreachableError):
    """The circuit is open; no call was made."""


class _SilenceError(ThrottledError):
    """The backend wants a silence; no call was made."""


class _BudgetSpentError(ThrottledError):
    """No call is left; none was made.

    A kind of throttling, which no backend takes for an answer about one path or one
    folder: it ends the run. It is never tried again.
    """

    code = "call_budget_spent"
