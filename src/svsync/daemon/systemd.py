"""Telling systemd how the service is, by the protocol of sd_notify(3).

One datagram to the socket in NOTIFY_SOCKET, with lines of NAME=value. Nothing of the
service depends on whether anybody listens.
"""

import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notify:
    """The socket of the service manager; without one, nothing is told to nobody."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ names an abstract socket (unix(7)).
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_us = _number(environ.get("WATCHDOG_USEC", ""))

    @property
    def watchdog_s(self) -> float | None:
        """Seconds between two signs of life, half of what the manager allows; None: it
        does not ask for any."""
        return self._watchdog_us / 2_000_000 if self._watchdog_us and self._address else None

    def ready(self) -> None:
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def reloading(self) -> None:
        moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={moment}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, lines: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto(lines.encode(), self._address)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
