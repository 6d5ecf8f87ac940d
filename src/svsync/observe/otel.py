"""Spans over OTLP, by the OpenTelemetry SDK; loaded only where a collector is named.

Spans wait in a queue of bounded length, and a thread of the SDK's own sends them: with a
collector that hangs or is away they are dropped, and no run waits. The SDK's sampler and
resource follow its standard variables. An exception is told by its code or class alone,
for the SDK would record its text and its stack.
"""

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from svsync import __version__
from svsync.domain.errors import HandedOverError, SvsyncError
from svsync.domain.runs import Stage
from svsync.observe.failures import class_name
from svsync.observe.logs import get_logger
from svsync.observe.tracer import RequestSpan, RunSpan, Tracer

FLUSH_S: Final = 5.0
"""Seconds in which what is left is sent when the process ends."""
_LOST: Final = (
    "the collector takes no spans, which are dropped until it does: check"
    " OTEL_EXPORTER_OTLP_ENDPOINT, and that OTLP over HTTP is spoken there"
)


class OtelTracer(Tracer):
    """Sends spans to an OTLP collector over HTTP; see `Tracer` for when it is told what.

    Raises ValueError for a standard variable of OpenTelemetry that cannot be used.
    """

    def __init__(self, endpoint: str) -> None:
        # What goes wrong with the collector is told here, once; the exporter tells each time.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._exporter = _Exporter(OTLPSpanExporter(endpoint=endpoint))
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("svsync", __version__)

    @contextmanager
    def run(
        self, tenant: str, backend: str, kind: str, *, run_id: str, run_kind: str, trigger: str
    ) -> Iterator[RunSpan]:
        span = self._tracer.start_span(
            "run",
            context=Context(),  # a trace of its own, whatever goes on around it
            attributes={
                **_backend(tenant, backend, kind),
                "svsync.run_id": run_id,
                "svsync.run_kind": run_kind,
                "svsync.trigger": trigger,
            },
        )
        with _working(span):
            yield _OtelRun(self._tracer, span)

    def backend_called(
        self, tenant: str, backend: str, kind: str, operation: str, status: str, seconds: float
    ) -> None:
        about = {**_backend(tenant, backend, kind), "svsync.operation": operation}
        self._past(f"backend {operation}", about, status, seconds, failed=status != "ok")

    @contextmanager
    def request(self, method: str, caller: str) -> Iterator[RequestSpan]:
        parent = TraceContextTextMapPropagator().extract({"traceparent": caller}, Context())
        span = self._tracer.start_span(
            method,
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method},
        )
        with _working(span):
            yield _OtelRequest(span, method)

    def webhook_delivered(self, tenant: str, status: str, seconds: float) -> None:
        about = {"svsync.tenant": tenant}
        self._past("webhook delivery", about, status, seconds, failed=status != "delivered")

    async def aclose(self, within: float = FLUSH_S) -> None:
        """Send what is left, for so many seconds: who waits for the process to end is not
        kept by a collector that hangs."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(done.set)

        # Not one of the loop's own threads, for these are waited for when the program ends.
        threading.Thread(target=flush, name="svsync-traces", daemon=True).start()
        try:
            async with asyncio.timeout(within):
                await done.wait()
        except TimeoutError:
            get_logger().warning("traces_lost", detail=_LOST)
        self._exporter.shutdown()

    def _past(
        self, name: str, about: Mapping[str, str], status: str, seconds: float, *, failed: bool
    ) -> None:
        """A call out that has just ended."""
        end = time.time_ns()
        span = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            attributes={**about, "svsync.status": status},
            start_time=end - round(seconds * 1e9),
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(end)


class _OtelRun(RunSpan):
    def __init__(self, tracer: otel.Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        # Part of what goes on around it: the run, or a stage that has another one's work done.
        with _working(self._tracer.start_span(str(stage), attributes={"svsync.stage": str(stage)})):
            yield

    def ended(self, result: str, counts: Mapping[str, int], error: str = "") -> None:
        self._span.set_attribute("svsync.result", result)
        for name, count in counts.items():
            self._span.set_attribute(f"svsync.count.{name}", count)
        if error:
            _fail(self._span, error)


class _OtelRequest(RequestSpan):
    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method

    def answered(self, route: str, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if route:
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute("http.route", route)
        if status >= 500:
            _fail(self._span, str(status))


class _Exporter(SpanExporter):
    """The exporter, and a line in the log when the collector takes no spans, and when it does
    again."""

    def __init__(self, inner: OTLPSpanExporter) -> None:
        self._inner = inner
        self._lost = False
        self._closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost != self._lost and not self._closed:
            if lost:
                get_logger().warning("traces_lost", count=len(spans), detail=_LOST)
            else:
                get_logger().info("traces_arrive")
            self._lost = lost
        return result

    def shutdown(self) -> None:
        if not self._closed:
            self._closed = True
            self._inner.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def _working(span: Span) -> Iterator[None]:
    """The block is the span's work, and what is traced in it is part of it."""
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except HandedOverError:
            raise  # another process goes on: nothing failed
        except BaseException as error:
            code = error.code if isinstance(error, SvsyncError) else class_name(error)
            _fail(span, code)
            raise


def _fail(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR)


def _backend(tenant: str, backend: str, kind: str) -> dict[str, str]:
    return {
        "svsync.tenant": tenant,
        "svsync.backend_id": backend,
        "svsync.backend_type": kind,
    }


def _resource() -> Resource:
    """Who sends; what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first."""
    own = {
        "service.name": "svsync",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    return Resource(own).merge(OTELResourceDetector().detect())
