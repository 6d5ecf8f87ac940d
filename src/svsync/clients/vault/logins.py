"""Signing in to a Vault: what each `auth_method` sends, and what a refusal of it says.

A login as a role is one request: the role, and a proof of who asks that is made or read
anew for it. `kubernetes` sends the service account's token. For `aws` and `gcp` the
credential is the proof: a signed GetCallerIdentity request, a signed JWT. hvac's own
classes sign in by AppRole and unwrap, over an adapter whose `request` is a coroutine.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hvac.adapters
from hvac.api.auth_methods import AppRole
from hvac.api.system_backend import Wrapping

from svsync.clients.vault.settings import VaultSettings
from svsync.clients.vault.transport import REFUSALS, Answer, VaultTransport
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    LoginError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.values import Credential, SecretValue

_MAX_TOKEN_FILE: Final = 64 * 1024
_LEEWAY_S: Final = 60.0
"""By so much two clocks may differ before a proof is looked at for it."""


@dataclass(frozen=True, slots=True)
class Login:
    """A token, since when (monotonic), and for how long (seconds, 0: for ever).

    `made_here`: this session asked for it, and revokes it.
    """

    token: SecretValue
    since: float
    ttl: float
    renewable: bool
    made_here: bool


class VaultLogins:
    """Logins by the one method that is configured; nothing is tried in turn.

    Args:
        credential: asked at each login, so that a changed one is picked up.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: VaultSettings,
        credential: Callable[[], Awaitable[Credential]],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._credential = credential
        self._clock = clock
        self._unwrapped: tuple[SecretValue, SecretValue] | None = None

    async def sign_in(self, transport: VaultTransport, seen: Login | None) -> Login:
        """A new login, other than one that the server no longer knows.

        Raises LoginError when the credential is refused, ConfigError when it is none of
        this method, and what `VaultTransport.send` raises.
        """
        match self._settings.auth_method:
            case "token":
                return await self._by_token(transport, await self._credential(), seen)
            case "approle":
                return await self._by_approle(transport, await self._credential())
            case "kubernetes":
                return await self._as_role(transport, await self._service_account())
            case _:
                return await self._as_role(transport, await self._credential())

    async def _by_token(
        self, transport: VaultTransport, credential: Credential, seen: Login | None
    ) -> Login:
        token = credential.require("token")
        if seen is not None and seen.token == token:
            raise LoginError(
                f"the token at {credential.where} is no longer accepted: store a new one",
                operation="login",
            )
        since = self._clock()
        answer = await look_up_self(transport, token)
        if answer.status in (401, 403):
            if not answer.token_accepted:
                raise LoginError(
                    f"the backend refuses the token at {credential.where}",
                    operation="login",
                    status=answer.status,
                )
            # A token may be good and yet not allowed to look at itself.
            return Login(token, since, 0.0, renewable=False, made_here=False)
        data = mapping_of(answer.json().get("data"))
        return Login(
            token, since, number_of(data.get("ttl")), data.get("renewable") is True, made_here=False
        )

    async def _by_approle(self, transport: VaultTransport, credential: Credential) -> Login:
        role_id = credential.require("role_id")
        secret_id = await self._secret_id(transport, credential)
        since = self._clock()
        answer = await AppRole(HvacAdapter(transport, None)).login(
            role_id.reveal(),
            secret_id.reveal(),
            use_token=False,
            mount_point=self._settings.mount,
        )
        return _made(answer, since)

    async def _secret_id(self, transport: VaultTransport, credential: Credential) -> SecretValue:
        """The secret_id; a wrapped one is unwrapped once and kept for later logins."""
        if "wrapped_secret_id" not in credential:
            return credential.require("secret_id")
        wrapped = credential.require("wrapped_secret_id")
        if self._unwrapped is not None and self._unwrapped[0] == wrapped:
            return self._unwrapped[1]
        try:
            answer = await Wrapping(HvacAdapter(transport, wrapped)).unwrap()
        except LoginError as refused:
            raise LoginError(
                f"the wrapped_secret_id at {credential.where} was unwrapped before or has expired:"
                " store a new one, and if nobody here used it, treat it as stolen",
                operation="login",
                status=refused.status,
            ) from None
        secret_id = mapping_of(answer.get("data")).get("secret_id")
        if not isinstance(secret_id, str):
            raise LoginError(
                f"what the wrapped_secret_id at {credential.where} holds is no secret_id",
                operation="login",
            )
        self._unwrapped = (wrapped, SecretValue(secret_id))
        return self._unwrapped[1]

    async def _as_role(self, transport: VaultTransport, proof: Credential) -> Login:
        """One request with the role and every field of the proof."""
        settings, since = self._settings, self._clock()
        answer = await transport.send(
            "POST",
            f"auth/{settings.mount}/login",
            operation="login",
            body={"role": settings.role, **{key: proof[key].reveal() for key in proof}},
            refusals=(*REFUSALS, 400),
        )
        if answer.status >= 400:
            raise refusal_of(answer, settings, proof)
        return _made(answer.json(), since)

    async def _service_account(self) -> Credential:
        """The token of the service account, which is replaced in its file before it ends."""
        path = self._settings.jwt_path
        if not path:
            credential = await self._credential()
            return Credential({"jwt": credential.require("token")}, credential.where)
        try:
            text = await asyncio.to_thread(_read_token, Path(path))
        except (OSError, ValueError):
            raise LoginError(
                f"the service account's token {path} cannot be read: mount one into the pod, or"
                " name its file in config.jwt_path",
                operation="login",
                sent=False,
            ) from None
        return Credential({"jwt": SecretValue(text)}, path)


