"""Debian's PostgreSQL, where the tests otherwise have the one that svsync brings along.

The same folder, locks and addresses as `embedded_postgres` has, another server in them:
made and started in the way of an older major version, by the account that Debian made
for it where the tests run as root.
"""

import os
import pwd
import shlex
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from unittest import mock

import pytest

from svsync.embedded import postgres
from svsync.embedded.postgres import EmbeddedPostgres, embedded_postgres
from svsync.embedded.postgres_install import Account, Installation, wheel_programs
from svsync.embedded.postgres_server import PostgresServer

_HOME = Path("/usr/lib/postgresql")
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": "../run",
    "unix_socket_permissions": "0700",  # nobody else passes, and whoever passes is trusted
    "max_connections": "100",
    "log_parameter_max_length": "0",  # as docs advise, and the embedded one has it
    "timezone": "UTC",
}
_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_CREATION = b"""\
CREATE ROLE svsync LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION;
CREATE DATABASE svsync OWNER svsync;
"""

Server = Callable[..., AbstractAsyncContextManager[EmbeddedPostgres]]
"""Takes what `embedded_postgres` takes."""


def server_named(kind: str) -> Server:
    """`embedded` or `debian`; skips where Debian's package is missing."""
    if kind == "embedded":
        return embedded_postgres
    assert kind == "debian", f"no such PostgreSQL: {kind!r}; embedded and debian are there"
    if _programs() is None:
        pytest.skip("Debian's package postgresql is not installed")
    return debian_postgres


def programs_of(kind: str) -> Path:
    """The folder of that server's own programs, `pg_dump` among them."""
    programs = wheel_programs() if kind == "embedded" else _programs()
    assert programs is not None
    return programs


@asynccontextmanager
async def debian_postgres(
    state_dir: Path, *, durable: bool = True
) -> AsyncIterator[EmbeddedPostgres]:
    """Start the server of a folder, or attach to it, as `embedded_postgres` does."""
    held = embedded_postgres(state_dir, durable=durable)
    with (
        mock.patch.object(postgres, "PostgresServer", _DebianServer),
        mock.patch.object(postgres, "find_installation", _installation),
    ):
        server = await held.__aenter__()
    try:
        yield server
    finally:
        await held.__aexit__(None, None, None)


def _programs() -> Path | None:
    """Those of the newest version that is installed."""
    found = [folder for folder in _HOME.glob("*/bin") if (folder / "postgres").exists()]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


def _installation(_data: Path) -> Installation:
    programs = _programs()
    assert programs is not None
    if os.geteuid() != 0:
        return Installation(programs, None)
    account = pwd.getpwnam("postgres")
    return Installation(programs, Account(account.pw_name, account.pw_uid, account.pw_gid))


class _DebianServer(PostgresServer):
    """What another major version is told otherwise; all else is as with ours."""

    __slots__ = ()

    def check_version(self) -> None:
        """The folder is a test's own."""

    def create(self) -> None:
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        self._make_private(draft)
        place = self._seen_by_server(draft)
        options = ["--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"]
        self._run("initdb", ["-D", place, *options], "The database could not be made")
        single = ["--single", "-D", place, "-c", "exit_on_error=true", "postgres"]
        self._run("postgres", single, "The role svsync could not be made", _CREATION)
        draft.rename(self.data)

    def start(self) -> None:
        self._forget_dead_process()
        self._make_private(self.folder / "run")
        settings = _SETTINGS | ({} if self.durable else _FORGETFUL)
        options = shlex.join(f"--{name}={value}" for name, value in settings.items())
        arguments = ["start", "-s", "-w", "-t", "60", "-o", options]
        place = self._seen_by_server(self.data)
        self._run("pg_ctl", [*arguments, "-D", place], "Debian's PostgreSQL does not come up")
