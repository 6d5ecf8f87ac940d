"""Where a message may go, and what a receiver can do to who sends it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import pytest_asyncio
from aiohttp import web
from tests.receivers import Hanging, Message, Receiver

from svsync.clients.webhook import (
    MAX_ANSWER,
    WebhookClient,
    open_webhook_client,
    seconds_of,
    target_of,
)
from svsync.domain.errors import ConfigError
from svsync.domain.webhooks import Answer, Failure
from svsync.network import NetworkPolicy

HEADERS = {"webhook-id": "evt_1"}
PUBLIC = NetworkPolicy()
PRIVATE = NetworkPolicy(allow_loopback=True, file_managed=True)


@pytest_asyncio.fixture
async def client() -> AsyncIterator[WebhookClient]:
    async with open_webhook_client(private=True, timeout=5) as made:
        yield made


async def sent(client: WebhookClient, url: str) -> Answer:
    return await client.send(url, HEADERS, b"{}")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://hooks.example.com/x", "https"),
        ("https://hooks.example.com:8443/x", "port 443"),
        ("https://user:pw@hooks.example.com/x", "user"),
        ("https://hooks.example.com/x?token=1", "query"),
        ("https://hooks.example.com/x#f", "fragment"),
        ("ftp://hooks.example.com/x", "https"),
        ("https:///x", "https URL with a host"),
        ("https://hooks.example.com/a b", "spaces"),
        ("https://hooks.example.com:x/", "not a URL"),
        ("https://127.0.0.1/x", "loopback"),
        ("https://10.0.0.7/x", "private"),
        ("https://[::ffff:10.0.0.7]/x", "private"),
        ("https://169.254.169.254/x", "metadata"),
        ("https://hooks.example.com/" + "x" * 2048, "2048"),
    ],
)
def test_target_that_may_not_be_is_refused_by_its_field(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        target_of(url, PUBLIC, private=False)
    assert (caught.value.where, caught.value.code) == ("url", "target_refused")
    assert "pw" not in caught.value.message


def test_private_targets_may_be_plain_and_on_any_port_but_never_the_clouds_own() -> None:
    for url in ("http://10.0.0.7:8080/x", "http://127.0.0.1:1/", "https://receiver.internal/x"):
        assert str(target_of(url, PRIVATE, private=True)) == url
    with pytest.raises(ConfigError, match="metadata"):
        target_of("http://169.254.169.254/x", PRIVATE, private=True)
    assert target_of("https://hooks.example.com/x", PUBLIC, private=False)


async def test_name_that_leads_inwards_is_refused_as_it_is_connected_to() -> None:
    async with open_webhook_client(private=False) as client:
        client.check("https://localhost/x")  # a name says nothing yet
        assert await sent(client, "https://localhost/x") == Answer(None, Failure.TARGET_REFUSED)
        assert await sent(client, "https://127.0.0.1/x") == Answer(None, Failure.TARGET_REFUSED)


async def test_own_listener_is_no_target() -> None:
    async with Receiver() as receiver:
        host, _, port = receiver.url.removeprefix("http://").partition("/")[0].partition(":")
        own = frozenset({(host, int(port))})
        async with open_webhook_client(private=True, own_listeners=lambda: own) as client:
            named = receiver.url.replace("127.0.0.1", "localhost")
            for url in (receiver.url, named):
                assert (await sent(client, url)).error == "target_refused"
    assert receiver.got == []


async def test_redirect_is_not_followed(client: WebhookClient) -> None:
    async with Receiver() as elsewhere, Receiver() as receiver:
        receiver.answer = lambda _: web.Response(status=307, headers={"location": elsewhere.url})
        assert await sent(client, receiver.url) == Answer(307, Failure.REDIRECTED)
    assert elsewhere.got == []


async def test_huge_answer_is_left_unread(client: WebhookClient) -> None:
    written = 0

    async def flood(message: Message) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(message.request)
        while written < 512 * MAX_ANSWER * 16:
            await response.write(b"x" * MAX_ANSWER)
            written += MAX_ANSWER
        return response

    async with Receiver(flood) as receiver:
        assert await sent(client, receiver.url) == Answer(200, None)
    assert written < 512 * MAX_ANSWER * 16


async def test_connection_is_used_again_after_a_short_answer(client: WebhookClient) -> None:
    async with Receiver(lambda _: web.Response(text="thanks")) as receiver:
        for _ in range(3):
            await sent(client, receiver.url)
        assert len({message.request.transport for message in receiver.got}) == 1


async def test_closed_connection_is_a_failure(client: WebhookClient) -> None:
    def close(message: Message) -> web.Response:
        assert message.request.transport is not None
        message.request.transport.abort()
        return web.Response()

    async with Receiver(close) as receiver:
        assert await sent(client, receiver.url) == Answer(None, Failure.CONNECTION_LOST)


async def test_nobody_there_is_a_failure(client: WebhookClient) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        assert await sent(client, url) == Answer(None, Failure.UNREACHABLE)


async def test_receiver_that_does_not_answer_is_given_up() -> None:
    hanging = Hanging()
    async with (
        Receiver(hanging) as receiver,
        open_webhook_client(private=True, timeout=0.2) as client,
    ):
        assert await sent(client, receiver.url) == Answer(None, Failure.TIMEOUT)
        hanging.let_go()


async def test_receiver_that_speaks_no_tls_is_told(client: WebhookClient) -> None:
    async with Receiver() as receiver:
        answer = await sent(client, receiver.url.replace("http:", "https:"))
    assert answer == Answer(None, Failure.TLS_FAILED)


async def test_noise_is_no_answer(client: WebhookClient) -> None:
    async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"\x00\xff not http\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(noise, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await sent(client, f"http://127.0.0.1:{port}/") == Answer(
            None, Failure.CONNECTION_LOST
        )


async def test_cookies_of_a_receiver_are_not_kept(client: WebhookClient) -> None:
    def bake(_message: Message) -> web.Response:
        response = web.Response()
        response.set_cookie("k", "v")
        return response

    async with Receiver(bake) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")  # a name may have cookies
        for _ in range(2):
            await sent(client, url)
    assert "Cookie" not in receiver.got[1].headers


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("120", 120.0), ("soon", None), ("-1", None)]
)
def test_retry_after_is_read_where_it_says_something(
    text: str | None, seconds: float | None
) -> None:
    assert seconds_of(text) == seconds


def test_retry_after_may_be_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert 80 < (seconds_of(format_datetime(later, usegmt=True)) or 0) <= 90
    assert seconds_of(format_datetime(later - timedelta(days=1), usegmt=True)) == 0


async def test_only_a_receiver_that_is_busy_is_asked_how_long(client: WebhookClient) -> None:
    async with Receiver() as receiver:
        for status, wait in ((429, 7.0), (503, 7.0), (500, None), (404, None)):
            receiver.answer = lambda _, status=status: web.Response(
                status=status, headers={"retry-after": "7"}
            )
            assert (await sent(client, receiver.url)).retry_after == wait
