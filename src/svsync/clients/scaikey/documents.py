"""What ScaiKey publishes: where its keys are, and the keys.

One GET each, under limits of size and time. The address is judged as it is connected to;
no redirect is followed, no cookie kept, no proxy of the environment asked. What it announces
as the place of its keys is another's word: elsewhere than on its own host that may be a
public address only.
"""

import json
import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import aiohttp
from yarl import URL

from svsync import __version__
from svsync.domain.errors import ConfigError, SvsyncError
from svsync.network import AddressRefusedError, NetworkPolicy, check_url, guarded_connector

MAX_DOCUMENT: Final = 256 * 1024
"""Bytes of one document."""
TIMEOUT_S: Final = 5.0
"""For one document, from the look-up of the name to the end of the answer."""
_DISCOVERY: Final = "/.well-known/openid-configuration"


class DocumentError(SvsyncError):
    """A document could not be had; `code` says what was the matter."""

    code = "issuer_unreachable"


class Documents:
    """Gets what one issuer publishes."""

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None,
        policy: NetworkPolicy,
        *,
        tls: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT_S,
    ) -> None:
        """`jwks_url`: where the keys are; None: where the issuer announces them.

        Raises ConfigError for an address that may not be called.
        """
        self._issuer = issuer
        self._host = check_url(issuer, policy, where="scaikey_url").host
        if jwks_url is not None:
            check_url(jwks_url, policy, where="scaikey_jwks_url")
        self._jwks_url = jwks_url
        self._policy = policy
        self._tls = tls or ssl.create_default_context()
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def keys(self) -> Mapping[str, Any]:
        """The issuer's keys as it publishes them. Raises DocumentError."""
        if self._jwks_url is not None:
            return await self._get(self._jwks_url, self._policy)
        about = await self._get(self._issuer.removesuffix("/") + _DISCOVERY, self._policy)
        named, place = about.get("issuer"), about.get("jwks_uri")
        if not isinstance(named, str) or named.removesuffix("/") != self._issuer.removesuffix("/"):
            raise DocumentError("its configuration is another issuer's", code="issuer_mismatch")
        if not isinstance(place, str):
            raise DocumentError("it announces no keys", code="jwks_not_announced")
        return await self._get(place, self._policy_for(place))

    def _policy_for(self, place: str) -> NetworkPolicy:
        try:
            host = URL(place).host
        except ValueError:
            host = None
        if host == self._host:
            return self._policy
        return replace(self._policy, allow_loopback=False, file_managed=False)

    async def _get(self, address: str, policy: NetworkPolicy) -> Mapping[str, Any]:
        try:
            url = check_url(address, policy)
            async with (
                aiohttp.ClientSession(
                    connector=guarded_connector(policy, url.host or "", tls=self._tls, limit=1),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers={
                        "user-agent": f"svsync/{__version__}",
                        "accept": "application/json",
                        "accept-encoding": "identity",
                    },
                    auto_decompress=False,
                    trust_env=False,
                    timeout=self._timeout,
                ) as session,
                session.get(url, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise DocumentError(
                        f"it answers with status {response.status}", code="issuer_refuses"
                    )
                return _object(await _read(response))
        except ConfigError:
            raise DocumentError(
                "its keys are where svsync may not go", code="jwks_uri_refused"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _of(error) from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for block in response.content.iter_chunked(16 * 1024):
        data += block
        if len(data) > MAX_DOCUMENT:
            response.close()
            raise DocumentError(
                f"its document is larger than {MAX_DOCUMENT:,} bytes", code="document_too_large"
            )
    return bytes(data)


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DocumentError("its document is no JSON object", code="document_unreadable")
    return found


def _of(error: Exception) -> DocumentError:
    if isinstance(error, TimeoutError):
        return DocumentError("it does not answer in time", code="issuer_silent")
    refused = getattr(error, "os_error", None)
    if isinstance(refused, AddressRefusedError):
        return DocumentError("its address may not be called", code="address_refused")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return DocumentError("its certificate is not trusted", code="tls_failed")
    return DocumentError("it cannot be reached")
