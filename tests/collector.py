"""A collector of traces that a test starts: it takes OTLP over HTTP and keeps the spans."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from svsync.embedded.processes import free_port


@dataclass(frozen=True)
class Sent:
    """A span as it arrived; ids as hex, `parent` empty for the first of a trace."""

    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, object]
    failed: bool
    events: int
    seconds: float


@dataclass
class Collector:
    """What came in.

    Attributes:
        bodies: of each request, as it was sent.
        arrived: set with each request, before it is answered.
        answer: the status that each request gets, after `before` was awaited.
    """

    url: str
    bodies: list[bytes] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    answer: int = 200
    before: Callable[[], Awaitable[object]] | None = None

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.headers.append(repr(request.headers))
        self.arrived.set()
        if self.before is not None:
            await self.before()
        return web.Response(status=self.answer)

    @property
    def spans(self) -> list[Sent]:
        return [
            _sent(span)
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resource(self) -> dict[str, object]:
        """Who sent the first request."""
        first = ExportTraceServiceRequest.FromString(self.bodies[0])
        return _attributes(first.resource_spans[0].resource)

    def named(self, name: str) -> list[Sent]:
        return [span for span in self.spans if span.name == name]

    def only(self, name: str) -> Sent:
        [span] = self.named(name)
        return span

    def everything(self) -> bytes:
        return b"\n".join([*self.bodies, *(text.encode() for text in self.headers)])


def _sent(span: object) -> Sent:
    """Protobuf's classes are made when they are loaded, so no type checker knows them."""
    s: Any = span
    return Sent(
        name=s.name,
        trace=s.trace_id.hex(),
        id=s.span_id.hex(),
        parent=s.parent_span_id.hex(),
        attributes=_attributes(s),
        failed=s.status.code == s.status.STATUS_CODE_ERROR,
        events=len(s.events),
        seconds=(s.end_time_unix_nano - s.start_time_unix_nano) / 1e9,
    )


def _attributes(holder: Any) -> dict[str, object]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes
    }


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector at an address of its own, until the block ends."""
    port = free_port()
    collector = Collector(f"http://127.0.0.1:{port}")
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield collector
    finally:
        await runner.cleanup()
