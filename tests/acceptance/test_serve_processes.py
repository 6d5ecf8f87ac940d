"""Do several processes serve as one: on one port, looked after, and ended together?"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import Served, ask, new_token, serving
from tests.acceptance.test_serve import Gate, Manager, row, run_ended
from tests.children import is_alive
from tests.patience import PATIENCE_S
from tests.postgres import connected
from tests.program import Program, until
from tests.servers import Front

from svsync.embedded.processes import free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")


def children_of(served: Served) -> list[int]:
    """In the order in which they were started."""
    pid = served.process.pid
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def listeners_at(port: int) -> int:
    """How many sockets listen on a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(f[3] == "0A" and int(f[1].rpartition(":")[2], 16) == port for f in fields)


@asynccontextmanager
async def several(
    program: Program, *args: str, many: int = 2, **changes: str
) -> AsyncIterator[Served]:
    """So many processes of the service, from when all of them serve."""
    async with serving(program, "--processes", str(many), *args, ready=True, **changes) as served:
        await served.says("processes_up")
        await served.says("serving", many)
        children = children_of(served)
        assert len(children) == many
        try:
            yield served
        finally:
            await served.aclose()
            await until(lambda: not any(map(is_alive, children)))


async def roles(desk: Desk) -> dict[int, list[str]]:
    """Of the processes that are up, by their numbers."""
    async with connected(desk.database) as admin:
        rows = await admin.fetch("SELECT instance_id, roles FROM instances")
    return {int(row["instance_id"].rpartition(":")[2]): row["roles"] for row in rows}


async def test_all_answer_on_one_port_and_the_first_does_the_rest(desk: Desk) -> None:
    await desk.bao.put("several/a", {"v": "1"})
    rule = {"local": "several/**", "remote": f"{desk.bao.mount}/data/several/**"}
    backend, file = desk.backend(path_mapping=[rule])
    at = ("--config", str(file))
    token = await new_token(desk.program, *at)
    async with several(desk.program, *at, many=3) as served:
        first, *others = children_of(served)
        assert listeners_at(int(served.url.rpartition(":")[2])) == 3
        assert (await run_ended(desk, backend))["worker"].endswith(f":{first}")
        for _ in range(12):
            assert (await ask(served.url, "/v1/secrets/several/a", token=token)).status == 200
        found = await roles(desk)
        assert {pid: found[pid] for pid in others} == {pid: ["api"] for pid in others}
        assert found[first] == ["api", "scheduler", "worker"]
        pages = {str(line["endpoint"]) for line in served.told("serving")}
        assert len(pages) == 3
        for page in pages:
            assert "svsync_workers" in (await ask(page)).text
        assert {line["address"] for line in served.told("serving")} == {served.url}
        assert await served.stopped() == 0
    assert set(others).isdisjoint(await roles(desk))


async def test_on_nothing_they_share_one_postgresql_and_leave_nothing(
    desk: Desk, state_dir: Path
) -> None:
    program = Program({"SVSYNC_STATE_DIR": str(state_dir)}, desk.folder)
    async with several(program) as served:
        for line in served.told("serving"):
            assert line["detail"] == "on an embedded PostgreSQL"
        assert (await ask(served.url, "/readyz")).status == 200
        assert await served.stopped() == 0
    assert not (state_dir / "postgres/data/postmaster.pid").exists()


@pytest.mark.parametrize("number", [0, 1])
async def test_one_that_is_killed_is_started_again_while_the_other_answers(
    desk: Desk, number: int
) -> None:
    async with several(desk.program, "--config", str(desk.file({}))) as served:
        before = children_of(served)
        had = (await roles(desk))[before[number]]
        os.kill(before[number], signal.SIGKILL)
        assert (await served.says("process_ended"))["status"] == -signal.SIGKILL
        assert (await ask(served.url, "/healthz")).status == 200

        async def is_back() -> bool:
            new = set(children_of(served)) - set(before)
            return bool(new) and (await roles(desk)).get(new.pop()) == had

        await until(is_back)
        assert before[1 - number] in children_of(served)
        assert await served.stopped() == 0


async def test_one_that_is_stuck_is_killed_and_started_again(desk: Desk, state_dir: Path) -> None:
    with Manager(state_dir / "notify") as manager:
        async with several(
            desk.program,
            *("--config", str(desk.file({}))),
            NOTIFY_SOCKET=str(state_dir / "notify"),
            WATCHDOG_USEC="2000000",
        ) as served:
            _, second = children_of(served)
            os.kill(second, signal.SIGSTOP)
            await served.says("process_stuck")
            await served.says("serving", 3)
            await manager.hears("WATCHDOG=1", 2)
            assert not is_alive(second)
            assert await served.stopped() == 0


async def test_systemd_is_told_of_all_of_them_by_one(desk: Desk, state_dir: Path) -> None:
    with Manager(state_dir / "notify") as manager:
        async with several(
            desk.program,
            *("--config", str(desk.file({}))),
            NOTIFY_SOCKET=str(state_dir / "notify"),
            WATCHDOG_USEC="2000000",
        ) as served:
            await manager.hears("READY=1")
            assert listeners_at(int(served.url.rpartition(":")[2])) == 2
            await manager.hears("WATCHDOG=1", 2)
            assert "2 of 2 processes up; " in await manager.hears("STATUS=")
            served.tell(signal.SIGHUP)
            await manager.hears("READY=1", 2)
            await served.says("reloaded", 2)
            assert await served.stopped() == 0
            await manager.hears("STOPPING=1")
        told = [text.partition("=")[0] for text in manager.got]
        assert (told.count("READY"), told.count("RELOADING"), told.count("STOPPING")) == (2, 1, 1)


