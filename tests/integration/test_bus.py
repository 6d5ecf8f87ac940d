"""What both kinds of signals promise, asked of each; and what only joined processes have."""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from itertools import count

import pytest
from tests.program import until
from tests.valkey import QUICK, ask, proxy_to

from svsync.bus.joined import RedisSignals, redis_signals
from svsync.bus.opening import CountedSignals, open_signals
from svsync.bus.redis import Pace
from svsync.domain.values import SecretValue
from svsync.embedded.valkey import ValkeyServer

_NAMES = count(1)


@pytest.fixture
def name() -> str:
    """A topic or key that no other test has."""
    return f"tenant-a/{next(_NAMES)}"


@pytest.fixture(params=["local", "valkey", "redis"])
def url(request: pytest.FixtureRequest) -> SecretValue | None:
    """A server's address, None where signals are to stay inside the process."""
    if request.param == "local":
        return None
    server: ValkeyServer = request.getfixturevalue(f"shared_{request.param}")
    return server.url


@pytest.fixture
async def signals(url: SecretValue | None) -> AsyncIterator[CountedSignals]:
    """Signals of each kind, joined where they can be."""
    async with open_signals(url) as opened:
        assert opened.shared == (url is not None)
        yield opened


# --- one suite for both ---------------------------------------------------------------


async def test_own_wake_ups_are_heard_at_once_and_once(signals: CountedSignals, name: str) -> None:
    with signals.listen(name) as waker, signals.listen("other") as other:
        await signals.wake(name)
        assert await waker.wait(0)
        assert not await other.wait(0)
        assert not await waker.wait(0.05)
    assert signals.counts.heard == 0


async def test_turns_of_one_process_are_spaced_by_the_interval(
    signals: CountedSignals, name: str
) -> None:
    begun = time.monotonic()
    dues = [time.monotonic() - begun + await signals.turn(name, 2) for _ in range(6)]
    assert [round(due / 0.5) for due in dues] == [0, 1, 2, 3, 4, 5]


async def test_turns_asked_for_together_are_different_ones(
    signals: CountedSignals, name: str
) -> None:
    dues = await asyncio.gather(*(signals.turn(name, 2) for _ in range(20)))
    assert sorted(round(due / 0.5) for due in dues) == list(range(20))


async def test_rates_of_different_keys_know_nothing_of_each_other(
    signals: CountedSignals, name: str
) -> None:
    assert await signals.turn(name, 0.1) < 0.1
    assert await signals.turn(f"{name}-other", 0.1) < 0.1


async def test_a_rate_of_less_than_one_a_minute_and_of_a_million_a_second_are_kept(
    signals: CountedSignals, name: str
) -> None:
    slow = [await signals.turn(name, 0.001) for _ in range(3)]
    assert slow == pytest.approx([0, 1000, 2000], abs=1)
    fast = [await signals.turn(f"{name}-fast", 1e6) for _ in range(3)]
    assert max(fast) < 0.01


async def test_whoever_gives_up_waiting_for_a_turn_harms_nobody(
    signals: CountedSignals, name: str
) -> None:
    impatient = asyncio.create_task(signals.turn(name, 2))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    assert await signals.turn(name, 2) < 0.6


# --- joined processes -----------------------------------------------------------------


async def joined(url: SecretValue) -> AsyncIterator[RedisSignals]:
    async with redis_signals(url, pace=QUICK) as opened:
        await until(lambda: opened.shared)
        yield opened


@pytest.fixture
async def ann(shared_valkey: ValkeyServer) -> AsyncIterator[RedisSignals]:
    async for opened in joined(shared_valkey.url):
        yield opened


@pytest.fixture
async def bob(shared_valkey: ValkeyServer) -> AsyncIterator[RedisSignals]:
    async for opened in joined(shared_valkey.url):
        yield opened


async def test_a_wake_up_is_heard_by_the_other_process_on_its_topic_only(
    ann: RedisSignals, bob: RedisSignals, name: str
) -> None:
    with bob.listen(name) as waker, bob.listen(f"{name}-other") as other:
        await ann.wake(name)
        assert await waker.wait(5)
        assert not await other.wait(0)
    assert (ann.counts.sent, bob.counts.heard, ann.counts.heard) == (1, 1, 0)


async def test_equal_wake_ups_that_wait_together_are_told_as_one(
    ann: RedisSignals, bob: RedisSignals, name: str
) -> None:
    with bob.listen(f"{name}-end") as end:
        for _ in range(100):
            await ann.wake(name)
        await ann.wake(f"{name}-end")
        assert await end.wait(5)
    await until(lambda: bob.counts.heard == 2)


async def test_more_topics_than_anybody_keeps_wake_every_topic_of_the_others(
    ann: RedisSignals, bob: RedisSignals, name: str
) -> None:
    with bob.listen(f"{name}-unrelated") as waker:
        for number in range(1001):
            await ann.wake(f"{name}-{number}")
        assert await waker.wait(5)


