"""Keys in use: who may seal how much, and what opens what.

    key service → root key → data key of a tenant → value

Sealings are handed out to a process in blocks, by a counter in the database that is raised
before the block is used (`data_keys`): a process that dies wastes its block and nothing else.
Plain keys exist in the objects of these two modules only; those of a tenant that nobody used
for 10 minutes are dropped when any tenant's keys are next asked for. A data key that another
process replaced seals on here for `LOOK_S` at most.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from svsync.domain import envelope
from svsync.domain.access import TenantShreddedError
from svsync.domain.envelope import Binding, KeyPurpose, Purpose
from svsync.domain.errors import KeyServiceError
from svsync.domain.ids import KeyId, LocalPath, SecretId, TenantId
from svsync.domain.values import Fingerprinter, Payload
from svsync.ports import KeyServices
from svsync.services.data_keys import DataKeys
from svsync.store import keys as store
from svsync.store.database import Database

BLOCK: Final = 65_536
"""Sealings reserved at once."""
LOOK_S: Final = 10.0
"""Whoever seals asks once in so many seconds whether its key was replaced."""

_IDLE_S: Final = 600.0
_BLOCK_LIFE_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Sealed:
    """Ciphertext with what is stored beside it."""

    key_id: KeyId
    nonce: bytes
    sealed: bytes


class Sealing(DataKeys):
    """The keys of this process, with those of the tenants that it serves."""

    def __init__(
        self,
        db: Database,
        services: KeyServices,
        entropy: Callable[[int], bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives monotonic seconds; tests bring their own."""
        super().__init__(db, services, entropy)
        self._clock = clock
        self._tenants: dict[TenantId, TenantKeys] = {}
        self._look_at = -math.inf

    def shut(self, why: str) -> None:
        """Forget every key, and refuse with this sentence until `open_root` succeeds."""
        super().shut(why)
        self._tenants.clear()

    async def replace_data_key(
        self, tenant: TenantId, purpose: KeyPurpose
    ) -> tuple[KeyId, KeyId] | None:
        """As `DataKeys` does; whoever asks for the tenant's keys here has the new one at once."""
        made = await super().replace_data_key(tenant, purpose)
        self._tenants.pop(tenant, None)
        return made

    def forget(self, tenant: TenantId) -> None:
        """Put away the keys of a tenant that was shredded, also of whoever has them in hand."""
        keys = self._tenants.pop(tenant, None)
        if keys is not None:
            keys.forget()

    async def for_tenant(self, tenant: TenantId) -> "TenantKeys":
        """The tenant's keys, made when it has none. Whoever holds them may use them on,
        also when they were idle meanwhile and others are given new ones.

        Raises KeyServiceError where the keys were shut away, and as `data_key`."""
        keys = self.at_hand(tenant)
        if keys is None:
            keys = TenantKeys(self._db, self, tenant, self._clock)
            await keys.prepare()
            self._tenants[tenant] = keys
            keys.used_at = self._clock()
        return keys

    def at_hand(self, tenant: TenantId) -> "TenantKeys | None":
        """The tenant's keys where they are in use; None: `for_tenant` has to fetch them.

        Raises as `for_tenant`."""
        self.refuse_if_shut()
        now = self._clock()
        if now >= self._look_at:  # not with each of thousands of reads a second
            self._look_at = now + 1
            self._tenants = {t: k for t, k in self._tenants.items() if now - k.used_at <= _IDLE_S}
        keys = self._tenants.get(tenant)
        if keys is not None:
            keys.used_at = now
        return keys


class Sealer:
    """Seals as often as was reserved, under one key."""

    def __init__(
        self,
        tenant: TenantId,
        key_id: KeyId,
        cipher: AESGCM,
        random: Callable[[int], bytes],
        left: int,
    ) -> None:
        self._tenant = tenant
        self._key_id = key_id
        self._cipher = cipher
        self._random = random
        self._left = left

    def seal(
        self,
        purpose: Purpose,
        secret: SecretId,
        path: LocalPath,
        version: int,
        plaintext: bytes,
        *,
        extra: str = "",
    ) -> Sealed:
        """Seal for one place. Raises AssertionError beyond what was reserved."""
        assert self._left > 0, "a sealing that was not reserved"
        self._left -= 1
        nonce = self._random(envelope.NONCE_SIZE)
        binding = Binding(self._tenant, secret, path, version, self._key_id, purpose, extra)
        return Sealed(self._key_id, nonce, envelope.seal(self._cipher, nonce, binding, plaintext))


