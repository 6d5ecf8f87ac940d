"""The SDK's own ways to sign in; which of them is configured, and no other."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from cryptography.exceptions import UnsupportedAlgorithm

from svsync.clients.azure.settings import AzureSettings
from svsync.clients.azure.transport import ONCE
from svsync.domain.errors import ConfigError, LoginError
from svsync.domain.values import Credential, SecretValue

WHOSE: Final = {
    "managed_identity": "the managed identity of this machine",
    "workload_identity": "the workload identity of this process",
}
_FILE: Final = "AZURE_FEDERATED_TOKEN_FILE"


class SdkCredential(Protocol):
    async def get_token(self, *scopes: str) -> AccessToken: ...


def by_credential(
    settings: AzureSettings, credential: Credential, http: AioHttpTransport, authority: str
) -> SdkCredential:
    """As an application, by what was given to svsync.

    Raises ConfigError for a field that is missing, LoginError for one that is no such thing.
    """
    tenant, client = (credential.require(name).reveal() for name in ("tenant_id", "client_id"))
    kept: dict[str, Any] = {"authority": authority, "transport": http, **ONCE}
    if settings.auth_method == "client_secret":
        secret = credential.require("client_secret").reveal()
        try:
            return ClientSecretCredential(tenant, client, secret, **kept)
        except ValueError:
            raise ConfigError("tenant_id is not one", where=credential.where) from None
    pem = credential.require("certificate_pem").reveal().encode()
    try:
        return CertificateCredential(tenant, client, certificate_data=pem, **kept)
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        # Entra takes RSA only [Microsoft identity platform application authentication
        # certificate credentials, identity-platform/certificate-credentials].
        raise LoginError(
            f"certificate_pem at {credential.where} is no PEM certificate with its RSA private"
            " key, without a password",
            operation="login",
            sent=False,
        ) from None


def of_this_process(
    settings: AzureSettings, http: AioHttpTransport, authority: str, environ: Mapping[str, str]
) -> SdkCredential:
    """As what this machine or pod is. Raises LoginError where it is nothing."""
    client = settings.client_id or None
    if settings.auth_method == "managed_identity":
        try:
            return ManagedIdentityCredential(
                client_id=client,
                transport=http,
                _exclude_workload_identity_credential=True,
                **ONCE,
            )
        except ValueError:
            raise LoginError(
                "the kind of managed identity here takes no client_id: remove config.client_id",
                operation="login",
                sent=False,
            ) from None
    tenant = settings.tenant_id or environ.get("AZURE_TENANT_ID")
    client = client or environ.get("AZURE_CLIENT_ID")
    file = environ.get(_FILE)
    if not (tenant and client and file):
        missing = [
            name
            for name, found in (
                ("config.tenant_id or AZURE_TENANT_ID", tenant),
                ("config.client_id or AZURE_CLIENT_ID", client),
                (_FILE, file),
            )
            if not found
        ]
        raise LoginError(
            f"workload_identity needs {' and '.join(missing)}: give the pod the label"
            " azure.workload.identity/use, or set them",
            operation="login",
            sent=False,
        )
    return WorkloadIdentityCredential(
        tenant_id=tenant,
        client_id=client,
        token_file_path=file,
        authority=authority,
        transport=http,
        **ONCE,
    )


class Given:
    """A token that was had already, as the SDK's clients ask for one.

    Attributes:
        directory: whose token it is; empty where the token does not tell.
        vaults_directory: whose tokens the vault takes, as it said when it was last asked.
    """

    def __init__(self, token: SecretValue, expires_on: int) -> None:
        self._token = token
        self._expires_on = expires_on
        self.directory = _directory_of(token.reveal())
        self.vaults_directory = ""

    async def get_token(
        self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, **_: Any
    ) -> AccessToken:
        self.vaults_directory = (tenant_id or "").lower()
        return AccessToken(self._token.reveal(), self._expires_on)

    @property
    def is_foreign(self) -> bool:
        """Does the vault take tokens of another directory?"""
        return bool(self.directory) and self.vaults_directory not in ("", self.directory)

    async def close(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> "Given":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


def _directory_of(token: str) -> str:
    """The claim `tid` of a token [Access token claims reference,
    identity-platform/access-token-claims-reference]; it is the vault that checks tokens."""
    parts = token.split(".")
    if len(parts) != 3:
        return ""
    try:
        middle = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(base64.urlsafe_b64decode(middle))
    except (ValueError, binascii.Error):
        return ""
    found = claims.get("tid") if isinstance(claims, dict) else None
    return found.lower() if isinstance(found, str) else ""
