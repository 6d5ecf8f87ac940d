"""The tracer of a process, as OpenTelemetry's own variables have it."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from svsync.observe.logs import get_logger
from svsync.observe.tracer import UNTRACED, Tracer

if TYPE_CHECKING:  # loaded where a collector is named
    from svsync.observe.otel import OtelTracer

_NO_OTEL = (
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the packages that export traces are not there:"
    " install svsync[otel], or unset it"
)
_BAD_OTEL = (
    "OTEL_EXPORTER_OTLP_ENDPOINT, or another variable of OpenTelemetry, cannot be used: it is the"
    " URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318"
)


@asynccontextmanager
async def open_tracer(environ: Mapping[str, str] | None = None) -> AsyncIterator[Tracer]:
    """Who is told what svsync does, span by span, until the block ends: an OTLP collector
    where OpenTelemetry's variables name one, else nobody.

    What keeps spans from being exported is told in the log, and stops nothing.
    """
    tracer = _exporting(os.environ if environ is None else environ)
    if tracer is None:
        yield UNTRACED
        return
    try:
        yield tracer
    finally:
        await tracer.aclose()


def _exporting(environ: Mapping[str, str]) -> "OtelTracer | None":
    endpoint = traces_endpoint(environ)
    if endpoint is None:
        return None
    try:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError("no URL")
        from svsync.observe.otel import OtelTracer

        return OtelTracer(endpoint)
    except ImportError:
        get_logger().warning("not_traced", detail=_NO_OTEL)
    except ValueError:
        get_logger().warning("not_traced", detail=_BAD_OTEL)
    return None


def traces_endpoint(environ: Mapping[str, str]) -> str | None:
    """Where spans are to go, by OpenTelemetry's own variables; None: nowhere.

    The endpoint of traces is taken as it stands; the one of all signals is a folder.
    """
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if off or environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    if own := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
        return own
    shared = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    return f"{shared.removesuffix('/')}/v1/traces" if shared else None
