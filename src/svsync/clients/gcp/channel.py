"""One connection to one service of Google Cloud: gRPC over TLS, to addresses that were
judged, without gRPC's own retries, proxies and look-ups.

A channel keeps to its addresses. Where one fails, the next call looks the name up again
and gets a channel of its own; calls that are still on the old one end there.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from grpc import aio

from svsync.clients.gcp.addresses import Dial
from svsync.clients.gcp.refusals import closed
from svsync.clients.gcp.settings import Service
from svsync.network import NetworkPolicy

MAX_ANSWER: Final = 24 * 1024 * 1024
"""Bytes of one answer: 500 secrets with all the labels and annotations they may have are less."""


def _options(host: str) -> list[tuple[str, Any]]:
    return [
        ("grpc.ssl_target_name_override", host),
        ("grpc.default_authority", host),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", MAX_ANSWER),
    ]


@dataclass(eq=False)
class _Line:
    """A channel with the SDK's client on it; closed once it is given up and nobody calls."""

    channel: aio.Channel
    client: Any
    calls: int = 0
    given_up: bool = False

    async def close_unless_called(self) -> None:
        if self.given_up and self.calls == 0:
            await self.channel.close()


@dataclass(eq=False)
class Connection:
    """Channels to one service, one at a time, made when they are needed."""

    service: Service
    policy: NetworkPolicy
    dial: Dial
    _line: _Line | None = None
    _closed: bool = False
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """The SDK's client, for one call. Raises what `Dial` raises, and
        BackendUnreachableError once it is closed."""
        line = await self._ready()
        line.calls += 1
        try:
            yield line.client
        finally:
            line.calls -= 1
            await line.close_unless_called()

    async def give_up(self, client: Any) -> None:
        """The next call is to have another channel than this client's."""
        line = self._line
        if line is not None and line.client is client:
            self._line, line.given_up = None, True

    async def aclose(self) -> None:
        """End what is under way; may run twice."""
        self._closed = True
        line, self._line = self._line, None
        if line is not None:
            await line.channel.close()

    async def _ready(self) -> _Line:
        async with self._making:
            if self._closed:
                raise closed()
            if self._line is None:
                self._line = await self._make()
            return self._line

    async def _make(self) -> _Line:
        host = self.service.host
        target = await self.dial.target(host, self.policy)
        roots = await self.dial.authorities()
        # Else it writes lines of its own among those of our log.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        channel = aio.secure_channel(
            target, grpc.ssl_channel_credentials(roots), options=_options(host)
        )
        try:
            return _Line(channel, self.service.client_over(channel))
        except BaseException:
            with contextlib.suppress(Exception):
                await channel.close()
            raise
