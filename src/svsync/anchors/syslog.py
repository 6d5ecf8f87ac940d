"""A line to syslog, or to standard error, from where the journal takes it.

Neither answers, so a line counts as kept once it was handed over; a collector that keeps it
where nobody of this machine can change it is what makes an anchor of it. `stderr` writes the
line as it is; a unix or UDP address gets RFC 5424 (facility 13, log audit).
"""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from svsync.config.model import Settings
from svsync.domain.errors import AnchorError
from svsync.ports import Anchor

SENT_S: Final = 5.0
_PRIORITY: Final = 13 * 8 + 5  # log audit, notice


def open_anchor(
    entry: Mapping[str, Any], _settings: Settings, _environ: Mapping[str, str]
) -> Anchor:
    return SyslogAnchor(entry["address"])


class SyslogAnchor:
    """`stderr`, `unix:/path` or `udp:host:port`."""

    def __init__(self, address: str) -> None:
        self._address = address

    @property
    def place(self) -> str:
        return f"syslog:{self._address}"

    async def keep(self, lines: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(SENT_S):
                if self._address == "stderr":
                    await asyncio.to_thread(_to_stderr, lines)
                elif self._address.startswith("unix:"):
                    await asyncio.to_thread(_to_socket, self._address.removeprefix("unix:"), lines)
                else:
                    await self._to_host(lines)
        except (OSError, ValueError):
            raise AnchorError(
                f"syslog at {self._address} takes no line: start it, or set another address"
            ) from None

    async def _to_host(self, lines: Sequence[str]) -> None:
        host, _, port = self._address.removeprefix("udp:").rpartition(":")
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        family, kind, proto, _, address = found[0]
        with socket.socket(family, kind, proto) as out:
            out.setblocking(False)
            out.connect(address)
            for line in lines:
                await loop.sock_sendall(out, _framed(line))


def _to_stderr(lines: Sequence[str]) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _to_socket(path: str, lines: Sequence[str]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.settimeout(SENT_S)
        out.connect(path)
        for line in lines:
            out.send(_framed(line))


def _framed(line: str) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return (
        f"<{_PRIORITY}>1 {now} {socket.gethostname()} svsync {os.getpid()} audit - {line}".encode()
    )
