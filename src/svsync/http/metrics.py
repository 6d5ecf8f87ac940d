"""`GET /metrics`, for Prometheus, at an address of its own and without a token, under the
same limits of connections as the API.

Where the store is away the answer is 503, for a scrape that found no backend stale
because it could not look would be a lie; its text says so and still has the metrics of
the process, for the person who looks. The page is made in a thread: with thousands of
backends it takes longer than the loop should be held up.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from svsync.app import new_id
from svsync.domain.errors import SetupError, StoreError
from svsync.http.connections import Connections
from svsync.observe.logs import get_logger
from svsync.observe.metrics import CONTENT_TYPE, Metrics
from svsync.services.gauges import Gauges


def make_metrics(metrics: Metrics, gauges: Gauges, look: Callable[[], None]) -> web.Application:
    """The application that serves `/metrics` and nothing else; see `serving_metrics`."""

    async def page(_request: web.Request) -> web.Response:
        look()
        try:
            standing = await gauges.read()
        except StoreError as error:
            text = f"# {error.message}\n".encode() + metrics.page(None)
            return _response(503, text)
        return _response(200, await asyncio.to_thread(metrics.page, standing))

    async def end(_app: web.Application) -> None:
        await gauges.aclose()

    app = web.Application()
    app.router.add_get("/metrics", page)
    app.on_cleanup.append(end)
    return app


def _response(status: int, text: bytes) -> web.Response:
    return web.Response(status=status, body=text, headers={"Content-Type": CONTENT_TYPE})


@asynccontextmanager
async def serving_metrics(
    metrics: Metrics, gauges: Gauges, address: str, *, look: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[str, int]]:
    """Serve them at `host:port` until the block ends; where that is (port 0: any).

    `look` is called before each page, and tells the metrics what stands in this process
    at that moment (workers, signals, feeds).

    Raises:
        SetupError: the address cannot be listened on.
    """
    runner = web.AppRunner(
        make_metrics(metrics, gauges, look), access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    try:
        host, _, port = address.rpartition(":")
        assert runner.server is not None
        made = Connections(runner.server, new_id)
        try:
            server = await asyncio.get_running_loop().create_server(
                made, host.strip("[]"), int(port)
            )
        except OSError as error:
            raise SetupError(
                f"nobody can listen on {address} ({error.strerror or 'no reason'}): set"
                " metrics_address to an address of this machine, and to a port that is free,"
                " or to off",
                code="cannot_listen",
            ) from None
        try:
            host, port = server.sockets[0].getsockname()[:2]
            get_logger().info("metrics_listening", address=f"{host}:{port}")
            yield host, port
        finally:
            server.close()
    finally:
        await runner.cleanup()
