"""A budget of calls: each try is taken off it, and nothing goes out beyond it."""

import asyncio
from collections.abc import Awaitable

import pytest
from tests.patience import PATIENCE_S

from svsync.backends.guarded import BackendGuard, BreakerPolicy, RetryPolicy
from svsync.domain.errors import BackendError, BackendUnreachableError, FenceLostError
from svsync.domain.quotas import Limit


class Backend:
    """Counts the calls that reach it; those that `down` says are not answered."""

    def __init__(self, down: int = 0) -> None:
        self.reached = 0
        self._down = down

    async def call(self) -> str:
        self.reached += 1
        if self.reached <= self._down:
            raise BackendUnreachableError("down", operation="read")
        return "answer"


def guard_of(calls_left: int | None, **options: object) -> BackendGuard:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    settings = {"clock": lambda: 0.0, "sleep": sleep, "draw": lambda: 1.0, **options}
    return BackendGuard(calls_left=calls_left, **settings)  # type: ignore[arg-type]


async def refused(call: Awaitable[object]) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await call
    assert caught.value.code == "call_budget_spent"
    return caught.value


async def test_the_call_beyond_the_budget_is_not_made() -> None:
    there, guard = Backend(), guard_of(2)
    await guard.call("list", there.call)
    await guard.call("read", there.call)
    error = await refused(guard.call("metadata", there.call))
    assert there.reached == 2
    assert sum(guard.snapshot().calls.values()) == 2, "a refusal is no call"
    assert "call_budget.per_day" in error.message
    assert (error.operation, error.status, error.path) == ("metadata", None, None)


async def test_a_spent_budget_refuses_the_login() -> None:
    there, guard = Backend(), guard_of(0)
    await refused(guard.call("login", there.call))
    assert there.reached == 0


async def test_without_a_budget_all_calls_go_out() -> None:
    there, guard = Backend(), guard_of(None)
    for _ in range(100):
        await guard.call("read", there.call)
    assert there.reached == 100


async def test_each_try_is_taken_off_the_budget() -> None:
    there, guard = Backend(down=9), guard_of(3)
    await refused(guard.call("read", there.call))
    assert there.reached == 3


async def test_a_refusal_is_neither_throttling_nor_tried_again() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    guard = guard_of(1, sleep=sleep, limits={"read": Limit(per_second=0.001)})
    await guard.call("read", Backend().call)
    await refused(guard.call("read", Backend().call))
    assert waits == [], "nor does it wait for a turn that it would not use"
    assert guard.snapshot().throttled == 0


async def test_a_login_refused_within_a_call_ends_that_call() -> None:
    there, guard = Backend(), guard_of(1)

    async def signs_in_first() -> None:
        await guard.call("login", there.call)

    await refused(guard.call("read", signs_in_first))
    assert there.reached == 0
    counted = guard.snapshot()
    assert (counted.calls["read"], counted.calls["login"], counted.throttled) == (1, 0, 0)
    assert counted.concurrency["read"] == 16, "the backend did not ask for fewer calls"


async def test_calls_at_one_time_do_not_overdraw_the_budget() -> None:
    there, release = Backend(), asyncio.Event()

    async def waits() -> None:
        await there.call()
        await release.wait()

    guard = guard_of(3, limits={"read": Limit(concurrency=8, per_second=1000)})
    calls = [asyncio.create_task(guard.call("read", waits)) for _ in range(8)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION, timeout=PATIENCE_S)
    assert there.reached == 3
    release.set()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(end, "code", None) for end in ended].count("call_budget_spent") == 5


async def test_a_refusal_leaves_the_circuit_as_it_was() -> None:
    there, moments = Backend(down=1), [0.0]
    guard = guard_of(
        1,
        clock=lambda: moments[-1],
        retry=RetryPolicy(attempts=1),
        breaker=BreakerPolicy(failures=1, after=0, pause=5),
    )
    with pytest.raises(BackendUnreachableError, match="down"):
        await guard.call("read", there.call)
    moments.append(6.0)
    await refused(guard.call("read", there.call))
    await refused(guard.call("read", there.call))


# --- asked for more ---------------------------------------------------------------------


class Purse:
    """Gives calls, so many at a time, while there are any."""

    def __init__(self, calls: int, portion: int = 2) -> None:
        self.left = calls
        self.asked = 0
        self._portion = portion

    async def more(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        given = min(self._portion, self.left)
        self.left -= given
        return given


async def test_more_is_asked_for_where_none_is_left_and_only_then() -> None:
    there, purse = Backend(), Purse(3)
    guard = guard_of(1, more=purse.more)
    await guard.call("read", there.call)
    assert purse.asked == 0
    for _ in range(3):
        await guard.call("read", there.call)
    assert (there.reached, purse.asked) == (4, 2)
    await refused(guard.call("read", there.call))
    await refused(guard.call("list", there.call))
    assert (there.reached, purse.asked) == (4, 3), "who has none is not asked again"


async def test_many_calls_at_one_time_make_no_more_than_they_were_given() -> None:
    there, purse = Backend(), Purse(9, portion=4)
    guard = guard_of(0, more=purse.more)
    calls = [guard.call("read", there.call) for _ in range(30)]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert there.reached == 9
    assert [getattr(end, "code", None) for end in ended].count("call_budget_spent") == 21


async def test_what_asking_for_more_meets_ends_the_call() -> None:
    async def lost() -> int:
        raise FenceLostError("the run is over")

    there = Backend()
    with pytest.raises(FenceLostError):
        await guard_of(0, more=lost).call("read", there.call)
    assert there.reached == 0
