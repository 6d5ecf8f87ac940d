"""The PostgreSQL that svsync brings along: one server per state directory.

Every process that works on a state directory holds a shared lock on one file
as long as it does. The first starts the server, the others attach, and who can
turn its lock into an exclusive one was the last and stops it. The kernel drops
the lock of a process that is killed, so the count cannot go wrong; a server
that was left running by a kill is found, used and stopped by the next process.
Start and stop are serialised by a second lock.

    <state directory>/postgres/
        start.lock, holders.lock
        data/               made by initdb, renamed into place when complete
        run/                the Unix socket; there is no TCP
        pg_hba.conf, pg_ident.conf    who may connect: the owner of this folder
        postgres.log

Nobody but the owner of the folder connects: the folder of the socket is closed
to others, and the server asks the kernel who is at the other end (peer).
svsync works as the role `svsync`, which owns its database and is under
row-level security like any other role.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from svsync.domain.errors import SetupError
from svsync.embedded.postgres_install import Installation, find_installation, wheel_major

_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 100  # bytes; the kernels' limits are 107 (Linux) and 103 (macOS)
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


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A running server.

    Attributes:
        dsn: the database `svsync` as its owner, the ordinary role `svsync`.
        admin_dsn: the database `postgres` as superuser; for tests only.
        log: the server's log file.
    """

    dsn: str
    admin_dsn: str
    log: Path


@contextlib.asynccontextmanager
async def embedded_postgres(
    state_dir: Path, *, durable: bool = True
) -> AsyncIterator[EmbeddedPostgres]:
    """Start the server of a state directory, or attach to it, for the length of the block.

    Args:
        state_dir: made if missing, closed to other users.
        durable: False trades safety against a power cut for speed: tests only.

    Raises:
        SetupError: the folder cannot be written, the disk is full, the wheel is
            missing, the data is another major version's, the server does not come up.
    """
    holder = _Holder(state_dir, durable)
    try:
        await _to_its_end(holder.enter, when_cancelled=holder.given_up.set)
        yield holder.server()
    finally:
        await _to_its_end(holder.leave)


async def _to_its_end(
    step: Callable[[], None], when_cancelled: Callable[[], None] = lambda: None
) -> None:
    """Run a blocking step in a thread, and let a cancellation wait until it is done."""
    running = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        when_cancelled()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # seen: the cancellation is what the caller hears of
        raise


class _GivenUpError(Exception):
    """The caller was cancelled before the server was up."""


