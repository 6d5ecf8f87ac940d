"""Each request as a span, part of the caller's trace where that brings one.

Of a path that is no route nothing is told: anything may stand there.
"""

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from svsync.observe.tracer import Tracer

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER: Final = "_OTHER"
"""OpenTelemetry's word for a method that may hold anything."""


def traced(tracer: Tracer) -> Middleware:
    """The outermost middleware: what it sees of an answer is what the caller gets."""

    @web.middleware
    async def tracing(request: web.Request, handler: Handler) -> web.StreamResponse:
        method = request.method if request.method in _METHODS else _OTHER
        resource = request.match_info.route.resource
        with tracer.request(method, request.headers.get("traceparent", "")) as span:
            answer = await handler(request)
            span.answered("" if resource is None else resource.canonical, answer.status)
        return answer

    return tracing
