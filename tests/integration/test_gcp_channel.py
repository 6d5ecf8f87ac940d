"""The channel to Google: who is still calling when it is closed, and what the SDK would log."""

import asyncio
import logging
from typing import Any

import pytest
from grpc import aio
from tests.gcp import Gcp, gcp_spec, open_gcp

from svsync.backends.gcp.driver import _service
from svsync.clients.gcp import Service
from svsync.domain.errors import BackendUnreachableError
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


async def test_caller_who_is_cancelled_ends_as_cancelled(gcp: Gcp, asked: asyncio.Event) -> None:
    async with open_gcp(gcp) as google:
        reading = asyncio.create_task(google.listed())
        await asked.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


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
