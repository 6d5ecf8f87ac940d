"""How fast a backend is called: its rate, what throttling does to it, and the silence it wants."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from svsync.backends.guarded import BackendGuard
from svsync.bus.local import LocalSignals
from svsync.domain.errors import BackendUnreachableError, ThrottledError
from svsync.domain.quotas import Limit
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


class There:
    """Notes when each call reached it; the first so many it throttles."""

    def __init__(self, time: Time, throttles: int = 0, retry_after: float | None = None) -> None:
        self.at: list[float] = []
        self._time = time
        self._throttles = throttles
        self._retry_after = retry_after

    async def call(self) -> str:
        self.at.append(self._time.now)
        if len(self.at) <= self._throttles:
            raise ThrottledError("slow down", operation="read", retry_after=self._retry_after)
        return "answer"


def guard_of(time: Time, limit: Limit, **options: object) -> BackendGuard:
    settings = {"draw": lambda: 0.0, "clock": time.clock, "sleep": time.sleep, **options}
    return BackendGuard({"read": limit}, **settings)  # type: ignore[arg-type]


def apart(at: list[float]) -> list[float]:
    return [round(later - earlier, 6) for earlier, later in pairwise(at)]


async def calls(guard: BackendGuard, there: There, many: int) -> None:
    for _ in range(many):
        await guard.call("read", there.call)


async def test_calls_of_a_rate_are_evenly_apart() -> None:
    time = Time()
    there = There(time)
    await calls(guard_of(time, Limit(per_second=4)), there, 5)
    assert apart(there.at) == [0.25] * 4


async def test_throttling_halves_the_rate_and_what_goes_well_brings_it_back() -> None:
    time = Time()
    there, guard = There(time, throttles=1), guard_of(time, Limit(per_second=4))
    await calls(guard, there, 200)
    gaps = apart(there.at)
    assert gaps[1] == 0.5, "half as fast"
    assert gaps[2] < 0.5, "and faster with each call that went well"
    assert gaps == sorted(gaps[:1]) + sorted(gaps[1:], reverse=True)
    assert gaps[-1] == 0.25, "as fast as ever in the end"
    back = next(at for at, gap in zip(there.at[1:], gaps, strict=True) if gap == 0.25 and at > 1)
    assert 5 < back < 15, "within some ten seconds"


async def test_a_rate_is_never_throttled_to_nothing() -> None:
    time = Time()
    there, guard = There(time, throttles=30), guard_of(time, Limit(1, 64))
    for _ in range(6):
        with pytest.raises(ThrottledError):
            await guard.call("read", there.call)
    assert max(apart(there.at)) <= 1.0


async def test_an_outage_says_nothing_of_the_rate() -> None:
    time = Time()
    guard = guard_of(time, Limit(per_second=4))
    at: list[float] = []

    async def down_once() -> str:
        at.append(time.now)
        if len(at) == 1:
            raise BackendUnreachableError("down", operation="read")
        return "answer"

    for _ in range(4):
        await guard.call("read", down_once)
    assert apart(at) == [0.25] * 4


# --- the silence that a backend asks for --------------------------------------------------


async def test_all_calls_of_a_class_keep_the_silence_that_one_was_asked_for() -> None:
    time = Time()
    there, guard = There(time, throttles=1, retry_after=7), guard_of(time, Limit())
    await guard.call("read", there.call)
    assert there.at == [0.0, 7.0]
    time.now = 6.9  # as others would, who began a moment before
    others = [asyncio.ensure_future(guard.call("read", there.call)) for _ in range(3)]
    await asyncio.gather(*others)
    assert all(at >= 7.0 for at in there.at[1:])


async def test_a_silence_longer_than_anybody_waits_is_told_at_once_and_no_call_is_made() -> None:
    time = Time()
    there, guard = There(time, throttles=1, retry_after=30), guard_of(time, Limit(), patience=5)
    for asked in (30, 30):
        with pytest.raises(ThrottledError) as caught:
            await guard.call("read", there.call)
        assert caught.value.retry_after == asked
    assert len(there.at) == 1
    assert guard.snapshot().calls["read"] == 1, "what is kept back is no call"
    assert await guard.call("list", there.call) == "answer", "another class is not meant"
    time.now = 30.0
    assert await guard.call("read", there.call) == "answer"


async def test_a_backend_cannot_be_silenced_for_longer_than_a_minute() -> None:
    time = Time()
    there, guard = There(time, throttles=1, retry_after=1e9), guard_of(time, Limit())
    with pytest.raises(ThrottledError):
        await guard.call("read", there.call)
    time.now = 60.0
    assert await guard.call("read", there.call) == "answer"


async def test_a_login_that_is_kept_back_within_a_call_is_no_answer_of_the_backend() -> None:
    time = Time()
    there = There(time, throttles=1, retry_after=30)
    guard = guard_of(time, Limit(), patience=5)
    with pytest.raises(ThrottledError):
        await guard.call("login", there.call)

    async def signing_in() -> str:
        return await guard.call("login", there.call)

    with pytest.raises(ThrottledError):
        await guard.call("read", signing_in)
    assert guard.snapshot().statuses.get(("read", "throttled")) is None


# --- shared with others -------------------------------------------------------------------


def taking_turns(signals: LocalSignals) -> Callable[[Operation, float], Awaitable[float]]:
    async def turn(operation: Operation, per_second: float) -> float:
        return await signals.turn(f"default:fed_a:{operation}", per_second)

    return turn


async def test_guards_of_one_process_share_a_rate() -> None:
    time = Time()
    turn = taking_turns(LocalSignals(clock=time.clock))
    there = There(time)
    guards = [guard_of(time, Limit(per_second=4), turn=turn) for _ in range(2)]
    for n in range(6):
        await calls(guards[n % 2], there, 1)
    assert apart(there.at) == [0.25] * 5


async def test_processes_that_do_not_hear_each_other_take_their_part_each() -> None:
    time = Time()
    signals = LocalSignals(clock=time.clock)
    signals.divide_by(3)
    there = There(time)
    await calls(guard_of(time, Limit(per_second=6), turn=taking_turns(signals)), there, 4)
    assert apart(there.at) == [0.5] * 3


async def test_who_was_throttled_takes_slower_turns() -> None:
    time = Time()
    taken: list[float] = []

    async def turn(operation: Operation, per_second: float) -> float:
        taken.append(per_second)
        return 0.0

    there = There(time, throttles=1)
    await calls(guard_of(time, Limit(per_second=8), turn=turn), there, 1)
    assert taken == [8.0, 4.0]


async def test_without_a_rate_nobody_is_asked_for_a_turn() -> None:
    async def turn(operation: Operation, per_second: float) -> float:
        raise AssertionError("there is no rate")

    time = Time()
    await calls(guard_of(time, Limit(), turn=turn), There(time), 3)
    assert time.slept == []
