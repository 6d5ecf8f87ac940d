"""The key service `vault`: a key of the transit engine of HashiCorp Vault or OpenBao.

A wrapped key is "svv1" and transit's own ciphertext (`vault:v1:…`), which names the key's
version. The context is bound as `associated_data`, which transit asks for again (Vault API
documentation, "Transit secrets engine", encrypt and decrypt). `rewrap` cannot be told of
it, so a key is moved to the newest version by opening and wrapping it.

The policy that svsync needs is `update` on `MOUNT/encrypt/KEY` and `MOUNT/decrypt/KEY`;
`create` would let a misspelt key be made. Each call signs in anew and signs out.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from svsync.clients.vault import VaultSession, VaultSettings
from svsync.config.key_services import KeyServiceSpec
from svsync.domain.errors import BackendError, ConfigError, DeniedError, KeyServiceError
from svsync.domain.values import Credential, SecretValue
from svsync.domain.wrapping import body_of, bound, told_of, whole_key
from svsync.network import NetworkPolicy
from svsync.ports import CredentialSource, KeyService

_MAGIC: Final = b"svv1"
_SECONDS: Final = 10.0
_TOKEN: Final = "VAULT_TOKEN"


def open_service(
    spec: KeyServiceSpec,
    credential: CredentialSource | None,
    policy: NetworkPolicy,
    environ: Mapping[str, str],
) -> KeyService:
    """Nothing is contacted. Raises ConfigError where no server is named, or no login."""
    access = spec.access
    endpoint = access.get("endpoint") or environ.get("VAULT_ADDR")
    if not endpoint:
        raise ConfigError("needs endpoint, the server's address, or VAULT_ADDR", where="kms_access")
    if credential is None:
        if not environ.get(_TOKEN):
            raise ConfigError(f"needs credentials_path, or {_TOKEN}", where="kms_access")
        credential = _from(environ)
    ca = access.get("ca_file") or environ.get("VAULT_CACERT")
    settings = VaultSettings(
        endpoint=endpoint,
        auth_method="token",
        auth_mount=access.get("auth_mount", ""),
        namespace=(access.get("namespace") or environ.get("VAULT_NAMESPACE", "")).strip("/"),
        tls_verify=ca or True,
        timeout=_SECONDS,
        connections=2,
    )
    settings.check(policy)
    mount, _, key = spec.key.rpartition("/")
    return VaultKeyService(mount, key, settings, credential, policy)


def _from(environ: Mapping[str, str]) -> CredentialSource:
    async def read() -> Credential:
        return Credential({"token": SecretValue(environ[_TOKEN])}, f"env:{_TOKEN}")

    return read


class VaultKeyService:
    """One key of one mount."""

    __slots__ = ("_credential", "_key", "_mount", "_policy", "_settings", "reference")

    def __init__(
        self,
        mount: str,
        key: str,
        settings: VaultSettings,
        credential: CredentialSource,
        policy: NetworkPolicy,
    ) -> None:
        self._mount = mount
        self._key = key
        self._settings = settings
        self._credential = credential
        self._policy = policy
        within = f"{settings.namespace}/" if settings.namespace else ""
        self.reference = f"vault:{settings.endpoint.rstrip('/')}/{within}{mount}/{key}"

    def __repr__(self) -> str:
        return f"VaultKeyService({self.reference!r})"

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        said = await self._call("encrypt", context, plaintext=_base64(plaintext))
        ciphertext = said.get("ciphertext")
        if not isinstance(ciphertext, str) or not ciphertext.isascii():
            raise KeyServiceError(f"{self.reference} answered without a wrapped key")
        return _MAGIC + ciphertext.encode()

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        blob = body_of(wrapped, _MAGIC, self.reference)
        said = await self._call("decrypt", context, ciphertext=blob.decode("ascii", "replace"))
        try:
            key = base64.b64decode(str(said.get("plaintext")), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        return whole_key(key, self.reference)

    async def _call(self, verb: str, context: Mapping[str, str], **asked: str) -> Mapping[str, Any]:
        body = {**asked, "associated_data": _base64(bound(_MAGIC, context))}
        with told_of(self.reference):
            credential = await self._credential()
            async with VaultSession(
                self._login_of(credential), self._given(credential), self._policy
            ) as session:
                try:
                    answer = await session.request(
                        "POST",
                        f"{quote(self._mount)}/{verb}/{quote(self._key, safe='')}",
                        operation=verb,
                        body=json.dumps(body).encode(),
                    )
                except DeniedError:
                    raise KeyServiceError(
                        f"{self.reference}: denied: its policy needs `update` on"
                        f" {self._mount}/{verb}/{self._key}, and the key has to be there"
                    ) from None
                except BackendError as refused:
                    if refused.status != 400:
                        raise
                    raise KeyServiceError(f"{self.reference}: {_REFUSED[verb]}") from None
        if answer.status == 404:
            raise KeyServiceError(
                f"{self.reference}: no transit engine is mounted at {self._mount}"
            )
        said = answer.json().get("data")
        return said if isinstance(said, dict) else {}

    def _login_of(self, credential: Credential) -> VaultSettings:
        method = "approle" if "role_id" in credential else "token"
        return replace(self._settings, auth_method=method)

    @staticmethod
    def _given(credential: Credential) -> CredentialSource:
        async def read() -> Credential:
            return credential

        return read


_REFUSED: Final = {
    "encrypt": "the key is not there, or cannot encrypt with associated data: make one of the"
    " type aes256-gcm96",
    "decrypt": "the wrapped key does not open: another key wrapped it, another one stands in its"
    " place, or its version is below min_decryption_version",
}
"""What transit refuses with status 400; why, it says in words that are not looked at."""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
