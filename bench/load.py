"""One client for all servers: many connections, each with one request at a time.

It is as small as it can be, so that it is the server that is measured: raw HTTP/1.1 with
keep-alive and Content-Length, without a library in between.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from bench.programs import Result, answer

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


def get(host: str, path: str, headers: dict[str, str]) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + _END_OF_HEAD


@dataclass
class _Caller(asyncio.Protocol):
    """Sends the requests one after the other, round and round, so many of them or until then."""

    requests: Sequence[bytes]
    at: int
    until: float
    left: float
    done: asyncio.Future[None]
    took: list[float] = field(default_factory=list)
    _buffer: bytes = b""
    _sent: float = 0.0
    _transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent = time.perf_counter()
        if self._sent >= self.until or self.left <= 0:
            self.left = 0
            self._transport.close()
            return
        self.left -= 1
        self._transport.write(self.requests[self.at % len(self.requests)])
        self.at += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_END_OF_HEAD)
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = head.index(_LENGTH) + len(_LENGTH)
        line = head.find(b"\r\n", start)
        length = int(head[start : line if line >= 0 else None])
        if len(self._buffer) < end + 4 + length:
            return
        assert head.startswith(b"http/1.1 200"), head[:40]
        self._buffer = self._buffer[end + 4 + length :]
        self.took.append(time.perf_counter() - self._sent)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done.done():
            return
        if exc is not None or (self.left > 0 and time.perf_counter() < self.until):
            self.done.set_exception(RuntimeError("an answer was not 200, or the connection broke"))
        else:
            self.done.set_result(None)


async def main(given: Result) -> Result:
    """Answers a second to `connections` callers within `seconds`; seconds of the median and of
    the slowest in a hundred. Before that each request is made once, so that whoever asks is
    known, as they are to a service that runs; and for a tenth of the time.

    `paths` and `tokens` are taken in turn, all of both; `header` carries the token.
    """
    address = urlsplit(given["url"])
    assert address.hostname is not None
    prefix = given.get("scheme", "")
    paths, tokens = given["paths"], [prefix + token for token in given["tokens"]]
    requests = [
        get(address.netloc, paths[n % len(paths)], {given["header"]: tokens[n % len(tokens)]})
        for n in range(max(len(paths), len(tokens)))
    ]
    assert address.port is not None
    ask = partial(_asked, address.hostname, address.port, requests, given["connections"])
    began = time.perf_counter()
    first = await ask(seconds=math.inf, each=math.ceil(len(requests) / given["connections"]))
    first_s = time.perf_counter() - began
    await ask(seconds=given["seconds"] / 10)
    began = time.perf_counter()
    took = await ask(seconds=given["seconds"])
    seconds = time.perf_counter() - began
    took.sort()
    return {
        "per_second": len(took) / seconds,
        "first_per_second": len(first) / first_s,
        "p50_s": took[len(took) // 2],
        "p99_s": took[len(took) * 99 // 100],
        "cpu_s": time.process_time(),
    }


async def _asked(
    host: str,
    port: int,
    requests: Sequence[bytes],
    connections: int,
    *,
    seconds: float,
    each: float = math.inf,
) -> list[float]:
    """Seconds of each answer; `each`: requests of one connection at most."""
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    callers = [
        _Caller(requests, n * len(requests) // connections, until, each, loop.create_future())
        for n in range(connections)
    ]
    for caller in callers:
        await loop.create_connection(lambda one=caller: one, host, port)  # type: ignore[misc]
    await asyncio.gather(*(caller.done for caller in callers))
    return [one for caller in callers for one in caller.took]


if __name__ == "__main__":
    answer(main)
