"""One signed-in session with a HashiCorp Vault or OpenBao server.

Signing in is apart from use: `auth_method` chooses the method and nothing is
tried in turn. A token is renewed at two thirds of its life, replaced once when
the server no longer knows it, and revoked at the end if this session made it.

hvac's own classes sign in, renew and revoke, over an adapter whose `request`
is a coroutine; reads go past them, because what is read keeps its exact text.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, Self, TypeVar

import hvac.adapters
from hvac.api.auth_methods import AppRole, Token
from hvac.api.system_backend import Wrapping

from svsync.clients.vault.transport import Answer, VaultSettings, VaultTransport
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    LoginError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.values import Credential, SecretValue
from svsync.network import NetworkPolicy

T = TypeVar("T")

_RENEW_AT: Final = 2 / 3
_REVOKE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Login:
    """A token, since when (monotonic), and for how long (seconds, 0: for ever)."""

    token: SecretValue
    since: float
    ttl: float
    renewable: bool
    made_here: bool


@contextlib.contextmanager
def nothing_sent() -> Iterator[None]:
    """What fails in this block fails before a request, or after it was turned away:
    signing in and finding the way, whose own calls change nothing."""
    try:
        yield
    except BackendError as error:
        error.sent = False
        raise


class CountedCall(Protocol):
    """Runs one call of the class `login` under the backend's limits and counts it."""

    def __call__(self, attempt: Callable[[], Awaitable[T]], /) -> Awaitable[T]: ...


async def _uncounted(attempt: Callable[[], Awaitable[T]]) -> T:
    return await attempt()


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
        login_call: CountedCall = _uncounted,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._credential = credential
        self._policy = policy
        self._login_call = login_call
        self._clock = clock
        self._sleep = sleep
        self._login: _Login | None = None
        self._login_lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._unwrapped: tuple[SecretValue, SecretValue] | None = None
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
                        await Token(_HvacAdapter(transport, login.token)).revoke_self()
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

    async def _current_login(self) -> _Login:
        return self._login or await self._login_after(None)

    async def _login_after(self, seen: _Login | None) -> _Login:
        """A login newer than `seen`; concurrent callers share one."""
        async with self._login_lock:
            if self._login is not None and (seen is None or self._login.token is not seen.token):
                return self._login
            self._login = None
            login = await self._login_call(lambda: self._sign_in(seen))
            self._login = login
            if self._renewal is not None:
                self._renewal.cancel()
            self._renewal = None
            if login.renewable and login.ttl > 0:
                self._renewal = asyncio.create_task(self._renew_in_time(login))
            return login

    async def _sign_in(self, seen: _Login | None) -> _Login:
        credential = await self._credential()
        if self._settings.auth_method == "token":
            return await self._sign_in_by_token(credential, seen)
        return await self._sign_in_by_approle(credential)

    async def _sign_in_by_token(self, credential: Credential, seen: _Login | None) -> _Login:
        token = credential.require("token")
        if seen is not None and seen.token == token:
            raise LoginError(
                f"the token at {credential.where} is no longer accepted: store a new one",
                operation="login",
            )
        since = self._clock()
        answer = await self._look_up_self(token)
        if answer.status in (401, 403):
            if not answer.token_accepted:
                raise LoginError(
                    f"the backend refuses the token at {credential.where}",
                    operation="login",
                    status=answer.status,
                )
            # A token may be good and yet not allowed to look at itself.
            return _Login(token, since, 0.0, renewable=False, made_here=False)
        data = _mapping(answer.json().get("data"))
        return _Login(
            token, since, _number(data.get("ttl")), data.get("renewable") is True, made_here=False
        )

    async def _sign_in_by_approle(self, credential: Credential) -> _Login:
        role_id = credential.require("role_id")
        secret_id = await self._secret_id(credential)
        since = self._clock()
        answer = await AppRole(self._adapter(None)).login(
            role_id.reveal(),
            secret_id.reveal(),
            use_token=False,
            mount_point=self._settings.auth_mount or "approle",
        )
        return _made(answer, since)

    async def _secret_id(self, credential: Credential) -> SecretValue:
        """The secret_id; a wrapped one is unwrapped once and kept for later logins."""
        if "wrapped_secret_id" not in credential:
            return credential.require("secret_id")
        wrapped = credential.require("wrapped_secret_id")
        if self._unwrapped is not None and self._unwrapped[0] == wrapped:
            return self._unwrapped[1]
        try:
            answer = await Wrapping(self._adapter(wrapped)).unwrap()
        except LoginError as refused:
            raise LoginError(
                f"the wrapped_secret_id at {credential.where} was unwrapped before or has expired:"
                " store a new one, and if nobody here used it, treat it as stolen",
                operation="login",
                status=refused.status,
            ) from None
        secret_id = _mapping(answer.get("data")).get("secret_id")
        if not isinstance(secret_id, str):
            raise LoginError(
                f"what the wrapped_secret_id at {credential.where} holds is no secret_id",
                operation="login",
            )
        self._unwrapped = (wrapped, SecretValue(secret_id))
        return self._unwrapped[1]

    async def _renew_in_time(self, login: _Login) -> None:
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
            auth = _mapping(renewed.get("auth"))
            ttl = _number(auth.get("lease_duration"))
            if ttl <= 0 or (ttl < first_ttl / 2 and login.made_here):
                break  # its longest life comes to an end
            login = replace(login, since=since, ttl=ttl)
            due = since + ttl * _RENEW_AT
        if login.made_here and self._login is not None and self._login.token is login.token:
            self._login = None

    async def _renew(self, token: SecretValue) -> dict[str, Any]:
        renewed: dict[str, Any] = await Token(self._adapter(token)).renew_self()
        return renewed

    async def _knows(self, login: _Login, refusal: Answer) -> bool:
        """Whether the server still knows the token whose call it refused."""
        return refusal.token_accepted or await self._accepts(login.token)

    async def _accepts(self, token: SecretValue) -> bool:
        answer = await self._login_call(lambda: self._look_up_self(token))
        return answer.status == 200 or answer.token_accepted

    async def _look_up_self(self, token: SecretValue) -> Answer:
        return await self._transport.send(
            "GET", "auth/token/lookup-self", operation="login", token=token
        )

    def _adapter(self, token: SecretValue | None) -> "_HvacAdapter":
        return _HvacAdapter(self._transport, token)


