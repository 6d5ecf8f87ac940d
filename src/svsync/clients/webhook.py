"""Messages to the receivers of webhooks, over HTTP.

A receiver is an address that somebody else named, so it is trusted with nothing: the
address is judged as it is connected to, at every connect; no redirect is followed, no
cookie kept, no proxy of the environment asked; its answer is a status, and a few
kilobytes that are read so that the connection can be used again, and dropped.
"""

import asyncio
import email.utils
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import aiohttp
from yarl import URL

from svsync import __version__
from svsync.domain.errors import ConfigError
from svsync.domain.webhooks import Answer, Failure, answer_of
from svsync.network import (
    AddressInfo,
    AddressRefusedError,
    NetworkPolicy,
    refuse_reason,
    socket_guard,
)

MAX_ANSWER: Final = 4096
"""Bytes of an answer that are read; a longer one costs the connection."""
TIMEOUT_S: Final = 10.0
"""For all of one attempt, from the look-up of the name to the end of the answer."""
_MAX_URL: Final = 2048
_KEEP_ALIVE_S: Final = 4.0
"""Less than the 5 seconds after which common servers close an idle connection: a message
sent into one that is just being closed would be lost."""
_ASKS_TO_WAIT: Final = (429, 503)


class WebhookClient:
    """Sends each message once; who calls it decides what is tried again."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        policy: Callable[[], NetworkPolicy],
        *,
        private: bool,
        timeout: float = TIMEOUT_S,
    ) -> None:
        self._session = session
        self._policy = policy
        self._private = private
        self.timeout = timeout

    def check(self, url: str) -> None:
        """Raises ConfigError (`target_refused`) for an URL that no message may go to."""
        target_of(url, self._policy(), private=self._private)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One attempt. Whatever happens is an answer, with a code where nothing was taken."""
        try:
            target = target_of(url, self._policy(), private=self._private)
        except ConfigError:
            return Answer(None, Failure.TARGET_REFUSED)
        try:
            async with self._session.post(
                target,
                data=body,
                headers={"content-type": "application/json", **headers},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.timeout),
            ) as response:
                await _drop(response)
                asked = response.headers.get("retry-after")
                wait = seconds_of(asked) if response.status in _ASKS_TO_WAIT else None
                return answer_of(response.status, wait)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, _code_of(error))


@asynccontextmanager
async def open_webhook_client(
    *,
    private: bool,
    own_listeners: Callable[[], frozenset[tuple[str, int]]] = frozenset,
    timeout: float = TIMEOUT_S,
) -> AsyncIterator[WebhookClient]:
    """A client whose connections are shared by all endpoints.

    It sets no limit to them: one that receivers who do not answer could use up would let
    them delay the others. Whoever sends limits what goes to each endpoint.

    Args:
        private: messages may also go to private and loopback addresses, over http and to
            any port (`allow_private_targets`).
        own_listeners: (address, port) of this process; never a target. Asked at every
            connect, for a listener may be opened later than this.
        timeout: seconds of one attempt.
    """

    def policy() -> NetworkPolicy:
        return NetworkPolicy(
            allow_loopback=private, file_managed=private, own_listeners=own_listeners()
        )

    def guarded(target: AddressInfo) -> socket.socket:
        return socket_guard(policy(), "")(target)

    connector = aiohttp.TCPConnector(
        limit=0, keepalive_timeout=_KEEP_ALIVE_S, socket_factory=guarded
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"user-agent": f"svsync/{__version__}"},
        auto_decompress=False,
        trust_env=False,
    ) as session:
        yield WebhookClient(session, policy, private=private, timeout=timeout)


def target_of(text: str, policy: NetworkPolicy, *, private: bool) -> URL:
    """The URL of an endpoint.

    Raises ConfigError (`target_refused`): not https on port 443, unless `private`; with a
    user, query or fragment; or with an address that no name hides and may not be reached.
    """

    def refused(message: str) -> ConfigError:
        return ConfigError(message, where="url", code="target_refused")

    if len(text) > _MAX_URL or re.search(r"[\x00-\x20\x7f\\]", text):
        raise refused(f"is not a URL of at most {_MAX_URL} characters without spaces")
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        raise refused("is not a URL") from None
    if not host or url.scheme not in ("https", "http"):
        raise refused("must be an https URL with a host (https://host/path)")
    if url.user is not None or url.password is not None or "?" in text or "#" in text:
        raise refused("may hold no user, password, query or fragment: each message is signed")
    if not private and url.scheme != "https":
        raise refused("must be an https URL (http only with allow_private_targets: true)")
    if not private and port != 443:
        raise refused("must use port 443 (another only with allow_private_targets: true)")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return url
    if reason := refuse_reason(address, policy, port=port):
        # The reason speaks of the settings of backends; that of webhooks is another.
        raise refused(f"{reason.partition(' (')[0].partition(' that ')[0]}, which is no target")
    return url


def seconds_of(retry_after: str | None) -> float | None:
    """A `Retry-After` header, either form, as seconds from now; None where it says nothing."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\d{1,9}", retry_after):
        return float(retry_after)
    try:
        until = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


async def _drop(response: aiohttp.ClientResponse) -> None:
    """Read a short answer to its end; leave the rest of a long one, and its connection."""
    left = MAX_ANSWER
    while left > 0 and (block := await response.content.read(left)):
        left -= len(block)
    if not response.content.at_eof():
        response.close()


def _code_of(error: Exception) -> Failure:
    match error:
        case asyncio.TimeoutError():
            return Failure.TIMEOUT
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return Failure.TLS_FAILED
        case aiohttp.ClientConnectorDNSError():
            return Failure.NAME_NOT_FOUND
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, AddressRefusedError):
            return Failure.TARGET_REFUSED
        case aiohttp.ClientConnectorError():
            return Failure.UNREACHABLE
        case _:
            return Failure.CONNECTION_LOST
