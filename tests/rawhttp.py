"""HTTP by the byte: what is sent is what a test says, and each answer that came is counted."""

import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import HealthCheck, settings
from tests.api import Front, schema_of
from tests.docs.error_codes import told
from tests.patience import PATIENCE_S

_ERROR: Final = schema_of({"$ref": "#/components/schemas/Error"})
PROBE: Final = "the-probe"
"""The id of the request that is sent behind another one."""
TIMES: Final = int(os.environ.get("SVSYNC_GENERATED", "1"))
"""So many times as much is generated as the suite has time for."""
fuzzed = settings(
    max_examples=150 * TIMES,
    derandomize=TIMES == 1,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer, as it stood on the wire; names of headers are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_last(self) -> bool:
        """Does it say that the connection ends?"""
        return self.headers.get("connection") == "close" or self.headers["version"] == "HTTP/1.0"

    @property
    def id(self) -> str:
        """That of the request it answers."""
        return self.headers["x-request-id"]

    @property
    def code(self) -> str:
        """The code of an error."""
        code: str = json.loads(self.body)["error"]["code"]
        return code

    def json(self) -> Any:
        return json.loads(self.body)


def answers_of(data: bytes, *, head: bool = False) -> list[RawAnswer]:
    """The answers that a connection gave, one after another and nothing else.

    Args:
        head: the first one is to HEAD, and has no body.
    """
    found: list[RawAnswer] = []
    while data:
        top, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = top.decode("ascii").split("\r\n")
        version, status, _ = first.split(" ", 2)
        # What was no HTTP/1.1 is answered so by aiohttp.
        assert version in ("HTTP/1.1", "HTTP/1.0"), first
        headers = {"version": version}
        for line in lines:
            name, _, value = line.partition(":")
            assert name.lower() not in headers, f"{name} is given twice"
            headers[name.lower()] = value.strip()
        if status == "100":
            data = rest
            continue
        assert "transfer-encoding" not in headers
        # What was no HTTP was no HEAD either.
        understood = version == "HTTP/1.1"
        empty = status in ("204", "304") or (head and understood and not found)
        size = 0 if empty else int(headers["content-length"])
        assert len(rest) >= size, "an answer that is not whole"
        found.append(RawAnswer(int(status), headers, rest[:size]))
        data = rest[size:]
    return found


def probe() -> bytes:
    """A request that ends the connection; its answer tells that it was understood as one."""
    lines = ("GET /healthz HTTP/1.1", "Host: x", f"X-Request-Id: {PROBE}", "Connection: close")
    return "\r\n".join([*lines, "", ""]).encode()


async def exchange(port: int, sent: bytes, *, head: bool = False) -> list[RawAnswer]:
    """Send these bytes and the probe behind them, and take all that comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(sent + probe())
            received = bytearray()
            try:
                while block := await reader.read(65_536):
                    received += block
            except ConnectionError:
                pass  # it was closed upon what was not read
    finally:
        writer.close()
    return answers_of(bytes(received), head=head)


def request_of(
    front: Front, method: str, target: bytes, *more: bytes, body: bytes | None = None
) -> bytes:
    """A request with the front's token, its target and further headers as they are."""
    lines = [
        method.encode() + b" " + target + b" HTTP/1.1",
        b"Host: svsync",
        f"Authorization: Bearer {front.client.token}".encode(),
        *more,
    ]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


async def answered(front: Front, sent: bytes, *, head: bool = False) -> RawAnswer:
    """The one answer to what was sent; behind it the probe's, or the end of the connection."""
    answers = await exchange(front.listener.port, sent, head=head)
    assert 1 <= len(answers) <= 2, answers
    assert answers[0].id != PROBE
    if len(answers) == 2:
        assert (answers[1].id, answers[1].status) == (PROBE, 200)
    else:
        assert answers[0].is_last
    if answers[0].status >= 400 and not head:
        _ERROR.validate(answers[0].json())
        assert answers[0].status in told()[answers[0].code]
    return answers[0]
