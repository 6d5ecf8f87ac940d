"""The server as a child process: ready when entered, gone when left."""

import asyncio
from pathlib import Path

import pytest
from tests.children import cancel_owner, first_port_taken, is_alive
from tests.openbao import new_mount

from svsync.domain.errors import SetupError
from svsync.embedded import openbao
from svsync.embedded.openbao import openbao_server


async def test_the_process_ends_with_its_block(tmp_path: Path) -> None:
    async with openbao_server(tmp_path) as server:
        pid = server.pid
        assert is_alive(pid)
    assert not is_alive(pid)


async def test_the_process_ends_when_its_owner_is_cancelled(tmp_path: Path) -> None:
    assert not is_alive(await cancel_owner(lambda: openbao_server(tmp_path)))


async def test_another_port_is_tried_when_the_first_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        first_port_taken(monkeypatch, openbao) as taken,
        openbao_server(tmp_path) as server,
    ):
        assert server.port != taken
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
