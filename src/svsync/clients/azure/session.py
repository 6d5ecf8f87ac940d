"""One signed-in session with one Key Vault.

Who svsync is comes from a client secret or a certificate, or from the process's own
identity. A token is replaced at two thirds of its life, before the next call; one that the
vault refuses is replaced once, and nothing is tried in turn. A new token means a new
credential and a new client of the SDK, whose own would give the old one again.

Requests go through the SDK's client, with its check of whom the vault wants tokens from;
what they say is this module's callers' matter.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
from aiohttp.abc import AbstractResolver
from azure.core.exceptions import AzureError
from azure.core.rest import HttpRequest
from azure.keyvault.secrets.aio import SecretClient

from svsync.clients.azure.answers import Answer, take_apart
from svsync.clients.azure.credentials import (
    WHOSE,
    Given,
    SdkCredential,
    by_credential,
    of_this_process,
)
from svsync.clients.azure.refusals import (
    TokenRefusedError,
    TooLargeError,
    no_answer,
    of_answer,
    of_challenge,
    of_failure,
    of_login,
)
from svsync.clients.azure.settings import STATIC, AzureSettings
from svsync.clients.azure.transport import (
    MACHINE_SECONDS,
    ONCE,
    guarded_session,
    machine_session,
    transport,
)
from svsync.clients.logins import CountedCall, KeptLogin, uncounted
from svsync.domain.errors import (
    BackendUnreachableError,
    LoginError,
)
from svsync.domain.values import Credential, SecretValue
from svsync.network import NetworkPolicy, tls_context

T = TypeVar("T")

API_VERSION: Final = "7.4"
"""Of Key Vault's data plane; every cloud has it [Key Vault REST API versions,
rest/api/keyvault]."""


@dataclass(frozen=True, slots=True)
class _Login:
    """A client with its token, since when (monotonic), and for how long (seconds)."""

    client: SecretClient
    given: Given
    since: float
    ttl: float


class AzureSession:
    """Calls to one vault with one login. Use as an async context manager.

    Safe for concurrent use. Makes each call once, but for a single new login when the vault
    refuses the token, which it does before it does anything else.

    Args:
        credential: asked at each login by a secret or a certificate, so that a changed one
            is picked up.
        login_call: runs every call that signs in.
        clock: monotonic seconds.
        resolver: of names; None: the system's.
        environ: where a workload identity is named.
    """

    def __init__(
        self,
        settings: AzureSettings,
        credential: Callable[[], Awaitable[Credential]],
        policy: NetworkPolicy,
        *,
        login_call: CountedCall = uncounted,
        clock: Callable[[], float] = time.monotonic,
        resolver: AbstractResolver | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = settings
        self._credential = credential
        self._policy = policy
        self._login_call = login_call
        self._clock = clock
        self._resolver = resolver
        self._environ = environ
        self._login = KeptLogin[_Login](self._sign_in, clock=clock)
        self._open: contextlib.AsyncExitStack | None = None
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        self._open = contextlib.AsyncExitStack()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections and forget the token; may run twice. Tokens cannot be revoked."""
        opened, self._open = self._open, None
        self._login.forget()
        self._sessions.clear()
        if opened is not None:
            await opened.aclose()

    @property
    def directory(self) -> str:
        """The directory (tenant) that the vault belongs to, once it has answered a call: that
        of the token which it took."""
        login = self._login.now
        return "" if login is None else login.given.directory or login.given.vaults_directory

    async def sign_in(self) -> None:
        """Get a token unless that is done; LoginError where there is none."""
        await self._login.get()

    async def call(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        shown: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """One call, such as `("GET", "/secrets/db/versions")`; the answer is a good one.

        Args:
            path: of the vault's own; made of names that need no escape.
            operation: list, metadata, read, write, delete or connect; for errors.
            shown: the remote path asked for, for errors.

        Raises BackendUnreachableError, ThrottledError, ProtocolError, LoginError,
        DeniedError, and AzureRefusedError for any other refusal; `sent` is false where
        surely nothing was done.
        """
        login = await self._login.get()
        for may_sign_in in (True, False):
            try:
                return await self._send(login, method, path, operation, shown, query, body)
            except TokenRefusedError as refused:
                if login.given.is_foreign:
                    raise self._wrong_tenant(login, operation, shown) from None
                if not may_sign_in:
                    raise LoginError(
                        "Key Vault refuses the token right after a new login: check that the"
                        " vault and the application are of one directory",
                        operation=operation,
                        path=shown,
                        status=refused.status,
                        sent=False,
                    ) from None
            login = await self._login.get(login)
        raise AssertionError("the second try returns or raises")

    # --- calls --------------------------------------------------------------------

    async def _send(
        self,
        login: _Login,
        method: str,
        path: str,
        operation: str,
        shown: str | None,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> Answer:
        url = f"{self.settings.vault_url}{path}"
        if query:
            url += f"?{urlencode(query)}"
        request = (
            HttpRequest(method, url, json=body) if body is not None else HttpRequest(method, url)
        )
        try:
            async with asyncio.timeout(self.settings.timeout):
                got = await login.client.send_request(request)
        except (AzureError, TooLargeError, TimeoutError) as error:
            raise of_failure(error, operation, shown) from None
        except RecursionError:  # the SDK reads the JSON as well
            raise no_answer(operation, shown) from None
        except ValueError:
            raise of_challenge(operation, shown) from None
        answer = take_apart(got.status_code, got.headers, got.content)
        if got.status_code >= 300:
            raise of_answer(answer, operation, shown)
        if got.status_code != 204 and not answer.is_object:
            raise no_answer(operation, shown)
        return answer

    def _wrong_tenant(self, login: _Login, operation: str, shown: str | None) -> LoginError:
        return LoginError(
            f"the vault belongs to the directory {login.given.vaults_directory}, and"
            f" {self._who()} signs in to {login.given.directory}: use an identity of the"
            " vault's directory, or check config.vault_url",
            operation=operation,
            path=shown,
            code="wrong_tenant",
            sent=False,
        )

    def _who(self) -> str:
        return WHOSE.get(self.settings.auth_method, "the credential")

    def _session(self, kind: str) -> aiohttp.ClientSession:
        if self._open is None:
            raise BackendUnreachableError("the session is closed", operation="connect", sent=False)
        if kind not in self._sessions:
            host = self.settings.host if kind == "vault" else self._authority()
            made = (
                machine_session()
                if kind == "machine"
                else guarded_session(
                    self._policy,
                    host.partition(":")[0],
                    tls_context(self.settings.tls_verify, self._policy),
                    limit=self.settings.connections,
                    resolver=self._resolver,
                )
            )
            self._open.push_async_callback(made.close)
            self._sessions[kind] = made
        return self._sessions[kind]

    def _authority(self) -> str:
        """Who gives tokens; for a vault on loopback what the operator's environment names."""
        named = self._environ.get("AZURE_AUTHORITY_HOST", "") if self.settings.on_loopback else ""
        return named.removeprefix("https://").rstrip("/") or self.settings.cloud.authority

    # --- login --------------------------------------------------------------------

    async def _sign_in(self, _refused: _Login | None) -> _Login:
        since = self._clock()
        made, where = await self._made()
        scope = f"{self.settings.cloud.resource}/.default"

        async def attempt() -> tuple[SecretValue, int]:
            try:
                async with asyncio.timeout(self.settings.timeout):
                    token = await made.get_token(scope)
            except (
                AzureError,
                TimeoutError,
                ValueError,
                KeyError,
                OSError,
                TooLargeError,
            ) as error:
                raise of_login(error, self.settings.auth_method, where) from None
            return SecretValue(token.token), token.expires_on

        token, expires_on = await self._login_call(attempt)
        # Entra says for how long a token is good; the SDK adds that to this machine's clock.
        ttl = max(60.0, expires_on - time.time())
        given = Given(token, expires_on)
        client = SecretClient(
            self.settings.vault_url,
            given,
            transport=transport(self._session("vault"), seconds=self.settings.timeout),
            verify_challenge_resource=not self.settings.on_loopback,
            api_version=API_VERSION,
            permit_redirects=False,
            **ONCE,
        )
        return _Login(client, given, since, ttl)

    async def _made(self) -> tuple[SdkCredential, str]:
        """The SDK's credential, made anew, and what it is by, for a person."""
        seconds = self.settings.timeout
        # With its scheme: the SDK takes the name before a port for one.
        authority = f"https://{self._authority()}"
        if self.settings.auth_method in STATIC:
            credential = await self._credential()
            http = transport(self._session("login"), seconds=seconds)
            what = self.settings.auth_method.replace("_", " ")
            return (
                by_credential(self.settings, credential, http, authority),
                f"the {what} at {credential.where}",
            )
        kind = "machine" if self.settings.auth_method == "managed_identity" else "login"
        if kind == "machine":
            seconds = min(seconds, MACHINE_SECONDS)
        http = transport(self._session(kind), seconds=seconds)
        made = of_this_process(self.settings, http, authority, self._environ)
        return made, self._who()
