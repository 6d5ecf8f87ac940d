"""How plaintext is sealed: one construction, AES-256-GCM, for everything at rest.

A sealed text opens only in the place it was made for. That place, the `Binding`,
is the associated data: a ciphertext moved to another tenant, secret, path,
version, key or purpose does not open, and neither does a conflict's value in a
version's row. Nothing here draws a nonce, counts sealings or knows where keys
come from; the sealing service does. To implement it elsewhere:

    associated data = "svsync/seal" ‖ format (1 byte)
        ‖ tenant_id ‖ secret_id ‖ version ‖ key_id            (8 bytes each, big-endian)
        ‖ length of purpose ‖ of path ‖ of extra              (4 bytes each, big-endian)
        ‖ purpose ‖ path ‖ extra                              (UTF-8)
    padded  = plaintext ‖ 0x80 ‖ zeros, up to the next multiple of 32 bytes
    sealed  = AES-256-GCM(key, nonce of 12 bytes, padded, associated data)
              with its 16 bytes of tag at the end
    wrapped = nonce ‖ sealed, for a key sealed by the root key

The three lengths stand before what they measure and everything else has a fixed
width, so no two bindings have the same associated data.
"""

import struct
from enum import StrEnum
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from svsync.domain.errors import KeyServiceError
from svsync.domain.ids import KeyId, LocalPath, SecretId, TenantId

FORMAT: Final = 1
KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
BLOCK: Final = 32
"""Plaintexts are padded to a multiple of this, so that lengths tell little."""

_HEAD: Final = struct.Struct(">11sBQQQQIII")


class Purpose(StrEnum):
    """What a sealed text is; one never opens as another."""

    VALUE = "value"
    CONFLICT_LOCAL = "conflict_local"
    CONFLICT_REMOTE = "conflict_remote"
    RAW = "raw"
    """The exact remote text kept with base."""
    OVERWRITTEN = "overwritten"
    """A remote value read before a push that has no condition."""
    WEBHOOK_SECRET = "webhook_secret"
    CURSOR = "cursor"
    """A path that whoever goes on from there may not know."""
    DATA_KEY = "data_key"
    ROOT_KEY = "root_key"


class KeyPurpose(StrEnum):
    """What a data key is for (`data_keys.purpose`); bound when it is wrapped."""

    VALUE = "value"
    FINGERPRINT = "fingerprint"
    WEBHOOK = "webhook"
    AUDIT_SIGN = "audit_sign"


class Binding(NamedTuple):
    """The one place in which a sealed text opens.

    `extra` is the identity of what a secret has more than one of, such as the
    conflict id of a conflict's value. What belongs to no secret has secret 0,
    version 0 and an empty path.
    """

    tenant_id: TenantId
    secret_id: SecretId
    path: LocalPath
    version: int
    key_id: KeyId
    purpose: Purpose
    extra: str = ""
    format: int = FORMAT

    def associated_data(self) -> bytes:
        """The bytes that are authenticated with the ciphertext; see the module's text.

        Raises ValueError for a number that is negative or wider than its field.
        """
        purpose, path, extra = self.purpose.encode(), self.path.encode(), self.extra.encode()
        try:
            head = _HEAD.pack(
                b"svsync/seal",
                self.format,
                self.tenant_id,
                self.secret_id,
                self.version,
                self.key_id,
                len(purpose),
                len(path),
                len(extra),
            )
        except struct.error:
            raise ValueError("a number of the binding does not fit its field") from None
        return head + purpose + path + extra


def cipher_of(key: bytes) -> AESGCM:
    """A ready cipher for a key of 32 bytes; keep it as long as the key may be used.

    Raises KeyServiceError for a key of another length, AES-128 included.
    """
    if len(key) != KEY_SIZE:
        raise KeyServiceError(f"a key has {KEY_SIZE} bytes; this one has {len(key)}")
    return AESGCM(key)


def seal(cipher: AESGCM, nonce: bytes, binding: Binding, plaintext: bytes) -> bytes:
    """Ciphertext and tag of the padded plaintext. A nonce serves one sealing per key."""
    if len(nonce) != NONCE_SIZE:
        raise ValueError(f"a nonce has {NONCE_SIZE} bytes; this one has {len(nonce)}")
    return cipher.encrypt(nonce, padded(plaintext), binding.associated_data())


def open_sealed(cipher: AESGCM, nonce: bytes, binding: Binding, sealed: bytes) -> bytes:
    """The plaintext again.

    Raises KeyServiceError (`value_unreadable`) when it does not open, without
    saying which of key, nonce, place or ciphertext is not the one it was
    sealed with: nobody can know.
    """
    return open_bound(cipher, nonce, binding.associated_data(), sealed)


def open_bound(cipher: AESGCM, nonce: bytes, bound: bytes, sealed: bytes) -> bytes:
    """The same for whoever has the data of the binding already."""
    try:
        if len(nonce) != NONCE_SIZE:
            raise ValueError
        return unpadded(cipher.decrypt(nonce, sealed, bound))
    except (InvalidTag, ValueError):
        raise KeyServiceError("a sealed value does not open", code="value_unreadable") from None


def padded(plaintext: bytes) -> bytes:
    """Any bytes, one 0x80 and zeros, up to the next multiple of 32 bytes."""
    size = len(plaintext) + 1
    return plaintext + b"\x80" + bytes(-size % BLOCK)


def unpadded(text: bytes) -> bytes:
    """Undo `padded`. Raises ValueError for what `padded` does not make."""
    plaintext = text.rstrip(b"\0")[:-1]
    if padded(plaintext) != text:
        raise ValueError("not padded to blocks of 32 bytes")
    return plaintext


def wrap_key(
    root: AESGCM,
    nonce: bytes,
    tenant_id: TenantId,
    key_id: KeyId,
    purpose: KeyPurpose,
    key: bytes,
) -> bytes:
    """A data key under the root key, nonce included, as `data_keys.wrapped` holds it."""
    if len(key) != KEY_SIZE:
        raise ValueError(f"a data key has {KEY_SIZE} bytes; this one has {len(key)}")
    return nonce + seal(root, nonce, _key_binding(tenant_id, key_id, purpose), key)


def unwrap_key(
    root: AESGCM, tenant_id: TenantId, key_id: KeyId, purpose: KeyPurpose, wrapped: bytes
) -> bytes:
    """The data key again.

    Raises KeyServiceError (`key_unavailable`) when it does not open: it was
    wrapped by another root key, or stands in another row than its own.
    """
    nonce, sealed = wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:]
    try:
        return open_sealed(root, nonce, _key_binding(tenant_id, key_id, purpose), sealed)
    except KeyServiceError:
        raise KeyServiceError(f"data key {key_id} does not open with this root key") from None


def _key_binding(tenant_id: TenantId, key_id: KeyId, purpose: KeyPurpose) -> Binding:
    return Binding(
        tenant_id, SecretId(0), LocalPath(""), 0, key_id, Purpose.DATA_KEY, extra=purpose
    )
