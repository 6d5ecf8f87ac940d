"""The feed `vault-events`: the event notifications of Vault Enterprise (1.16 and later).

One websocket, `sys/events/subscribe/kv*?json=true`, within the backend's namespace and
with the backend's own login. A message is a CloudEvent; looked at are the event's type,
its `path`, `operation` and `modified`, the mount and the namespace. Nothing is kept for
a subscriber that is away, so each connection begins with "anything may have changed".

What it needs beside the rights for reading:

    path "sys/events/subscribe/kv*" { capabilities = ["read"] }
    path "kv/*" { capabilities = ["list", "subscribe"]  subscribe_event_types = ["kv*"] }

No Vault Enterprise was at hand: the form of request and message is that of HashiCorp's
documentation, and OpenBao, which lacks the route, was seen to refuse it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Final

import aiohttp
from yarl import URL

from svsync.clients.vault import VaultSession, VaultSettings
from svsync.domain.errors import (
    BackendUnreachableError,
    ConfigError,
    ProtocolError,
    SvsyncError,
)
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem
from svsync.domain.values import SecretValue
from svsync.network import NetworkPolicy, guarded_connector, tls_context
from svsync.ports import CallGuard, CredentialSource, Notice

ANYTHING: Final = Notice("", None)
MAX_MESSAGE: Final = 1024 * 1024
MAX_PATH: Final = 4096

_HEARTBEAT_S: Final = 30.0
_HANDSHAKE_S: Final = 30.0
_VERBS: Final = frozenset({"data", "metadata", "delete", "undelete", "destroy"})


class VaultEventsFeed:
    """See `ports.ChangeFeed`. One a backend, with the settings that the backend has.

    Args:
        credential: asked at each login.
        policy: where it may connect to.

    Attributes:
        invalid: messages that are no event. `dropped`: those over MAX_MESSAGE.
    """

    def __init__(
        self, settings: VaultSettings, credential: CredentialSource, policy: NetworkPolicy
    ) -> None:
        self._settings = settings
        self._credential = credential
        self._policy = policy
        self._origin = settings.check(policy)
        self._tls = (
            tls_context(settings.tls_verify, policy) if self._origin.scheme == "https" else None
        )
        self.invalid = 0
        self.dropped = 0

    async def listen(self, tell: Callable[[Notice], None]) -> None:
        """One connection, from its gap to its end; see `ports.ChangeFeed`.

        Raises:
            ConfigError: no such notifications there, or no right to them.
            BackendError: it broke, or could not be made; to be opened anew after a while.
        """
        redirects = aiohttp.TraceConfig()
        redirects.on_request_redirect.append(_refuse_redirect)
        async with (
            VaultSession(self._settings, self._credential, self._policy) as session,
            aiohttp.ClientSession(
                connector=guarded_connector(
                    self._policy, self._origin.host or "", tls=self._tls, limit=1
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=_HANDSHAKE_S),
                trace_configs=[redirects],
            ) as http,
        ):
            try:
                async with await self._connected(session, http) as socket:
                    tell(ANYTHING)
                    async for message in socket:
                        self._look_at(message, tell)
                    # One that is too long ends the subscription, and with it comes a gap.
                    self.dropped += socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
            except (aiohttp.ClientError, TimeoutError, OSError):
                # What aiohttp raises holds the request, and so the token.
                raise BackendUnreachableError(
                    "the endpoint takes no subscription to events now", operation="connect"
                ) from None
        raise BackendUnreachableError("the subscription to events broke", operation="connect")

    def _look_at(self, message: aiohttp.WSMessage, tell: Callable[[Notice], None]) -> None:
        try:
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise ValueError("not a text")
            notices = notices_of(message.data, self._settings.namespace)
        except ValueError:
            self.invalid += 1
            return
        for notice in notices:
            tell(notice)

    async def _connected(
        self, session: VaultSession, http: aiohttp.ClientSession
    ) -> aiohttp.ClientWebSocketResponse:
        """A subscription; a token that the server forgot is replaced once."""
        token: SecretValue | None = await session.token()
        status = 0
        while token is not None:
            try:
                return await self._handshake(http, token)
            except aiohttp.WSServerHandshakeError as refused:
                again, status = refused.status in (401, 403) and not status, refused.status
            token = await session.token_instead_of(token) if again else None
        raise _refusal(status)

    async def _handshake(
        self, http: aiohttp.ClientSession, token: SecretValue
    ) -> aiohttp.ClientWebSocketResponse:
        headers = {"X-Vault-Token": token.reveal(), "X-Vault-Request": "true"}
        if self._settings.namespace:
            headers["X-Vault-Namespace"] = self._settings.namespace
        url = URL.build(
            scheme=self._origin.scheme,
            authority=self._origin.raw_authority,
            path=f"{self._origin.raw_path.rstrip('/')}/v1/sys/events/subscribe/kv*",
            query_string="json=true",
            encoded=True,
        )
        return await http.ws_connect(
            url, headers=headers, heartbeat=_HEARTBEAT_S, max_msg_size=MAX_MESSAGE
        )


def _refusal(status: int) -> SvsyncError:
    if status in (401, 403):
        return ConfigError(
            "the backend's login may not subscribe to events: grant"
            ' path "sys/events/subscribe/kv*" { capabilities = ["read"] }',
            where="events",
            code="denied",
        )
    if 400 <= status < 500 and status != 429:
        return ConfigError(
            f"the server has no event notifications (it answers {status}), which come with"
            " Vault Enterprise 1.16: use the feed vault-audit",
            where="events",
        )
    return BackendUnreachableError(
        f"the endpoint answers a subscription to events with {status}",
        operation="connect",
        status=status,
    )


def notices_of(message: str, namespace: str) -> tuple[Notice, ...]:
    """The secrets that a message tells a change of; none where nothing was modified.

    Args:
        namespace: the subscriber's, for a message that names none.

    Raises:
        ValueError: not a message of Vault's event notifications.
    """
    try:
        data = json.loads(message)["data"]
        told = data["event"]["metadata"]
        kind, mount = data["event_type"], data["plugin_info"]["mount_path"]
        path, place = told["path"], data.get("namespace", namespace)
        modified = told.get("modified", "true")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # The error of the parser holds the message.
        raise ValueError("not an event notification") from None
    if not all(isinstance(text, str) for text in (kind, mount, path, place)):
        raise ValueError("not an event notification")
    if modified != "true" or not mount:
        return ()
    mount = f"{mount.strip('/')}/"
    # With the mount since 1.15, without it before.
    inner = path.removeprefix(mount)
    return tuple(
        Notice(place.strip("/"), RemotePath(remote))
        for remote in _remote_paths(kind, mount, inner)
        if remote_problem(remote, max_bytes=MAX_PATH) is None
    )


def _remote_paths(kind: str, mount: str, inner: str) -> Iterator[str]:
    if kind.startswith("kv-v1/"):
        yield f"{mount}{inner}"
    elif kind.startswith("kv-v2/"):
        verb, slash, name = inner.partition("/")
        if slash and verb in _VERBS:  # `config` is of the mount, not of a secret
            yield f"{mount}data/{name}"


async def _refuse_redirect(
    _session: aiohttp.ClientSession,
    _context: SimpleNamespace,
    _parameters: aiohttp.TraceRequestRedirectParams,
) -> None:
    """The token goes to the endpoint alone."""
    raise ProtocolError(
        "the endpoint redirects elsewhere: set endpoint to the active server itself",
        operation="connect",
    )


def open_feed(
    _entry: Mapping[str, object],
    spec: BackendSpec,
    credential: CredentialSource,
    network: NetworkPolicy,
    _guard: CallGuard,
) -> VaultEventsFeed:
    """The feed of one entry of `events`; the address and the login are the backend's.

    Raises ConfigError for settings that the backend itself could not use.
    """
    settings = VaultSettings.of_config(spec.config)
    policy = replace(network, file_managed=spec.managed_by is ManagedBy.FILE)
    return VaultEventsFeed(settings, credential, policy)
