"""The socket that an audit device writes to, and the thread that drains it.

Vault waits until an audit device took an entry, so this thread reads whatever comes,
as soon as it comes, and hands it to a buffer that never makes it wait. It runs beside
the event loop: a loop that is busy, or stuck, is not felt by Vault.
"""

import contextlib
import os
import selectors
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Final

from svsync.domain.errors import ConfigError
from svsync.feeds.vault_audit.lines import LineBuffer, LineSplitter, Stream

MOST_CONNECTIONS: Final = 64
"""Servers that write at a time; a cluster's nodes, each by one connection."""

_BLOCK: Final = 256 * 1024
_LONGEST_UNIX_PATH: Final = 107  # bytes, on Linux
_FULL_SECONDS: Final = 1.0


class SocketSource:
    """Listens on `unix:/path` or on `tcp:host:port`, and drains what connects."""

    def __init__(self, listen: str, buffer: LineBuffer, longest: int) -> None:
        self._listen = listen
        self._buffer = buffer
        self._longest = longest
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._listener: socket.socket | None = None
        self._made: tuple[Path, tuple[int, int]] | None = None
        self._closing = threading.Event()
        self._connections = 0
        self._accept_again = 0.0

    def open(self) -> None:
        """Bind. Raises ConfigError with what to do about it."""
        scheme, _, rest = self._listen.partition(":")
        listener = self._bound_unix(Path(rest)) if scheme == "unix" else self._bound_tcp(rest)
        listener.listen(MOST_CONNECTIONS)
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._selector.register(self._woken, selectors.EVENT_READ, None)

    def run(self) -> None:
        """Drain until `stop`; the body of the thread."""
        assert self._listener is not None
        while not self._closing.is_set():
            paused = self._accept_again > 0
            for key, _ in self._selector.select(_FULL_SECONDS if paused else None):
                if isinstance(key.data, Stream):
                    self._read(key.fileobj, key.data)  # type: ignore[arg-type]
                elif key.fileobj is self._listener:
                    self._accept(self._listener)
            if paused and time.monotonic() >= self._accept_again:
                self._accept_again = 0.0
                self._selector.register(self._listener, selectors.EVENT_READ, None)

    def stop(self) -> None:
        """Make `run` return."""
        self._closing.set()
        self._wake.send(b"x")

    def close(self) -> None:
        """Close all sockets, and remove the one in the file system if it is still ours."""
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._wake.close()
        self._woken.close()
        if self._listener is not None:
            self._listener.close()
        if self._made is not None:
            path, identity = self._made
            with contextlib.suppress(OSError):
                if _identity(path) == identity:
                    path.unlink()

    # --- draining -----------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it went away again
        except OSError:
            # No descriptors left: those that are connected are drained meanwhile.
            self._selector.unregister(listener)
            self._accept_again = time.monotonic() + _FULL_SECONDS
            return
        if self._connections >= MOST_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        self._connections += 1
        stream = Stream(LineSplitter(self._longest))
        self._selector.register(connection, selectors.EVENT_READ, stream)

    def _read(self, connection: socket.socket, stream: Stream) -> None:
        try:
            block = connection.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        if block:
            self._buffer.put(stream, block)
        else:
            self._selector.unregister(connection)
            self._connections -= 1
            connection.close()

    # --- binding ------------------------------------------------------------------

    def _bound_unix(self, path: Path) -> socket.socket:
        if len(os.fsencode(path)) > _LONGEST_UNIX_PATH:
            raise self._refused(f"is longer than the {_LONGEST_UNIX_PATH} bytes a socket may have")
        if not path.parent.is_dir():
            raise self._refused(f"needs the folder {path.parent}: make it, writable for svsync")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._remove_stale(path)
            listener.bind(str(path))
            # Nobody connects before `listen`, so the mode is never a wider one.
            path.chmod(0o660)
            self._made = path, _identity(path)
        except OSError as error:
            listener.close()
            raise self._refused(f"cannot be made ({error.strerror})") from None
        except ConfigError:
            listener.close()
            raise
        return listener

    def _remove_stale(self, path: Path) -> None:
        """Remove what a process that died left there; never a socket that is served."""
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise self._refused("is there and is no socket: remove it or name another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
            except BlockingIOError:
                pass  # somebody listens, and its queue is full
        raise self._refused("is served by another process: stop that or name another path")

    def _bound_tcp(self, rest: str) -> socket.socket:
        host, _, port = rest.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, int(port)))
        except OSError as error:
            listener.close()
            raise self._refused(f"cannot be listened on ({error.strerror})") from None
        return listener

    def _refused(self, why: str) -> ConfigError:
        return ConfigError(f"{self._listen} {why}", where="events.listen")


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
