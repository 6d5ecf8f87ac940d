"""A GET over aiohttp's connections, without what its session does around one.

All that is read of a server is read by a GET: a first import makes one for each secret, and so
does each proxied read. Most of what such a call costs this process is what a session does for
callers who want redirects, cookies, proxies or traces, none of which is wanted here (figures
in `docs/performance.md`). What decides where a connection leads (names, addresses, TLS, the
pool) and what understands an answer (the parser) are the library's own; what is sent is what
its session would send.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, TypeVar

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

T = TypeVar("T")

is_plain: Final = re.compile(r"[!-~]+").fullmatch
"""Whether a text goes into a request as it is: no space, no line end, nothing but ASCII."""

_TRIES: Final = 32
"""Connections that are looked at for one call; more than a backend's calls at one time keep."""


class NotHttpError(aiohttp.ClientError):
    """What came is no answer of HTTP."""


class Head(NamedTuple):
    """An answer whose head has come.

    Attributes:
        content: its body, as it comes.
    """

    status: int
    headers: CIMultiDictProxy[str]
    content: aiohttp.StreamReader


class PlainGets:
    """GETs of one server; made within a running loop."""

    def __init__(
        self,
        connector: aiohttp.BaseConnector,
        origin: URL,
        headers: Mapping[str, str],
        timeout: float,
    ) -> None:
        """`headers` are sent with each; `timeout`: seconds for one, connecting included."""
        self._connector = connector
        self._timeout = timeout
        self._connecting = aiohttp.ClientTimeout(total=None)  # it is a part of the whole
        # The connector asks it whom a connection is for, and it knows what a session would send.
        self._to = aiohttp.ClientRequest(
            "GET", origin, headers=headers, loop=asyncio.get_running_loop()
        )
        self._always = _lines(self._to.headers)

    async def get(
        self, target: str, headers: Mapping[str, str], read: Callable[[Head], Awaitable[T]]
    ) -> T:
        """What `read` made of the answer; redirects are not followed, and nothing is tried again.

        Args:
            target: path and query. It and the values of `headers` are `is_plain`.
            read: takes the body to its end, or raises.

        Raises aiohttp.ClientError, OSError, TimeoutError, and what `read` raises.
        """
        head = f"GET {target} HTTP/1.1\r\n{self._always}{_lines(headers)}\r\n".encode("ascii")
        async with asyncio.timeout(self._timeout):
            connection = await self._at_rest()
            try:
                answer = await _exchange(connection, head)
                made = await read(answer)
            except BaseException:
                connection.close()  # the rest of an answer is not the next one's beginning
                raise
            if answer.status < 200:  # what follows it is not told by HTTP
                connection.close()
            else:
                connection.release()
            return made

    async def _at_rest(self) -> Connection:
        """A connection on which nothing came that nobody asked for: the pool keeps those too, and
        what came would be taken for the answer to this call."""
        if self._connector.closed:
            raise aiohttp.ClientConnectionError("the connections are closed")
        for _ in range(_TRIES):
            connection = await self._connector.connect(self._to, [], self._connecting)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        raise aiohttp.ServerDisconnectedError


async def _exchange(connection: Connection, head: bytes) -> Head:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    protocol.set_response_params(read_until_eof=True)
    transport.write(head)
    while True:
        try:
            message, content = await protocol.read()
        except HttpProcessingError:
            raise NotHttpError from None  # what the library says holds text of the server
        if not 100 <= message.code < 200 or message.code == 101:  # others come before an answer
            return Head(message.code, message.headers, content)


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
