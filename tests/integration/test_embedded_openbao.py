"""The server as a child process: ready when entered, gone when left."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.openbao import new_mount

from svsync.domain.errors import SetupError
from svsync.embedded.openbao import openbao_server
from svsync.embedded.processes import free_port


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_process_ends_with_its_block(tmp_path: Path) -> None:
    async with openbao_server(tmp_path) as server:
        pid = server.pid
        assert is_alive(pid)
    assert not is_alive(pid)


async def test_the_process_ends_when_its_owner_is_cancelled(tmp_path: Path) -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def own() -> None:
        async with openbao_server(tmp_path) as server:
            started.set_result(server.pid)
            await asyncio.Event().wait()

    owner = asyncio.create_task(own())
    pid = await started
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert not is_alive(pid)


async def test_another_port_is_tried_when_the_first_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    ports = iter([taken.sockets[0].getsockname()[1]])

    monkeypatch.setattr(
        "svsync.embedded.openbao.free_port", lambda: next(ports, None) or free_port()
    )
    async with taken, openbao_server(tmp_path) as server:
        assert server.port != taken.sockets[0].getsockname()[1]
        assert (await server.request("GET", "sys/health"))["sealed"] is False


async def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port}"):
            async with openbao_server(tmp_path, port=port):
                raise AssertionError("entered although the port is taken")


async def test_data_survives_a_restart_on_raft(tmp_path: Path) -> None:
    async with openbao_server(tmp_path, storage="raft") as server:
        bao = await new_mount(server)
        await bao.put("a", {"k": "v"})
        await server.restart()
        answer = await bao.request("GET", f"{bao.mount}/data/a")
    assert isinstance(answer["data"], dict)
    assert answer["data"]["data"] == {"k": "v"}


async def test_a_restart_that_would_forget_everything_is_refused(tmp_path: Path) -> None:
    async with openbao_server(tmp_path) as server:
        with pytest.raises(SetupError, match="raft"):
            await server.restart()


async def test_sealed_refuses_and_unsealed_serves_again(tmp_path: Path) -> None:
    async with openbao_server(tmp_path) as server:
        await server.seal()
        with pytest.raises(SetupError, match="503"):
            await server.request("GET", "sys/mounts")
        await server.unseal()
        assert await server.request("GET", "sys/mounts")