async def test_sighup_names_an_address_that_changed(desk: Desk) -> None:
    addresses = {"bind_address": "127.0.0.1:0", "metrics_address": "127.0.0.1:0"}
    file = desk.file(addresses)
    process = await desk.program.start("serve", "--processes", "2", "--config", str(file))
    served = Served(process, desk.program.canary)
    served.reading = asyncio.create_task(served.read())
    try:
        await served.says("processes_up")
        changed = {**addresses, "metrics_address": "127.0.0.1:1", "shutdown_grace": "3s"}
        file.write_text(json.dumps(changed))
        served.tell(signal.SIGHUP)
        await served.says("restart_needed", 3)
        named = sorted(line["detail"].partition(": ")[2] for line in served.told("restart_needed"))
        assert named == ["metrics_address", "shutdown_grace", "shutdown_grace"]
        assert await served.stopped() == 0
    finally:
        await served.aclose()


async def test_they_end_when_the_one_that_started_them_is_killed(desk: Desk) -> None:
    async with several(desk.program, "--config", str(desk.file({}))) as served:
        children = children_of(served)
        served.tell(signal.SIGKILL)
        await until(lambda: not any(map(is_alive, children)))


async def test_second_signal_ends_all_at_once(desk: Desk) -> None:
    async with Front(desk.bao.url) as front:
        gate = Gate(front)
        front.answer("metadata/stuck", gate)
        rule = {"local": "stuck/**", "remote": f"{desk.bao.mount}/data/stuck/**"}
        _, file = desk.backend(path_mapping=[rule], config={"endpoint": front.url})
        async with several(desk.program, "--config", str(file)) as served:
            await asyncio.wait_for(gate.reached.wait(), PATIENCE_S)
            served.tell(signal.SIGTERM)
            await served.says("stopping", 2)
            assert served.process.returncode is None
            served.tell(signal.SIGTERM)
            assert await served.code() == 128 + signal.SIGTERM


async def test_stop_while_it_starts_ends_it(desk: Desk) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://svsync@127.0.0.1:{silent.getsockname()[1]}/svsync"
        async with serving(
            desk.program, "--processes", "2", ready=False, DATABASE_URL=url
        ) as served:
            connection, _ = await asyncio.to_thread(silent.accept)
            with connection:
                [child] = children_of(served)
                assert await served.stopped() == 128 + signal.SIGTERM
                assert not is_alive(child)


@pytest.mark.parametrize(
    ("args", "changes", "code", "word"),
    [
        (("--processes", "0"), {}, 2, "--processes"),
        (("--processes", "2", "--role", "worker"), {}, 2, "role api"),
        (("--processes", "2"), {"METRICS_ADDRESS": "127.0.0.1:65535"}, 2, "metrics_address"),
        (("--processes", "2"), {"REDIS_URL": "http://127.0.0.1:1"}, 2, "REDIS_URL"),
        (("--processes", "2"), {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}, 1, ""),
    ],
)
async def test_what_cannot_be_is_one_sentence(
    desk: Desk, args: tuple[str, ...], changes: dict[str, str], code: int, word: str
) -> None:
    async with serving(desk.program, *args, ready=False, **changes) as served:
        assert await served.code() == code
    [sentence] = served.sentences
    assert word in sentence


async def test_port_of_another_service_is_not_shared(desk: Desk) -> None:
    at = ("--config", str(desk.file({})))
    port = free_port()
    address = {"BIND_ADDRESS": f"127.0.0.1:{port}"}
    async with several(desk.program, *at, many=2, **address) as first:
        for args in ((), ("--processes", "2")):
            async with serving(desk.program, *args, *at, ready=False, **address) as second:
                assert await second.code() == 1
            [sentence] = second.sentences
            assert str(port) in sentence
        assert listeners_at(port) == 2
        assert await first.stopped() == 0


async def test_feed_has_one_listener(desk: Desk, state_dir: Path) -> None:
    listen = f"unix:{state_dir}/audit.sock"
    backend, file = desk.backend(events=[{"feed": "vault-audit", "listen": listen}])
    async with several(desk.program, "--config", str(file), many=3) as served:
        await until((state_dir / "audit.sock").exists)
        await run_ended(desk, backend)

        async def all_listen() -> bool:
            pages = [(await ask(str(line["endpoint"]))).text for line in served.told("serving")]
            return not any('svsync_feeds_down{feed="vault-audit"} 1' in page for page in pages)

        # One that could not listen beside another would say so for as long as it lives.
        await until(all_listen)
        assert await served.stopped() == 0


async def test_lease_names_the_process_that_holds_it(desk: Desk) -> None:
    backend, file = desk.backend()
    async with several(desk.program, "--config", str(file)) as served:
        ended = await run_ended(desk, backend)
        assert int(ended["worker"].rpartition(":")[2]) in children_of(served)
        signer = await row(
            desk, "SELECT count(*) AS n FROM leases WHERE holder LIKE '%:' || $1::text",
            str(served.process.pid),
        )  # fmt: skip
        assert signer["n"] == 0
        assert await served.stopped() == 0
