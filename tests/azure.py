"""Fixtures with the servers that stand in for Azure, and a vault of its own for each test:
the SDK keeps what a vault's name once told it. Hands change the vault itself."""

import datetime
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from tests.azure_fake import CLIENT, SECRET, TENANT, AzureFake, open_fake
from tests.azure_vault import Vault

from svsync.backends.azure import AzureDriver
from svsync.domain.changes import RemoteRead
from svsync.domain.federation import BackendSpec, RuleSpec
from svsync.domain.ids import BackendId, RemotePath
from svsync.domain.values import Credential
from svsync.network import NetworkPolicy
from svsync.ports import Backend
from svsync.testing.conformance import CountingGuard, Listed, list_all

KEYS: Final = json.dumps({"tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET})
LOOPBACK: Final = NetworkPolicy(allow_loopback=True)
_NUMBERS = count(1)


@pytest_asyncio.fixture
async def azure_fake() -> AsyncIterator[AzureFake]:
    async with open_fake() as fake:
        yield fake


@pytest.fixture
def vault(azure_fake: AzureFake) -> Vault:
    """An empty vault."""
    return azure_fake.vault(f"test-{next(_NUMBERS)}")


def certificate(key: Any) -> tuple[str, bytes]:
    """PEM of a certificate with its key, and of the certificate alone."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "svsync")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    return (private + public).decode(), public


@pytest.fixture(scope="session")
def rsa_pem() -> tuple[str, bytes]:
    """An application's certificate with its key, and what Entra is told of it."""
    return certificate(rsa.generate_private_key(65537, 2048))


async def no_sleep(_: float) -> None:
    """What is waited for comes by the number of looks."""


def driver(fake: AzureFake, policy: NetworkPolicy = LOOPBACK) -> AzureDriver:
    return AzureDriver(policy, resolver=fake.resolver, sleep=no_sleep)


def azure_spec(fake: AzureFake, vault: Vault, **settings: Any) -> BackendSpec:
    """A backend onto a whole vault; `config` is merged into its own."""
    config = {
        "vault_url": vault.url,
        "auth_method": "client_secret",
        "credentials_path": "env:AZURE_KEYS",
        "tls_verify": fake.pem,
        **settings.pop("config", {}),
    }
    given = {
        "id": BackendId("fed_azure"),
        "name": "azure",
        "rules": (RuleSpec("ext/*", "*"),),
        **settings,
    }
    kept = {key: value for key, value in config.items() if value is not None}
    return BackendSpec(type="azure-key-vault", config=kept, **given)


@dataclass
class Opened:
    """A backend, and the guard that its calls passed."""

    backend: Backend
    guard: CountingGuard

    async def read(self, *names: str) -> list[RemoteRead]:
        return [(await self.backend.read([RemotePath(name)]))[0] for name in names]

    async def listed(self) -> Listed:
        return await list_all(self.backend, [""])


@asynccontextmanager
async def open_azure(
    fake: AzureFake,
    vault: Vault,
    *,
    keys: Callable[[], str] = lambda: KEYS,
    policy: NetworkPolicy = LOOPBACK,
    **settings: Any,
) -> AsyncIterator[Opened]:
    """A backend of one's own; `keys` gives what stands at its credential's path."""

    async def credential() -> Credential:
        return Credential.parse(keys(), "env:AZURE_KEYS")

    guard = CountingGuard()
    spec = azure_spec(fake, vault, **settings)
    async with driver(fake, policy).open(spec, credential, guard) as backend:
        yield Opened(backend, guard)
