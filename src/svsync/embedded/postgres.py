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
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from svsync.domain.errors import SetupError
from svsync.embedded.postgres_install import find_installation, user_name
from svsync.embedded.postgres_server import SOCKET, GivenUpError, PostgresServer

_LONGEST_SOCKET_PATH = 100  # bytes; the kernels' limits are 107 (Linux) and 103 (macOS)


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
        yield holder.addresses()
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


class _Holder:
    """One hold on the server of a state directory. Blocking; used in threads."""

    def __init__(self, state_dir: Path, durable: bool) -> None:
        self.given_up = threading.Event()
        self._folder = state_dir.absolute() / "postgres"
        self._durable = durable
        self._closing = contextlib.ExitStack()
        self._start_lock = -1
        self._server: PostgresServer | None = None
        self._held: int | None = None

    def addresses(self) -> EmbeddedPostgres:
        assert self._server is not None
        host = quote(str(self._server.socket_dir), safe="")
        return EmbeddedPostgres(
            dsn=f"postgresql://svsync@/svsync?host={host}&port=5432",
            admin_dsn=f"postgresql://postgres@/postgres?host={host}&port=5432",
            log=self._server.log,
        )

    def enter(self) -> None:
        """Hold the server, starting it if it is not running."""
        with _told(self._folder):
            self._make_folder()
            self._server = server = PostgresServer(
                folder=self._folder,
                folder_fd=self._open(self._folder, os.O_RDONLY | os.O_DIRECTORY),
                socket_dir=self._short_path(self._folder / "run"),
                installation=find_installation(self._folder / "data"),
                durable=self._durable,
                given_up=self.given_up,
            )
            self._start_lock = self._open(self._folder / "start.lock", os.O_RDWR | os.O_CREAT)
            with self._alone():
                holders = self._open(self._folder / "holders.lock", os.O_RDWR | os.O_CREAT)
                fcntl.flock(holders, fcntl.LOCK_SH)
                self._held = holders
                server.check_version()
                if server.is_ready():
                    return
                server.stop()  # one that a killed process left half-way
                if not server.data.exists():
                    server.create()
                server.start()

    def leave(self) -> None:
        """Let go, and stop the server if nobody else holds it. Does no harm twice."""
        with self._closing, _told(self._folder):
            if self._held is None or self._server is None:
                return
            self.given_up.clear()
            with self._alone():
                try:
                    fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._server.stop()
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
                f"The folder {self._folder} belongs to {user_name(owner)}: run svsync as "
                f"{user_name(owner)}, or set another state_dir."
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
        raise GivenUpError


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn an operating system's error into a sentence."""
    try:
        yield
    except OSError as error:
        user = user_name(os.geteuid())
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                sentence = f"The disk that holds {folder} is full: make room on it"
            case errno.EROFS:
                sentence = f"The folder {folder} is on a read-only file system: make it writable"
            case errno.EACCES | errno.EPERM if os.geteuid() == 0:
                sentence = "svsync runs as root without root's rights: use an ordinary user"
            case errno.EACCES | errno.EPERM:
                sentence = f"The user {user} may not write in {folder}: make it writable"
            case _:
                sentence = f"The folder {folder} cannot be used ({error.strerror}): mend it"
        raise SetupError(f"{sentence}, set another state_dir, or set DATABASE_URL.") from None


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET)) <= _LONGEST_SOCKET_PATH
