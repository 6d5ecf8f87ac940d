"""Root keys and data keys of this process: unwrapped, made, and replaced by others.

The root key is random, made at first boot, and stored only wrapped, by one key service or by
two (`root_keys`). Data keys are per tenant and per purpose. The nonces of what they seal are
random, which is safe for a bounded number of sealings a key (NIST SP 800-38D, 8.3: 2^32; ours
is 2^28), so sealings are handed out by a counter in the database that is raised before they
are used. A key that is worn out, by count or by age, is followed by the next, and opens on.

Any key may be replaced by another process at any time (`keys`). A root key that this one has
not met is asked of the key services when it is first needed.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from svsync.domain import envelope
from svsync.domain.access import TenantShreddedError
from svsync.domain.envelope import KeyPurpose
from svsync.domain.errors import KeyServiceError
from svsync.domain.ids import KeyId, TenantId
from svsync.domain.tenants import SHREDDED
from svsync.ports import KeyServices
from svsync.services import root_keys
from svsync.services.root_keys import Standing
from svsync.store import keys as store
from svsync.store import tenants
from svsync.store.database import Database, Row, Transaction

LIMIT: Final = 2**28
"""Sealings of one data key, reserved ones included; then the next key is made."""
MAX_AGE_S: Final = 30 * 86_400.0
"""A data key seals for this long; then it only opens."""

_TRIES: Final = 3
"""How often another process may replace the root key while one data key is made."""


@dataclass(slots=True)
class Reserved:
    """A key with what is left of the sealings reserved for this process."""

    key_id: KeyId
    key: bytes
    left: int

    def __repr__(self) -> str:
        return f"Reserved(key_id={self.key_id}, left={self.left})"


class DataKeys:
    """The root keys of this process, and the data keys of every tenant under them.

    `warnings` are for people: what would be lost with the next key. `standings` is how each
    key service stood to the active root key when it was last asked.
    """

    def __init__(
        self, db: Database, services: KeyServices, entropy: Callable[[int], bytes]
    ) -> None:
        self._db = db
        self._services = services
        self._entropy = entropy
        self._roots: dict[int, AESGCM] = {}
        self._active_root: int | None = None
        self._learning = asyncio.Lock()
        self._in_vain: KeyServiceError | None = None
        self._shut: str | None = None
        self.warnings: list[str] = list(services.problems)
        self.standings: tuple[Standing, ...] = ()

    # --- root keys ------------------------------------------------------------------

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

    async def learn(self) -> None:
        """Unwrap the root keys that are not known here yet, and see which one wraps by now. It
        asks key services, so no transaction may be open. Whoever waited while another one
        asked in vain does not ask again, so that nobody queues before a service that hangs.

        Raises: as `open_root`, and where the keys were shut away.
        """
        seen = self._in_vain
        async with self._learning:
            self.refuse_if_shut()
            if self._in_vain is not seen and self._in_vain is not None:
                raise KeyServiceError(self._in_vain.message, code=self._in_vain.code)
            for row in await store.root_keys(self._db):
                root = row["root_id"]
                if root not in self._roots:
                    try:
                        opened = await root_keys.open_root(
                            self._db, self._services, row, take_over=False
                        )
                    except KeyServiceError as problem:
                        self._in_vain = problem
                        raise
                    self.refuse_if_shut()
                    self._roots[root] = envelope.cipher_of(opened.key)
                if row["state"] == "active":
                    self._active_root = root
            self._in_vain = None

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

    def refuse_if_shut(self) -> None:
        """Raises KeyServiceError where the keys were shut away."""
        if self._shut is not None:
            raise KeyServiceError(self._shut, code="root_key_unavailable")

    def random(self, size: int) -> bytes:
        return self._entropy(size)

    async def replace_root(self) -> tuple[int, int]:
        """A new root key, wrapped by each configured key service, that wraps data keys from now
        on: the number of the old one and its own.

        Raises:
            KeyServiceError: a configured key service is missing or does not give back what it
                wrapped, or another process was faster; nothing was replaced.
        """
        await self.learn()
        assert self._active_root is not None
        old, key = self._active_root, self._entropy(envelope.KEY_SIZE)
        first, second, said = await root_keys.wrapped_by(self._services, key)
        if missing := [*self._services.problems, *said]:
            raise KeyServiceError(
                f"a new root key is to be wrapped by each configured key service: {missing[0]}"
            )
        made = await store.replace_root(self._db, old, first, second)
        if made is None:
            raise KeyServiceError(
                "another process replaced the root key meanwhile: `svsync keys status` shows it"
            )
        self._roots[made] = envelope.cipher_of(key)
        self._active_root = made
        return old, made

    # --- data keys ------------------------------------------------------------------

    async def data_key(self, tenant: TenantId, purpose: KeyPurpose, sealings: int) -> Reserved:
        """`sealings` of the tenant's active key of one purpose; a new key where it is worn out.
        No transaction may be open.

        Raises:
            KeyServiceError: the key, or the root key, does not open.
            TenantShreddedError: the tenant has no key any more.
            StoreError: nothing was reserved.
        """
        return await self._have(tenant, purpose, sealings, lasting=False)

    async def lasting_key(self, tenant: TenantId, purpose: KeyPurpose) -> Reserved:
        """The tenant's key of a purpose that neither use nor age wears out, made at first use.
        No transaction may be open.

        Raises: as `data_key`.
        """
        return await self._have(tenant, purpose, 0, lasting=True)

    async def _have(
        self, tenant: TenantId, purpose: KeyPurpose, sealings: int, *, lasting: bool
    ) -> Reserved:
        for _ in range(_TRIES):
            async with self._db.transaction(tenant) as tx:
                row = await store.active(tx, purpose) if lasting else None
                if row is None:
                    # Before the key is looked at: a statement that waited for its row holds that
                    # row, also where it turned out to be worn out, and whoever makes the next
                    # one needs it.
                    await store.lock_tenant(tx)
                    if lasting:
                        row = await store.active(tx, purpose)
                    else:
                        row = await store.reserve(tx, purpose, sealings, LIMIT, MAX_AGE_S)
                if row is None and (made := await self._make_data_key(tx, purpose, sealings)):
                    return made
            if row is not None:
                key = await self.opened(tenant, row, purpose)
                return Reserved(KeyId(row["key_id"]), key, sealings)
            await self.learn()
        raise _root_moves()

    async def replace_data_key(
        self, tenant: TenantId, purpose: KeyPurpose
    ) -> tuple[KeyId, KeyId] | None:
        """A new key for what is sealed from now on: the old one, which only opens, and the new
        one. None: the tenant has none of this purpose. No transaction may be open.

        Raises: as `data_key`; nothing was replaced then.
        """
        for _ in range(_TRIES):
            async with self._db.transaction(tenant) as tx:
                await store.lock_tenant(tx)
                row = await store.active(tx, purpose)
                if row is None:
                    return None
                if made := await self._make_data_key(tx, purpose, 0):
                    return KeyId(row["key_id"]), made.key_id
            await self.learn()
        raise _root_moves()

    async def _make_data_key(
        self, tx: Transaction, purpose: KeyPurpose, sealings: int
    ) -> Reserved | None:
        """The next key, under the lock of the tenant's keys; None: the root key was replaced, and
        the new one is not known here. Raises TenantShreddedError: it gets none ever again."""
        self.refuse_if_shut()
        if await tenants.status(tx) == SHREDDED:
            raise TenantShreddedError
        root_id = await store.lock_active_root(tx)
        root = self._roots.get(root_id)
        if root is None:
            return None
        key_id = await store.next_key_id(tx)
        key = self._entropy(envelope.KEY_SIZE)
        nonce = self._entropy(envelope.NONCE_SIZE)
        wrapped = envelope.wrap_key(root, nonce, tx.tenant, key_id, purpose, key)
        await store.replace_active(tx, key_id, purpose, root_id, wrapped, sealings)
        return Reserved(key_id, key, sealings)

    async def opened(self, tenant: TenantId, row: Row, purpose: KeyPurpose) -> bytes:
        """A data key of a row of `data_keys`, whoever made the root key that wraps it. No
        transaction may be open.

        Raises:
            KeyServiceError: it, or that root key, does not open.
        """
        if row["root_id"] not in self._roots:
            await self.learn()
        return self.unwrap(tenant, row, purpose)

    def unwrap(self, tenant: TenantId, row: Row, purpose: KeyPurpose) -> bytes:
        """The same, by a root key that is known here."""
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

    async def wrap_anew(self, tenant: TenantId) -> tuple[int, list[KeyId]]:
        """Wrap the tenant's data keys by the active root key where another one wraps them: how
        many were, and those that do not open. No transaction may be open.

        Raises:
            KeyServiceError: the root key does not open.
            StoreError: nothing was wrapped anew.
        """
        await self.learn()
        done = 0
        closed: list[KeyId] = []
        async with self._db.transaction(tenant) as tx:
            await store.lock_tenant(tx)
            active = await store.lock_active_root(tx)
            root = self._roots.get(active)
            if root is None:
                raise _root_moves()
            for row in await store.wrapped_by_others(tx, active):
                key_id, purpose = KeyId(row["key_id"]), KeyPurpose(row["purpose"])
                wrapped = None  # of one that was destroyed there is nothing to wrap
                if row["wrapped"] is not None:
                    try:
                        key = self.unwrap(tenant, row, purpose)
                    except KeyServiceError:
                        closed.append(key_id)
                        continue
                    nonce = self._entropy(envelope.NONCE_SIZE)
                    wrapped = envelope.wrap_key(root, nonce, tenant, key_id, purpose, key)
                await store.wrap_anew(tx, key_id, active, wrapped)
                done += wrapped is not None
        return done, closed


def _root_moves() -> KeyServiceError:
    return KeyServiceError("the root key is being replaced by other processes: try again")
