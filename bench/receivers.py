"""Receivers of webhooks on loopback, as fast as a handler can be."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class Receiver:
    """Answers 200 at once, or never.

    Attributes:
        arrived: when each message came for the first time, by its `webhook-id`, in monotonic
            seconds and in the order in which they came.
        bodies: what came, in that order.
    """

    def __init__(self, *, hangs: bool = False) -> None:
        self.url = ""
        self.arrived: dict[str, float] = {}
        self.bodies: list[bytes] = []
        self._hangs = hangs
        self._more = asyncio.Event()

    async def take(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        self.arrived.setdefault(request.headers["webhook-id"], time.monotonic())
        self.bodies.append(body)
        self._more.set()
        if self._hangs:
            await asyncio.Event().wait()
        return web.Response()

    async def received(self, many: int) -> None:
        """Return once so many messages have come."""
        while len(self.arrived) < many:
            self._more.clear()
            await self._more.wait()


@asynccontextmanager
async def receiving(*, hangs: bool = False) -> AsyncIterator[Receiver]:
    receiver = Receiver(hangs=hangs)
    runner = web.ServerRunner(web.Server(receiver.take), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        receiver.url = f"http://{host}:{port}/hook"
        yield receiver
    finally:
        await runner.cleanup()
