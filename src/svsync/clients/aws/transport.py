"""The SDK's HTTP, as svsync wants it: its own sockets, no proxy, no redirect, answers of
a bounded size, and no second try."""

import socket
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession

from svsync.clients.aws.refusals import RedirectError, TooLargeError
from svsync.clients.aws.settings import AwsSettings
from svsync.network import AddressInfo, BoundedAnswer, NetworkPolicy, socket_guard

MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of one answer: twenty values of 64 KiB, every character escaped, are less."""
_CONNECT_SECONDS: Final = 10


class Sockets:
    """Makes sockets to one host, each judged by the address it is about to be connected to.

    `host` becomes known once the SDK has worked out where its service is.
    """

    def __init__(self, policy: NetworkPolicy) -> None:
        self._policy = policy
        self.host = ""

    def __call__(self, info: AddressInfo) -> socket.socket:
        return socket_guard(self._policy, self.host)(info)


class _Answer(BoundedAnswer):
    most = MAX_ANSWER
    too_large = TooLargeError


async def _refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A signed request goes where it was signed for."""
    answer = await handler(request)
    if 300 <= answer.status < 400:
        answer.close()
        raise RedirectError
    return answer


class _Http(AIOHTTPSession):  # type: ignore[misc]  # the SDK ships no types
    """One aiohttp session, whatever proxies the environment names."""

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        async with self._sessions_lock:
            if None not in self._sessions:
                session = aiohttp.ClientSession(
                    connector=await self._create_connector(None),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=self._timeout,
                    skip_auto_headers={"Content-Type"},
                    auto_decompress=False,
                    response_class=_Answer,
                    middlewares=(_refuse_redirects,),
                )
                self._sessions[None] = await self._exit_stack.enter_async_context(session)
            made: aiohttp.ClientSession = self._sessions[None]
            return made


def config(settings: AwsSettings, sockets: Callable[..., socket.socket]) -> Any:
    """How the SDK's clients are to behave."""
    return AioConfig(
        connector_args={"socket_factory": sockets},
        http_session_cls=_Http,
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=settings.timeout,
        max_pool_connections=settings.connections,
        retries={"max_attempts": 0, "mode": "standard"},
        proxies={},
        # What is sent is checked here, and the SDK's complaint would quote it.
        parameter_validation=False,
        # What is called is what the backend's own configuration says.
        ignore_configured_endpoint_urls=True,
    )
