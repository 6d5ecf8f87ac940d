"""The keys that sign checkpoints of the audit log: one for each tenant, wrapped by the root key.

A signing key is not worn out by use, and does not age: whoever checks signatures elsewhere
has its public half, and a new one would have to be brought there. Whoever has the database
alone has no key, so what they write there is signed by nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from svsync.domain.envelope import KeyPurpose
from svsync.domain.errors import KeyServiceError
from svsync.domain.ids import KeyId, TenantId
from svsync.services.sealing import Sealing
from svsync.store import checkpoints as store
from svsync.store.database import Database


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a signature is checked with; `key` is the 32 bytes of RFC 8032."""

    id: KeyId
    key: bytes
    state: str
    created_at: str


class Signer:
    """Signs for one tenant."""

    def __init__(self, key_id: KeyId, key: bytes) -> None:
        self.key_id = key_id
        self._key = Ed25519PrivateKey.from_private_bytes(key)

    def sign(self, text: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(text)


class Signing:
    """Signing keys, of every tenant."""

    def __init__(self, db: Database, sealing: Sealing) -> None:
        self._db = db
        self._sealing = sealing
        self._signers: dict[TenantId, Signer] = {}

    async def signer(self, tenant: TenantId) -> Signer:
        """The tenant's signer; its key is made at first use.

        Raises:
            KeyServiceError: the key does not open.
            StoreError: it cannot be had now.
        """
        known = self._signers.get(tenant)
        if known is not None:
            return known
        held = await self._sealing.lasting_key(tenant, KeyPurpose.AUDIT_SIGN)
        self._signers[tenant] = signer = Signer(held.key_id, held.key)
        return signer

    def forget(self, tenant: TenantId) -> None:
        """Put away the key of a tenant that was shredded."""
        self._signers.pop(tenant, None)

    async def public_keys(self, tenant: TenantId) -> Mapping[KeyId, PublicKey]:
        """Those that open with a root key of ours; any other signed nothing of ours.

        Raises KeyServiceError: a root key is out of reach, so that nobody knows which do.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows = await store.signing_keys(tx)
        found: dict[KeyId, PublicKey] = {}
        for row in rows:
            try:
                private = await self._sealing.opened(tenant, row, KeyPurpose.AUDIT_SIGN)
            except KeyServiceError as problem:
                if problem.may_pass:
                    raise
                continue
            key_id = KeyId(row["key_id"])
            public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
            made = row["created_at"].isoformat().replace("+00:00", "Z")
            found[key_id] = PublicKey(key_id, public, row["state"], made)
        return found


def is_signed(public: bytes, text: bytes, signature: bytes) -> bool:
    """Was it signed by the holder of a key?"""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except InvalidSignature:
        return False
    return True