# --- what a refusal says --------------------------------------------------------------

_NO_ROLE: Final = (
    "invalid role name",  # kubernetes
    "could not be found",  # jwt, which also answers on `gcp`
    "could not load role",
    "entry for role",  # aws
    "not found",  # gcp
)
_OTHER_AUDIENCE: Final = ("audience", "(aud)", "claim 'aud'")
_OTHER_SERVER: Final = "X-Vault-AWS-IAM-Server-ID"
_SKEWED: Final = ("Signature expired", "Signature not yet current")
"""STS's words, which Vault repeats."""
_EXPIRED: Final = ("token is expired", "JWT is expired", "ExpiredToken")
_KEYS_REFUSED: Final = ("InvalidClientTokenId", "SignatureDoesNotMatch")


def refusal_of(answer: Answer, settings: VaultSettings, proof: Credential) -> LoginError:
    """Why a login as a role was refused, in one sentence, without a word of the server.

    The times in a JWT are held against the server's own clock: not every method tells
    an expired one from any other.
    """
    text, role, mount = answer.text, settings.role, f"auth/{settings.mount}"
    expired, ahead = _times(answer, proof)
    code = None
    if any(word in text for word in _SKEWED) or ahead or (expired and not _is_given(settings)):
        code = "clock_skew"
        says = "this machine's clock and the backend's are too far apart: set the clock, by NTP"
    elif expired or any(word in text for word in _EXPIRED):
        says = f"the token at {proof.where} has expired: whoever renews it has stopped doing so"
    elif _OTHER_SERVER in text:
        says = (
            f"{mount} asks for another server id: set config.aws_server_id to the"
            " iam_server_id_header_value of its configuration"
        )
    elif any(word in text for word in _KEYS_REFUSED):
        says = (
            f"STS refuses the keys from {proof.where}, or {mount} asks another STS than signed"
            " for: check the keys, and config.aws_region against its sts_region"
        )
    elif any(word in text for word in _OTHER_AUDIENCE):
        says = (
            f"the role {role} of {mount} is for another audience than the token from"
            f" {proof.where}: make the two the same"
        )
    elif any(word in text for word in _NO_ROLE):
        says = f"{mount} has no role {role}: check config.role and config.auth_mount"
    else:
        says = (
            f"the backend does not let svsync in as the role {role}: check that {mount} is there"
            f" and that what the role is bound to fits the identity from {proof.where}"
        )
    return LoginError(says, operation="login", status=answer.status, code=code)


def _is_given(settings: VaultSettings) -> bool:
    """Was the JWT made by somebody else, some time ago? Others are made for one login."""
    return settings.auth_method == "kubernetes"


def _times(answer: Answer, proof: Credential) -> tuple[bool, bool]:
    """By the server's clock: has the JWT of the proof expired, is it of the future?"""
    now = answer.server_time
    claims = _claims(proof["jwt"].reveal()) if "jwt" in proof else {}
    ends, *begins = (_seconds(claims.get(name)) for name in ("exp", "nbf", "iat"))
    if now is None:
        return False, False
    latest = now.timestamp() + _LEEWAY_S
    expired = ends is not None and ends <= now.timestamp()
    return expired, any(begin is not None and begin > latest for begin in begins)


def _claims(jwt: str) -> Mapping[str, Any]:
    """What a JWT says, unverified; nothing is granted upon it."""
    parts = jwt.split(".")
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return mapping_of(found)


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _read_token(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(_MAX_TOKEN_FILE + 1)
    text = raw.decode("ascii").strip()
    if not text or len(raw) > _MAX_TOKEN_FILE:
        raise ValueError
    return text


# --- hvac -------------------------------------------------------------------------------


class HvacAdapter(hvac.adapters.Adapter):  # type: ignore[misc]
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


# --- answers ----------------------------------------------------------------------------


async def look_up_self(transport: VaultTransport, token: SecretValue) -> Answer:
    """What the server says of a token: 200, or 401 and 403."""
    return await transport.send("GET", "auth/token/lookup-self", operation="login", token=token)


def _made(answer: Mapping[str, Any], since: float) -> Login:
    auth = mapping_of(answer.get("auth"))
    token = auth.get("client_token")
    if not isinstance(token, str):
        raise ProtocolError("the login's answer holds no token", operation="login")
    return Login(
        SecretValue(token),
        since,
        number_of(auth.get("lease_duration")),
        renewable=auth.get("renewable") is True,
        # A batch token cannot be revoked; it ends by itself.
        made_here=auth.get("token_type") != "batch",
    )


def mapping_of(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def number_of(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
