"""One signed-in session with a HashiCorp Vault or OpenBao server.

Signing in is apart from use, in `logins`. A token is renewed at two thirds of its
life, replaced once when the server no longer knows it, and revoked at the end if
this session made it.

hvac's own classes renew and revoke; reads go past them, because what is read keeps
its exact text.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self, TypeVar

from hvac.api.auth_methods import Token

from svsync.clients.logins import CountedCall, uncounted
from svsync.clients.vault.logins import (
    HvacAdapter,
    Login,
    VaultLogins,
    look_up_self,
    mapping_of,
    number_of,
)
from svsync.clients.vault.settings import VaultSettings
from svsync.clients.vault.transport import Answer, VaultTransport
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    LoginError,
    ThrottledError,
)
from svsync.domain.values import Credential, SecretValue
from svsync.network import NetworkPolicy

T = TypeVar("T")

_RENEW_AT: Final = 2 / 3
_REVOKE_SECONDS: Final = 5.0


@contextlib.contextmanager
def nothing_sent() -> Iterator[None]:
    """What fails in this block fails before a request, or after it was turned away:
    signing in and finding the way, whose own calls change nothing."""
    try:
        yield
    except BackendError as error:
        error.sent = False
        raise


class VaultSession:
    """Requests to one server with one login. Use as an async context manager.

    Safe for concurrent use. Makes each call once, but for a single new login
    when the server no longer knows the token.

    Args:
        credential: asked at each login, so that a changed one is picked up.
        login_call: runs every call that is about the token itself.
        clock, sleep: monotonic seconds, and waiting by them.
    """

    def __init__(
        self,
        settings: VaultSettings,
        credential: Callable[[], Awaitable[Credential]],
        policy: NetworkPolicy,
        *,
        login_call: CountedCall = uncounted,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._logins = VaultLogins(settings, credential, clock)
        self._policy = policy
        self._login_call = login_call
        self._clock = clock
        self._sleep = sleep
        self._login: Login | None = None
        self._login_lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._open_transport: VaultTransport | None = None

    async def __aenter__(self) -> Self:
        self._open_transport = VaultTransport(self._settings, self._policy)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Revoke the token if it was made here, and close connections; may run twice."""
        transport = self._open_transport
        if transport is None:
            return
        try:
            if self._renewal is not None:
                self._renewal.cancel()
                await asyncio.wait([self._renewal])
            login, self._login = self._login, None
            if login is not None and login.made_here:
                with contextlib.suppress(BackendError, TimeoutError):
                    async with asyncio.timeout(_REVOKE_SECONDS):
                        await Token(HvacAdapter(transport, login.token)).revoke_self()
        finally:
            self._open_transport = None
            await transport.aclose()

    # --- use ----------------------------------------------------------------------

    async def sign_in(self) -> None:
        """Log in unless that is done. Raises LoginError when the credential is refused."""
        await self._current_login()

    async def request(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        shown: str | None = None,
        body: object = None,
    ) -> Answer:
        """One call with the token: 2xx, or 404, which has three meanings.

        Args:
            path: below `/v1/`, percent-encoded, query included.
            operation: list, metadata, read, write, delete or connect; for errors.
            shown: the remote path asked for, for errors.
            body: see `VaultTransport.send`.

        A call is repeated only after it was refused for its token, so that a write is
        never made twice. Raises what `VaultTransport.send` raises, LoginError, and DeniedError:
        the token is good and this path is not allowed.
        """
        with nothing_sent():
            login = await self._current_login()
        for may_sign_in in (True, False):
            answer = await self._transport.send(
                method, path, operation=operation, token=login.token, shown=shown, body=body
            )
            if answer.status not in (401, 403):
                return answer
            with nothing_sent():
                if await self._knows(login, answer):
                    raise DeniedError(
                        f"the backend denies {operation} of {shown or path}",
                        operation=operation,
                        path=shown,
                        status=answer.status,
                    )
                if may_sign_in:
                    login = await self._login_after(login)
        raise LoginError(
            "the backend refuses the token right after a new login",
            operation=operation,
            path=shown,
            sent=False,
        )

    async def token(self) -> SecretValue:
        """The token of the current login, for a connection that is not a call.

        Raises LoginError when the credential is refused.
        """
        return (await self._current_login()).token

    async def token_instead_of(self, refused: SecretValue) -> SecretValue | None:
        """Another token, where the server no longer knows this one; None: it does.

        Raises LoginError where there is no other.
        """
        login = await self._current_login()
        if login.token is not refused:
            return login.token
        if await self._accepts(refused):
            return None
        return (await self._login_after(login)).token

    async def ask_server(self, path: str) -> Answer:
        """A GET about the server itself, without token and namespace."""
        return await self._transport.send("GET", path, operation="connect", namespaced=False)

    # --- login --------------------------------------------------------------------

    @property
    def _transport(self) -> VaultTransport:
        if self._open_transport is None:
            raise BackendUnreachableError("the session is closed", operation="connect", sent=False)
        return self._open_transport

    async def _current_login(self) -> Login:
        return self._login or await self._login_after(None)

    async def _login_after(self, seen: Login | None) -> Login:
        """A login newer than `seen`; concurrent callers share one."""
        async with self._login_lock:
            if self._login is not None and (seen is None or self._login.token is not seen.token):
                return self._login
            self._login = None
            login = await self._login_call(partial(self._logins.sign_in, self._transport, seen))
            self._login = login
            if self._renewal is not None:
                self._renewal.cancel()
            self._renewal = None
            if login.renewable and login.ttl > 0:
                self._renewal = asyncio.create_task(self._renew_in_time(login))
            return login

    async def _renew_in_time(self, login: Login) -> None:
        """Renew at two thirds of each life, until the server grants no more.

        A login made here is then forgotten, so that the next call makes a new
        one; a token that was given is used until it ends.
        """
        first_ttl = login.ttl
        due = login.since + login.ttl * _RENEW_AT
        while True:
            await self._sleep(max(0.0, due - self._clock()))
            since = self._clock()
            try:
                renewed = await self._login_call(partial(self._renew, login.token))
            except (BackendUnreachableError, ThrottledError):
                left = login.since + login.ttl - self._clock()
                if left < 1.0:
                    break
                due = self._clock() + left / 2
                continue
            except BackendError:
                break
            auth = mapping_of(renewed.get("auth"))
            ttl = number_of(auth.get("lease_duration"))
            if ttl <= 0 or (ttl < first_ttl / 2 and login.made_here):
                break  # its longest life comes to an end
            login = replace(login, since=since, ttl=ttl)
            due = since + ttl * _RENEW_AT
        if login.made_here and self._login is not None and self._login.token is login.token:
            self._login = None

    async def _renew(self, token: SecretValue) -> dict[str, Any]:
        renewed: dict[str, Any] = await Token(HvacAdapter(self._transport, token)).renew_self()
        return renewed

    async def _knows(self, login: Login, refusal: Answer) -> bool:
        """Whether the server still knows the token whose call it refused."""
        return refusal.token_accepted or await self._accepts(login.token)

    async def _accepts(self, token: SecretValue) -> bool:
        answer = await self._login_call(partial(look_up_self, self._transport, token))
        return answer.status == 200 or answer.token_accepted
