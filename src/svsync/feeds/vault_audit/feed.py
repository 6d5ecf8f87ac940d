"""The feed: starts what reads, looks at what was read, and tells what changed.

When "anything may have changed" is told:

- at the start, for what happened before: with a file at once, with a socket when the
  server connects, or after a second if it does not;
- each time that a server connects. It connects anew because something broke, and what
  it wrote meanwhile is not kept anywhere. A connection counts as a server's with its
  first readable entry, so one that merely knocks makes nobody list a backend;
- after lines that were dropped, and after a file that was truncated.
"""

import asyncio
import ipaddress
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from svsync.domain.errors import ConfigError
from svsync.domain.federation import BackendSpec
from svsync.feeds.vault_audit.entries import notices_of
from svsync.feeds.vault_audit.files import FileSource
from svsync.feeds.vault_audit.lines import LONGEST_LINE, MOST_BYTES, LineBuffer, Stream
from svsync.feeds.vault_audit.sockets import SocketSource
from svsync.network import NetworkPolicy
from svsync.observe.logs import get_logger
from svsync.ports import CallGuard, CredentialSource, Notice

ANYTHING: Final = Notice("", None)

_SLICE: Final = 200  # lines looked at before others get a turn
_JOIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """Lines since the start: read, those that are no entries, and those dropped unseen."""

    lines: int = 0
    invalid: int = 0
    too_long: int = 0
    overflowed: int = 0


class VaultAuditFeed:
    """See `ports.ChangeFeed`. One for all backends that name the same address.

    Args:
        listen: `unix:/path`, `tcp:127.0.0.1:9390` (loopback only) or `file:/path`.
        most_bytes: lines kept that nobody looked at yet; beyond them they are dropped.
        longest: bytes of a line.
        first_s: how long a server is waited for before the first notice.
        poll_s: how often a file is looked at.
    """

    def __init__(
        self,
        listen: str,
        *,
        most_bytes: int = MOST_BYTES,
        longest: int = LONGEST_LINE,
        first_s: float = 1.0,
        poll_s: float = 0.1,
    ) -> None:
        _check(listen)
        self._address = listen
        self._most_bytes = most_bytes
        self._longest = longest
        self._first_s = first_s
        self._poll_s = poll_s
        self._lines = 0
        self._invalid = 0
        self._buffer: LineBuffer | None = None

    @property
    def counts(self) -> AuditCounts:
        if self._buffer is None:
            return AuditCounts()
        lost = self._buffer.lost
        return AuditCounts(self._lines, self._invalid, lost.too_long, lost.overflowed)

    @property
    def invalid(self) -> int:
        """Lines that are no entries."""
        return self.counts.invalid

    @property
    def dropped(self) -> int:
        """Lines that nobody looked at."""
        return self.counts.too_long + self.counts.overflowed

    async def listen(self, tell: Callable[[Notice], None]) -> None:
        """See `ports.ChangeFeed`."""
        buffer = self._buffer = LineBuffer(self._most_bytes)
        of_file = self._address.startswith("file:")
        source = (
            FileSource(self._address, buffer, self._longest, self._poll_s)
            if of_file
            else SocketSource(self._address, buffer, self._longest)
        )
        try:
            source.open()
            thread = threading.Thread(
                target=_drain, args=(source, buffer, self._address), daemon=True, name="vault-audit"
            )
            first = asyncio.get_running_loop().call_later(self._first_s, tell, ANYTHING)
            if of_file:
                first.cancel()
                tell(ANYTHING)
            thread.start()
            try:
                while True:
                    taken = await buffer.take()
                    if taken.gap:
                        self._tell_loss(tell)
                    for stream, lines in taken.blocks:
                        await self._look_at(stream, lines, tell)
                        if stream.known:
                            first.cancel()
            finally:
                first.cancel()
                source.stop()
                # It is at most within one read, and what it reads does not make it wait.
                thread.join(_JOIN_SECONDS)
        finally:
            source.close()

    async def _look_at(
        self,
        stream: Stream,
        lines: Sequence[bytes],
        tell: Callable[[Notice], None],
    ) -> None:
        for number, line in enumerate(lines, 1):
            self._lines += 1
            try:
                notices = notices_of(line)
            except ValueError:
                self._invalid += 1
                self._tell_unreadable(stream)
                continue
            if not stream.known:
                stream.known = True
                tell(ANYTHING)
            for notice in notices:
                tell(notice)
            if number % _SLICE == 0:
                await asyncio.sleep(0)

    def _tell_loss(self, tell: Callable[[Notice], None]) -> None:
        counts = self.counts
        get_logger().warning(
            "change_feed_gap",
            feed="vault-audit",
            listen=self._address,
            counts={"too_long": counts.too_long, "overflowed": counts.overflowed},
            detail="entries were lost, so everything is looked at once",
        )
        tell(ANYTHING)

    def _tell_unreadable(self, stream: Stream) -> None:
        """Once a stream, and nothing of the line: it may hold a value."""
        if not stream.told_unreadable:
            stream.told_unreadable = True
            get_logger().warning(
                "change_feed_unreadable",
                feed="vault-audit",
                listen=self._address,
                detail='the audit device must write format = "json" and no prefix',
            )


def open_feed(
    entry: Mapping[str, object],
    _spec: BackendSpec,
    _credential: CredentialSource,
    _network: NetworkPolicy,
    _guard: CallGuard,
) -> VaultAuditFeed:
    """The feed of one entry of `events`. Raises ConfigError."""
    return VaultAuditFeed(str(entry.get("listen", "")))


def _drain(source: SocketSource | FileSource, buffer: LineBuffer, listen: str) -> None:
    """The thread. What ends it ends the feed, which is then opened anew."""
    try:
        source.run()
    except OSError as error:
        buffer.end(ConfigError(f"{listen} broke ({error.strerror})", where="events.listen"))
    except Exception as error:  # noqa: BLE001 - handed to the loop, which raises it
        buffer.end(error)


def _check(listen: str) -> None:
    scheme, _, rest = listen.partition(":")
    if scheme in ("unix", "file") and rest.startswith("/"):
        return
    host, _, port = rest.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        address = None
    if scheme != "tcp" or address is None or not (port.isascii() and port.isdigit()):
        raise ConfigError(
            "must be unix:/path, file:/path or tcp:127.0.0.1:port", where="events.listen"
        )
    if not address.is_loopback:
        # Whoever reaches the address can make svsync list its backends, and nothing
        # here says who it is.
        raise ConfigError(
            f"{host} is no loopback address: let the audit device of a server elsewhere write to"
            " a forwarder on this machine",
            where="events.listen",
        )
