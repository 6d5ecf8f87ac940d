"""The one line in the log that each request has, or shares with others like it.

Of what is answered well, thousands of times a second, one line a second tells, with how many
they were; the audit log tells of each.
"""

import math
from collections.abc import Callable
from typing import Final

from aiohttp import web

from svsync.domain.access import Call, Caller
from svsync.http.identity import ADDRESS, CALLER
from svsync.http.short_way import ROUTE
from svsync.observe.logs import get_logger, log_context

ERROR_CODE: Final = web.RequestKey("error_code", str)

_EVERY_S: Final = 1.0
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestLog:
    """Tells of the requests of one process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._many = 0
        self._next = -math.inf

    def one(
        self, request: web.Request, status: int, seconds: float, count: int | None = None
    ) -> None:
        """One line, without the query, and of a path that is no route nothing but that:
        anything may stand there. `count`: of so many requests since the last such line."""
        resource = request.match_info.route.resource
        _tell(
            request.method if request.method in _METHODS else "other",
            None if resource is None else resource.canonical,
            None if resource is None else request.path,
            status,
            request.get(ERROR_CODE),
            seconds,
            request[ADDRESS],
            request.get(CALLER),
            count,
        )

    def often(self, request: web.Request, status: int, seconds: float, request_id: str) -> None:
        """The same of what is asked often: of what was not answered well, each."""
        count = self._due() if status == 200 else None
        if status != 200 or count is not None:
            with log_context(request_id=request_id):
                self.one(request, status, seconds, count)

    def told(self, call: Call, path: str, seconds: float) -> None:
        """The same of a plain read that was answered."""
        if (count := self._due()) is not None:
            with log_context(request_id=call.request_id):
                _tell(
                    "GET", ROUTE, f"/v1/secrets/{path}", 200, None, seconds, call.source_ip,
                    call.caller, count,
                )  # fmt: skip

    def _due(self) -> int | None:
        """How many there were since the last line, this one included; None: no line now."""
        self._many += 1
        now = self._clock()
        if now < self._next:
            return None
        many, self._many, self._next = self._many, 0, now + _EVERY_S
        return many


def _tell(
    method: str,
    route: str | None,
    path: str | None,
    status: int,
    error_code: str | None,
    seconds: float,
    address: str | None,
    caller: Caller | None,
    count: int | None,
) -> None:
    get_logger().info(
        "request",
        method=method,
        route=route,
        path=path,
        status=status,
        error_code=error_code,
        duration_ms=round(seconds * 1000, 1),
        address=address,
        tenant=caller and caller.slug,
        identity_id=caller and caller.identity.id,
        token_id=caller and caller.token_id,
        **({} if count is None else {"count": count}),
    )
