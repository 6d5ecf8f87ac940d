"""One signed-in session with a service of Google Cloud.

Who svsync is comes from a credential or from this process's own identity; see `tokens`.
A token is replaced at two thirds of its life, before the next call; one that Google
refuses is replaced once, and nothing is tried in turn. The SDK is handed neither
credentials nor retries: each call carries its token, and is made once.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from google.api_core.exceptions import GoogleAPICallError
from grpc import ChannelConnectivity
from grpc.aio import UsageError

from svsync.clients.gcp.addresses import Dial
from svsync.clients.gcp.channel import Connection
from svsync.clients.gcp.refusals import TokenRefusedError, closed, of_call
from svsync.clients.gcp.settings import GcpSettings, Service
from svsync.clients.gcp.token_http import TokenHttp
from svsync.clients.gcp.tokens import Tokens
from svsync.clients.logins import CountedCall, KeptLogin, uncounted
from svsync.domain.errors import BackendUnreachableError, LoginError
from svsync.domain.values import Credential, SecretValue
from svsync.network import NetworkPolicy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Login:
    """A token, since when (monotonic), for how long (seconds), and where its identity is."""

    token: SecretValue
    since: float
    ttl: float
    where: str


class GcpSession:
    """Calls to one service with one login. Use as an async context manager.

    Safe for concurrent use. Makes each call once, but for a single new login when Google
    refuses the token, which it does before it does anything else.

    Args:
        credential: asked at each login with one, so that a changed one is picked up.
        login_call: runs every login.
        clock: monotonic seconds. now: seconds since 1970, for what is signed.
        environ: where the process's own identity is named.
    """

    def __init__(
        self,
        settings: GcpSettings,
        service: Service,
        credential: Callable[[], Awaitable[Credential]],
        policy: NetworkPolicy,
        *,
        dial: Dial | None = None,
        login_call: CountedCall = uncounted,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._credential = credential
        self._login_call = login_call
        self._clock = clock
        dial = dial or Dial()
        http = TokenHttp(policy, dial, settings.timeout)
        self._tokens = Tokens(http, settings.federated, now, environ)
        self._connection = Connection(service, policy, dial)
        self._login = KeptLogin[_Login](self._sign_in, clock=clock)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection and forget the token, which cannot be revoked; may run twice."""
        self._closed = True
        self._login.forget()
        await self._connection.aclose()

    async def sign_in(self) -> None:
        """Get a token unless that is done; LoginError where there is none to be had."""
        await self._login.get()

    async def call(
        self,
        method: str,
        request: Mapping[str, Any],
        *,
        operation: str,
        shown: str | None = None,
    ) -> Any:
        """One call, such as `("get_secret", {"name": …})`; the SDK's answer.

        Args:
            operation: list, metadata, read, write, delete or connect; for errors.
            shown: the remote path asked for, for errors.

        Raises BackendUnreachableError, ThrottledError, ProtocolError, LoginError,
        DeniedError, and GcpRefusedError for any other refusal; `sent` is false where
        surely nothing was done.
        """
        login = await self._login.get()
        for may_sign_in in (True, False):
            try:
                return await self._send(method, request, login.token, operation, shown)
            except TokenRefusedError as refused:
                if not may_sign_in:
                    raise LoginError(
                        f"Google refuses a token that it has just given for {login.where}: check"
                        " that the account is enabled",
                        operation=operation,
                        path=shown,
                        status=refused.status,
                        sent=False,
                    ) from None
            login = await self._login.get(login)
        raise AssertionError("the second try returns or raises")

    async def _send(
        self,
        method: str,
        request: Mapping[str, Any],
        token: SecretValue,
        operation: str,
        shown: str | None,
    ) -> Any:
        async with self._connection.client() as client:
            try:
                return await getattr(client, method)(
                    request=dict(request),
                    retry=None,
                    timeout=self._settings.timeout,
                    metadata=[("authorization", f"Bearer {token.reveal()}")],
                )
            except GoogleAPICallError as error:
                connected = client.transport.grpc_channel.get_state() is ChannelConnectivity.READY
                found = of_call(error, operation, shown, connected=connected)
                if isinstance(found, BackendUnreachableError):
                    await self._connection.give_up(client)
                raise found from None
            except UsageError:  # the channel was closed meanwhile
                raise closed() from None
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # gRPC ends a call so, too, whose channel is closed. Whoever called was not
                # cancelled, and would end without a word.
                raise BackendUnreachableError(
                    f"the session was closed during {operation}", operation=operation, path=shown
                ) from None

    # --- login --------------------------------------------------------------------

    async def _sign_in(self, _refused: _Login | None) -> _Login:
        if self._closed:
            raise closed()
        since = self._clock()
        if not self._settings.static:
            token = await self._login_call(self._tokens.of_process)
            return _Login(token.text, since, token.lasts, "this process's own identity")
        credential = await self._credential()
        token = await self._login_call(lambda: self._tokens.of(credential))
        return _Login(token.text, since, token.lasts, credential.where)
