"""The key service `aws`: a symmetric key of AWS KMS, which never leaves it.

A wrapped key is "sva1" and KMS's own ciphertext, which names the key and its version
itself; the context is its encryption context (AWS KMS Developer Guide, "Encryption
context"). The configured key is named when it is unwrapped too, so that a ciphertext of
another key is not opened by it (API Reference, Decrypt, `KeyId`).

Each call signs in anew, so keys that were changed count from then on.
"""

from collections.abc import Mapping
from typing import Any, Final

from svsync.clients.aws import AwsRefusedError, AwsSession, AwsSettings
from svsync.config.key_services import KeyServiceSpec
from svsync.domain.errors import ConfigError, KeyServiceError
from svsync.domain.wrapping import body_of, told_of, whole_key
from svsync.network import NetworkPolicy
from svsync.ports import CredentialSource, KeyService

_MAGIC: Final = b"sva1"
_SECONDS: Final = 15.0
_SAYS: Final = {
    "DisabledException": "its key is disabled: enable it",
    "KMSInvalidStateException": "its key is in a state in which it cannot be used, such as"
    " scheduled for deletion: cancel that",
    "NotFoundException": "there is no such key in this account and region",
    "InvalidKeyUsageException": "its key is not a symmetric key for encryption",
    "IncorrectKeyException": "the wrapped key does not open: another key wrapped it",
    "InvalidCiphertextException": "the wrapped key does not open: it is damaged, or another one"
    " stands in its place",
}
"""What its refusals mean, by KMS's word for them (API Reference, Encrypt and Decrypt)."""


def open_service(
    spec: KeyServiceSpec,
    credential: CredentialSource | None,
    policy: NetworkPolicy,
    environ: Mapping[str, str],
) -> KeyService:
    """Nothing is contacted. Raises ConfigError where no region is named."""
    access = spec.access
    region = (
        spec.key.split(":")[3]
        if spec.key.startswith("arn:")
        else access.get("region") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    )
    if not region:
        raise ConfigError(
            "names no region: give the key's ARN, or set AWS_REGION", where="kms_key_id"
        )
    settings = AwsSettings(
        region=region,
        endpoint_url=access.get("endpoint", ""),
        static=credential is not None,
        role_arn=access.get("role_arn", ""),
        external_id=access.get("external_id", ""),
        timeout=_SECONDS,
        connections=2,
    )
    settings.check(policy)
    return AwsKeyService(spec.key, settings, credential or _none, policy, environ)


async def _none() -> Any:
    raise AssertionError("the identity of the process is no credential")


class AwsKeyService:
    """One key."""

    __slots__ = ("_credential", "_environ", "_key", "_policy", "_settings", "reference")

    def __init__(
        self,
        key: str,
        settings: AwsSettings,
        credential: CredentialSource,
        policy: NetworkPolicy,
        environ: Mapping[str, str],
    ) -> None:
        self._key = key
        self._settings = settings
        self._credential = credential
        self._policy = policy
        self._environ = environ
        where = "" if key.startswith("arn:") else f"{settings.region}:"
        self.reference = f"aws:{where}{key}"

    def __repr__(self) -> str:
        return f"AwsKeyService({self.reference!r})"

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        answer = await self._call(
            "encrypt", {"Plaintext": plaintext, "EncryptionContext": dict(context)}
        )
        blob = answer.get("CiphertextBlob")
        if not isinstance(blob, bytes) or not blob:
            raise KeyServiceError(f"{self.reference} answered without a wrapped key")
        return _MAGIC + blob

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        blob = body_of(wrapped, _MAGIC, self.reference)
        answer = await self._call(
            "decrypt", {"CiphertextBlob": blob, "EncryptionContext": dict(context)}
        )
        return whole_key(answer.get("Plaintext"), self.reference)

    async def _call(self, method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        with told_of(self.reference):
            async with AwsSession(
                self._settings, self._credential, self._policy, environ=self._environ
            ) as session:
                try:
                    return await session.call(
                        "kms", method, {"KeyId": self._key, **parameters}, operation=method
                    )
                except AwsRefusedError as refused:
                    says = _SAYS.get(refused.reason)
                    if says is None:
                        raise
        raise KeyServiceError(f"{self.reference}: {says}")
