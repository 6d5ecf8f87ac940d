"""Requests for tokens: over HTTP, one socket each, to addresses that may be called.

Nothing is followed elsewhere, no proxy of the environment is used, and an answer is read
up to a bound. What an answer says is looked at by `tokens`; here only what concerns the
connection becomes an error.
"""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from svsync.clients.gcp.addresses import Dial, HttpNames
from svsync.domain.errors import BackendError, BackendUnreachableError, LoginError, ThrottledError
from svsync.network import AddressRefusedError, NetworkPolicy, check_url, socket_guard

_MAX_ANSWER: Final = 256 * 1024
"""Bytes: a token is some hundred, and one of an identity provider some thousand."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer. Its text may hold a token."""

    status: int
    text: str = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The answer as an object; {} for anything else."""
        try:
            parsed = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return parsed if isinstance(parsed, dict) else {}


@dataclass(frozen=True, slots=True)
class TokenHttp:
    """Makes requests of one kind of backend. `timeout` is in seconds, for one request."""

    policy: NetworkPolicy
    dial: Dial
    timeout: float

    async def post(
        self,
        url: str,
        *,
        where: str,
        form: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Said:
        """One request with a form, or with JSON, to an address that is judged first.

        `where` names the field that holds the URL. Raises ConfigError for one that may
        not be called, BackendUnreachableError, ThrottledError, BackendError
        (`endpoint_refused`).
        """
        host = check_url(url, self.policy, where=where).host or ""
        tls = ssl.create_default_context()
        if roots := await self.dial.authorities():
            tls.load_verify_locations(cadata=roots.decode("ascii", "replace"))
        connector = aiohttp.TCPConnector(
            ssl=tls, resolver=HttpNames(self.dial), socket_factory=socket_guard(self.policy, host)
        )
        data = aiohttp.FormData(dict(form)) if form is not None else None
        return await self._ask(
            connector, "POST", url, host, headers, data=data, json=body if data is None else None
        )

    async def get(self, url: str, headers: Mapping[str, str]) -> Said:
        """One request to where the operator of this machine sends us, such as its metadata
        server, whose address nobody else may have called."""
        host = url.partition("//")[2].partition("/")[0]
        return await self._ask(aiohttp.TCPConnector(), "GET", url, host, headers)

    async def _ask(
        self,
        connector: aiohttp.TCPConnector,
        method: str,
        url: str,
        host: str,
        headers: Mapping[str, str] | None,
        **how: Any,
    ) -> Said:
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=self.timeout),
                ) as session,
                session.request(
                    method, url, headers=headers, allow_redirects=False, **how
                ) as answer,
            ):
                raw = await _read(answer)
                status, pause = answer.status, answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failure:
            raise _not_connected(failure, host) from None
        if status == 429:
            raise ThrottledError(
                f"{host} asks to slow down (login)",
                operation="login",
                status=status,
                retry_after=float(pause) if pause.isascii() and pause.isdigit() else None,
                sent=False,
            )
        if status >= 500:
            raise BackendUnreachableError(
                f"{host} failed ({status}, login)", operation="login", status=status, sent=False
            )
        if 300 <= status < 400:
            raise LoginError(
                f"{host} redirects elsewhere: no token is asked for there",
                operation="login",
                status=status,
                sent=False,
            )
        return Said(status, raw.decode("utf-8", "replace"))


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    while (block := await answer.content.readany()) and len(raw) <= _MAX_ANSWER:
        raw += block
    return bytes(raw[:_MAX_ANSWER])


def _not_connected(failure: Exception, host: str) -> BackendError:
    about: dict[str, Any] = {"operation": "login", "sent": False}
    if isinstance(failure, aiohttp.ClientConnectorError) and isinstance(
        failure.os_error, AddressRefusedError
    ):
        return BackendError(f"{host} {failure.os_error}", code="endpoint_refused", **about)
    if isinstance(failure, aiohttp.ClientConnectorCertificateError):
        return BackendUnreachableError(
            f"the certificate of {host} is not trusted: set GRPC_DEFAULT_SSL_ROOTS_FILE_PATH to"
            " a file with its authority",
            **about,
        )
    if isinstance(failure, TimeoutError):
        return BackendUnreachableError(f"{host} did not answer in time (login)", **about)
    return BackendUnreachableError(f"{host} takes no connection (login)", **about)