class _HvacAdapter(hvac.adapters.Adapter):  # type: ignore[misc]
    """hvac's transport, over this session: what it returns is awaited.

    Every client error is a refused login here, for these calls are all about
    the token itself.
    """

    def __init__(self, transport: VaultTransport, token: SecretValue | None) -> None:
        # A session is handed in only to keep hvac from opening one of `requests`.
        super().__init__(session=_NoRequests())
        self._transport = transport
        self._secret = token

    def get_login_token(self, response: Mapping[str, Any]) -> str:
        return str(response["auth"]["client_token"])

    async def request(
        self, method: str, url: str, json: object = None, **_: object
    ) -> dict[str, Any]:
        try:
            answer = await self._transport.send(
                method.upper(),
                url.removeprefix("/v1/"),
                operation="login",
                token=self._secret,
                body=json,
            )
        except (BackendUnreachableError, ThrottledError, ProtocolError):
            raise
        except BackendError as refused:
            raise _login_refused(refused.status) from None
        if answer.status >= 400:
            raise _login_refused(answer.status)
        return answer.json()


class _NoRequests:
    verify = cert = proxies = None


def _login_refused(status: int | None) -> LoginError:
    return LoginError(
        "the backend refuses the login: check credential, auth_method and auth_mount",
        operation="login",
        status=status,
    )


def _made(answer: Mapping[str, Any], since: float) -> _Login:
    auth = _mapping(answer.get("auth"))
    token = auth.get("client_token")
    if not isinstance(token, str):
        raise ProtocolError("the login's answer holds no token", operation="login")
    return _Login(
        SecretValue(token),
        since,
        _number(auth.get("lease_duration")),
        renewable=auth.get("renewable") is True,
        # A batch token cannot be revoked; it ends by itself.
        made_here=auth.get("token_type") != "batch",
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
