"""Connections of clients, each kept within limits that aiohttp leaves open.

aiohttp bounds a line, a header and the number of headers, and closes a connection that
stays idle. Bounded here: how slowly a request's head may come and how large it may get, how
slowly an answer may be taken, and the number of connections. What is no HTTP is answered in
the form of all errors, and told in one line, like any request.

Plain reads may be answered without the application: see `short_way`.

    idle ──first byte──▶ head ──whole──▶ body, handler, answer ──taken──▶ idle
     IDLE_S               HEAD_S          body.BODY_S    ANSWER_S

The limits lean on some inner state of aiohttp's RequestHandler, which is looked at in this
module and nowhere else.
"""

import asyncio
import json
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

from svsync.http.answers import HEADERS, NOT_KEPT, error_of
from svsync.http.arrival import Arrival
from svsync.http.short_way import ASKED, ShortWay
from svsync.observe.logs import get_logger
from svsync.services.reading import Glance

IDLE_S: Final = 75.0
"""Seconds that a connection may stay open without a request."""
HEAD_S: Final = 10.0
"""Seconds from the first byte of a request, or the end of the answer before it, to the end of its
headers; for TLS to begin, to end."""
ANSWER_S: Final = 30.0
"""Seconds from when an answer has to wait for its client until all of it is taken; with TLS from
the end of the answer, for what waits there encrypted is out of sight."""
LINGER_S: Final = 10.0
"""Seconds in which the rest of a body that nobody wants is taken, so that its client comes to
read why."""
MAX_LINE: Final = 8 * 1024
"""Bytes of a request's line, and of each header."""
MAX_HEADERS: Final = 100
MAX_HEAD: Final = 64 * 1024
"""Bytes of a request's line and headers together that wait for the rest."""
MAX_CONNECTIONS: Final = 512
"""Connections of one listener, well below the 1,024 files that a process may usually open."""

_TOO_SLOW: Final = (408, "request_timeout", "the request came too slowly: send it whole, at once")
_TOO_LARGE: Final = (
    431,
    "head_too_large",
    f"the request's line and headers are too large: send {MAX_LINE:,} bytes each at most, and"
    f" {MAX_HEAD:,} together",
)
_TOO_MANY: Final = (
    503,
    "too_many_connections",
    "too many connections are open: use fewer, and try again",
)
_NO_HTTP: Final = (
    400,
    "malformed_request",
    f"this is no well-formed HTTP/1.1: look at the request's line, its headers ({MAX_HEADERS} at"
    " most) and the length of its body",
)
_UNEXPECTED: Final = (417, "expectation_failed", "send no other Expect than 100-continue")
_Refusal = tuple[int, str, str]
_BLANK: Final = b"\r\n\r\n"
"""What ends a head."""


class Connections:
    """Makes the connections of one listener, as `create_server` asks for them."""

    def __init__(
        self, server: web.Server, ids: Callable[[str], str], short_way: ShortWay | None = None
    ) -> None:
        """`short_way`: answers plain reads; None: all requests are the application's."""
        self._server = server
        self._ids = ids
        self.short_way = short_way
        self._open: dict[_Connection, None] = {}  # the oldest first

    def __call__(self) -> "_Connection":
        return _Connection(self._server, self, self._ids, asyncio.get_running_loop())

    def let_in(self, connection: "_Connection") -> bool:
        """Is there room? Where there is none, the oldest that is idle gives way."""
        if len(self._open) >= MAX_CONNECTIONS:
            idle = next((other for other in self._open if other.is_idle), None)
            if idle is None:
                return False
            idle.give_way()
            del self._open[idle]
        self._open[connection] = None
        return True

    def forget(self, connection: "_Connection") -> None:
        self._open.pop(connection, None)


