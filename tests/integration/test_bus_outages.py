"""Do signals go on when Redis does not, say so, and find their way back?"""

import asyncio
import io
import json
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.program import until
from tests.servers import FaultyTcp, hanging_server
from tests.valkey import QUICK, ask, proxy_to, tls_before

from svsync.bus.joined import RedisSignals, redis_signals
from svsync.bus.redis import Link
from svsync.domain.values import SecretValue
from svsync.embedded.openbao import TlsFiles
from svsync.embedded.processes import free_port
from svsync.embedded.valkey import ValkeyServer, valkey_server

PATIENT = replace(QUICK, answer=0.3)


def lines(written: io.StringIO, event: str) -> list[dict[str, Any]]:
    """The lines of one event; what libraries log in between is text of theirs."""
    found = [line for line in written.getvalue().splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, found) if line["event"] == event]


def through(proxy: FaultyTcp, server: ValkeyServer) -> SecretValue:
    return SecretValue(f"redis://:{server.password.reveal()}@127.0.0.1:{proxy.port}")


# --- away and back --------------------------------------------------------------------


async def test_a_server_that_is_killed_and_started_again_is_joined_again(
    valkey: ValkeyServer, written: io.StringIO
) -> None:
    async with (
        redis_signals(valkey.url, pace=QUICK) as ann,
        redis_signals(valkey.url, pace=QUICK) as bob,
    ):
        with bob.listen("queue") as waker:
            await valkey.kill()
            await until(lambda: not ann.shared and not bob.shared)
            await waker.wait(0)
            assert await ann.turn("k", 1) < 0.1
            await ann.wake("queue")
            await valkey.start()
            await until(lambda: ann.shared and bob.shared)
            assert await waker.wait(0)
        with ann.listen("back") as waker:
            await bob.wake("back")
            assert await waker.wait(5)
    assert (ann.counts.joined, ann.counts.lost) == (2, 1)
    assert [line["reason"] for line in lines(written, "signals_lost")] == ["no_connection"] * 2
    assert len(lines(written, "signals_shared")) == 4
    assert valkey.password.reveal() not in written.getvalue()


async def test_turns_booked_apart_and_together_never_run_faster_than_the_rate(
    valkey: ValkeyServer,
) -> None:
    begun = time.monotonic()
    dues: list[float] = []

    async def take(*processes: RedisSignals) -> None:
        for _ in range(3):
            for signals in processes:
                due = await signals.turn("k", 0.5)
                dues.append(time.monotonic() - begun + due)

    async with (
        redis_signals(valkey.url, pace=QUICK) as ann,
        redis_signals(valkey.url, pace=QUICK) as bob,
    ):
        for signals in (ann, bob):
            signals.divide_by(2)
        await take(ann, bob)
        await valkey.kill()
        await until(lambda: not ann.shared and not bob.shared)
        await take(ann, bob)
        await valkey.start()
        await until(lambda: ann.shared and bob.shared)
        await take(ann, bob)
    # A turn each two seconds. While they are apart each takes half: two may come together.
    assert sorted(round(due / 2) for due in dues[:6]) == list(range(6))
    ordered = sorted(dues)
    for first, third in zip(ordered, ordered[2:], strict=False):
        assert third - first > 1.9
    assert min(dues[12:]) > max(dues[6:12])


async def test_what_one_process_could_not_tell_is_told_when_it_is_back(
    valkey: ValkeyServer,
) -> None:
    async with (
        proxy_to(valkey) as proxy,
        redis_signals(valkey.url, pace=QUICK) as bob,
        redis_signals(through(proxy, valkey), pace=QUICK) as ann,
    ):
        await proxy.shut()
        await until(lambda: not ann.shared)
        with bob.listen("queue") as waker:
            await ann.wake("queue")
            await proxy.open()
            assert await waker.wait(10)
        assert bob.counts.lost == 0
        assert bob.counts.heard == 1
        await until(lambda: ann.counts.sent == 1)


