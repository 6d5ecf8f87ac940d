"""Does a GET without aiohttp's session send the same, hear the same, and leave no connection in
a state that the next one suffers from?"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from tests.patience import PATIENCE_S
from tests.servers import accept_no_more
from tests.vaults import LOOPBACK

from svsync.clients.vault import VaultSettings
from svsync.clients.vault.transport import MAX_ANSWER, VaultTransport
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.values import SecretValue

TOKEN = SecretValue("s.token")
BODY = b'{"data":{"a":1}}'
JSON = b"Content-Type: application/json\r\n"


def said(body: bytes = BODY, status: bytes = b"200 OK", headers: bytes = JSON) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %s\r\n%s%s\r\n%s" % (status, headers, length, body)


@dataclass
class Scripted:
    """A server that says what it was given, one text for each request and in pieces, whatever
    it is asked. An empty piece: the connection ends there; None: nothing more comes on it."""

    answers: list[Sequence[bytes | None]]
    url: str = ""
    heard: list[bytes] = field(default_factory=list)
    connections: int = 0
    together: int = 1
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    serving: list[asyncio.Task[None]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.append(task)
        try:
            while True:
                self.heard.append(await reader.readuntil(b"\r\n\r\n"))
                self.asked.set()
                while len(self.heard) < self.together:  # noqa: ASYNC110 - others come in their own time
                    await asyncio.sleep(0.02)
                for piece in self.answers.pop(0):
                    if piece is None:
                        await reader.read()
                        return
                    if not piece:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.02)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.ended.set()


@asynccontextmanager
async def asking(
    *answers: Sequence[bytes | None], timeout: float = PATIENCE_S, **settings: Any
) -> AsyncIterator[tuple[VaultTransport, Scripted]]:
    script = Scripted(list(answers))
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = VaultTransport(
        VaultSettings(f"{script.url}/below", "token", timeout=timeout, **settings), LOOPBACK
    )
    try:
        yield transport, script
    finally:
        await transport.aclose()
        await accept_no_more(server)
        server.close()
        await asyncio.gather(*script.serving)


async def test_what_is_sent_is_what_a_session_would_send() -> None:
    async with asking([said()], [said()], namespace="team/a") as (transport, script):
        await transport.send("GET", "kv/data/a%20b?version=2", operation="read", token=TOKEN)
        async with aiohttp.ClientSession(
            headers={"X-Vault-Request": "true", "Accept-Encoding": "identity"}
        ) as session:
            named = {"X-Vault-Token": "s.token", "X-Vault-Namespace": "team/a"}
            await session.get(f"{script.url}/below/v1/kv/data/a%20b?version=2", headers=named)
    plain, usual = (request.split(b"\r\n") for request in script.heard)
    assert plain[0] == usual[0] == b"GET /below/v1/kv/data/a%20b?version=2 HTTP/1.1"
    assert sorted(plain) == sorted(usual)


async def test_a_token_that_would_end_a_line_adds_no_line() -> None:
    async with asking([said()]) as (transport, script):
        with pytest.raises(ValueError, match=r"[Nn]ewline|control"):
            await transport.send(
                "GET", "kv/data/a", operation="read", token=SecretValue("s\r\nX-Vault-Wrap-TTL: 9")
            )
    assert not script.heard


@pytest.mark.parametrize(
    "pieces",
    [
        [said()],
        [said()[:5], said()[5:40], said()[40:-3], said()[-3:]],
        [b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", said()],
        [b"HTTP/1.1 200 OK\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n",
         b"%x\r\n%s\r\n" % (len(BODY), BODY), b"0\r\n\r\n"],
    ],
    ids=["at once", "in pieces", "after an interim answer", "in chunks"],
)  # fmt: skip
async def test_an_answer_is_heard_whole_and_its_connection_used_again(
    pieces: list[bytes],
) -> None:
    async with asking(pieces, [said(b"[]")]) as (transport, script):
        first = await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
        second = await transport.send("GET", "kv/data/b", operation="read", token=TOKEN)
    assert (first.status, first.text, first.is_json) == (200, BODY.decode(), True)
    assert second.text == "[]"
    assert script.connections == 1


async def test_an_answer_that_ends_with_its_connection_is_whole() -> None:
    head = b"HTTP/1.1 200 OK\r\n" + JSON + b"Connection: close\r\n\r\n"
    async with asking([head, BODY, b""], [said(b"[]")]) as (transport, script):
        first = await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
        second = await transport.send("GET", "kv/data/b", operation="read", token=TOKEN)
    assert (first.text, second.text) == (BODY.decode(), "[]")
    assert script.connections == 2


@pytest.mark.parametrize(
    ("pieces", "raised"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\n", None], ProtocolError),
        ([said()[:-3], b""], BackendUnreachableError),
        ([said()[:20], b""], BackendUnreachableError),
        ([b""], BackendUnreachableError),
        ([said(headers=JSON + b"Content-Length: 3\r\n"), None], ProtocolError),
        ([b"HTTP/1.1 200 OK\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", None],
         ProtocolError),
        ([said(b"\xff")], ProtocolError),
        ([said(b"<html>", headers=b"Content-Type: text/html\r\n")], ProtocolError),
        ([said(b"", b"302 Found", b"Location: https://elsewhere/\r\n")], ProtocolError),
        ([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", None],
         BackendError),
        ([said(b"{}", b"429 Too Many Requests", JSON + b"Retry-After: 7\r\n")], ThrottledError),
        ([said(b"{}", b"503 Service Unavailable")], BackendUnreachableError),
        ([said(b"x" * (MAX_ANSWER + 1))], ProtocolError),
    ],
    ids=["another protocol", "half a body", "half a head", "nothing", "two lengths",
         "a broken chunk", "not UTF-8", "not JSON", "elsewhere", "an upgrade", "slower", "down",
         "too large"],
)  # fmt: skip
async def test_what_is_no_answer_is_said_and_leaves_the_next_call_alone(
    pieces: list[bytes | None], raised: type[Exception]
) -> None:
    async with asking(pieces, [said()]) as (transport, _):
        with pytest.raises(raised) as told:
            await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
        assert isinstance(told.value, BackendError)
        assert told.value.retry_after == (7.0 if raised is ThrottledError else None)
        again = await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
    assert again.text == BODY.decode()


async def test_nothing_of_one_answer_is_taken_for_the_next() -> None:
    smuggled = said(b'{"data":{"stolen":1}}')
    async with asking([said() + smuggled], [said()]) as (transport, script):
        first = await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
        second = await transport.send("GET", "kv/data/b", operation="read", token=TOKEN)
    assert first.text == second.text == BODY.decode()
    assert script.connections == 2


@pytest.mark.parametrize(
    "late",
    [said(b'{"data":{"stolen":1}}'), said(b"{}", b"408 Request Timeout", b"Connection: close\r\n"),
     b"HTTP/1.1 200 OK\r\n" + JSON + b"Content-Length: 9\r\n\r\n"],
    ids=["an answer", "a refusal", "a head"],
)  # fmt: skip
async def test_what_comes_unasked_is_not_taken_for_the_next_answer(late: bytes) -> None:
    many = 3
    async with asking(*[[said(), late, None]] * many, [said(b"[]")]) as (transport, script):
        script.together = many
        calls = [transport.send("GET", "kv/data/a", operation="read") for _ in range(many)]
        first = await asyncio.gather(*calls)
        await asyncio.sleep(0.1)  # until it is there: it is what it is about
        again = await transport.send("GET", "kv/data/b", operation="read", token=TOKEN)
    assert {answer.text for answer in first} == {BODY.decode()}
    assert (again.status, again.text, script.connections) == (200, "[]", many + 1)


async def test_what_follows_an_upgrade_is_no_answer() -> None:
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    async with asking([upgrade, said(), None], [said(b"[]")]) as (transport, script):
        with pytest.raises(BackendError, match="status 101"):
            await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
        again = await transport.send("GET", "kv/data/b", operation="read", token=TOKEN)
    assert (again.text, script.connections) == ("[]", 2)


async def test_nothing_is_asked_once_it_is_closed() -> None:
    async with asking([said()]) as (transport, script):
        await transport.aclose()
        with pytest.raises(BackendUnreachableError):
            await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
    assert script.connections == 0


async def test_who_goes_in_mid_answer_takes_the_connection_along() -> None:
    async with asking([said()[:-3], None], [said()]) as (transport, script):
        call = asyncio.create_task(
            transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
        )
        await script.asked.wait()
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await script.ended.wait()
        again = await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
    assert (again.text, script.connections) == (BODY.decode(), 2)


@pytest.mark.parametrize("begun", [b"", said()[:-3]], ids=["nothing", "all but the end"])
async def test_an_answer_that_does_not_come_ends_in_time(begun: bytes) -> None:
    pieces: list[bytes | None] = [begun, None] if begun else [None]
    async with asking(pieces, timeout=0.2) as (transport, script):
        with pytest.raises(BackendUnreachableError, match="did not answer read in time"):
            await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
        await script.ended.wait()  # the connection is not kept


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    async with asking([said(), b""], [said(b"[]")]) as (transport, script):
        await transport.send("GET", "kv/data/a", operation="read", token=TOKEN)
        await script.ended.wait()
        await asyncio.sleep(0.05)
        again = await transport.send("GET", "kv/data/b", operation="read", token=TOKEN)
    assert (again.text, script.connections) == ("[]", 2)


async def test_as_many_connections_are_open_as_the_settings_allow() -> None:
    answers = [[said()]] * 40
    async with asking(*answers, connections=3) as (transport, script):
        calls = [transport.send("GET", "kv/data/a", operation="read") for _ in answers]
        heard = await asyncio.gather(*calls)
    assert {answer.text for answer in heard} == {BODY.decode()}
    assert script.connections == 3
