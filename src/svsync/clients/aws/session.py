"""One signed-in session with AWS.

Who svsync is comes from static keys or from the process's own identity, and a role may
be assumed from there. Keys that end are replaced at two thirds of their life, before the
next call; keys that AWS refuses are replaced once, and nothing is tried in turn.

Of the SDK's own chain only what calls no service of AWS is used. STS is called by this
session itself: within the region, or at `endpoint_url` where that is set, under the
backend's limits, and to addresses that may be called.
"""

import asyncio
import contextlib
import email.utils
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from yarl import URL

from svsync.clients.aws.refusals import (
    KeysRefusedError,
    WrongRegionError,
    of_answer,
    of_failure,
    of_identity,
)
from svsync.clients.aws.sdk import keys_of_machine, sdk
from svsync.clients.aws.settings import AwsSettings
from svsync.clients.aws.transport import Sockets, config
from svsync.clients.logins import CountedCall, KeptLogin, uncounted
from svsync.domain.errors import BackendError, BackendUnreachableError, LoginError, ThrottledError
from svsync.domain.values import Credential, SecretValue
from svsync.network import NetworkPolicy

T = TypeVar("T")

_ASK_AGAIN: Final = 600.0
"""Seconds for which keys of the machine are used; the SDK replaces them a quarter of an
hour before they end."""
_ROLE_SECONDS: Final = 3600
_NO_IDENTITY: Final = (BotoCoreError, OSError, ValueError, LookupError, TypeError)
"""What the SDK's chain raises where a machine gives nothing that can be used: an address
that may not be asked, a file that is not there, an answer that lacks a field."""


@dataclass(frozen=True, slots=True)
class _Keys:
    access_key_id: SecretValue
    secret_access_key: SecretValue
    session_token: SecretValue | None = None


@dataclass(frozen=True, slots=True)
class _Login:
    """Keys, since when (monotonic), and for how long (seconds, 0: for ever)."""

    keys: _Keys
    since: float
    ttl: float = 0.0


