"""Single calls to a Vault or OpenBao server, and what its answers mean.

Each call is made once. What goes wrong becomes an error of svsync's own here:
no message holds text of the server, for that may hold a token or a value.
"""

import email.utils
import io
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import aiohttp
from yarl import URL

from svsync.clients.vault.plain_get import Head, NotHttpError, PlainGets, is_plain
from svsync.clients.vault.settings import VaultSettings
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.values import SecretValue
from svsync.network import (
    AddressRefusedError,
    NetworkPolicy,
    guarded_connector,
    tls_context,
)

MAX_ANSWER: Final = 8 * 1024 * 1024
"""Bytes of one answer, decompressed, counted while reading."""
_HEADERS: Final = {"X-Vault-Request": "true", "Accept-Encoding": "identity"}
REFUSALS: Final = (401, 403, 404)
"""Statuses whose answer is read by whoever made the call."""

_ACL_DENIALS: Final = (
    # Both are said only after the token was accepted; a dead token gets the bare
    # "permission denied" (OpenBao) or "invalid token" beside it (Vault).
    '"1 error occurred:\\n\\t* permission denied\\n\\n"',
    "preflight capability check returned 403",
)


CAS_MISMATCH: Final = "cas_mismatch"
"""Code of the BackendError for a write whose check-and-set number is not the current one."""

_SAYS_CAS_MISMATCH: Final = "check-and-set parameter did not match"
_SAYS_TOO_LARGE: Final = "put failed due to value being too large"
"""Said with status 500 by storage that limits an entry (raft: 1 MiB), before it stores one."""


class AnswerTooLargeError(ProtocolError):
    """The backend's answer is larger than svsync reads."""

    code = "value_too_large"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: 2xx, or 404, which has three meanings."""

    status: int
    text: str = field(repr=False)
    date: str = ""
    is_json: bool = True
    retry_after: str = ""

    @property
    def missing_mount(self) -> bool:
        """404, because nothing is mounted there."""
        return self.status == 404 and "no handler for route" in self.text

    @property
    def missing_namespace(self) -> bool:
        return self.status == 404 and '"namespace not found"' in self.text

    @property
    def server_time(self) -> datetime | None:
        """The server's own clock, whole seconds, from the Date header."""
        try:
            return email.utils.parsedate_to_datetime(self.date)
        except ValueError:
            return None

    def json(self) -> dict[str, Any]:
        """The answer as an object, {} when empty. Raises ProtocolError otherwise."""
        if not self.text.strip():
            return {}
        try:
            parsed = json.loads(self.text)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise ProtocolError("the endpoint's answer is not a JSON object", operation="connect")
        return parsed

    @property
    def token_accepted(self) -> bool:
        """A refusal that says itself that the token is good and the path is not allowed."""
        return any(said in self.text for said in _ACL_DENIALS)


class VaultTransport:
    """Calls to one server, over connections that are kept; made within a running loop."""

    def __init__(self, settings: VaultSettings, policy: NetworkPolicy) -> None:
        url = settings.check(policy)
        tls = tls_context(settings.tls_verify, policy) if url.scheme == "https" else None
        self._namespace = settings.namespace
        self._origin = URL(str(url.origin()))  # as text it has no default port
        self._base = f"{url.raw_path.rstrip('/')}/v1/"
        connector = guarded_connector(policy, url.host or "", tls=tls, limit=settings.connections)
        self._http = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout),
            headers=_HEADERS,
        )
        self._gets = PlainGets(connector, self._origin, _HEADERS, settings.timeout)
        # It would send a DELETE again whose answer did not come, upon what may be another
        # version by then. What is sent again is the guard's to decide.
        self._http._retry_connection = False

    async def aclose(self) -> None:
        await self._http.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        token: SecretValue | None = None,
        namespaced: bool = True,
        shown: str | None = None,
        body: object = None,
        refusals: Collection[int] = REFUSALS,
    ) -> Answer:
        """One call. Returns 2xx, and in JSON whatever is one of `refusals`.

        Args:
            path: below `/v1/`, percent-encoded, query included.
            namespaced: false for what is asked of the server itself.
            shown: the remote path asked for, for errors.
            body: bytes are sent as they are, anything else as JSON; a PATCH is a
                merge patch (RFC 7396).

        Raises BackendUnreachableError, ThrottledError, ProtocolError,
        AnswerTooLargeError, and BackendError for any other refusal; `sent` is false
        where the server surely did nothing.
        """
        headers = {}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        if token is not None:
            headers["X-Vault-Token"] = token.reveal()
        if self._namespace and namespaced:
            headers["X-Vault-Namespace"] = self._namespace

        async def read(head: Head) -> Answer:
            return await _read(head, operation, shown)

        try:
            if method == "GET" and body is None and all(map(is_plain, (path, *headers.values()))):
                answer = await self._gets.get(f"{self._base}{path}", headers, read)
            else:
                answer = await self._ask(method, path, headers, body, read)
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise _not_connected(failure, operation, shown) from None
        if 200 <= answer.status < 300 or answer.status in refusals:
            if answer.is_json or not answer.text.strip():
                if answer.missing_namespace:
                    raise BackendError(
                        f"the backend has no namespace {self._namespace}",
                        operation=operation,
                        path=shown,
                        status=404,
                        sent=False,
                    )
                return answer
            raise ProtocolError(
                f"the endpoint answers {operation} with something that is not JSON:"
                " it is not a Vault API (a sign-in page or another proxy?)",
                operation=operation,
                path=shown,
                status=answer.status,
            )
        raise _refusal(answer, operation, shown)

    async def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: object,
        read: Callable[[Head], Awaitable[Answer]],
    ) -> Answer:
        """The same as `PlainGets.get`, of any call."""
        async with self._http.request(
            method,
            self._url(path),
            # A stream: aiohttp warns of large bodies given as bytes.
            data=None if body is None else io.BytesIO(_bytes(body)),
            headers=headers,
            allow_redirects=False,
        ) as response:
            return await read(Head(response.status, response.headers, response.content))

    def _url(self, path: str) -> URL:
        """Put together, not parsed: yarl takes three times as long to find the parts."""
        name, _, query = path.partition("?")
        return URL.build(
            scheme=self._origin.scheme,
            authority=self._origin.raw_authority,
            path=f"{self._base}{name}",
            query_string=query,
            encoded=True,
        )