class TenantKeys:
    """Seals, opens and fingerprints for one tenant.

    `used_at` is when it last did, or was asked for, by its clock (monotonic seconds).
    """

    def __init__(
        self, db: Database, sealing: Sealing, tenant: TenantId, clock: Callable[[], float]
    ) -> None:
        self.tenant = tenant
        self.used_at = clock()
        self._clock = clock
        self._db = db
        self._sealing = sealing
        self._active: tuple[KeyId, AESGCM] | None = None
        self._left = 0
        self._until = self._look_at = 0.0
        self._openers: dict[KeyId, tuple[AESGCM, float]] = {}
        self.fingerprint_key = KeyId(0)
        self._fingerprinter: Fingerprinter | None = None

    async def prepare(self) -> None:
        """Have the fingerprint key ready; made at the tenant's first use.

        It is not worn out by use or age: an HMAC key has no such bound, and a new
        one would make every stored fingerprint incomparable.
        """
        held = await self._sealing.lasting_key(self.tenant, KeyPurpose.FINGERPRINT)
        self.fingerprint_key = held.key_id
        self._fingerprinter = Fingerprinter(held.key)

    def forget(self) -> None:
        """Neither seal nor open by what is at hand; what is wanted is asked for anew."""
        self._active = None
        self._openers.clear()
        self._fingerprinter = None

    def fingerprint(self, payload: Payload) -> bytes:
        """32 bytes, equal for equal values of this tenant. Raises TenantShreddedError."""
        self.used_at = self._clock()
        return self._prepared().fingerprint(payload)

    def digest_of_request(self, request: bytes) -> bytes:
        """32 bytes, equal for equal requests of this tenant. Raises TenantShreddedError."""
        self.used_at = self._clock()
        return self._prepared().digest_of_request(request)

    def _prepared(self) -> Fingerprinter:
        if self._fingerprinter is None:
            raise TenantShreddedError
        return self._fingerprinter

    async def reserve(self, sealings: int) -> "Sealer":
        """The right to seal so many times; what is not used of it is lost.

        A block is used for a day at most, so that a key that is too old is not used on by a
        process that seals little; and not once its key was seen to be replaced.
        """
        self._sealing.refuse_if_shut()
        self.used_at = self._clock()
        held = self._active
        if held is not None and self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_S
            async with self._db.transaction(self.tenant, read_only=True) as tx:
                row = await store.active(tx, KeyPurpose.VALUE)
            if self._active is held and (row is None or row["key_id"] != held[0]):
                self._active = None
        while self._active is None or self._left < sealings or self._clock() > self._until:
            asked = self._clock()
            reserved = await self._sealing.data_key(
                self.tenant, KeyPurpose.VALUE, max(BLOCK, sealings)
            )
            self._active = (reserved.key_id, envelope.cipher_of(reserved.key))
            self._left, self._until = reserved.left, asked + _BLOCK_LIFE_S
            self._look_at = asked + LOOK_S
        self._left -= sealings
        key_id, cipher = self._active
        return Sealer(self.tenant, key_id, cipher, self._sealing.random, sealings)

    async def open(
        self,
        purpose: Purpose,
        secret: SecretId,
        path: LocalPath,
        version: int,
        sealed: Sealed,
        *,
        extra: str = "",
        key_purpose: KeyPurpose = KeyPurpose.VALUE,
    ) -> bytes:
        """The plaintext again.

        Raises:
            KeyServiceError: the key is lost or the ciphertext stands in another place.
        """
        cipher = await self._opener(sealed.key_id, key_purpose)
        binding = Binding(self.tenant, secret, path, version, sealed.key_id, purpose, extra)
        return envelope.open_sealed(cipher, sealed.nonce, binding, sealed.sealed)

    def open_at_hand(self, sealed: Sealed, bound: bytes) -> bytes | None:
        """A value again, where what opens it is at hand; None: `open` has to fetch that.
        `bound`: the data of its binding (`Binding.associated_data`).

        Raises KeyServiceError as `open`."""
        self._sealing.refuse_if_shut()
        known = self._openers.get(sealed.key_id)
        if known is None:
            return None
        self.used_at = now = self._clock()
        self._openers[sealed.key_id] = (known[0], now)
        return envelope.open_bound(known[0], sealed.nonce, bound, sealed.sealed)

    async def seal_webhook(self, endpoint: str, plaintext: bytes) -> Sealed:
        """Seal an endpoint's signing secrets, by a key of their own that seals nothing else."""
        self.used_at = self._clock()
        reserved = await self._sealing.data_key(self.tenant, KeyPurpose.WEBHOOK, 1)
        cipher = envelope.cipher_of(reserved.key)
        sealer = Sealer(self.tenant, reserved.key_id, cipher, self._sealing.random, 1)
        return sealer.seal(
            Purpose.WEBHOOK_SECRET, SecretId(0), LocalPath(""), 0, plaintext, extra=endpoint
        )

    async def open_webhook(self, endpoint: str, sealed: Sealed) -> bytes:
        """Likewise again. Raises KeyServiceError as `open`."""
        return await self.open(
            Purpose.WEBHOOK_SECRET, SecretId(0), LocalPath(""), 0, sealed,
            extra=endpoint, key_purpose=KeyPurpose.WEBHOOK,
        )  # fmt: skip

    async def _opener(self, key_id: KeyId, purpose: KeyPurpose) -> AESGCM:
        self._sealing.refuse_if_shut()
        self.used_at = now = self._clock()
        known = self._openers.get(key_id)
        if known is None:
            for idle in [k for k, (_, used) in self._openers.items() if now - used > _IDLE_S]:
                del self._openers[idle]
            async with self._db.transaction(self.tenant, read_only=True) as tx:
                row = await store.data_key(tx, key_id)
            if row is None:
                raise KeyServiceError(f"data key {key_id} is not in the database")
            key = await self._sealing.opened(self.tenant, row, purpose)
            known = (envelope.cipher_of(key), now)
        self._openers[key_id] = (known[0], now)
        return known[0]
