"""The key service `gcp`: a symmetric key of Cloud KMS, which never leaves it.

A wrapped key is "svg1" and Cloud KMS's own ciphertext, which names the key's version itself;
the context is its additional authenticated data (Cloud KMS documentation, "Additional
authenticated data"). What is sent and what comes back is checked by CRC32C on both sides
(the same, "Verify end-to-end data integrity").

Each call signs in anew, so a credential that was changed counts from then on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import google_crc32c

from svsync.clients.gcp import Dial, GcpRefusedError, GcpSession, GcpSettings, Service
from svsync.clients.gcp.addresses import HTTPS, Address, look_up
from svsync.config.key_services import KeyServiceSpec
from svsync.domain.errors import ConfigError, KeyServiceAwayError, KeyServiceError
from svsync.domain.wrapping import body_of, bound, told_of, whole_key
from svsync.network import NetworkPolicy, check_url
from svsync.ports import CredentialSource, KeyService

_MAGIC: Final = b"svg1"
_SECONDS: Final = 15.0
_HOST: Final = "cloudkms.googleapis.com"
_CLIENT: Final = "google.cloud.kms_v1:KeyManagementServiceAsyncClient"
_TRANSPORT: Final = (
    "google.cloud.kms_v1.services.key_management_service.transports"
    ":KeyManagementServiceGrpcAsyncIOTransport"
)
_SAYS: Final = {
    "NOT_FOUND": "there is no such key",
    "FAILED_PRECONDITION": "its key, or the version that is needed, is disabled or destroyed:"
    " enable it",
    "INVALID_ARGUMENT": "the wrapped key does not open: another key wrapped it, it is damaged, or"
    " another one stands in its place",
}
"""What its refusals mean (Cloud KMS documentation, "Key version states" and "Decrypt")."""


def open_service(
    spec: KeyServiceSpec,
    credential: CredentialSource | None,
    policy: NetworkPolicy,
    environ: Mapping[str, str],
) -> KeyService:
    """Nothing is contacted. Raises ConfigError for an endpoint or authorities of no use."""
    url = check_url(
        spec.access.get("endpoint") or f"https://{_HOST}", policy, where="kms_access.endpoint"
    )
    host, port = str(url.host), url.port or HTTPS

    async def resolve(name: str, at: int) -> Sequence[Address]:
        return await look_up(name, port if (name, at) == (host, HTTPS) else at)

    return GcpKeyService(
        spec.key,
        Service(host, _CLIENT, _TRANSPORT),
        GcpSettings(static=credential is not None, federated=True, timeout=_SECONDS),
        credential or _none,
        policy,
        Dial(resolve, _authorities(spec.access.get("ca_file"))),
        environ,
    )


def _authorities(file: str | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError:
        raise ConfigError(f"cannot be read: {file}", where="kms_access.ca_file") from None


async def _none() -> Any:
    raise AssertionError("the identity of the process is no credential")


class GcpKeyService:
    """One key."""

    __slots__ = (
        "_credential",
        "_dial",
        "_environ",
        "_key",
        "_policy",
        "_service",
        "_settings",
        "reference",
    )

    def __init__(
        self,
        key: str,
        service: Service,
        settings: GcpSettings,
        credential: CredentialSource,
        policy: NetworkPolicy,
        dial: Dial,
        environ: Mapping[str, str],
    ) -> None:
        self._key = key
        self._service = service
        self._settings = settings
        self._credential = credential
        self._policy = policy
        self._dial = dial
        self._environ = environ
        self.reference = f"gcp:{key}"

    def __repr__(self) -> str:
        return f"GcpKeyService({self.reference!r})"

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        said = await self._call("encrypt", "plaintext", plaintext, context)
        if not (
            said.verified_plaintext_crc32c and said.verified_additional_authenticated_data_crc32c
        ):
            raise self._damaged()
        return _MAGIC + self._whole(said.ciphertext, said.ciphertext_crc32c)

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        blob = body_of(wrapped, _MAGIC, self.reference)
        said = await self._call("decrypt", "ciphertext", blob, context)
        return whole_key(self._whole(said.plaintext, said.plaintext_crc32c), self.reference)

    async def _call(self, method: str, field: str, data: bytes, context: Mapping[str, str]) -> Any:
        tied = bound(_MAGIC, context)
        request = {
            "name": self._key,
            field: data,
            f"{field}_crc32c": google_crc32c.value(data),
            "additional_authenticated_data": tied,
            "additional_authenticated_data_crc32c": google_crc32c.value(tied),
        }
        with told_of(self.reference):
            async with GcpSession(
                self._settings,
                self._service,
                self._credential,
                self._policy,
                dial=self._dial,
                environ=self._environ,
            ) as session:
                try:
                    return await session.call(method, request, operation=method)
                except GcpRefusedError as refused:
                    says = _SAYS.get(refused.reason)
                    if says is None:
                        raise
        raise KeyServiceError(f"{self.reference}: {says}")

    def _whole(self, data: bytes, checksum: object) -> bytes:
        if checksum != google_crc32c.value(data):
            raise self._damaged()
        return data

    def _damaged(self) -> KeyServiceAwayError:
        return KeyServiceAwayError(
            f"{self.reference}: what was sent or answered was damaged on its way (CRC32C)"
        )
