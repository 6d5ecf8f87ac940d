"""What operators do with keys: look at them, and replace them.

    status        what wraps and seals by now, how old it is, and how much stands under it
    rotate        another data key for what is sealed from now on
    rotate_root   another root key, which wraps every data key
    rewrap        what stands under old keys is brought under those of now

Replacing is one transaction, and changes nothing of what is sealed. Everything after it may be
killed and begun again. The fingerprint key and the key that signs checkpoints are wrapped anew
by another root key, and are never replaced themselves: the first would make every stored
fingerprint incomparable, and whoever checks signatures elsewhere has the public half of the
second.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from svsync.domain.envelope import KeyPurpose
from svsync.domain.ids import KeyId, TenantId
from svsync.services.rewrapping import Rewrapped, Rewrapping, Tell
from svsync.services.root_keys import Standing
from svsync.services.sealing import Sealing
from svsync.services.turns import Turns
from svsync.store import keys as store
from svsync.store import rewrapping
from svsync.store.database import Database, Row

AT_ONCE: Final = 2
"""Answers about keys that one process makes at once: each counts every version there is."""
_SEALING: Final = (KeyPurpose.VALUE, KeyPurpose.WEBHOOK)
"""Purposes of the keys that seal, and that are replaced."""


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """What is shown of one key; nothing of it is secret.

    Attributes:
        age_s: seconds since it was made, by the database's clock.
        reserved: sealings that were handed out; of a root key none.
        sealed: values that stand under it; None, where it seals none.
        emptied_at: since when no row names it; it goes soon.
    """

    kind: str
    id: int
    purpose: str
    state: str
    reserved: int
    created_at: str
    age_s: int
    wrapped_by: str
    sealed: int | None = None
    emptied_at: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The keys of one tenant, root keys first, and how each key service stands."""

    keys: tuple[KeyStatus, ...]
    services: tuple[Standing, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rotated:
    """A data key that was replaced, and its successor."""

    purpose: str
    old: KeyId
    new: KeyId


@dataclass(frozen=True, slots=True)
class Rewound:
    """What came of wrapping data keys anew.

    Attributes:
        wrapped: data keys that the active root key wraps since.
        closed: those that do not open, with the tenant of each; they stay as they are, and so
            does the root key that wraps them.
        removed: root keys that wrapped nothing any more, and are gone.
    """

    wrapped: int
    closed: tuple[tuple[TenantId, KeyId], ...]
    removed: tuple[int, ...]


class Keys:
    """The keys of every tenant, and the root key above them."""

    def __init__(self, db: Database, sealing: Sealing) -> None:
        self._db = db
        self._sealing = sealing
        self._rewrapping = Rewrapping(db, sealing)
        self._turns = Turns(AT_ONCE, "answers about keys are being made")

    async def tenants(self) -> dict[TenantId, str]:
        """All tenants that have keys, by their names; suspended ones too."""
        return await store.tenants(self._db)

    async def status(self, tenant: TenantId) -> Status:
        """Every key of the tenant with the root keys above. Key services are asked whether
        they open the root key now; nothing is changed.

        Raises:
            KeyServiceError: none of them opens it.
            StoreError: the store cannot be asked.
        """
        services = await self._sealing.look()
        roots, data = await self._rows(tenant)
        shown = [*map(_root, roots), *(_data(row, sealed) for row, sealed in data)]
        said = dict.fromkeys([*self._sealing.warnings, *(s.says for s in services if s.says)])
        return Status(tuple(shown), services, tuple(said))

    async def ages(self, tenant: TenantId) -> list[dict[str, object]]:
        """The same keys for somebody of the tenant: what wraps a root key is not told, and no
        key service is asked.

        Raises:
            OverloadedError: this process counts as many as it takes.
            StoreError: the store cannot be asked.
        """
        with self._turns.one():
            roots, data = await self._rows(tenant)
        return [
            *(asdict(_root(row)) | {"wrapped_by": None} for row in roots),
            *(asdict(_data(row, sealed)) | {"wrapped_by": row["root_id"]} for row, sealed in data),
        ]

    async def _rows(self, tenant: TenantId) -> tuple[list[Row], list[tuple[Row, int]]]:
        """Root keys, and data keys with how many values stand under each."""
        roots = await store.root_keys(self._db)
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows, named = await store.data_keys(tx), await rewrapping.count(tx)
        found = [(row, named.get(KeyId(row["key_id"]))) for row in rows]
        return roots, [(row, 0 if under is None else under.sealed) for row, under in found]

    async def rotate(self, tenant: TenantId) -> list[Rotated]:
        """Another data key for each that seals now. What the old ones sealed they open still.

        Raises:
            KeyServiceError: the root key cannot be had.
            StoreError: those that were replaced before stay so.
        """
        rotated = []
        for purpose in _SEALING:
            made = await self._sealing.replace_data_key(tenant, purpose)
            if made is not None:
                rotated.append(Rotated(str(purpose), *made))
        return rotated

    async def rotate_root(self) -> tuple[int, int]:
        """Another root key: the number of the old one, which only opens from now on, and its
        own. `wrap_anew` brings the data keys under it.

        Raises:
            KeyServiceError: a configured key service did not wrap it; nothing was changed.
            StoreError: nothing was changed, or it was and nobody knows: `status` tells.
        """
        return await self._sealing.replace_root()

    async def has_old_roots(self) -> bool:
        """Is there a root key that only opens? Then data keys are to be wrapped anew."""
        return len(await store.root_keys(self._db)) > 1

    async def wrap_anew(self, tell: Tell = lambda done, total: None) -> Rewound:
        """Bring the data keys of all tenants under the root key of now. Old root keys that wrap
        nothing any more go.

        Args:
            tell: is told how many tenants are done, and of how many.

        Raises:
            KeyServiceError: a root key does not open.
            StoreError: what was wrapped before stays so, and the rest is to do.
        """
        tenants = await store.every_tenant(self._db)
        wrapped = 0
        closed: list[tuple[TenantId, KeyId]] = []
        for done, tenant in enumerate(tenants):
            tell(done, len(tenants))
            count, shut = await self._sealing.wrap_anew(tenant)
            wrapped += count
            closed += [(tenant, key) for key in shut]
        tell(len(tenants), len(tenants))
        async with self._db.transaction_of(tenants) as tx:
            removed = await store.remove_roots(tx)
        return Rewound(wrapped, tuple(closed), tuple(removed))

    async def rewrap(self, tenant: TenantId, tell: Tell = lambda done, total: None) -> Rewrapped:
        """Seal anew what stands under old data keys; see `rewrapping`.

        Raises: as `Rewrapping.run`.
        """
        return await self._rewrapping.run(tenant, tell)


def _root(row: Row) -> KeyStatus:
    return KeyStatus(
        kind="root",
        id=row["root_id"],
        purpose="root",
        state=row["state"],
        reserved=0,
        created_at=_time(row["created_at"]),
        age_s=int(row["age_s"]),
        wrapped_by=" and ".join(filter(None, (row["kms_ref"], row["kms_ref_2"]))),
    )


def _data(row: Row, sealed: int) -> KeyStatus:
    emptied = row["emptied_at"]
    return KeyStatus(
        kind="data",
        id=row["key_id"],
        purpose=row["purpose"],
        state=row["state"],
        reserved=row["reserved"],
        created_at=_time(row["created_at"]),
        age_s=int(row["age_s"]),
        wrapped_by=f"root key {row['root_id']}",
        sealed=sealed if row["purpose"] in _SEALING else None,
        emptied_at=None if emptied is None else _time(emptied),
    )


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