async def test_what_came_up_during_the_last_round_trip_is_told_before_the_end(
    bob: RedisSignals, shared_valkey: ValkeyServer, name: str
) -> None:
    async with proxy_to(shared_valkey) as proxy:
        slow = SecretValue(f"redis://:{shared_valkey.password.reveal()}@127.0.0.1:{proxy.port}")
        with bob.listen(name) as first, bob.listen(f"{name}-next") as second:
            async with redis_signals(slow, pace=QUICK) as short:
                await until(lambda: short.shared)
                proxy.delay = 0.1
                await short.wake(name)
                assert await first.wait(5)  # its answer is still on the way
                await short.wake(f"{name}-next")
            assert await second.wait(5)


async def test_two_processes_take_every_turn_of_a_rate_exactly_once(
    ann: RedisSignals, shared_valkey: ValkeyServer, name: str
) -> None:
    """The second is a process indeed; monotonic clocks of one machine are one clock."""
    begun = time.monotonic()
    dues = [time.monotonic() + await ann.turn(name, 0.5) for _ in range(10)]
    program = (
        "import asyncio, json, sys, time\n"
        "from svsync.bus.opening import open_signals\n"
        "from svsync.domain.values import SecretValue\n"
        "async def main():\n"
        "    async with open_signals(SecretValue(sys.stdin.readline().strip())) as s:\n"
        f"        dues = [time.monotonic() + await s.turn({name!r}, 0.5) for _ in range(10)]\n"
        "        print(json.dumps([s.shared, dues]))\n"
        "asyncio.run(main())\n"
    )
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    said, errors = await other.communicate(f"{shared_valkey.url.reveal()}\n".encode())
    assert other.returncode == 0, errors
    shared, theirs = json.loads(said)
    assert shared
    taken = sorted(round((due - begun) / 2) for due in [*dues, *theirs])
    assert taken == list(range(20))


async def test_no_window_has_more_turns_than_its_rate_however_many_ask(
    ann: RedisSignals, bob: RedisSignals, name: str
) -> None:
    begun = time.monotonic()

    async def take(signals: RedisSignals) -> float:
        due = await signals.turn(name, 4)
        return time.monotonic() - begun + due

    dues = await asyncio.gather(*(take(who) for who in (ann, bob) for _ in range(20)))
    for window in range(9):
        # Turns are a quarter apart; windows begin between two of them.
        assert sum(window - 0.125 <= due < window + 0.875 for due in dues) == 4


async def test_a_clock_that_went_back_makes_nobody_wait_for_it(
    ann: RedisSignals, shared_valkey: ValkeyServer, name: str
) -> None:
    seconds, _ = await ask(shared_valkey.url, "TIME")
    in_an_hour = (int(seconds) + 3600) * 1_000_000
    await ask(shared_valkey.url, "SET", f"svsync:{{turn}}:{name}", in_an_hour)
    assert await ann.turn(name, 10) < 0.1
    assert await ann.turn(name, 10) < 0.2


async def test_a_rate_leaves_nothing_behind_once_it_is_idle(
    ann: RedisSignals, shared_valkey: ValkeyServer, name: str
) -> None:
    await ann.turn(name, 2)
    assert 0 < await ask(shared_valkey.url, "PTTL", f"svsync:{{turn}}:{name}") <= 502


async def test_a_user_that_may_do_no_more_than_this_is_enough(
    ann: RedisSignals, shared_valkey: ValkeyServer, name: str
) -> None:
    commands = ["+publish", "+subscribe", "+psubscribe", "+eval", "+time", "+get", "+set"]
    rules = ["reset", "on", ">pw", "~svsync:*", "&svsync:wake:*", "&svsync:beat:*", *commands]
    await ask(shared_valkey.url, "ACL", "SETUSER", "narrow", *rules)
    narrow = SecretValue(f"redis://narrow:pw@127.0.0.1:{shared_valkey.port}")
    async with redis_signals(narrow, pace=QUICK) as carl:
        with carl.listen(name) as waker:
            await until(lambda: carl.shared)
            await waker.wait(0)
            await ann.wake(name)
            assert await waker.wait(5)
        assert await carl.turn(name, 1) < 0.5
        assert carl.counts.shared_turns == 1


async def test_no_task_is_left_behind_and_the_end_waits_for_nothing(
    shared_valkey: ValkeyServer,
) -> None:
    async with redis_signals(shared_valkey.url, pace=Pace(beat=20)) as signals:
        await until(lambda: signals.shared)
        ending = time.monotonic()
    assert time.monotonic() - ending < 10
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not signals.shared
    assert await signals.turn("a", 1) == 0


async def test_an_owner_that_is_cancelled_ends_them_too(shared_valkey: ValkeyServer) -> None:
    async def own() -> None:
        async with redis_signals(shared_valkey.url, pace=Pace(beat=60)) as signals:
            await until(lambda: signals.shared)
            await signals.wake("x")
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    owner = asyncio.create_task(own())
    await until(lambda: len(asyncio.all_tasks()) > len(before) + 3)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert asyncio.all_tasks() == before
