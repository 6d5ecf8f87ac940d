"""Is a listener woken when it should be, a rate kept, and a URL understood but never quoted?"""

import asyncio
import time

import pytest

from svsync.bus.address import Host, RedisAddress, Shape, parse_address
from svsync.bus.local import LocalSignals
from svsync.bus.opening import open_signals
from svsync.domain.errors import ConfigError
from svsync.domain.values import SecretValue
from svsync.embedded.openbao import TlsFiles


class Clock:
    """Moments that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- waking -------------------------------------------------------------------------


async def test_a_wake_up_before_the_wait_counts_once() -> None:
    signals = LocalSignals()
    with signals.listen("queue") as waker:
        await signals.wake("queue")
        await signals.wake("queue")
        assert await waker.wait(0)
        assert not await waker.wait(0)


async def test_a_wake_up_before_listening_does_not_count() -> None:
    signals = LocalSignals()
    await signals.wake("queue")
    with signals.listen("queue") as waker:
        assert not await waker.wait(0)


async def test_a_wake_up_ends_the_wait_of_every_listener_of_its_topic_only() -> None:
    signals = LocalSignals()
    with (
        signals.listen("queue") as first,
        signals.listen("queue") as second,
        signals.listen("other") as other,
    ):
        waits = [asyncio.create_task(waker.wait(60)) for waker in (first, second)]
        await asyncio.sleep(0)
        await signals.wake("queue")
        assert await asyncio.gather(*waits) == [True, True]
        assert not await other.wait(0)


async def test_a_wake_up_that_meets_a_cancelled_wait_is_kept_for_the_next() -> None:
    signals = LocalSignals()
    with signals.listen("queue") as waker:
        wait = asyncio.create_task(waker.wait(60))
        await asyncio.sleep(0)
        await signals.wake("queue")
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert await waker.wait(0)


async def test_a_task_that_is_being_cancelled_can_still_wait() -> None:
    signals = LocalSignals()
    answers = []

    async def work() -> None:
        with signals.listen("queue") as waker:
            try:
                await waker.wait(60)
            finally:
                answers.append(await waker.wait(0.001))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answers == [False]


# --- turns --------------------------------------------------------------------------


async def test_turns_are_evenly_spaced_and_time_unused_is_not_saved_up() -> None:
    clock = Clock()
    signals = LocalSignals(clock)
    assert [await signals.turn("a", 4) for _ in range(4)] == [0, 0.25, 0.5, 0.75]
    clock.now += 60
    assert [await signals.turn("a", 4) for _ in range(2)] == [0, 0.25]
    assert await signals.turn("b", 4) == 0


async def test_alone_each_of_three_replicas_takes_a_third_of_the_rate() -> None:
    clock = Clock()
    signals = LocalSignals(clock)
    signals.divide_by(3)
    assert [await signals.turn("a", 30) for _ in range(3)] == pytest.approx([0, 0.1, 0.2])


async def test_fewer_replicas_than_one_are_one() -> None:
    signals = LocalSignals(Clock())
    signals.divide_by(0)
    assert [await signals.turn("a", 10) for _ in range(2)] == pytest.approx([0, 0.1])


async def test_turns_taken_alone_follow_those_on_which_all_agreed() -> None:
    clock = Clock()
    signals = LocalSignals(clock)
    signals.agree("a", 2.0, 10)
    assert signals.booked_alone("a") == 0
    assert await signals.turn("a", 10) == pytest.approx(2.1)
    assert signals.booked_alone("a") == pytest.approx(2.2)
    assert signals.booked_alone("b") == 0


async def test_idle_rates_are_forgotten_and_the_others_are_kept() -> None:
    clock = Clock()
    signals = LocalSignals(clock)
    await signals.turn("busy", 0.001)
    for number in range(5000):
        clock.now += 0.01
        await signals.turn(f"idle-{number}", 1000)
    assert len(signals._next) <= 1024
    assert await signals.turn("busy", 0.001) == pytest.approx(1000 - 50)


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
async def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        await LocalSignals().turn("a", rate)


# --- opening ------------------------------------------------------------------------


async def test_without_a_url_signals_stay_inside_and_need_no_library() -> None:
    async with open_signals(None) as signals:
        assert not signals.shared
        assert await signals.turn("a", 1) == 0
        assert signals.counts.divided_turns == 1


async def test_a_redis_that_is_away_delays_the_start_by_less_than_two_seconds() -> None:
    begun = time.monotonic()
    async with open_signals(SecretValue("redis://:hush@127.0.0.1:1")) as signals:
        assert not signals.shared
    assert time.monotonic() - begun < 2


# --- addresses ----------------------------------------------------------------------


def test_forms_of_a_single_server() -> None:
    assert parse_address(SecretValue("redis://cache")) == RedisAddress(
        Shape.SINGLE, (Host("cache", 6379),)
    )
    found = parse_address(SecretValue("rediss://ann:p%40s%2F%3A@[::1]:7000/3"))
    assert (found.hosts, found.database, found.tls) == ((Host("::1", 7000),), 3, {})
    assert found.login.user == "ann"
    assert found.login.password == SecretValue("p@s/:")
    socket = parse_address(SecretValue("unix://:pw@/run/my%20redis.sock?db=2"))
    assert (socket.hosts, socket.database) == ((Host("/run/my redis.sock", 0),), 2)
    assert socket.login.password == SecretValue("pw")
    assert parse_address(SecretValue("valkeys://cache:1")).tls == {}


def test_forms_of_sentinels_and_clusters() -> None:
    found = parse_address(
        SecretValue("redis+sentinel://:pw@a,b:5/main/4?sentinel_username=s&sentinel_password=q")
    )
    assert found.shape is Shape.SENTINEL
    assert found.hosts == (Host("a", 26379), Host("b", 5))
    assert (found.master, found.database) == ("main", 4)
    assert found.login.password == SecretValue("pw")
    assert found.sentinel_login.user == "s"
    assert found.sentinel_login.password == SecretValue("q")
    cluster = parse_address(SecretValue("rediss+cluster://u:pw@a,b:7001/0"))
    assert (cluster.shape, cluster.database, cluster.tls) == (Shape.CLUSTER, 0, {})
    assert cluster.hosts == (Host("a", 6379), Host("b", 7001))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://u:hush@h", "must begin with one of redis://"),
        ("redis:/hush", "must begin with one of redis://"),
        ("redis://:hush@", "has no usable host and port"),
        ("redis://:hu/sh@h", "has no usable host and port"),
        ("redis://:hu?sh=hush@h", "has an option that is none of: db"),
        ("redis://u:hush@h:70000", "has no usable host and port"),
        ("redis://u:hush@h:0", "has no usable host and port"),
        ("redis://u:hush@h:6379/x", "must name the database by its number"),
        ("redis://u:hush@a,b", "names several hosts"),
        ("redis://u:hush@h?ssl_ca_certs=/ca.pem", "has an option that is none of: db"),
        ("rediss://u:hush@h?ssl_cert_reqs=none", "ssl_ca_certs, ssl_certfile, ssl_keyfile"),
        ("rediss://u:hush@h?ssl_ca_certs=/hush.pem", "holds no readable certificates"),
        ("rediss://u:hush@h?ssl_certfile=/hush.pem", "must name both"),
        ("rediss://u:hush@h?ssl_certfile=/hush&ssl_keyfile=/hush", "no readable pair"),
        ("unix://u:hush@", "whole path"),
        ("unix://u:hush@h/path", "whole path"),
        ("redis+sentinel://u:hush@a,b", "must name the master"),
        ("redis+sentinel://u:hush@a/m@in", "must name the master"),
        ("redis+cluster://u:hush@a,b/1", "must not name a database"),
    ],
)
def test_an_unusable_url_is_told_without_quoting_it(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_address(SecretValue(url))
    assert refused.value.message.startswith("REDIS_URL: ")
    assert sentence in refused.value.message
    assert "hush" not in repr(refused.value)
    assert refused.value.__cause__ is None


def test_a_client_certificate_and_an_own_authority_are_taken(tls_files: TlsFiles) -> None:
    options = f"ssl_certfile={tls_files.certificate}&ssl_keyfile={tls_files.key}"
    found = parse_address(SecretValue(f"rediss://h?ssl_ca_certs={tls_files.ca}&{options}"))
    assert found.tls == {
        "ssl_ca_certs": str(tls_files.ca),
        "ssl_certfile": str(tls_files.certificate),
        "ssl_keyfile": str(tls_files.key),
    }


def test_an_address_shows_no_password() -> None:
    found = parse_address(SecretValue("redis+sentinel://u:hush@a/m?sentinel_password=hush"))
    assert "hush" not in repr(found)
