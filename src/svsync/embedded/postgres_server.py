"""One PostgreSQL server in one folder: made, started, asked and stopped.

Whoever calls holds the lock under which that happens (`postgres.py`).
"""

import contextlib
import errno
import os
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from svsync.domain.errors import SetupError
from svsync.embedded.postgres_install import Installation, user_name, wheel_major

SOCKET = ".s.PGSQL.5432"
_PATIENCE = 60  # seconds for a start (it may have a crash to recover from) or a stop
_LOG_LIMIT = 16 * 1024 * 1024  # bytes; a longer log is put aside at the next start

_CREATION = b"""\
CREATE ROLE svsync LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION;
CREATE DATABASE svsync OWNER svsync;
"""

_SETTINGS = {
    # a socket below the data directory, whatever the length of the path to it
    "listen_addresses": "",
    "unix_socket_directories": "../run",
    "unix_socket_permissions": "0700",
    # small: no helper processes for what svsync does not use
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "512MB",
    "io_method": "sync",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    # a log without statements, parameters or the contents of rows
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class GivenUpError(Exception):
    """The caller was cancelled before the server was up."""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """The server of a folder, running or not. Its methods block.

    Attributes:
        folder: holds `data`, `run`, the configuration and the log; ours.
        folder_fd: that folder, open; the programs inherit it.
        socket_dir: a path to `run` that is short enough for a socket address.
        durable: False trades safety against a power cut for speed.
        given_up: set when nobody waits for the server any more.
    """

    folder: Path
    folder_fd: int
    socket_dir: Path
    installation: Installation
    durable: bool
    given_up: threading.Event

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def is_ready(self) -> bool:
        return self._answers() and self._status() == "ready"

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket_dir / SOCKET))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def _status(self) -> str:
        """What the server says of itself in its eighth line: starting, ready, stopping."""
        lines = self._pid_lines()
        return lines[7].strip() if len(lines) > 7 else ""

    def _pid_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def check_version(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            found = (self.data / "PG_VERSION").read_text().strip()
            if found != str(wheel_major()):
                shown = found if found.isdecimal() else "another version"
                raise SetupError(
                    f"The data in {self.data} was made by PostgreSQL {shown}, and this svsync "
                    f"brings PostgreSQL {wheel_major()}: dump it with the svsync that made it "
                    "and restore the dump here, or set another state_dir."
                )

    def create(self) -> None:
        """Make the data directory, complete or not at all."""
        draft = self.folder / "data.new"
        if draft.exists():
            shutil.rmtree(draft)
        self._make_private(draft)
        place = self._seen_by_server(draft)
        options = ["--username=postgres", "--encoding=UTF8", "--locale=C"]
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += ["--auth-local=peer", "--auth-host=reject", "--no-instructions"]
        if not self.durable:
            options.append("--no-sync")
        self._run("initdb", ["-D", place, *options], "The database could not be made")
        # Without a server running, so that no role ever exists half-made.
        single = ["--single", "-D", place, "-c", "exit_on_error=true", "postgres"]
        self._run("postgres", single, "The role svsync could not be made", _CREATION)
        draft.rename(self.data)

    def start(self) -> None:
        self._forget_dead_process()
        self._make_private(self.folder / "run")
        user = user_name(os.geteuid())
        self._write("pg_hba.conf", "local all all peer map=svsync\n")
        self._write("pg_ident.conf", f'svsync "{user}" "svsync"\nsvsync "{user}" "postgres"\n')
        settings = _SETTINGS | ({} if self.durable else _FORGETFUL)
        for kind in ("hba", "ident"):
            settings[f"{kind}_file"] = self._seen_by_server(self.folder / f"pg_{kind}.conf")
        options = shlex.join(f"--{name}={value}" for name, value in settings.items())
        arguments = ["start", "-s", "-w", "-t", str(_PATIENCE), "-o", options]
        self._run(
            "pg_ctl",
            [*arguments, "-D", self._seen_by_server(self.data)],
            "The embedded PostgreSQL does not come up",
        )

    def stop(self) -> None:
        """Stop the server, in order if it will and at once if not."""
        for mode in ("fast", "immediate"):
            if not (self._answers() or self._is_process()):
                return
            arguments = ["stop", "-s", "-w", "-t", str(_PATIENCE), "-m", mode]
            with contextlib.suppress(SetupError, OSError):
                self._run("pg_ctl", [*arguments, "-D", self._seen_by_server(self.data)], mode)

    def _is_process(self) -> bool:
        """Whether the number in the pid file is that of a PostgreSQL process."""
        pid = next(iter(self._pid_lines()), "")
        if not pid.isdecimal():
            return False
        with contextlib.suppress(OSError):
            return Path("/proc", pid, "comm").read_text().strip() == "postgres"
        return False

    def _forget_dead_process(self) -> None:
        """Remove the pid files of a server that is not there any more.

        PostgreSQL does so itself, unless another process has got that number
        since: the usual case in a container, where few numbers are in use.
        """
        if Path("/proc/self").exists() and not self._is_process():
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            (self.folder / "run" / f"{SOCKET}.lock").unlink(missing_ok=True)

    def _seen_by_server(self, path: Path) -> str:
        """A path inside our folder as the server's account reaches it.

        Folders above ours may be closed to that account. It need not pass
        them: it inherits our folder, open, and goes on from there.
        """
        if os.geteuid() != 0:
            return str(path)
        return str(Path(f"/proc/self/fd/{self.folder_fd}") / path.relative_to(self.folder))

    def _make_private(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        account = self.installation.account
        if account:
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)

    def _write(self, name: str, text: str) -> None:
        """Replace a configuration file, which holds nothing secret."""
        draft = self.folder / f"{name}.new"
        draft.unlink(missing_ok=True)
        draft.write_text(text)
        draft.chmod(0o644)
        draft.rename(self.folder / name)

    def _run(
        self, program: str, arguments: Sequence[str], failure: str, stdin: bytes = b""
    ) -> None:
        """Run a program to its end, its output going to the log.

        Raises:
            SetupError: it failed, with `failure` and the name of the log.
        """
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > _LOG_LIMIT:
                self.log.rename(self.log.with_suffix(".log.1"))
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(self.log, flags, 0o600), "rb+", buffering=0) as log:
            before = log.seek(0, os.SEEK_END)
            process = self.installation.popen(
                program, arguments, keep=self.folder_fd, output=log.fileno(), stdin=subprocess.PIPE
            )
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(stdin)
            # A start or stop in progress is waited for, so that its end is known.
            while program != "pg_ctl" and process.poll() is None:
                if self.given_up.wait(0.01):
                    process.terminate()
                    process.wait()
                    raise GivenUpError
            if process.wait() == 0:
                return
            log.seek(before)
            if b"No space left on device" in log.read():
                raise OSError(errno.ENOSPC, "no space")
        raise SetupError(f"{failure}: the end of {self.log} tells why.")