async def test_a_wake_up_whose_telling_failed_is_told_again(valkey: ValkeyServer) -> None:
    pace = replace(QUICK, beat=30.0, answer=0.2)
    async with (
        proxy_to(valkey) as proxy,
        redis_signals(valkey.url, pace=QUICK) as bob,
        redis_signals(through(proxy, valkey), pace=pace) as ann,
    ):
        proxy.fault = "hang"
        with bob.listen("queue") as waker:
            await ann.wake("queue")
            await until(lambda: not ann.shared)
            assert not await waker.wait(0)
            proxy.fault = "none"
            assert await waker.wait(10)


async def test_who_is_joined_again_is_woken_once_since_something_may_have_been_missed(
    valkey: ValkeyServer,
) -> None:
    async with redis_signals(valkey.url, pace=QUICK) as ann:
        with ann.listen("queue") as waker:
            await ask(valkey.url, "CLIENT", "KILL", "TYPE", "pubsub")
            assert await waker.wait(10)
            assert not await waker.wait(0.1)


async def test_who_speaks_and_hears_nothing_is_not_shared(
    valkey: ValkeyServer, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hear_nothing(_: Link) -> None:
        await asyncio.Event().wait()

    async with redis_signals(valkey.url, pace=QUICK) as ann:
        assert ann.shared
        monkeypatch.setattr(Link, "next_message", hear_nothing)
        await until(lambda: not ann.shared)
        monkeypatch.undo()
        await until(lambda: ann.shared)
    assert lines(written, "signals_lost")[0]["reason"] == "not_heard"


async def test_a_connection_that_is_silent_is_noticed_without_anybody_asking(
    valkey: ValkeyServer, written: io.StringIO
) -> None:
    async with (
        proxy_to(valkey) as proxy,
        redis_signals(through(proxy, valkey), pace=PATIENT) as ann,
    ):
        assert ann.shared
        proxy.fault = "mute"
        await until(lambda: not ann.shared)
        proxy.fault = "none"
        await until(lambda: ann.shared)
    assert lines(written, "signals_lost")[0]["reason"] in ("no_answer", "not_heard")


async def test_a_server_that_hangs_holds_a_turn_up_once_and_a_wake_up_never(
    valkey: ValkeyServer,
) -> None:
    pace = replace(QUICK, beat=30.0, answer=0.3)
    async with (
        proxy_to(valkey) as proxy,
        redis_signals(through(proxy, valkey), pace=pace) as ann,
    ):
        await until(lambda: ann.shared)
        proxy.fault = "hang"
        begun = time.monotonic()
        await ann.wake("queue")
        assert time.monotonic() - begun < 0.1
        assert await asyncio.gather(*(ann.turn(f"k{n}", 1) for n in range(20))) == [0] * 20
        assert time.monotonic() - begun < 5
        assert not ann.shared
        assert (ann.counts.divided_turns, ann.counts.shared_turns) == (20, 0)


@pytest.mark.parametrize("after", [1, 30, 120])
async def test_an_answer_that_is_cut_short_is_no_answer(valkey: ValkeyServer, after: int) -> None:
    async with (
        proxy_to(valkey) as proxy,
        redis_signals(through(proxy, valkey), pace=PATIENT) as ann,
    ):
        proxy.cut_after, proxy.fault = after, "cut"
        assert await ann.turn("k", 1) < 1.1
        await until(lambda: not ann.shared)
        proxy.fault = "none"
        await until(lambda: ann.shared)


async def test_a_server_that_takes_connections_and_says_nothing_is_left_at_the_end_at_once() -> (
    None
):
    async with hanging_server() as url:
        port = url.rpartition(":")[2]
        pace = replace(QUICK, connect=30.0, start=0.05)
        async with redis_signals(SecretValue(f"redis://:pw@127.0.0.1:{port}"), pace=pace) as ann:
            assert not ann.shared
            assert await ann.turn("k", 1) == 0
            ending = time.monotonic()
        assert time.monotonic() - ending < 10


# --- refused --------------------------------------------------------------------------


async def test_a_wrong_password_is_told_once_and_never_shown(
    valkey: ValkeyServer, written: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    url = SecretValue(f"redis://someone:wrong-hush@127.0.0.1:{valkey.port}")
    async with redis_signals(url, pace=QUICK) as ann:
        assert not ann.shared
        await ask(valkey.url, "ACL", "SETUSER", "someone", "on", ">wrong-hush", "+@all", "~*", "&*")
        await until(lambda: ann.shared)
    (line,) = lines(written, "signals_lost")
    assert line["reason"] == "login_refused"
    assert "wrong-hush" not in written.getvalue() + caplog.text


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), "out_of_memory"),
        (("REPLICAOF", "127.0.0.1", "1"), "read_only"),
        (("ACL", "SETUSER", "default", "-eval"), "not_permitted"),
    ],
)
async def test_a_server_that_takes_no_bookings_is_not_shared_and_says_why(
    valkey: ValkeyServer, written: io.StringIO, command: tuple[str, ...], reason: str
) -> None:
    async with redis_signals(valkey.url, pace=QUICK) as ann:
        assert ann.shared
        await ask(valkey.url, *command)
        await until(lambda: not ann.shared)
        assert await ann.turn("k", 1) == 0
        assert lines(written, "signals_lost")[0]["reason"] == reason


