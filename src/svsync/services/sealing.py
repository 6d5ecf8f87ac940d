"""Keys in use: who may seal how much, and what opens what.

    key service → root key → data key of a tenant → value

The root key is random, made at first boot, and stored only wrapped, by one key
service or by two (`root_keys`). Data keys are per tenant. Nonces are random, which is safe for
a bounded number of sealings a key (NIST SP 800-38D, 8.3: 2^32; ours is 2^28), so
sealings are handed out in blocks, by a counter in the database that is raised
before the block is used: a process that dies wastes its block and nothing else.
Plain keys exist in this module's objects only; those of a tenant that nobody used
for 10 minutes are dropped when any tenant's keys are next asked for.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from svsync.domain import envelope
from svsync.domain.envelope import Binding, KeyPurpose, Purpose
from svsync.domain.errors import KeyServiceError
from svsync.domain.ids import KeyId, LocalPath, SecretId, TenantId
from svsync.domain.values import Fingerprinter, Payload
from svsync.ports import KeyServices
from svsync.services import root_keys
from svsync.services.root_keys import Standing
from svsync.store import keys as store
from svsync.store.database import Database, Row, Transaction

BLOCK: Final = 65_536
"""Sealings reserved at once."""
LIMIT: Final = 2**28
"""Sealings of one data key, reserved ones included; then the next key is made."""
MAX_AGE_S: Final = 30 * 86_400.0
"""A data key seals for this long; then it only opens."""

_IDLE_S: Final = 600.0
_BLOCK_LIFE_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Sealed:
    """Ciphertext with what is stored beside it."""

    key_id: KeyId
    nonce: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """What `keys status` shows of one key; nothing of it is secret."""

    kind: str
    id: int
    purpose: str
    state: str
    reserved: int
    created_at: str
    wrapped_by: str


class Sealing:
    """The root key of this process, and the keys of the tenants it serves.

    `warnings` are for people: what would be lost with the next key. `standings` is how each
    key service stood to the active root key when it was last asked.
    """

    def __init__(
        self,
        db: Database,
        services: KeyServices,
        entropy: Callable[[int], bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives monotonic seconds; tests bring their own."""
        self._clock = clock
        self._db = db
        self._services = services
        self._entropy = entropy
        self._roots: dict[int, AESGCM] = {}
        self._active_root: int | None = None
        self._tenants: dict[TenantId, TenantKeys] = {}
        self._look_at = -math.inf
        self._shut: str | None = None
        self.warnings: list[str] = list(services.problems)
        self.standings: tuple[Standing, ...] = ()

    async def open_root(self, *, take_over: bool = True) -> None:
        """Unwrap the root key, making it at first boot; see `root_keys.open_root`.

        Raises:
            KeyServiceError: no configured key service unwraps it.
        """
        rows = await store.root_keys(self._db)
        if not rows:
            await self._make_root()
            rows = await store.root_keys(self._db)
        for row in rows:
            opened = await root_keys.open_root(self._db, self._services, row, take_over=take_over)
            self._roots[row["root_id"]] = envelope.cipher_of(opened.key)
            if row["state"] == "active":
                self._active_root = row["root_id"]
                self.standings = opened.standings
            self.warnings += [said for said in opened.warnings if said not in self.warnings]
        self._shut = None

    async def _make_root(self) -> None:
        key = self._entropy(envelope.KEY_SIZE)
        first, second, said = await root_keys.wrapped_by(self._services, key)
        await store.add_root(self._db, *first, *(second or (None, None)))
        self.warnings += said

    async def look(self) -> tuple[Standing, ...]:
        """How each key service stands to the root key at this moment; nothing is changed.

        Raises:
            KeyServiceError: none of them opens it.
            StoreError: the database does not tell what is to be opened.
        """
        for row in await store.root_keys(self._db):
            if row["state"] == "active":
                opened = await root_keys.open_root(self._db, self._services, row, take_over=False)
                self.standings = opened.standings
        return self.standings

    def shut(self, why: str) -> None:
        """Forget every key, and refuse with this sentence until `open_root` succeeds."""
        self._shut = why
        self._roots.clear()
        self._active_root = None
        self._tenants.clear()

    def refuse_if_shut(self) -> None:
        """Raises KeyServiceError where the keys were shut away."""
        if self._shut is not None:
            raise KeyServiceError(self._shut, code="root_key_unavailable")

    async def for_tenant(self, tenant: TenantId) -> "TenantKeys":
        """The tenant's keys, made when it has none. Whoever holds them may use them on,
        also when they were idle meanwhile and others are given new ones.

        Raises KeyServiceError where the keys were shut away."""
        self.refuse_if_shut()
        now = self._clock()
        if now >= self._look_at:  # not with each of thousands of reads a second
            self._look_at = now + 1
            self._tenants = {t: k for t, k in self._tenants.items() if now - k.used_at <= _IDLE_S}
        keys = self._tenants.get(tenant)
        if keys is None:
            keys = TenantKeys(self._db, self, tenant, self._clock)
            await keys.prepare()
            self._tenants[tenant] = keys
        keys.used_at = self._clock()
        return keys

    async def data_key(self, tx: Transaction, purpose: KeyPurpose, sealings: int) -> "Reserved":
        """`sealings` of the tenant's active key of one purpose; a new key where it is worn out."""
        # Before the key is looked at: a statement that waited for its row holds that row, also
        # where it turned out to be worn out, and whoever makes the next one needs it.
        await store.lock_tenant(tx)
        row = await store.reserve(tx, purpose, sealings, LIMIT, MAX_AGE_S)
        if row is None:
            return await self._make_data_key(tx, purpose, sealings)
        return Reserved(KeyId(row["key_id"]), self.unwrap(tx.tenant, row, purpose), sealings)

    async def _make_data_key(
        self, tx: Transaction, purpose: KeyPurpose, sealings: int
    ) -> "Reserved":
        self.refuse_if_shut()
        assert self._active_root is not None
        key_id = await store.next_key_id(tx)
        key = self._entropy(envelope.KEY_SIZE)
        nonce = self._entropy(envelope.NONCE_SIZE)
        root = self._roots[self._active_root]
        wrapped = envelope.wrap_key(root, nonce, tx.tenant, key_id, purpose, key)
        await store.replace_active(tx, key_id, purpose, self._active_root, wrapped, sealings)
        return Reserved(key_id, key, sealings)

    def unwrap(self, tenant: TenantId, row: Row, purpose: KeyPurpose) -> bytes:
        """A data key of a row of `data_keys`."""
        if row["wrapped"] is None:
            raise KeyServiceError(
                f"data key {row['key_id']} was destroyed; what it sealed is gone for good",
                code="key_destroyed",
            )
        self.refuse_if_shut()
        root = self._roots.get(row["root_id"])
        if root is None:
            raise KeyServiceError(f"the root key of data key {row['key_id']} is not here")
        return envelope.unwrap_key(root, tenant, KeyId(row["key_id"]), purpose, row["wrapped"])

    def random(self, size: int) -> bytes:
        return self._entropy(size)

    async def status(self, tenant: TenantId) -> list[KeyStatus]:
        """Every key of the tenant and the root keys above, without any key."""
        shown = [
            KeyStatus(
                kind="root",
                id=row["root_id"],
                purpose="root",
                state=row["state"],
                reserved=0,
                created_at=row["created_at"].isoformat(),
                wrapped_by=" and ".join(filter(None, (row["kms_ref"], row["kms_ref_2"]))),
            )
            for row in await store.root_keys(self._db)
        ]
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows = await store.data_keys(tx)
        return shown + [
            KeyStatus(
                kind="data",
                id=row["key_id"],
                purpose=row["purpose"],
                state=row["state"],
                reserved=row["reserved"],
                created_at=row["created_at"].isoformat(),
                wrapped_by=f"root key {row['root_id']}",
            )
            for row in rows
        ]


