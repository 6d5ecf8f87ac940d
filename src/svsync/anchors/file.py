"""A file that is only ever appended to, on a disk that the database's owner cannot write.

It is opened anew for each append, so it may be rotated at any time. A line that a crash cut
off is ended before the next one. With several machines each has its own file, which holds
what was signed there; together they hold all.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from svsync.config.model import Settings
from svsync.domain.errors import AnchorError
from svsync.ports import Anchor

KEPT_S = 10.0
"""Seconds in which lines are on the disk, or nobody knows."""


def open_anchor(
    entry: Mapping[str, Any], _settings: Settings, _environ: Mapping[str, str]
) -> Anchor:
    return FileAnchor(entry["path"])


class FileAnchor:
    """JSON lines in one file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._at_work: asyncio.Future[None] | None = None

    @property
    def place(self) -> str:
        return f"file:{self._path}"

    async def keep(self, lines: Sequence[str]) -> None:
        if self._at_work is not None and not self._at_work.done():
            raise AnchorError(f"{self._path} does not answer: look at its disk")
        text = "".join(f"{line}\n" for line in lines).encode()
        work = self._at_work = asyncio.ensure_future(asyncio.to_thread(_append, self._path, text))
        try:
            await asyncio.wait_for(asyncio.shield(work), KEPT_S)
        except TimeoutError:
            work.add_done_callback(_forget)
            raise AnchorError(f"{self._path} does not answer: look at its disk") from None
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else "it cannot be written"
            raise AnchorError(f"{self._path} takes no line: {why}") from None


def _forget(work: "asyncio.Future[None]") -> None:
    """What became of it is not asked for any more."""
    if not work.cancelled():
        work.exception()


def _append(path: str, text: bytes) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    new = not os.path.exists(path)
    file = os.open(path, flags, 0o640)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            text = b"\n" + text
        while text:
            text = text[os.write(file, text) :]
        os.fsync(file)
    finally:
        os.close(file)
    if new:
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
