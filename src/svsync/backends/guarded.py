"""The call guard: how hard a backend is called, how often again, and what was called.

Every outgoing call of every backend passes through here, and nothing else
limits, retries or counts. For each operation class there is a number of calls
at one time that adapts itself: it falls by half when the backend throttles or
fails, gently when its answers take much longer than they did, and rises by one
a round while all is well. A backend that has failed for a while is left alone
(the circuit is open) but for one call now and then that asks whether it is back.
Where calls are billed there may be a budget of them; once it is spent, none goes out.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, get_args

from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    DeniedError,
    LoginError,
    ThrottledError,
)
from svsync.ports import Operation

T = TypeVar("T")

_OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)
_ONCE: Final = frozenset({"write", "delete"})
_SLOW_FACTOR: Final = 4.0
_SLOW_AT_LEAST: Final = 0.05


@dataclass(frozen=True, slots=True)
class Limit:
    """Of one operation class: calls at one time, and calls a second (None: any)."""

    concurrency: int = 16
    per_second: float | None = None


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
        made: dict[Operation, int] = dict.fromkeys(_OPERATIONS, 0)
        for (operation, _), number in self.statuses.items():
            made[operation] += number
        return made

    @property
    def throttled(self) -> int:
        return sum(n for (_, status), n in self.statuses.items() if status == "throttled")


def parse_limits(
    settings: Mapping[str, object], defaults: Mapping[Operation, Limit] | None = None
) -> dict[Operation, Limit]:
    """The limits of a `rate_limit` setting: `{read: {concurrency: 16, per_second: 50}}`.

    Raises ConfigError naming the key that cannot be used.
    """
    limits: dict[Operation, Limit] = {o: (defaults or {}).get(o, Limit()) for o in _OPERATIONS}
    for name, given in settings.items():
        operation = next((o for o in _OPERATIONS if o == name), None)
        if operation is None:
            raise ConfigError(f"has no operation {name!r}", where="rate_limit")
        if not isinstance(given, Mapping) or not given.keys() <= {"concurrency", "per_second"}:
            raise ConfigError("holds concurrency and per_second", where=f"rate_limit.{name}")
        concurrency = given.get("concurrency", limits[operation].concurrency)
        rate = given.get("per_second", limits[operation].per_second)
        if type(concurrency) is not int or not 1 <= concurrency <= 256:
            raise ConfigError("is a number from 1 to 256", where=f"rate_limit.{name}.concurrency")
        if rate is not None and (type(rate) not in (int, float) or rate <= 0):
            raise ConfigError("is a number above 0", where=f"rate_limit.{name}.per_second")
        limits[operation] = Limit(concurrency, None if rate is None else float(rate))
    return limits


class _Lane:
    """The calls of one operation class: slots, pace, and the adapting limit."""

    def __init__(self, limit: Limit) -> None:
        self.most = float(limit.concurrency)
        self.allowed = self.most
        self.interval = 1.0 / limit.per_second if limit.per_second else 0.0
        self.next_start = 0.0
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

    def lower(self, started: float, now: float, factor: float) -> None:
        """Once a round: what was already under way when it was lowered says nothing new."""
        if started > self.lowered_at:
            self.allowed = max(1.0, self.allowed * factor)
            self.lowered_at = now


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
        patience: float | None = None,
        tell: Callable[[Operation, str, float], None] | None = None,
        retry: RetryPolicy = RetryPolicy(),
        breaker: BreakerPolicy = BreakerPolicy(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._lanes = {o: _Lane((limits or {}).get(o, Limit())) for o in _OPERATIONS}
        self._calls_left = calls_left
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
        circuit is open, or a BackendError with code `call_budget_spent` once no call
        is left.
        """
        started = self._clock()
        tries = 1 if operation in _ONCE else self._retry.attempts
        for number in range(1, tries + 1):
            try:
                return await self._try(operation, attempt)
            except (BackendUnreachableError, ThrottledError) as error:
                wait = self._wait_before(number, error)
                late = self._clock() + wait - started > self._total
                if (
                    number == tries
                    or late
                    or isinstance(error, _LeftAloneError | _BudgetSpentError)
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

    async def _try(self, operation: Operation, attempt: Callable[[], Awaitable[T]]) -> T:
        lane = self._lanes[operation]
        await lane.acquire()
        try:
            self._refuse_beyond_budget(operation)  # a refusal waits for no turn
            await self._keep_pace(lane)
            self._refuse_beyond_budget(operation)  # others went out meanwhile
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
        except _BudgetSpentError:
            self._breaker.probing = False  # a login within it was refused here, not there
            raise
        except ThrottledError:
            status = "throttled"
            lane.lower(started, self._clock(), 0.5)
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

    def _refuse_beyond_budget(self, operation: Operation) -> None:
        if self._calls_left is not None and self._calls_left <= 0:
            raise _BudgetSpentError(
                "the calls that call_budget.per_day allows in 24 hours are made: raise it, or"
                " wait until earlier runs ended more than 24 hours ago; what was committed stays",
                operation=operation,
                sent=False,
            )

    async def _keep_pace(self, lane: _Lane) -> None:
        if lane.interval:
            now = self._clock()
            mine = max(now, lane.next_start)
            lane.next_start = mine + lane.interval
            if mine > now:
                await self._sleep(mine - now)

    def _wait_before(self, number: int, error: BackendError) -> float:
        """Full jitter: anything from nothing up to the doubled interval, but
        never earlier than the backend asked for."""
        most = min(self._retry.longest, self._retry.first * 2.0 ** (number - 1))
        return self._draw() * most + (error.retry_after or 0.0)


class _LeftAloneError(BackendUnreachableError):
    """The circuit is open; no call was made."""


class _BudgetSpentError(ThrottledError):
    """No call is left; none was made.

    A kind of throttling, which no backend takes for an answer about one path or one
    folder: it ends the run. It is never tried again.
    """

    code = "call_budget_spent"