async def test_a_key_that_holds_something_else_costs_the_sharing_and_no_error(
    valkey: ValkeyServer,
) -> None:
    async with redis_signals(valkey.url, pace=QUICK) as ann:
        await ask(valkey.url, "RPUSH", "svsync:{turn}:k", "x")
        assert await ann.turn("k", 1) == 0
        assert ann.counts.divided_turns == 1
        await ask(valkey.url, "SET", "svsync:{turn}:k", "nonsense")
        await until(lambda: ann.shared)
        assert await ann.turn("k", 1) <= 1
        assert ann.counts.shared_turns == 1


# --- TLS ------------------------------------------------------------------------------


async def test_tls_with_an_own_authority(shared_valkey: ValkeyServer, tls_files: TlsFiles) -> None:
    login = f":{shared_valkey.password.reveal()}@"
    async with tls_before(shared_valkey.port, tls_files) as port:
        url = SecretValue(f"rediss://{login}127.0.0.1:{port}/0?ssl_ca_certs={tls_files.ca}")
        async with redis_signals(url, pace=QUICK) as ann:
            assert ann.shared
            assert await ann.turn("tls", 1) < 0.1
            assert ann.counts.shared_turns == 1


async def test_a_certificate_nobody_vouches_for_gets_no_password(
    shared_valkey: ValkeyServer, tls_files: TlsFiles, written: io.StringIO
) -> None:
    login = f":{shared_valkey.password.reveal()}@"
    async with tls_before(shared_valkey.port, tls_files) as port:
        url = SecretValue(f"rediss://{login}127.0.0.1:{port}")
        async with redis_signals(url, pace=QUICK) as ann:
            assert not ann.shared
    assert lines(written, "signals_lost")[0]["reason"] == "tls_failed"
    assert shared_valkey.password.reveal() not in written.getvalue()


# --- sentinels and clusters -----------------------------------------------------------


async def test_when_sentinels_make_another_server_master_it_is_joined(tmp_path: Path) -> None:
    password = SecretValue("one-for-all")
    async with AsyncExitStack() as stack:

        async def start(name: str, *lines: str, sentinel: bool = False) -> ValkeyServer:
            made = valkey_server(
                tmp_path / name, tcp=True, password=password, sentinel=sentinel, lines=lines
            )
            return await stack.enter_async_context(made)

        auth = f"masterauth {password.reveal()}"
        quick = ("repl-ping-replica-period 1", "repl-diskless-sync-delay 0")
        master = await start("master", auth, *quick)
        replica = await start("replica", auth, *quick, f"replicaof 127.0.0.1 {master.port}")
        sentinel = await start(
            "sentinel",
            f"sentinel monitor main 127.0.0.1 {master.port} 1",
            f"sentinel auth-pass main {password.reveal()}",
            "sentinel down-after-milliseconds main 200",
            "sentinel failover-timeout main 2000",
            sentinel=True,
        )
        hosts = f"127.0.0.1:1,127.0.0.1:{sentinel.port}"
        word = password.reveal()
        url = SecretValue(f"redis+sentinel://:{word}@{hosts}/main?sentinel_password={word}")

        async def replica_is_known() -> bool:
            known = await ask(sentinel.url, "SENTINEL", "REPLICAS", "main")
            return bool(known) and b"err" not in known[0] and await replica_is_in_step()

        async def replica_is_in_step() -> bool:
            return b"master_link_status:up" in await ask(replica.url, "INFO", "replication")

        await until(replica_is_known)
        async with (
            redis_signals(url, pace=QUICK) as ann,
            redis_signals(url, pace=QUICK) as bob,
        ):
            assert ann.shared
            await master.kill()
            await until(lambda: not ann.shared)
            await until(lambda: ann.shared and bob.shared)
            role = await ask(replica.url, "ROLE")
            assert role[0] == b"master"
            with bob.listen("queue") as waker:
                await waker.wait(0)
                await ann.wake("queue")
                assert await waker.wait(5)
            assert await ann.turn("k", 1) < 0.1