class AwsSession:
    """Calls to services of one region with one login. Use as an async context manager.

    Safe for concurrent use. Makes each call once, but for a single new login when AWS
    refuses the keys, which it does before it does anything else.

    Args:
        credential: asked at each login with static keys, so that changed ones are picked up.
        login_call: runs every call to STS.
        clock: monotonic seconds.
        environ: where a web identity is named.
    """

    def __init__(
        self,
        settings: AwsSettings,
        credential: Callable[[], Awaitable[Credential]],
        policy: NetworkPolicy,
        *,
        login_call: CountedCall = uncounted,
        clock: Callable[[], float] = time.monotonic,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._credential = credential
        self._policy = policy
        self._login_call = login_call
        self._clock = clock
        self._environ = environ
        self._login = KeptLogin[_Login](self._sign_in, clock=clock)
        self._client_lock = asyncio.Lock()
        self._clients: dict[tuple[str, bool], tuple[Any, Any]] = {}
        self._open: contextlib.AsyncExitStack | None = None
        self._machine: Any = None

    async def __aenter__(self) -> Self:
        self._open = contextlib.AsyncExitStack()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections and forget the keys; may run twice. Keys cannot be revoked."""
        opened, self._open = self._open, None
        self._login.forget()
        self._clients.clear()
        if opened is not None:
            await opened.aclose()

    async def sign_in(self, service: str) -> None:
        """Get keys unless that is done, and be ready to call a service; LoginError where
        there are none."""
        login = await self._login.get()
        await self._client(service, login.keys)

    async def call(
        self,
        service: str,
        method: str,
        parameters: Mapping[str, Any],
        *,
        operation: str,
        shown: str | None = None,
    ) -> dict[str, Any]:
        """One call, such as `("secretsmanager", "describe_secret", {"SecretId": …})`.

        Args:
            operation: list, metadata, read, write, delete or connect; for errors.
            shown: the remote path asked for, for errors.

        Raises BackendUnreachableError, ThrottledError, ProtocolError, LoginError,
        DeniedError, and AwsRefusedError for any other refusal; `sent` is false where
        surely nothing was done.
        """
        login = await self._login.get()
        for may_sign_in in (True, False):
            try:
                return await self._send(service, method, parameters, login.keys, operation, shown)
            except KeysRefusedError as refused:
                if not may_sign_in:
                    raise LoginError(
                        "AWS refuses the keys right after a new login: check them, and that the"
                        f" account has enabled the region {self._settings.region}",
                        operation=operation,
                        path=shown,
                        status=refused.status,
                        sent=False,
                    ) from None
            login = await self._login.get(login)
        raise AssertionError("the second try returns or raises")

    async def sign(
        self, service: str, url: str, body: str, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """The headers of a POST that somebody else will send, signed for the session's
        region by Signature Version 4, `Host` told by the URL. Nothing is called but for
        the keys; raises what getting them raises.
        """
        keys = (await self._login.get()).keys
        token = keys.session_token
        signer = Credentials(
            keys.access_key_id.reveal(),
            keys.secret_access_key.reveal(),
            None if token is None else token.reveal(),
        )
        request = AWSRequest(method="POST", url=url, data=body, headers=dict(headers))
        SigV4Auth(signer, service, self._settings.region).add_auth(request)
        return {str(name): str(value) for name, value in request.headers.items()}

    # --- calls --------------------------------------------------------------------

    async def _send(
        self,
        service: str,
        method: str,
        parameters: Mapping[str, Any],
        keys: _Keys | None,
        operation: str,
        shown: str | None,
    ) -> dict[str, Any]:
        client = await self._client(service, keys)
        try:
            async with asyncio.timeout(self._settings.timeout):
                answer: dict[str, Any] = await getattr(client, method)(**parameters)
        except ClientError as error:
            raise of_answer(error, operation, shown) from None
        except (BotoCoreError, ResponseParserError, TimeoutError) as error:
            raise of_failure(error, operation, shown) from None
        return answer

    async def _client(self, service: str, keys: _Keys | None) -> Any:
        """The SDK's client of a service, which signs with these keys from here on."""
        async with self._client_lock:
            if self._open is None:
                raise BackendUnreachableError(
                    "the session is closed", operation="connect", sent=False
                )
            if (service, keys is None) not in self._clients:
                self._clients[service, keys is None] = await self._make(self._open, service)
            client, held = self._clients[service, keys is None]
            if keys is not None:
                held.access_key = keys.access_key_id.reveal()
                held.secret_key = keys.secret_access_key.reveal()
                token = keys.session_token
                held.token = None if token is None else token.reveal()
            return client

    async def _make(self, opened: contextlib.AsyncExitStack, service: str) -> tuple[Any, Any]:
        session = sdk()
        session.set_credentials("none", "none")
        held = await session.get_credentials()
        sockets = Sockets(self._policy)
        client = await opened.enter_async_context(
            session.create_client(
                service,
                region_name=self._settings.region,
                endpoint_url=self._settings.endpoint_url or None,
                config=config(self._settings, sockets),
            )
        )
        sockets.host = URL(client.meta.endpoint_url).host or ""
        return client, held

    # --- login --------------------------------------------------------------------

    async def _sign_in(self, refused: _Login | None) -> _Login:
        since = self._clock()
        if self._settings.static:
            credential = await self._credential()
            login = _Login(
                _Keys(
                    credential.require("access_key_id"),
                    credential.require("secret_access_key"),
                    credential.get("session_token"),
                ),
                since,
            )
            if refused is not None and not self._settings.role_arn and refused.keys == login.keys:
                raise LoginError(
                    f"AWS refuses the keys at {credential.where}: store new ones, or check that"
                    f" the account has enabled the region {self._settings.region}",
                    operation="login",
                )
        else:
            login = await self._of_this_process(since)
        return await self._assume(login.keys, since) if self._settings.role_arn else login

    async def _of_this_process(self, since: float) -> _Login:
        web = self._environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
        role = self._environ.get("AWS_ROLE_ARN")
        if web and role and not self._environ.get("AWS_ACCESS_KEY_ID"):
            return await self._by_web_identity(Path(web), role, since)
        try:
            if self._machine is None:
                self._machine = await keys_of_machine(sdk({}))
            frozen = await self._machine.get_frozen_credentials()
        except _NO_IDENTITY:
            raise of_identity() from None
        token = SecretValue(frozen.token) if frozen.token else None
        keys = _Keys(SecretValue(frozen.access_key), SecretValue(frozen.secret_key), token)
        return _Login(keys, since, _ASK_AGAIN)

    async def _by_web_identity(self, file: Path, role: str, since: float) -> _Login:
        try:
            token = (await asyncio.to_thread(file.read_text, encoding="ascii")).strip()
        except (OSError, ValueError):
            raise LoginError(
                f"the web identity token {file} cannot be read", operation="login", sent=False
            ) from None
        parameters = {
            "RoleArn": role,
            "RoleSessionName": self._environ.get("AWS_ROLE_SESSION_NAME", "svsync"),
            "WebIdentityToken": token,
        }
        return await self._ask_sts("assume_role_with_web_identity", parameters, None, since)

    async def _assume(self, keys: _Keys, since: float) -> _Login:
        parameters: dict[str, Any] = {
            "RoleArn": self._settings.role_arn,
            "RoleSessionName": self._settings.role_session,
            "DurationSeconds": _ROLE_SECONDS,
        }
        if self._settings.external_id:
            parameters["ExternalId"] = self._settings.external_id
        return await self._ask_sts("assume_role", parameters, keys, since)

    async def _ask_sts(
        self, method: str, parameters: Mapping[str, Any], keys: _Keys | None, since: float
    ) -> _Login:
        try:
            answer = await self._login_call(
                lambda: self._send("sts", method, parameters, keys, "login", None)
            )
        except (BackendUnreachableError, ThrottledError, WrongRegionError):
            raise
        except BackendError as error:
            if error.code in ("clock_skew", "endpoint_refused", "call_budget_spent"):
                raise
            if keys is None and isinstance(error, KeysRefusedError):
                # Nothing signs that request, so what has ended is the token that it carries
                # (STS API reference, AssumeRoleWithWebIdentity, ExpiredTokenException).
                raise LoginError(
                    "the token in AWS_WEB_IDENTITY_TOKEN_FILE has expired, and nobody renews the"
                    " file that it stands in",
                    operation="login",
                    status=error.status,
                    sent=False,
                ) from None
            role = parameters["RoleArn"]
            raise LoginError(
                f"STS does not let svsync assume {role}: check the keys, the role's trust policy"
                " and the external id in it",
                operation="login",
                status=error.status,
            ) from None
        return _login_of(answer, since)


def _login_of(answer: Mapping[str, Any], since: float) -> _Login:
    """The keys that STS gave. They end by AWS's clock, which is asked as a length of time."""
    given = answer.get("Credentials")
    ends = given.get("Expiration") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(ends, datetime):
        raise LoginError("the answer of STS holds no keys", operation="login", sent=False)
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    ttl = max(60.0, (ends - _moment(date)).total_seconds())
    keys = _Keys(
        SecretValue(str(given.get("AccessKeyId"))),
        SecretValue(str(given.get("SecretAccessKey"))),
        SecretValue(str(given.get("SessionToken"))),
    )
    return _Login(keys, since, ttl)


def _moment(date: str) -> datetime:
    """The server's own clock, from its Date header; ours where it sends none."""
    try:
        moment = email.utils.parsedate_to_datetime(date)
    except ValueError:
        return datetime.now(UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