class _Holder:
    """One hold on the server of a state directory. Blocking; used in threads."""

    def __init__(self, state_dir: Path, durable: bool) -> None:
        self.given_up = threading.Event()
        self._folder = state_dir.absolute() / "postgres"
        self._data = self._folder / "data"
        self._log = self._folder / "postgres.log"
        self._durable = durable
        self._closing = contextlib.ExitStack()
        self._installation: Installation | None = None
        self._socket_dir = self._folder / "run"
        self._folder_fd = -1
        self._start_lock = -1
        self._held: int | None = None

    def server(self) -> EmbeddedPostgres:
        host = quote(str(self._socket_dir), safe="")
        return EmbeddedPostgres(
            dsn=f"postgresql://svsync@/svsync?host={host}&port=5432",
            admin_dsn=f"postgresql://postgres@/postgres?host={host}&port=5432",
            log=self._log,
        )

    def enter(self) -> None:
        """Hold the server, starting it if it is not running."""
        with _told(self._folder):
            self._make_folder()
            self._installation = find_installation(self._data)
            self._socket_dir = self._short_path(self._socket_dir)
            self._folder_fd = self._open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            self._start_lock = self._open(self._folder / "start.lock", os.O_RDWR | os.O_CREAT)
            with self._alone():
                holders = self._open(self._folder / "holders.lock", os.O_RDWR | os.O_CREAT)
                fcntl.flock(holders, fcntl.LOCK_SH)
                self._held = holders
                self._check_version()
                if self._answers() and self._status() == "ready":
                    return
                self._stop()  # one that a killed process left half-way
                if not self._data.exists():
                    self._create()
                self._start()

    def leave(self) -> None:
        """Let go, and stop the server if nobody else holds it. Does no harm twice."""
        with self._closing:
            if self._held is None:
                return
            self.given_up.clear()
            with self._alone():
                try:
                    fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._stop()
                except BlockingIOError:
                    pass  # somebody else holds it
                finally:  # here, or the next to leave would take us for a holder
                    fcntl.flock(self._held, fcntl.LOCK_UN)
                    self._held = None

    # --- the folder ---------------------------------------------------------------

    def _make_folder(self) -> None:
        as_root = os.geteuid() == 0
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Root's server runs under another account, which must get to its data.
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)
            self._folder.chmod(0o711 if as_root else 0o700)
        owner = self._folder.lstat().st_uid
        if owner != os.geteuid():
            raise SetupError(
                f"The folder {self._folder} belongs to {_user_name(owner)}: run svsync as "
                f"{_user_name(owner)}, or set another state_dir."
            )

    def _open(self, path: Path, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._closing.callback(os.close, descriptor)
        return descriptor

    def _short_path(self, run: Path) -> Path:
        """The socket's folder by a path that fits into a socket address."""
        if _fits(run):
            return run
        for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
            if place and _fits(Path(place, "svsync-xxxxxxxx", "run")) and os.access(place, os.W_OK):
                short = Path(tempfile.mkdtemp(prefix="svsync-", dir=place))  # 0700, ours
                self._closing.callback(shutil.rmtree, short, ignore_errors=True)
                link = short / "run"
                link.symlink_to(run)
                return link
        raise SetupError(f"The path {run} is too long for a socket: set a shorter state_dir.")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock under which servers start and stop."""
        while not self.given_up.is_set():
            try:
                fcntl.flock(self._start_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.given_up.wait(0.02)
                continue
            try:
                yield
            finally:
                fcntl.flock(self._start_lock, fcntl.LOCK_UN)
            return
        raise _GivenUpError

    # --- the server ---------------------------------------------------------------

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket_dir / _SOCKET))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def _status(self) -> str:
        """What the server says of itself in its eighth line: starting, ready, stopping."""
        lines = self._pid_lines()
        return lines[7].strip() if len(lines) > 7 else ""

    def _pid_lines(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _check_version(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            found = (self._data / "PG_VERSION").read_text().strip()
            if found != str(wheel_major()):
                shown = found if found.isdecimal() else "another version"
                raise SetupError(
                    f"The data in {self._data} was made by PostgreSQL {shown}, and this svsync "
                    f"brings PostgreSQL {wheel_major()}: dump it with the svsync that made it "
                    "and restore the dump here, or set another state_dir."
                )

    def _create(self) -> None:
        """Make the data directory, complete or not at all."""
        draft = self._folder / "data.new"
        if draft.exists():
            shutil.rmtree(draft)
        self._make_private(draft)
        place = self._seen_by_server(draft)
        options = ["--username=postgres", "--encoding=UTF8", "--locale=C"]
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += ["--auth-local=peer", "--auth-host=reject", "--no-instructions"]
        if not self._durable:
            options.append("--no-sync")
        self._run("initdb", ["-D", place, *options], "The database could not be made")
        # Without a server running, so that no role ever exists half-made.
        single = ["--single", "-D", place, "-c", "exit_on_error=true", "postgres"]
        self._run("postgres", single, "The role svsync could not be made", _CREATION)
        draft.rename(self._data)

    def _start(self) -> None:
        self._forget_dead_process()
        self._make_private(self._folder / "run")
        user = _user_name(os.geteuid())
        self._write("pg_hba.conf", "local all all peer map=svsync\n")
        self._write("pg_ident.conf", f'svsync "{user}" "svsync"\nsvsync "{user}" "postgres"\n')
        settings = _SETTINGS | ({} if self._durable else _FORGETFUL)
        for kind in ("hba", "ident"):
            settings[f"{kind}_file"] = self._seen_by_server(self._folder / f"pg_{kind}.conf")
        options = shlex.join(f"--{name}={value}" for name, value in settings.items())
        arguments = ["start", "-s", "-w", "-t", str(_PATIENCE), "-o", options]
        self._run(
            "pg_ctl",
            [*arguments, "-D", self._seen_by_server(self._data)],
            "The embedded PostgreSQL does not come up",
        )

    def _stop(self) -> None:
        """Stop the server, in order if it will and at once if not."""
        for mode in ("fast", "immediate"):
            if not (self._answers() or self._is_process()):
                return
            arguments = ["stop", "-s", "-w", "-t", str(_PATIENCE), "-m", mode]
            with contextlib.suppress(SetupError, OSError):
                self._run("pg_ctl", [*arguments, "-D", self._seen_by_server(self._data)], mode)

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
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (self._folder / "run" / f"{_SOCKET}.lock").unlink(missing_ok=True)

    # --- what both need -----------------------------------------------------------

    def _seen_by_server(self, path: Path) -> str:
        """A path inside our folder as the server's account reaches it.

        Folders above ours may be closed to that account. It need not pass
        them: it inherits our folder, open, and goes on from there.
        """
        if os.geteuid() != 0:
            return str(path)
        return str(Path(f"/proc/self/fd/{self._folder_fd}") / path.relative_to(self._folder))

    def _make_private(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        account = self._install.account
        if account:
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)

    @property
    def _install(self) -> Installation:
        assert self._installation is not None
        return self._installation

    def _write(self, name: str, text: str) -> None:
        """Replace a configuration file, which holds nothing secret."""
        draft = self._folder / f"{name}.new"
        draft.unlink(missing_ok=True)
        draft.write_text(text)
        draft.chmod(0o644)
        draft.rename(self._folder / name)

    def _run(
        self, program: str, arguments: Sequence[str], failure: str, stdin: bytes = b""
    ) -> None:
        """Run a program to its end, its output going to the log.

        Raises:
            SetupError: it failed, with `failure` and the name of the log.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > _LOG_LIMIT:
                self._log.rename(self._log.with_suffix(".log.1"))
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(self._log, flags, 0o600), "rb+", buffering=0) as log:
            before = log.seek(0, os.SEEK_END)
            process = self._install.popen(
                program, arguments, keep=self._folder_fd, output=log.fileno(), stdin=subprocess.PIPE
            )
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(stdin)
            # A start or stop in progress is waited for, so that its end is known.
            while program != "pg_ctl" and process.poll() is None:
                if self.given_up.wait(0.01):
                    process.terminate()
                    process.wait()
                    raise _GivenUpError
            if process.wait() == 0:
                return
            log.seek(before)
            if b"No space left on device" in log.read():
                raise OSError(errno.ENOSPC, "no space")
        raise SetupError(f"{failure}: the end of {self._log} tells why.")


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn an operating system's error into a sentence."""
    try:
        yield
    except OSError as error:
        user = _user_name(os.geteuid())
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                sentence = f"The disk that holds {folder} is full: make room on it"
            case errno.EROFS:
                sentence = f"The folder {folder} is on a read-only file system: make it writable"
            case errno.EACCES | errno.EPERM:
                sentence = f"The user {user} may not write in {folder}: make it writable"
            case _:
                sentence = f"The folder {folder} cannot be used ({error.strerror}): mend it"
        raise SetupError(f"{sentence}, set another state_dir, or set DATABASE_URL.") from None


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET)) <= _LONGEST_SOCKET_PATH


def _user_name(uid: int) -> str:
    """An account's name, which PostgreSQL needs to know who connects."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise SetupError(
            f"The user id {uid} has no name on this machine, which PostgreSQL needs: "
            "add it to /etc/passwd, or set DATABASE_URL."
        ) from None
