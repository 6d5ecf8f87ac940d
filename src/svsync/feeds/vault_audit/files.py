"""The file that an audit device writes, followed over rotation by looking again and again.

A file that was renamed is read to its end, which is not before the new one has begun:
the server writes to the old one until it is told to reopen. A file that was truncated
shows by its size, or by what stands before the place reached; what was cut off unread
is lost, and said to be.
"""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from svsync.domain.errors import ConfigError
from svsync.feeds.vault_audit.lines import LineBuffer, LineSplitter, Stream
from svsync.observe.logs import get_logger

_BLOCK: Final = 256 * 1024
_MARK: Final = 64  # bytes before the place reached, by which a file is known again


class FileSource:
    """Follows `file:/path` from its end; from its beginning where it appears later."""

    def __init__(self, listen: str, buffer: LineBuffer, longest: int, poll_s: float) -> None:
        self._listen = listen
        self._path = Path(listen.partition(":")[2])
        self._buffer = buffer
        self._longest = longest
        self._poll_s = poll_s
        self._stream = Stream(LineSplitter(longest), known=True)
        self._file: int | None = None
        self._at = 0
        self._mark = b""
        self._problem = ""
        self._closing = threading.Event()

    def open(self) -> None:
        """Go to the end of the file. Raises ConfigError for one that cannot be followed."""
        try:
            self._file = self._opened()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refused(f"cannot be read ({error.strerror})") from None
        self._at = os.fstat(self._file).st_size
        known = min(_MARK, self._at)
        self._mark = os.pread(self._file, known, self._at - known)
        if self._mark and not self._mark.endswith(b"\n"):
            self._stream.splitter.skip_line()

    def run(self) -> None:
        """Read what is new until `stop`; the body of the thread."""
        while not self._closing.wait(self._poll_s):
            self._trying(self._look)

    def stop(self) -> None:
        """Make `run` return."""
        self._closing.set()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    # --- following ----------------------------------------------------------------

    def _look(self) -> None:
        if self._file is None:
            self._file = self._opened()
            self._begin_anew()
        self._read(self._file)
        found = self._path.stat()
        here = os.fstat(self._file)
        if (found.st_dev, found.st_ino) == (here.st_dev, here.st_ino) or not found.st_size:
            return
        # The new file has begun, so the old one has ended: what it got until then first.
        self._read(self._file)
        newer = self._opened()
        os.close(self._file)
        self._file = newer
        self._begin_anew()
        self._read(newer)

    def _read(self, file: int) -> None:
        """Read to the end. The mark is read with what follows it, in one call: nothing
        can be cut off in between and be taken for what was read before."""
        while not self._closing.is_set():
            known = len(self._mark)
            block = os.pread(file, known + _BLOCK, self._at - known)
            if not block.startswith(self._mark):
                self._buffer.put_gap()
                self._begin_anew()
            elif len(block) > known:
                self._buffer.put(self._stream, block[known:])
                self._at += len(block) - known
                self._mark = block[-_MARK:]
            else:
                return

    def _begin_anew(self) -> None:
        self._stream = Stream(LineSplitter(self._longest), known=True)
        self._at, self._mark = 0, b""

    def _opened(self) -> int:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._refused("is no regular file: name the one the audit device writes")
        return descriptor

    def _trying(self, look: Callable[[], None]) -> None:
        """A file that is away, or not readable for now, is waited for; told once."""
        try:
            look()
        except FileNotFoundError:
            problem = "is not there"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        else:
            problem = ""
        if problem and problem != self._problem:
            get_logger().warning(
                "change_feed_waits",
                feed="vault-audit",
                listen=self._listen,
                detail=f"the audit file {problem}",
            )
        self._problem = problem

    def _refused(self, why: str) -> ConfigError:
        return ConfigError(f"{self._listen} {why}", where="events.listen")