async def test_a_master_that_sentinels_replaced_is_left_although_it_answers(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    """Sentinels that are told of another master stand for those that elected one."""
    password = valkey.password.reveal()
    async with (
        valkey_server(tmp_path / "other", tcp=True, password=valkey.password) as other,
        valkey_server(
            tmp_path / "sentinel",
            tcp=True,
            sentinel=True,
            lines=(f"sentinel monitor main 127.0.0.1 {valkey.port} 1",),
        ) as sentinel,
    ):
        word = sentinel.password.reveal()
        host = f"127.0.0.1:{sentinel.port}"
        url = SecretValue(f"redis+sentinel://:{password}@{host}/main?sentinel_password={word}")
        async with redis_signals(url, pace=QUICK) as ann:
            assert ann.shared
            await ask(sentinel.url, "SENTINEL", "REMOVE", "main")
            await ask(sentinel.url, "SENTINEL", "MONITOR", "main", "127.0.0.1", other.port, 1)
            await until(lambda: ann.counts.joined == 2)
            await ann.turn("k", 0.1)
            assert await ask(other.url, "EXISTS", "svsync:{turn}:k") == 1


async def test_in_a_cluster_of_three_every_process_finds_the_same_node(tmp_path: Path) -> None:
    password = SecretValue("one-for-all")
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(3):
            lines = (
                "cluster-enabled yes",
                "cluster-config-file nodes.conf",
                f"cluster-port {free_port()}",
                f"masterauth {password.reveal()}",
            )
            made = valkey_server(tmp_path / f"{number}", tcp=True, password=password, lines=lines)
            nodes.append(await stack.enter_async_context(made))
        bounds = (0, 5461, 10922, 16384)
        for number, node in enumerate(nodes):
            slots = (bounds[number], bounds[number + 1] - 1)
            await ask(node.url, "CLUSTER", "ADDSLOTSRANGE", *slots)
        for number, node in enumerate(nodes[1:], 2):
            await ask(node.url, "CLUSTER", "SET-CONFIG-EPOCH", number)
            bus = int((await ask(node.url, "CONFIG", "GET", "cluster-port"))[1])
            await ask(nodes[0].url, "CLUSTER", "MEET", "127.0.0.1", node.port, bus)

        async def all_stand() -> bool:
            told = [await ask(node.url, "CLUSTER", "INFO") for node in nodes]
            return all(
                b"cluster_state:ok" in one and b"cluster_known_nodes:3" in one for one in told
            )

        await until(all_stand)
        urls = [
            SecretValue(f"redis+cluster://:{password.reveal()}@127.0.0.1:1,127.0.0.1:{node.port}")
            for node in nodes
        ]
        processes = [await stack.enter_async_context(redis_signals(u, pace=QUICK)) for u in urls]
        await until(lambda: all(one.shared for one in processes))
        taken = [await one.turn("k", 0.5) for one in processes for _ in range(2)]
        assert [round(due / 2) for due in taken] == [0, 1, 2, 3, 4, 5]
        with processes[2].listen("queue") as waker:
            await waker.wait(0)
            await processes[0].wake("queue")
            assert await waker.wait(5)
