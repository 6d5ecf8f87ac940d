"""Fixtures with what stands in for Google Cloud: one of each a test, and a backend onto it.

The SDK, its channel and its certificates are real, and so are the names that are called;
where they lead to is what a test sets, by `Dial`.
"""

import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import pytest
import trustme
from google.cloud.secretmanager_v1 import SecretManagerServiceAsyncClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports.grpc_asyncio import (
    SecretManagerServiceGrpcAsyncIOTransport,
)
from grpc import aio
from tests.gcp_fake import PROJECT, FakeSecretManager, State, serving
from tests.gcp_tokens import FakeTokens, Key, giving

from svsync.backends.gcp import GcpDriver
from svsync.clients.gcp import Dial
from svsync.domain.changes import RemoteRead
from svsync.domain.federation import BackendSpec, RuleSpec
from svsync.domain.ids import BackendId, RemotePath
from svsync.domain.values import Credential
from svsync.network import NetworkPolicy
from svsync.ports import Backend
from svsync.testing.conformance import CountingGuard, Listed, list_all

GLOBAL: Final = "secretmanager.googleapis.com"
PLACE: Final = "europe-west3"
REGIONAL: Final = f"secretmanager.{PLACE}.rep.googleapis.com"
TOKEN_HOSTS: Final = (
    "oauth2.googleapis.com",
    "sts.googleapis.com",
    "iamcredentials.googleapis.com",
)
LOOPBACK: Final = NetworkPolicy(allow_loopback=True)
PREFIX: Final = "t--"
WHERE: Final = "env:GCP_KEY"


@dataclass
class Gcp:
    """Both servers, and how their names are reached.

    Attributes:
        port: Secret Manager's; set another one to have it reached there.
        looked_up: names whose addresses were asked for.
    """

    fake: FakeSecretManager
    tokens: FakeTokens
    roots: bytes
    server: Any
    port: int
    token_port: int
    addresses: Sequence[str] = ("127.0.0.1",)
    looked_up: list[str] = field(default_factory=list)

    @property
    def dial(self) -> Dial:
        return Dial(self._resolve, self.roots)

    async def _resolve(self, host: str, port: int) -> list[tuple[str, int]]:
        self.looked_up.append(host)
        there = self.token_port if host in TOKEN_HOSTS else self.port
        return [(address, there) for address in self.addresses]

    # --- hands, below the prefix of the rules ------------------------------------------

    def put(self, name: str, value: object, **labels: str) -> int:
        """A new version with this value; its number."""
        text = value if isinstance(value, str | bytes) else json.dumps(value)
        number = self.fake.add(PREFIX + name, text if isinstance(text, bytes) else text.encode())
        if labels:
            self.fake.label(PREFIX + name, labels)
        return number

    def value(self, name: str, number: int | None = None) -> Any:
        held = self.fake.secret(PREFIX + name).versions[(number or 0) - 1]
        return json.loads(held.data)

    def disable(self, name: str, number: int | None = None) -> None:
        self.fake.set_state(PREFIX + name, State.DISABLED, number)

    def enable(self, name: str, number: int | None = None) -> None:
        self.fake.set_state(PREFIX + name, State.ENABLED, number)

    def destroy(self, name: str, number: int | None = None) -> None:
        self.fake.set_state(PREFIX + name, State.DESTROYED, number)

    def states(self, name: str) -> list[str]:
        return [one.state.name for one in self.fake.secret(PREFIX + name).versions]


@pytest.fixture(scope="session")
def gcp_authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def gcp_key() -> Key:
    """The service account's; making one takes its time."""
    return Key.make()


@asynccontextmanager
async def open_google(
    authority: trustme.CA, key: Key, *, names: Sequence[str] = (GLOBAL, REGIONAL)
) -> AsyncIterator[Gcp]:
    """Both servers; Secret Manager's certificate is made out to these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*TOKEN_HOSTS).configure_cert(context)
    own = authority.issue_cert(*names)
    chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
    fake = FakeSecretManager()
    tokens = FakeTokens(key, fake.tokens)
    async with AsyncExitStack() as stack:
        port, server = await stack.enter_async_context(
            serving(fake, own.private_key_pem.bytes(), chain)
        )
        token_port = await stack.enter_async_context(giving(tokens, context))
        roots = authority.cert_pem.bytes()
        yield Gcp(fake, tokens, roots, server, port, token_port)


@pytest.fixture
async def gcp(gcp_authority: trustme.CA, gcp_key: Key) -> AsyncIterator[Gcp]:
    """An empty project."""
    async with open_google(gcp_authority, gcp_key) as found:
        yield found


def gcp_spec(prefix: str = PREFIX, **settings: Any) -> BackendSpec:
    """A backend onto everything below a prefix; `config` is merged into its own."""
    config = {
        "project_id": PROJECT,
        "credentials_path": WHERE,
        **settings.pop("config", {}),
    }
    given = {
        "id": BackendId("fed_gcp"),
        "name": "gcp",
        "rules": (RuleSpec("ext/**", f"{prefix}**", separator="--"),),
        **settings,
    }
    kept = {key: value for key, value in config.items() if value is not None}
    return BackendSpec(type="gcp-secret-manager", config=kept, **given)


@dataclass
class Opened:
    """A backend, and the guard that its calls passed."""

    backend: Backend
    guard: CountingGuard

    def path(self, name: str) -> RemotePath:
        return RemotePath(PREFIX + name)

    async def read(self, *names: str) -> list[RemoteRead]:
        return list(await self.backend.read([self.path(name) for name in names]))

    async def listed(self, *prefixes: str) -> Listed:
        return await list_all(self.backend, prefixes or [PREFIX])


@asynccontextmanager
async def open_gcp(
    gcp: Gcp,
    *,
    key: Callable[[], str] | None = None,
    policy: NetworkPolicy = LOOPBACK,
    dial: Dial | None = None,
    **settings: Any,
) -> AsyncIterator[Opened]:
    """A backend of one's own; `key` gives what stands at its credential's path."""

    async def credential() -> Credential:
        return Credential.parse(key() if key else gcp.tokens.key.json(), WHERE)

    guard = CountingGuard()
    driver = GcpDriver(policy, dial or gcp.dial)
    async with driver.open(gcp_spec(**settings), credential, guard) as backend:
        yield Opened(backend, guard)


@asynccontextmanager
async def sdk_client(gcp: Gcp, token: str | None = "a-token") -> AsyncIterator[Any]:
    """The SDK's client as it is, for tests of the servers themselves."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    if token is not None:
        gcp.fake.tokens.add(token)
    options = [("grpc.ssl_target_name_override", GLOBAL), ("grpc.default_authority", GLOBAL)]
    credentials = grpc.ssl_channel_credentials(gcp.roots)
    target = f"127.0.0.1:{gcp.port}"
    async with aio.secure_channel(target, credentials, options=options) as channel:
        transport = SecretManagerServiceGrpcAsyncIOTransport(channel=channel)
        client = SecretManagerServiceAsyncClient(transport=transport)

        async def call(method: str, **request: Any) -> Any:
            made = getattr(client, method)
            return await made(request=request, retry=None, timeout=20, metadata=metadata)

        yield call


def drivers(gcp: Gcp) -> Mapping[str, GcpDriver]:
    """For an app whose backends reach these servers."""
    return {"gcp-secret-manager": GcpDriver(LOOPBACK, gcp.dial)}
