"""Which addresses of Google's names are called.

gRPC looks names up by itself and shows nobody what it is about to connect to. So a name
is looked up here, each address is judged, and gRPC is given those that may be called, as
numbers: it connects to nothing else, and checks the certificate against the name. What
asks for tokens over HTTP looks names up the same way, and its sockets are judged as any
other's (`network.socket_guard`).
"""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from svsync.domain.errors import BackendError, BackendUnreachableError, ConfigError
from svsync.network import NetworkPolicy, refuse_reason

Address = tuple[str, int]
HTTPS: Final = 443
_LOOK_UP_S: Final = 10.0
"""Seconds for a name: whoever calls a service waits for the one who looks it up."""
_ROOTS: Final = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
"""By which gRPC itself names a file of authorities (grpc/doc/environment_variables.md)."""


async def look_up(host: str, port: int) -> list[Address]:
    """The addresses of a name, the best first. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(str(target[0]), int(target[1])) for *_, target in found]


@dataclass(frozen=True, slots=True)
class Dial:
    """How names become addresses, and whose certificates are believed.

    Attributes:
        resolve: a name and a port to addresses with theirs.
        roots: authorities in PEM; None: those of the environment, or the usual ones.
    """

    resolve: Callable[[str, int], Awaitable[Sequence[Address]]] = look_up
    roots: bytes | None = None

    async def authorities(self) -> bytes | None:
        """Authorities in PEM, for gRPC and for tokens alike; None: the usual ones of each.

        Raises ConfigError for a file that cannot be read.
        """
        file = os.environ.get(_ROOTS)
        if self.roots is not None or not file:
            return self.roots
        try:
            return await asyncio.to_thread(Path(file).read_bytes)
        except OSError:
            raise ConfigError(f"names a file that cannot be read: {file}", where=_ROOTS) from None

    async def target(self, host: str, policy: NetworkPolicy) -> str:
        """The addresses of a host that may be called, as gRPC takes them.

        Raises BackendUnreachableError: it has none. BackendError (`endpoint_refused`): it
        has none that may be called.
        """
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                found = await self.resolve(host, HTTPS)
        except OSError:  # that it took too long is one, too
            found = ()
        if not found:
            raise BackendUnreachableError(
                f"the name {host} cannot be resolved: check the network, and config.location",
                operation="connect",
                sent=False,
            )
        refused = ""
        allowed = []
        for text, port in found:
            address = ipaddress.ip_address(text.partition("%")[0])
            if reason := refuse_reason(address, policy, host=host, port=port):
                refused = reason
            else:
                allowed.append((address, port))
        if not allowed:
            raise BackendError(
                f"the endpoint {refused}", operation="connect", code="endpoint_refused", sent=False
            )
        if allowed[0][0].version == 4:
            return "ipv4:" + ",".join(f"{a}:{port}" for a, port in allowed if a.version == 4)
        return "ipv6:" + ",".join(f"[{a}]:{port}" for a, port in allowed if a.version == 6)


class HttpNames(AbstractResolver):
    """The same for aiohttp."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._dial.resolve(host, port)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=at,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address, at in found
        ]

    async def close(self) -> None:
        """Nothing is kept."""