async def _read(head: Head, operation: str, shown: str | None) -> Answer:
    raw = bytearray()
    while block := await head.content.readany():
        raw += block
        if len(raw) > MAX_ANSWER:
            raise AnswerTooLargeError(
                f"the answer to {operation} is larger than {MAX_ANSWER} bytes",
                operation=operation,
                path=shown,
                status=head.status,
            )
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ProtocolError(
            f"the answer to {operation} is not UTF-8", operation=operation, path=shown
        ) from None
    headers = head.headers
    is_json = headers.get("Content-Type", "").partition(";")[0].strip() == "application/json"
    retry_after = headers.get("Retry-After", "")
    return Answer(head.status, text, headers.get("Date", ""), is_json, retry_after)


def _refusal(answer: Answer, operation: str, shown: str | None) -> BackendError:
    status = answer.status
    where = f"{operation} of {shown}" if shown else operation
    kind: type[BackendError]
    code, sent = None, status >= 500 or status == 412
    if status == 413 or (status == 500 and _SAYS_TOO_LARGE in answer.text):
        kind, code, sent = BackendError, "value_too_large", False
        says = f"the backend takes no value of this size ({where})"
    elif status == 400 and _SAYS_CAS_MISMATCH in answer.text:
        kind, code, says = BackendError, CAS_MISMATCH, f"another version stands ({where})"
    elif status == 429:
        kind = ThrottledError
        says = f"the backend asks to slow down ({where})"
    elif status >= 500 or status == 412:
        # 412: a replica that has not yet seen what this request builds upon.
        kind = BackendUnreachableError
        sealed = status == 503 and '"Vault is sealed"' in answer.text
        says = "the backend is sealed" if sealed else f"the backend failed ({status}, {where})"
    elif 300 <= status < 400:
        kind = ProtocolError
        says = "the endpoint redirects elsewhere: set endpoint to the active server itself"
    else:
        kind, says = BackendError, f"the backend refuses {where} with status {status}"
    return kind(
        says,
        operation=operation,
        path=shown,
        status=status,
        retry_after=_seconds(answer.retry_after),
        code=code,
        sent=sent,
    )


def _not_connected(failure: Exception, operation: str, shown: str | None) -> BackendError:
    sent = not isinstance(failure, aiohttp.ClientConnectorError)
    if isinstance(failure, aiohttp.ClientConnectorCertificateError):
        says = "the endpoint's certificate is not trusted: set tls_verify to its authority"
    elif isinstance(failure, aiohttp.ClientConnectorSSLError):
        says = "the endpoint and svsync agree on no TLS connection"
    elif isinstance(failure, aiohttp.ClientConnectorDNSError):
        says = "the endpoint's name cannot be resolved"
    elif isinstance(failure, aiohttp.ClientConnectorError):
        if isinstance(failure.os_error, AddressRefusedError):
            return BackendError(
                f"the endpoint {failure.os_error}",
                operation=operation,
                path=shown,
                code="endpoint_refused",
                sent=sent,
            )
        says = "the endpoint takes no connection"
    elif isinstance(failure, TimeoutError):
        says = f"the endpoint did not answer {operation} in time"
    elif isinstance(failure, NotHttpError | aiohttp.ClientResponseError):
        return ProtocolError(
            "the endpoint does not speak HTTP as a Vault does", operation=operation, path=shown
        )
    else:
        says = f"the connection broke during {operation}"
    return BackendUnreachableError(says, operation=operation, path=shown, sent=sent)


def _bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _seconds(text: str) -> float | None:
    """A Retry-After in seconds; a date is not something that a Vault sends."""
    return float(text) if text.isascii() and text.isdigit() else None
