"""The embedded Valkey as a child process: ready when entered, gone when left."""

from pathlib import Path

import pytest
from tests.children import cancel_owner, first_port_taken, is_alive
from tests.valkey import ask

from svsync.domain.errors import SetupError
from svsync.domain.values import SecretValue
from svsync.embedded import valkey
from svsync.embedded.valkey import valkey_server


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
    assert not is_alive(await cancel_owner(lambda: valkey_server(tmp_path, tcp=True)))


async def test_another_port_is_tried_when_the_first_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        first_port_taken(monkeypatch, valkey) as taken,
        valkey_server(tmp_path, tcp=True) as server,
    ):
        assert server.port != taken
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
