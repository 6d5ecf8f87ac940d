"""The channel to Google: who is still calling when it is closed, and what the SDK would log."""

import asyncio
import logging
from typing import Any

import pytest
from grpc import StatusCode, aio
from tests.gcp import GLOBAL, Gcp, gcp_spec, open_gcp
from tests.patience import PATIENCE_S

from svsync.backends.gcp.driver import _service
from svsync.clients.gcp import Dial, Service
from svsync.domain.changes import Entry
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendUnreachableError
from svsync.domain.ids import PushId
from svsync.domain.pushes import Ready, RemoteWrite
from svsync.domain.values import Payload
from svsync.feeds.gcp_pubsub.subscription import PUBSUB
from svsync.kms.gcp import _CLIENT, _TRANSPORT


@pytest.fixture
def asked(gcp: Gcp, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set once Secret Manager is asked for something, which it then never answers."""
    found = asyncio.Event()

    async def serve(self: object, method: str, request: Any, context: Any) -> Any:
        found.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(type(gcp.fake), "serve", serve)
    return found


async def test_call_under_way_when_the_session_is_closed_is_no_cancelled_task(
    gcp: Gcp, asked: asyncio.Event
) -> None:
    """It would end without a word, and a group of tasks take it for done."""
    async with open_gcp(gcp) as google:
        reading = asyncio.create_task(google.listed())
        await asked.wait()
        await google.backend.aclose()
        with pytest.raises(BackendUnreachableError, match="closed during") as raised:
            await reading
    assert raised.value.sent


async def test_name_that_nobody_looks_up_is_given_up(
    gcp: Gcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int) -> list[tuple[str, int]]:
        if host == GLOBAL:
            await asyncio.Event().wait()
        return list(await gcp.dial.resolve(host, port))

    monkeypatch.setattr("svsync.clients.gcp.addresses._LOOK_UP_S", 0.01)
    async with asyncio.timeout(PATIENCE_S), open_gcp(gcp, dial=Dial(resolve, gcp.roots)) as google:
        with pytest.raises(BackendUnreachableError, match="cannot be resolved") as raised:
            await google.listed()
    assert not raised.value.sent


async def test_caller_who_is_cancelled_ends_as_cancelled(gcp: Gcp, asked: asyncio.Event) -> None:
    async with open_gcp(gcp) as google:
        reading = asyncio.create_task(google.listed())
        await asked.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


@pytest.mark.parametrize(
    "says", ["failed to connect to all addresses; last error: x", "CERTIFICATE_VERIFY_FAILED"]
)
async def test_connection_that_google_does_not_get_leaves_a_write_open(gcp: Gcp, says: str) -> None:
    """In words that here are said where nothing was sent at all."""
    gcp.put("a", "x")
    gcp.fake.fail("AddSecretVersion", StatusCode.UNAVAILABLE, says=says, after=True)
    async with open_gcp(gcp) as google:
        state = await google.backend.look_up(google.path("a"))
        assert isinstance(state, Entry)
        payload = Payload.from_text("y")
        order = RemoteWrite(
            PushId("psh_1"), google.path("a"), PushKind.PUT, state.value_token, state.order, payload
        )
        ready = await google.backend.check(order)
        assert isinstance(ready, Ready)
        with pytest.raises(BackendUnreachableError) as raised:
            await google.backend.write(order, ready, None)
    assert raised.value.sent
    assert gcp.states("a") == ["ENABLED", "ENABLED"]


@pytest.mark.parametrize(
    "service",
    [_service(gcp_spec()), PUBSUB, Service("cloudkms.googleapis.com", _CLIENT, _TRANSPORT)],
    ids=lambda service: service.host,
)
async def test_no_transport_of_the_sdk_logs_what_it_carries(service: Service) -> None:
    """It writes requests, tokens among them, at debug: for KMS the root key."""
    async with aio.insecure_channel("127.0.0.1:9") as channel:
        client = service.client_over(channel)
    logger = logging.getLogger(type(client.transport).__module__)
    assert type(client.transport).__module__.endswith(".grpc_asyncio")
    assert not logger.isEnabledFor(logging.CRITICAL)
