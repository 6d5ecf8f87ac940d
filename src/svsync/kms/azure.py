"""The key service `azure`: an RSA key of Azure Key Vault, whose private half never leaves it.

Key Vault's RSA-OAEP-256 binds no context. So a one-time AES key is wrapped by the vault's key,
and the key that is given, with its context, by the one-time key:

    "svz1" | version of the vault's key, 32 hex digits | length, 2 bytes | wrapped one-time key
           | nonce, 12 bytes | AES-256-GCM ciphertext and tag

with everything up to the wrapped one-time key, the key's address and the context as
associated data. Wrapping is done here with the public half (Azure Key Vault REST API, "Wrap
Key"); unwrapping is a call, and needs the very version that wrapped ("Unwrap Key").

Each call signs in anew, so a credential that was changed counts from then on.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from azure.core.exceptions import AzureError
from azure.keyvault.keys import JsonWebKey
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from svsync.clients.azure import AzureRefusedError, AzureSession, AzureSettings
from svsync.config.key_services import KeyServiceSpec
from svsync.domain.errors import KeyServiceError
from svsync.domain.values import Credential
from svsync.domain.wrapping import KEY_SIZE, body_of, bound, told_of, whole_key
from svsync.network import NetworkPolicy
from svsync.ports import CredentialSource, KeyService

_MAGIC: Final = b"svz1"
_NONCE_SIZE: Final = 12
_VERSION_SIZE: Final = 32
_SECONDS: Final = 15.0
_ALGORITHM: Final = KeyWrapAlgorithm.rsa_oaep_256
_VERSION: Final = re.compile(r"[0-9a-f]{32}")


def open_service(
    spec: KeyServiceSpec,
    credential: CredentialSource | None,
    policy: NetworkPolicy,
    environ: Mapping[str, str],
) -> KeyService:
    """Nothing is contacted. Raises ConfigError for a vault that may not be called."""
    vault_url, _, rest = spec.key.partition("/keys/")
    name, _, version = rest.partition("/")
    by = "workload_identity" if environ.get("AZURE_FEDERATED_TOKEN_FILE") else "managed_identity"
    settings = AzureSettings(
        vault_url=vault_url,
        auth_method=by if credential is None else "client_secret",
        client_id=environ.get("AZURE_CLIENT_ID", ""),
        tls_verify=spec.access.get("ca_file") or True,
        timeout=_SECONDS,
        connections=2,
    )
    settings.check(policy)
    return AzureKeyService(name, version, settings, credential, policy, environ)


class AzureKeyService:
    """One key; the newest version of it wraps, unless one is named."""

    __slots__ = (
        "_credential",
        "_environ",
        "_name",
        "_policy",
        "_settings",
        "_version",
        "reference",
    )

    def __init__(
        self,
        name: str,
        version: str,
        settings: AzureSettings,
        credential: CredentialSource | None,
        policy: NetworkPolicy,
        environ: Mapping[str, str],
    ) -> None:
        self._name = name
        self._version = version
        self._settings = settings
        self._credential = credential
        self._policy = policy
        self._environ = environ
        named = f"/{version}" if version else ""
        self.reference = f"azure:{settings.vault_url}/keys/{name}{named}"

    def __repr__(self) -> str:
        return f"AzureKeyService({self.reference!r})"

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        said = await self._call("GET", f"/keys/{self._name}/{self._version}".rstrip("/"), "get")
        version, public = self._public_of(said)
        once = AESGCM.generate_key(8 * KEY_SIZE)
        try:
            wrapped = CryptographyClient.from_jwk(public).wrap_key(_ALGORITHM, once).encrypted_key
        except (AzureError, ValueError, NotImplementedError):
            raise self._of_no_use() from None
        head = _MAGIC + version.encode() + len(wrapped).to_bytes(2, "big") + wrapped
        nonce = os.urandom(_NONCE_SIZE)
        return head + nonce + AESGCM(once).encrypt(nonce, plaintext, self._tied(head, context))

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        body = body_of(wrapped, _MAGIC, self.reference)
        version = body[:_VERSION_SIZE].decode("ascii", "replace")
        size = int.from_bytes(body[_VERSION_SIZE : _VERSION_SIZE + 2], "big")
        start = _VERSION_SIZE + 2
        once, rest = body[start : start + size], body[start + size :]
        if not _VERSION.fullmatch(version) or len(once) != size or len(rest) <= _NONCE_SIZE:
            raise self._shut()
        said = await self._call(
            "POST",
            f"/keys/{self._name}/{version}/unwrapkey",
            "unwrapKey",
            {"alg": _ALGORITHM.value, "value": _base64url(once)},
        )
        key = _from_base64url(said.get("value"))
        if key is None or len(key) != KEY_SIZE:
            raise self._shut()
        head = wrapped[: len(_MAGIC) + start + size]
        nonce, sealed = rest[:_NONCE_SIZE], rest[_NONCE_SIZE:]
        try:
            opened = AESGCM(key).decrypt(nonce, sealed, self._tied(head, context))
        except (InvalidTag, ValueError):
            raise self._shut() from None
        return whole_key(opened, self.reference)

    def _tied(self, head: bytes, context: Mapping[str, str]) -> bytes:
        address = f"{self._settings.vault_url}/keys/{self._name}".lower()
        return bound(head, {**context, "azure key": address})

    def _shut(self) -> KeyServiceError:
        return KeyServiceError(
            f"{self.reference}: the wrapped key does not open: another key wrapped it, it is"
            " damaged, or another one stands in its place"
        )

    def _of_no_use(self) -> KeyServiceError:
        return KeyServiceError(
            f"{self.reference} is no RSA key that may wrap and unwrap keys: make one with the"
            " operations wrapKey and unwrapKey"
        )

    def _public_of(self, said: Mapping[str, Any]) -> tuple[str, JsonWebKey]:
        """The version and the public half of the key that is told."""
        key = said.get("key")
        key = key if isinstance(key, dict) else {}
        version = str(key.get("kid", "")).rpartition("/")[2]
        n, e = _from_base64url(key.get("n")), _from_base64url(key.get("e"))
        if not _VERSION.fullmatch(version) or n is None or e is None:
            raise KeyServiceError(f"{self.reference} is no RSA key: make one of the type RSA")
        operations = [str(one) for one in key.get("key_ops") or ()]
        if "unwrapKey" not in operations:
            # Wrapping is done here, so the vault would say so only when the key is needed.
            raise self._of_no_use()
        return version, JsonWebKey(kid=key["kid"], kty=key.get("kty"), key_ops=operations, n=n, e=e)

    async def _call(
        self, method: str, path: str, operation: str, body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        with told_of(self.reference):
            given, settings = None, self._settings
            if self._credential is not None:
                given = await self._credential()
                if "certificate_pem" in given:
                    settings = replace(settings, auth_method="certificate")

            async def credential() -> Credential:
                assert given is not None
                return given

            async with AzureSession(
                settings, credential, self._policy, environ=self._environ
            ) as session:
                try:
                    answer = await session.call(method, path, operation=operation, body=body)
                except AzureRefusedError as refused:
                    if refused.status not in (400, 404):
                        raise
                    status = refused.status
                else:
                    return answer.body
        if status == 404:
            raise KeyServiceError(f"{self.reference}: there is no such key, or no such version")
        raise self._shut()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _from_base64url(text: object) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