class _Connection(web.RequestHandler):
    __slots__ = (
        "_all", "_arrival", "_asked", "_begun", "_behind", "_between", "_body", "_ending",
        "_handler", "_head_bytes", "_head_timer", "_ids", "_read", "_reading", "_taken_timer",
        "_turning",
    )  # fmt: skip

    def __init__(
        self,
        server: web.Server,
        connections: Connections,
        ids: Callable[[str], str],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
        )
        self._handler = server.request_handler
        self._request_handler = self._understand
        self._all = connections
        self._body: StreamReader | None = None
        self._ids = ids
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._begun = 0  # bytes of a head that began behind the request under way
        self._taken_timer: asyncio.TimerHandle | None = None
        self._arrival: Arrival | None = None  # with TLS
        self._reading: Glance | None = None  # what goes the short way
        self._asked: Glance | None = None  # what went it, and goes the long way now
        self._read: asyncio.Future[None] | None = None  # told once nothing goes the short way
        self._between = True  # the parser holds nothing of a request, for sure
        self._behind = b""  # what came meanwhile
        self._turning = False  # it is looked at in the loop's next turn
        self._ending = False  # after that

    @property
    def is_idle(self) -> bool:
        """Nothing of a request has come since the last answer."""
        at_rest = self._awaits_head and self._reading is None
        return at_rest and not (self._head_bytes or self._behind)

    @property
    def _awaits_head(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    # --- its life -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        # So that `pause_writing` is called as soon as anything is left to be taken. With TLS 0
        # bytes that are left would do for 0, so that no answer was ever seen to be taken.
        high = 0 if self.ssl_context is None else 1
        self.transport.set_write_buffer_limits(high=high, low=0)
        if self.ssl_context is not None:
            self._arrival = Arrival(self._loop)
        if not self._all.let_in(self):
            self._refuse(_TOO_MANY)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._all.forget(self)
        self._end_head()
        self._cancel_taken()
        if self._arrival is not None:
            self._arrival.end()
        if self._reading is not None:
            self._reading.told.cancel()
            self._reading.secret = self._reading.heard = None
            self._reading = None
        self._tell_read()
        if self._current_request is None and self._body is not None:
            self._body.feed_eof()  # the rest of an answered request is not waited for
        self._body = None
        super().connection_lost(exc)

    def give_way(self) -> None:
        """End at once, without the farewell of TLS, for which its client might let one wait."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def close(self) -> None:
        """End after the request under way; nothing is read any more once that has come whole."""
        if self._reading is not None or self._turning:
            self._ending = True
        elif (request := self._current_request) is None:
            super().close()
        else:
            request.content.on_eof(super().close)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """aiohttp drops what comes from here on, so the request under way is waited for first:
        the rest of its body may still be coming."""
        until = None if timeout is None else self._loop.time() + timeout
        if self._reading is not None or self._turning:
            self._ending = True
            self._read = self._loop.create_future()
            await asyncio.wait({self._read}, timeout=until and max(0.0, until - self._loop.time()))
        if self._request_in_progress:
            self._handler_waiter = self._loop.create_future()
            try:
                # Not cancelled where the time is up: the handler may end, and tell it so, before
                # this task has its turn. aiohttp, which would wait once more, does cancel it.
                await asyncio.wait(
                    {self._handler_waiter}, timeout=until and max(0.0, until - self._loop.time())
                )
            finally:
                self._handler_waiter = None
            self._request_in_progress = False
        # Never 0, which aiohttp takes for no limit.
        await super().shutdown(until and max(0.01, until - self._loop.time()))

    def _process_keepalive(self) -> None:
        """aiohttp does not know of what goes the short way, and would end it."""
        if self._reading is None:
            super()._process_keepalive()
        else:
            self._keepalive_handle = self._loop.call_later(IDLE_S, self._process_keepalive)

    # --- what comes -----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._reading is not None:
            self._behind += data
            if len(self._behind) > MAX_HEAD and self.transport is not None:
                self.transport.pause_reading()
            return
        if self._turning or self._is_coming_to_rest:
            self._behind += data
            if len(self._behind) > MAX_HEAD and self.transport is not None:
                self.transport.pause_reading()
            if not self._turning:
                self._turning = True
                self._loop.call_soon(self._look_again)
            return
        self._look_at(data)

    @property
    def _is_coming_to_rest(self) -> bool:
        """The last answer was written, or the connection was made, and aiohttp's task has its
        turn before it waits for a head. A client may be quicker than that, each time."""
        at_work = self._request_in_progress or self._messages
        return (
            self._waiter is None and self._between and not (at_work or self._all.short_way is None)
        )

    def _look_again(self) -> None:
        self._turning = False
        data, self._behind = self._behind, b""
        try:
            if self.transport is not None:
                if len(data) > MAX_HEAD:
                    self.transport.resume_reading()
                self._look_at(data)
                if self._ending and self._reading is None:
                    self.close()
        except Exception as bug:  # noqa: BLE001 - the loop would tell of it, and let the client wait
            get_logger().error("connection_failed", exc_info=bug)
            self.give_way()
        if self._reading is None:
            self._tell_read()

    def _look_at(self, data: bytes) -> None:
        short_way = self._all.short_way
        at_rest = self.is_idle and self._between and not (self._paused or self._messages)
        if short_way is not None and at_rest:
            answer = partial(self._answered, data)
            self._reading = short_way.take(data, self.peername, answer)
        if self._reading is None:
            self._go_the_long_way(data)

    def _answered(self, data: bytes, answer: bytes | None) -> None:
        """The short way has come to its end: an answer, or none, and then it was none."""
        asked, self._reading = self._reading, None
        try:
            self._go_on(data, answer, asked)
        except Exception as bug:  # noqa: BLE001 - who tells of it tells others after this one
            get_logger().error("connection_failed", exc_info=bug)
            self.give_way()
        self._tell_read()

    def _tell_read(self) -> None:
        if self._read is not None and not self._read.done():
            self._read.set_result(None)

    def _go_on(self, data: bytes, answer: bytes | None, asked: Glance | None) -> None:
        if self.transport is None:
            return
        if answer is None:
            self._asked = asked
            self._go_the_long_way(data)
        else:
            self.transport.write(answer)
            self._answer_written()
            self._next_keepalive_close_time = self._loop.time() + IDLE_S
        if self._ending:
            self.close()
        behind, self._behind = self._behind, b""
        if behind:
            self.transport.resume_reading()
            self.data_received(behind)

    def _go_the_long_way(self, data: bytes) -> None:
        before, whole = self._request_count, self._is_whole()
        resting = self._is_coming_to_rest
        super().data_received(data)
        came = self._request_count != before
        # Where a body ends cannot be seen from here, and behind it another head may begin.
        bare = came and self._messages[-1][1] is EMPTY_PAYLOAD
        if data or came:
            self._between = bare and data.endswith(_BLANK)
        self._fail_unreadable_body()
        begins = data.lstrip(b"\r\n")  # empty lines may precede a request
        if came:
            self._end_head()
            self._begun = len(data.rpartition(_BLANK)[2].lstrip(b"\r\n")) if bare else 0
        elif self._awaits_head or resting or self._head_timer is not None:
            if self._head_bytes or begins:
                self._continue_head(len(data))
        elif self._begun or (whole and begins):
            self._begun += len(data)  # its time begins when the one before was answered

    def _is_whole(self) -> bool:
        """Has the last request that began come to its end, under way as it may be?"""
        if self._messages:
            return _is_whole(self._messages[-1][1])
        return self._current_request is not None and _is_whole(self._current_request.content)

    def _continue_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD:
            self._refuse(_TOO_LARGE)
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_S, self._refuse, _TOO_SLOW)

    def _end_head(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _fail_unreadable_body(self) -> None:
        """aiohttp queues an error behind a body that cannot be read (a chunk without a size),
        and lets the body's reader wait for ever."""
        if not self._messages or isinstance(self._messages[-1][0], RawRequestMessage):
            return
        bodies = [
            body for message, body in self._messages if isinstance(message, RawRequestMessage)
        ]
        if not bodies and self._current_request is not None:
            bodies = [self._current_request.content]
        if bodies and not _is_whole(bodies[-1]):
            self._lingering_time = 0.0  # there is no rest that one could wait for
            bodies[-1].set_exception(web.RequestPayloadError())

    # --- what goes ------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self._taken_timer = self._loop.call_later(ANSWER_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_taken()
        super().resume_writing()

    def _cancel_taken(self) -> None:
        if self._taken_timer is not None:
            self._taken_timer.cancel()
            self._taken_timer = None

    def _answer_written(self) -> None:
        if self._arrival is not None and self.transport is not None:
            self._arrival.watch(self.transport, ANSWER_S)

    def log_access(
        self, request: web.BaseRequest, response: web.StreamResponse, time: float | None
    ) -> None:
        """The application has told of it. From here on the answer is to be taken, and a head that
        began behind the request is awaited."""
        if self.transport is None:
            return
        self._answer_written()
        if self._begun and response.keep_alive and not self._messages:
            begun, self._begun = self._begun, 0
            self._continue_head(begun)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what was no HTTP. aiohttp's own text repeats what was sent."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        return self._refusal(_TOO_LARGE if isinstance(exc, LineTooLong) else _NO_HTTP)

    async def _understand(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp looks at Expect before any middleware does, and repeats what it holds."""
        expected = request.headers.get("Expect", "100-continue")
        if expected.lower() != "100-continue":
            return self._refusal(_UNEXPECTED)
        self._body = request.content
        if self._asked is not None:
            request[ASKED], self._asked = self._asked, None
        answer = await self._handler(request)
        if request._message.upgrade:
            # Nothing is upgraded here, and aiohttp loses what was sent behind such a request.
            answer.force_close()
        if answer.status == _TOO_SLOW[0]:
            self._lingering_time = 0.0  # who was too slow is not waited for again
        return answer

    def _refusal(self, refusal: _Refusal) -> web.Response:
        status, code, message = refusal
        request_id = self._note(status, code)
        answer = web.json_response(
            error_of(code, message, request_id),
            status=status,
            headers={**HEADERS, **NOT_KEPT, "X-Request-Id": request_id},
        )
        answer.force_close()
        return answer

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer where there is no request, and close."""
        status, code, message = refusal
        request_id = self._note(status, code)
        body = json.dumps(error_of(code, message, request_id)).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "Date": formatdate(usegmt=True),
            **HEADERS,
            **NOT_KEPT,
            "X-Request-Id": request_id,
        }
        if status == 503:
            headers["Retry-After"] = "1"
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if self.transport is not None:
            self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.force_close()

    def _note(self, status: int, code: str) -> str:
        """One line, as of any request; its id."""
        request_id = self._ids("req")
        peer = self.peername
        address = peer[0] if isinstance(peer, tuple) else None
        get_logger().info(
            "request", request_id=request_id, status=status, error_code=code, address=address
        )
        return request_id


def _is_whole(body: StreamReader) -> bool:
    """Has its end come, read or not?"""
    return body.is_eof() or body._eof
