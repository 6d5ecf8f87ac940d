"""Whether answers arrive, where nobody is told of it.

With TLS all of an answer is encrypted at once, and what its client does not take waits below,
where neither `pause_writing` nor the size of a buffer tells of it. So the system is asked what
has not arrived, once the time of the last answer is over.
"""

import asyncio
import fcntl
import struct
import termios


class Arrival:
    """Of the answers of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.answers = 0

    def watch(self, transport: asyncio.Transport, seconds: float) -> None:
        """An answer was written. The connection is cut off where it has not arrived after so
        many seconds, or, where others were written meanwhile, the last has not after as many."""
        self.answers += 1
        if self._timer is None:
            self._begin(transport, seconds)

    def end(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, transport: asyncio.Transport, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look, transport, seconds, self.answers)

    def _look(self, transport: asyncio.Transport, seconds: float, answers: int) -> None:
        self._timer = None
        if not _on_its_way(transport):
            return
        if answers == self.answers:
            transport.abort()
        else:  # it may be of a later one
            self._begin(transport, seconds)


def _on_its_way(transport: asyncio.Transport) -> int:
    """Bytes that were given to the system, and not confirmed by the client's; 0 where it does
    not tell (tcp(7), SIOCOUTQ)."""
    try:
        told = fcntl.ioctl(
            transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, struct.pack("i", 0)
        )
    except (OSError, ValueError):  # not on this system, or closed by now
        return 0
    return int(struct.unpack("i", told)[0])
