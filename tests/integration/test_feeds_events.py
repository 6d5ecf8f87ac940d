"""The feed of Vault Enterprise's events, with a server that speaks the documented form.

No Vault Enterprise is at hand: messages are those of HashiCorp's documentation.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.openbao import Bao
from tests.patience import PATIENCE_S
from tests.vaults import LOOPBACK, source_of, spec_of

from svsync.backends.guarded import BackendGuard
from svsync.clients.vault import VaultSettings
from svsync.domain.errors import (
    BackendUnreachableError,
    ConfigError,
    LoginError,
    ProtocolError,
)
from svsync.embedded.processes import free_port
from svsync.feeds.vault_events import VaultEventsFeed, notices_of, open_feed
from svsync.ports import Notice


def message(path: str, kind: str = "kv-v2/data-write", **changes: Any) -> str:
    """An event as the documentation of 1.16 and later prints it."""
    metadata = {"modified": "true", "operation": kind.partition("/")[2], "path": path}
    metadata |= changes.pop("metadata", {})
    data = {
        "event": {"id": "a3be9fb1-b514-519f-5b25-b6f144a8c1ce", "metadata": metadata},
        "event_type": kind,
        "plugin_info": {
            "mount_class": "secret",
            "mount_accessor": "kv_5dc4d18e",
            "mount_path": changes.pop("mount", "secret/"),
            "plugin": "kv",
        },
        **changes,
    }
    envelope = {"id": "a3be9fb1", "source": "vault://mycluster", "specversion": "1.0", "type": "*"}
    return json.dumps({**envelope, "data": data, "datacontentype": "application/cloudevents"})


def told(text: str, namespace: str = "") -> list[tuple[str, str | None]]:
    return [(notice.namespace, notice.path) for notice in notices_of(text, namespace)]


# --- messages -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind", "remote"),
    [
        ("secret/data/foo", "kv-v2/data-write", "secret/data/foo"),
        ("secret/data/foo", "kv-v2/data-patch", "secret/data/foo"),
        ("secret/data/foo", "kv-v2/data-delete", "secret/data/foo"),
        ("secret/delete/foo", "kv-v2/delete", "secret/data/foo"),
        ("secret/undelete/foo", "kv-v2/undelete", "secret/data/foo"),
        ("secret/destroy/foo", "kv-v2/destroy", "secret/data/foo"),
        ("secret/metadata/a/b", "kv-v2/metadata-write", "secret/data/a/b"),
        ("secret/metadata/a/b", "kv-v2/metadata-delete", "secret/data/a/b"),
        ("secret/foo", "kv-v1/write", "secret/foo"),
        ("secret/data/foo", "kv-v1/delete", "secret/data/foo"),
        ("data/foo", "kv-v2/data-write", "secret/data/foo"),
    ],
)
def test_each_event_names_its_secret_as_a_listing_does(path: str, kind: str, remote: str) -> None:
    assert told(message(path, kind)) == [("", remote)]


def test_the_namespace_is_that_of_the_message_or_else_of_the_subscriber() -> None:
    assert told(message("secret/data/x", namespace="acme/fin/"), "acme") == [
        ("acme/fin", "secret/data/x")
    ]
    assert told(message("secret/data/x"), "acme") == [("acme", "secret/data/x")]


@pytest.mark.parametrize(
    "text",
    [
        message("secret/data/x", metadata={"modified": "false"}),
        message("secret/config", "kv-v2/config-write"),
        message("secret/data/../x"),
        message("database/creds/x", "database/creds-create", mount="database/"),
    ],
)
def test_what_changed_no_secret_is_passed_over(text: str) -> None:
    assert told(text) == []


@given(st.text(max_size=40) | st.sampled_from(["{}", '{"data":7}', "[" * 100_000, "null"]))
def test_what_is_no_event_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not an event notification$"):
        notices_of(text, "")


# --- a subscription -----------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def vault(handler: Handler) -> AsyncIterator[str]:
    """A server whose subscription is `handler`; a token `good` may look at itself."""

    async def lookup(request: web.Request) -> web.Response:
        if request.headers["X-Vault-Token"] == "good":
            return web.json_response({"data": {"ttl": 0, "renewable": False}})
        return web.json_response({"errors": ["permission denied"]}, status=403)

    app = web.Application()
    app.router.add_get("/v1/sys/events/subscribe/{kind}", handler)
    app.router.add_get("/v1/auth/token/lookup-self", lookup)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def feed_at(url: str, token: str = "good", namespace: str = "") -> VaultEventsFeed:
    settings = VaultSettings(url, "token", namespace=namespace)
    return VaultEventsFeed(settings, source_of(token), LOOPBACK)


async def test_events_are_told_after_a_gap_until_the_connection_breaks() -> None:
    asked: dict[str, str] = {}

    async def subscription(request: web.Request) -> web.StreamResponse:
        asked.update(request.headers, kind=request.match_info["kind"], **request.query)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(message("secret/data/a"))
        await socket.send_str("c4n4ry")
        await socket.send_bytes(b"\x00")
        await socket.send_str(message("secret/data/b"))
        await socket.close()
        return socket

    heard: list[Notice] = []
    async with vault(subscription) as url:
        feed = feed_at(url, namespace="acme")
        with pytest.raises(BackendUnreachableError, match="the subscription to events broke"):
            await asyncio.wait_for(feed.listen(heard.append), PATIENCE_S)
    assert [(n.namespace, n.path) for n in heard] == [
        ("", None),
        ("acme", "secret/data/a"),
        ("acme", "secret/data/b"),
    ]
    assert feed.invalid == 2
    assert asked["kind"] == "kv*"
    assert asked["json"] == "true"
    assert asked["X-Vault-Token"] == "good"
    assert asked["X-Vault-Namespace"] == "acme"


async def test_a_message_beyond_the_limit_ends_the_subscription() -> None:
    async def subscription(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("x" * (2 * 1024 * 1024))
        await socket.receive()
        return socket

    async with vault(subscription) as url:
        feed = feed_at(url)
        with pytest.raises(BackendUnreachableError):
            await asyncio.wait_for(feed.listen(lambda notice: None), PATIENCE_S)
    assert feed.dropped == 1


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (403, ConfigError, "may not subscribe to events: grant path"),
        (404, ConfigError, "has no event notifications"),
        (429, BackendUnreachableError, "answers a subscription to events with 429"),
        (503, BackendUnreachableError, "answers a subscription to events with 503"),
    ],
)
async def test_a_refusal_says_what_to_do(status: int, kind: type[Exception], sentence: str) -> None:
    async def subscription(request: web.Request) -> web.StreamResponse:
        return web.json_response({"errors": ["c4n4ry"]}, status=status)

    async with vault(subscription) as url:
        with pytest.raises(kind, match=sentence) as refused:
            await feed_at(url).listen(lambda notice: None)
    assert "c4n4ry" not in str(refused.value)


async def test_a_dead_token_is_asked_for_anew_once() -> None:
    async def subscription(request: web.Request) -> web.StreamResponse:
        return web.json_response({"errors": ["permission denied"]}, status=403)

    async with vault(subscription) as url:
        with pytest.raises(LoginError, match="refuses the token at infra/vault"):
            await feed_at(url, "dead").listen(lambda notice: None)


async def test_the_token_does_not_follow_a_redirect() -> None:
    elsewhere: list[str] = []

    async def other(request: web.Request) -> web.StreamResponse:
        elsewhere.append(request.headers.get("X-Vault-Token", ""))
        return web.Response()

    async with vault(other) as there:

        async def subscription(request: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(f"{there}{request.rel_url}")

        async with vault(subscription) as url:
            with pytest.raises(ProtocolError, match="redirects elsewhere"):
                await feed_at(url).listen(lambda notice: None)
    assert elsewhere == []


async def test_a_server_that_is_away_is_one_sentence() -> None:
    with pytest.raises(BackendUnreachableError):
        await feed_at(f"http://127.0.0.1:{free_port()}").listen(lambda notice: None)


async def test_openbao_has_no_event_notifications_and_the_feed_says_so(kv2: Bao) -> None:
    spec = spec_of(kv2)
    login = source_of(kv2.root_token)
    feed = open_feed({"feed": "vault-events"}, spec, login, LOOPBACK, BackendGuard())
    with pytest.raises(ConfigError, match="use the feed vault-audit"):
        await feed.listen(lambda notice: None)