@dataclass(slots=True)
class Reserved:
    """A key with what is left of the sealings reserved for this process."""

    key_id: KeyId
    key: bytes
    left: int

    def __repr__(self) -> str:
        return f"Reserved(key_id={self.key_id}, left={self.left})"


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
        self._until = 0.0
        self._openers: dict[KeyId, tuple[AESGCM, float]] = {}
        self.fingerprint_key = KeyId(0)
        self._fingerprinter: Fingerprinter | None = None

    async def prepare(self) -> None:
        """Have the fingerprint key ready; made at the tenant's first use.

        It is not worn out by use or age: an HMAC key has no such bound, and a new
        one would make every stored fingerprint incomparable.
        """
        async with self._db.transaction(self.tenant) as tx:
            row = await store.active(tx, KeyPurpose.FINGERPRINT)
            if row is None:
                await store.lock_tenant(tx)
                row = await store.active(tx, KeyPurpose.FINGERPRINT)
            if row is None:
                made = await self._sealing.data_key(tx, KeyPurpose.FINGERPRINT, 0)
                self.fingerprint_key, key = made.key_id, made.key
            else:
                self.fingerprint_key = KeyId(row["key_id"])
                key = self._sealing.unwrap(self.tenant, row, KeyPurpose.FINGERPRINT)
        self._fingerprinter = Fingerprinter(key)

    def fingerprint(self, payload: Payload) -> bytes:
        """32 bytes, equal for equal values of this tenant."""
        assert self._fingerprinter is not None
        self.used_at = self._clock()
        return self._fingerprinter.fingerprint(payload)

    def digest_of_request(self, request: bytes) -> bytes:
        """32 bytes, equal for equal requests of this tenant."""
        assert self._fingerprinter is not None
        self.used_at = self._clock()
        return self._fingerprinter.digest_of_request(request)

    async def reserve(self, sealings: int) -> "Sealer":
        """The right to seal so many times; what is not used of it is lost.

        A block is used for a day at most, so that a key that was replaced by age is
        not used on by a process that seals little.
        """
        self._sealing.refuse_if_shut()
        self.used_at = self._clock()
        while self._active is None or self._left < sealings or self._clock() > self._until:
            async with self._db.transaction(self.tenant) as tx:
                block = max(BLOCK, sealings)
                reserved = await self._sealing.data_key(tx, KeyPurpose.VALUE, block)
            self._active = (reserved.key_id, envelope.cipher_of(reserved.key))
            self._left, self._until = reserved.left, self._clock() + _BLOCK_LIFE_S
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

    async def seal_webhook(self, tx: Transaction, endpoint: str, plaintext: bytes) -> Sealed:
        """Seal an endpoint's signing secrets, by a key of their own that seals nothing else."""
        self.used_at = self._clock()
        reserved = await self._sealing.data_key(tx, KeyPurpose.WEBHOOK, 1)
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
            key = self._sealing.unwrap(self.tenant, row, purpose)
            known = (envelope.cipher_of(key), now)
        self._openers[key_id] = (known[0], now)
        return known[0]
