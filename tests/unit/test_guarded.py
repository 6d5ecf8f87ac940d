"""How hard a backend is called and how often again; time is the test's own."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from svsync.backends.guarded import (
    BackendGuard,
    BreakerPolicy,
    RetryPolicy,
)
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    DeniedError,
    LoginError,
    ThrottledError,
)
from svsync.domain.quotas import Limit, parse_limits
from svsync.ports import Operation


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def guard_of(time: Time, **options: object) -> BackendGuard:
    settings = {"draw": lambda: 1.0, "clock": time.clock, "sleep": time.sleep, **options}
    return BackendGuard(**settings)  # type: ignore[arg-type]


def failing(*errors: BackendError | None) -> Callable[[], Awaitable[str]]:
    """Raises the errors in turn; None, and whatever follows, is a good answer."""
    left = list(errors)

    async def attempt() -> str:
        if left and (error := left.pop(0)):
            raise error
        return "answer"

    return attempt


def down(**options: float) -> BackendUnreachableError:
    return BackendUnreachableError("down", operation="read", **options)  # type: ignore[arg-type]


def throttled(retry_after: float | None = None) -> ThrottledError:
    return ThrottledError("slow down", operation="read", retry_after=retry_after)


async def test_a_failure_is_tried_again_after_doubling_intervals() -> None:
    time = Time()
    guard = guard_of(time)
    assert await guard.call("read", failing(down(), down(), throttled())) == "answer"
    assert time.slept == [0.25, 0.5, 1.0]
    assert guard.snapshot().calls["read"] == 4
    assert guard.snapshot().throttled == 1


async def test_the_jitter_is_full() -> None:
    time = Time()
    draws = iter([0.0, 0.5])
    guard = guard_of(time, draw=lambda: next(draws))
    await guard.call("read", failing(down(), down()))
    assert time.slept == [0.0, 0.25]


async def test_the_backend_is_not_asked_earlier_than_it_said() -> None:
    time = Time()
    await guard_of(time, draw=lambda: 0.0).call("list", failing(throttled(retry_after=7)))
    assert time.slept == [7]


async def test_attempts_are_bounded() -> None:
    time = Time()
    guard = guard_of(time, retry=RetryPolicy(attempts=3))
    with pytest.raises(BackendUnreachableError, match="down"):
        await guard.call("read", failing(*[down() for _ in range(9)]))
    assert guard.snapshot().calls["read"] == 3


async def test_the_total_time_is_bounded() -> None:
    time = Time()
    guard = guard_of(time, retry=RetryPolicy(attempts=99, total=10))
    with pytest.raises(ThrottledError):
        await guard.call("read", failing(throttled(6), throttled(6), throttled(6)))
    assert time.now <= 10
    time = Time()
    with pytest.raises(ThrottledError):
        await guard_of(time).call("read", failing(throttled(retry_after=3600)))
    assert time.now == 0


async def test_whoever_wants_an_answer_soon_is_told_instead_of_waiting() -> None:
    time = Time()
    guard = guard_of(time, patience=5.0)
    with pytest.raises(ThrottledError):
        await guard.call("read", failing(throttled(4.0), throttled(4.0)))
    assert time.slept == [4.25]
    assert guard.snapshot().calls["read"] == 2


@pytest.mark.parametrize(
    "error",
    [
        DeniedError("no", operation="read"),
        LoginError("no", operation="login"),
        BackendError("no", operation="read"),
    ],
)
async def test_a_refusal_is_never_tried_again(error: BackendError) -> None:
    guard = guard_of(Time())
    with pytest.raises(type(error)):
        await guard.call("read", failing(error))
    assert guard.snapshot().calls["read"] == 1


@pytest.mark.parametrize("operation", ["write", "delete"])
async def test_a_write_passes_through_once(operation: Operation) -> None:
    guard = guard_of(Time())
    with pytest.raises(BackendUnreachableError):
        await guard.call(operation, failing(down()))
    assert guard.snapshot().calls[operation] == 1


async def test_no_more_calls_are_under_way_than_allowed() -> None:
    guard = guard_of(Time(), limits={"read": Limit(concurrency=3)})
    most = running = 0
    full, release = asyncio.Event(), asyncio.Event()

    async def attempt() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await release.wait()
        running -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(guard.call("read", attempt))
        await full.wait()
        release.set()
    assert most == 3


async def test_a_cancelled_waiter_takes_no_slot() -> None:
    guard = guard_of(Time(), limits={"read": Limit(concurrency=1)})
    release = asyncio.Event()
    first = asyncio.create_task(guard.call("read", release.wait))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(guard.call("read", failing()))
    await asyncio.sleep(0)
    waiting.cancel()
    release.set()
    await first
    assert await guard.call("read", failing()) == "answer"
    assert waiting.cancelled()


async def test_throttling_halves_the_concurrency_and_success_brings_it_back() -> None:
    time = Time()
    guard = guard_of(time)
    await guard.call("read", failing(throttled()))
    assert guard.snapshot().concurrency["read"] == 8
    for _ in range(200):
        await guard.call("read", failing())
    assert guard.snapshot().concurrency["read"] == 16


async def test_calls_that_failed_together_lower_it_once() -> None:
    guard = guard_of(Time(), retry=RetryPolicy(attempts=1))
    go = asyncio.Event()

    async def attempt() -> None:
        await go.wait()
        raise throttled()

    calls = [asyncio.create_task(guard.call("read", attempt)) for _ in range(8)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert guard.snapshot().concurrency["read"] == 8


async def test_rising_latency_lowers_the_concurrency() -> None:
    time = Time()
    guard = guard_of(time)

    async def taking(seconds: float) -> None:
        time.now += seconds

    for _ in range(20):
        await guard.call("read", lambda: taking(0.01))
    assert guard.snapshot().concurrency["read"] == 16
    for _ in range(20):
        await guard.call("read", lambda: taking(1.0))
    assert guard.snapshot().concurrency["read"] < 8


async def test_a_rate_spaces_the_calls() -> None:
    time = Time()
    guard = guard_of(time, limits={"read": Limit(per_second=10)})
    for _ in range(5):
        await guard.call("read", failing())
    assert time.now == pytest.approx(0.4)


async def test_a_backend_that_stays_down_is_left_alone_and_asked_now_and_then() -> None:
    time = Time()
    guard = guard_of(
        time,
        retry=RetryPolicy(attempts=1),
        breaker=BreakerPolicy(failures=3, after=2, pause=5, longest=8),
    )

    async def fails() -> int:
        """Calls that went out, after one more call failed."""
        with pytest.raises(BackendUnreachableError):
            await guard.call("read", failing(down()))
        return guard.snapshot().calls["read"]

    assert [await fails() for _ in range(4)] == [1, 2, 3, 4], "a short burst opens nothing"
    time.now = 2.5
    assert await fails() == 5
    assert await fails() == 5, "left alone"
    time.now += 5
    assert await fails() == 6, "asked once"
    time.now += 5
    assert await fails() == 6, "the pause has grown"
    time.now += 5
    assert await guard.call("read", failing()) == "answer"
    assert await fails() == 8, "closed again"


async def test_while_one_call_asks_no_other_goes_out() -> None:
    time = Time()
    guard = guard_of(
        time, retry=RetryPolicy(attempts=1), breaker=BreakerPolicy(failures=1, after=0, pause=5)
    )
    with pytest.raises(BackendUnreachableError):
        await guard.call("read", failing(down()))
    time.now += 5
    release = asyncio.Event()
    probe = asyncio.create_task(guard.call("read", release.wait))
    await asyncio.sleep(0)
    with pytest.raises(BackendUnreachableError, match="left alone"):
        await guard.call("metadata", failing())
    release.set()
    await probe
    assert await guard.call("metadata", failing()) == "answer"


async def test_a_cancelled_call_counts_and_frees_its_slot() -> None:
    guard = guard_of(Time(), limits={"read": Limit(concurrency=1)})
    call = asyncio.create_task(guard.call("read", asyncio.Event().wait))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await guard.call("read", failing()) == "answer"
    assert guard.snapshot().calls["read"] == 2


def test_limits_are_read_from_settings() -> None:
    limits = parse_limits({"read": {"concurrency": 4, "per_second": 2.5}})
    assert limits["read"] == Limit(4, 2.5)
    assert limits["list"] == Limit()


def test_a_setting_overrides_of_the_providers_limit_what_it_names() -> None:
    published: dict[Operation, Limit] = {"read": Limit(8, 50.0), "list": Limit(per_second=25.0)}
    limits = parse_limits({"read": {"per_second": 5}}, published)
    assert limits["read"] == Limit(8, 5.0)
    assert limits["list"] == Limit(16, 25.0)
    assert limits["write"] == Limit()


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"reads": {}}, "rate_limit"),
        ({"read": 5}, "rate_limit.read"),
        ({"read": {"burst": 1}}, "rate_limit.read"),
        ({"read": {"concurrency": 0}}, "rate_limit.read.concurrency"),
        ({"read": {"concurrency": True}}, "rate_limit.read.concurrency"),
        ({"read": {"per_second": -1}}, "rate_limit.read.per_second"),
    ],
)
def test_limits_that_cannot_be_used_are_named(settings: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_limits(settings)
    assert caught.value.where == where
