"""The embedded Valkey as a child process: ready when entered, gone when left."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.valkey import ask

from svsync.domain.errors import SetupError
from svsync.domain.values import SecretValue
from svsync.embedded.processes import free_port
from svsync.embedded.valkey import valkey_server


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def arguments_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_it_listens_on_a_socket_of_its_owner_alone_and_on_no_port(state_dir: Path) -> None:
    async with valkey_server(state_dir / "valkey") as server:
        pid = server.pid
        assert await ask(server.url, "PING") == b"PONG"
        assert await ask(server.url, "CONFIG", "GET", "port") == [b"port", b"0"]
        assert server.socket.stat().st_mode & 0o077 == 0
        assert server.folder.stat().st_mode & 0o077 == 0
    assert not is_alive(pid)
    assert not server.socket.exists()


async def test_on_a_port_it_answers_nobody_without_the_password(tmp_path: Path) -> None:
    async with valkey_server(tmp_path, tcp=True) as server:
        with pytest.raises(Exception, match="Authentication required"):
            await ask(SecretValue(f"redis://127.0.0.1:{server.port}"), "PING")
        assert await ask(server.url, "PING") == b"PONG"


async def test_the_password_is_in_a_file_of_its_owner_and_not_in_the_arguments(
    tmp_path: Path,
) -> None:
    async with valkey_server(tmp_path, tcp=True) as server:
        word = server.password.reveal().encode()
        assert word not in arguments_of(server.pid)
        assert (tmp_path / "valkey.conf").stat().st_mode & 0o077 == 0
        assert word not in server.log.read_bytes()


async def test_the_process_ends_when_its_owner_is_cancelled(tmp_path: Path) -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def own() -> None:
        async with valkey_server(tmp_path, tcp=True) as server:
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
        "svsync.embedded.valkey.free_port", lambda: next(ports, None) or free_port()
    )
    async with taken, valkey_server(tmp_path, tcp=True) as server:
        assert await ask(server.url, "PING") == b"PONG"


async def test_what_the_server_cannot_read_is_told_with_the_place_of_its_log(
    tmp_path: Path,
) -> None:
    with pytest.raises(SetupError, match=r"Valkey ended while starting: see .*valkey\.log"):
        async with valkey_server(tmp_path, tcp=True, lines=["no-such-setting 1"]):
            pass


async def test_a_path_too_long_for_a_socket_is_told_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="too long"):
        async with valkey_server(tmp_path / ("x" * 100)):
            pass
