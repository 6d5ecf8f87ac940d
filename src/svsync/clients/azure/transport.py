"""The SDK's HTTP, as svsync wants it: its own sockets, no proxy, no redirect, answers of
a bounded size, and no second try."""

import ssl
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from azure.core.pipeline.transport import AioHttpTransport

from svsync.clients.azure.refusals import TooLargeError
from svsync.network import BoundedAnswer, NetworkPolicy, socket_guard

MAX_ANSWER: Final = 8 * 1024 * 1024
"""Bytes of one answer, unpacked: a page of twenty-five secrets with all their tags is less."""
_CONNECT_SECONDS: Final = 10
MACHINE_SECONDS: Final = 5
"""The metadata service of a machine is on that machine, or is not there."""
ONCE: Final[dict[str, Any]] = {"retry_total": 0, "retry_connect": 0, "retry_status": 0}
"""svsync tries again in one place, which is not the SDK."""


class _Answer(BoundedAnswer):
    most = MAX_ANSWER
    too_large = TooLargeError


def guarded_session(
    policy: NetworkPolicy,
    host: str,
    tls: ssl.SSLContext,
    *,
    limit: int,
    resolver: AbstractResolver | None = None,
) -> aiohttp.ClientSession:
    """Connections to one host, each judged by the address it is about to be made to."""
    connector = aiohttp.TCPConnector(
        ssl=tls,
        limit=limit,
        limit_per_host=limit,
        socket_factory=socket_guard(policy, host),
        resolver=resolver,
    )
    return _session(connector)


def machine_session() -> aiohttp.ClientSession:
    """Connections to this machine's own metadata service. The operator lends its identity,
    and the environment, which is the operator's too, may say where the service is."""
    return _session(aiohttp.TCPConnector(limit=4))


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=_Answer,
        trust_env=False,
    )
    # It would send a PUT or a DELETE again whose answer did not come: a second version, and a
    # delete that was made and is told as refused.
    session._retry_connection = False
    return session


def transport(session: aiohttp.ClientSession, *, seconds: float) -> AioHttpTransport:
    """The SDK's transport over a session that is not its to close."""
    return AioHttpTransport(
        session=session,
        session_owner=False,
        use_env_settings=False,
        connection_timeout=min(_CONNECT_SECONDS, seconds),
        read_timeout=seconds,
    )
