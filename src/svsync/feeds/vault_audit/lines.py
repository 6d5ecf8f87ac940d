"""Lines on their way from the thread that reads to the loop that looks at them."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

LONGEST_LINE: Final = 1024 * 1024
MOST_BYTES: Final = 4 * 1024 * 1024


class LineSplitter:
    """Cuts what comes block by block into lines, and drops those that are too long."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._begun = bytearray()
        self._skipping = False

    def skip_line(self) -> None:
        """Begin in the middle of a line, which nobody wants."""
        self._begun.clear()
        self._skipping = True

    def split(self, block: bytes) -> tuple[list[bytes], int]:
        """The lines that end in this block, without empty ones; how many were too long."""
        *ended, rest = block.split(b"\n")
        lines: list[bytes] = []
        dropped = 0
        for part in ended:
            if self._skipping:
                self._skipping = False
            elif len(self._begun) + len(part) > self._longest:
                dropped += 1
            elif line := bytes(self._begun + part):
                lines.append(line)
            self._begun.clear()
        if not self._skipping:
            self._begun += rest
            if len(self._begun) > self._longest:
                self.skip_line()
                dropped += 1
        return lines, dropped


@dataclass(slots=True, eq=False)
class Stream:
    """One connection, or one file. `known`: a line of it was an audit entry."""

    splitter: LineSplitter
    known: bool = False
    told_unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What came since the last time: lines with their streams, and what was lost."""

    blocks: Sequence[tuple[Stream, Sequence[bytes]]]
    gap: bool


@dataclass(slots=True)
class Lost:
    """Lines that were dropped, since the start."""

    too_long: int = 0
    overflowed: int = 0


class LineBuffer:
    """A bounded buffer. Putting never waits; what does not fit is dropped and counted."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.lost = Lost()
        self._most_bytes = most_bytes
        self._loop = asyncio.get_running_loop()
        self._something = asyncio.Event()
        self._lock = threading.Lock()
        self._state = _Held()

    def put(self, stream: Stream, block: bytes) -> None:
        """Take a block over from the thread that read it."""
        lines, too_long = stream.splitter.split(block)
        size = sum(map(len, lines))
        with self._lock:
            held = self._state
            if held.size + size > self._most_bytes:
                self.lost.overflowed += len(lines)
                held.gap = True
            elif lines:
                held.blocks.append((stream, lines))
                held.size += size
            if too_long:
                self.lost.too_long += too_long
                held.gap = True
            self._signal(held)

    def put_gap(self) -> None:
        """Say that lines were missed before they could be read."""
        with self._lock:
            self._state.gap = True
            self._signal(self._state)

    def end(self, error: Exception) -> None:
        """Say that the thread ended: `take` raises this once all is taken."""
        with self._lock:
            self._state.error = error
            self._signal(self._state)

    async def take(self) -> Taken:
        """What there is, when there is something. Raises what `end` was given."""
        await self._something.wait()
        self._something.clear()
        with self._lock:
            held, self._state = self._state, _Held()
        if held.error is not None:
            if not (held.blocks or held.gap):
                raise held.error
            self.end(held.error)
        return Taken(held.blocks, held.gap)

    def _signal(self, held: "_Held") -> None:
        """Wake the loop once for all that it has not yet taken. The lock is held."""
        if not held.signalled and (held.blocks or held.gap or held.error):
            held.signalled = True
            self._loop.call_soon_threadsafe(self._something.set)


@dataclass(slots=True)
class _Held:
    blocks: deque[tuple[Stream, list[bytes]]] = field(default_factory=deque)
    size: int = 0
    gap: bool = False
    error: Exception | None = None
    signalled: bool = False
