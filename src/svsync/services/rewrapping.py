"""What is sealed under an old data key is sealed anew under the active one; then that key goes.

It works beside runs, reads, writes and retention, and may be killed anywhere. Rows are found
a page at a time, opened, sealed anew and stored in a short transaction of their own. Each is
stored on the condition that it is still the ciphertext that was found, and a row that
somebody has in hand is left for the next round: nobody is waited for, so nobody waits for a
circle. What is left to do is always told by the rows themselves, so whoever comes next, after
a kill or beside us, goes on with what still names an old key.

A data key goes in two steps, for others may have read a row just before it was sealed anew,
and have yet to open it: once no row names it, that is written down; when that was so for
`KEPT_S`, and still is, the key goes. Both are asked under the key's lock, and rows name their
key by a foreign key, so that whoever would seal under it meanwhile waits, and fails.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from svsync.domain import envelope
from svsync.domain.envelope import KeyPurpose, Purpose
from svsync.domain.errors import KeyServiceAwayError, KeyServiceError
from svsync.domain.ids import KeyId, LocalPath, SecretId, TenantId
from svsync.services.sealing import Sealed, Sealer, Sealing, TenantKeys
from svsync.store import rewrapping as store
from svsync.store.database import Database, Row
from svsync.store.rewrapping import PLACES, Anew, Place

ROWS: Final = 500
"""Rows that one page looks at, and one transaction stores at most."""
SIZE: Final = 4 * 1024 * 1024
"""Bytes of ciphertext of a page, about."""
ROUNDS: Final = 3
"""How often all places are gone through, where somebody had a row in hand."""
KEPT_S: Final = 3_600.0
"""Seconds for which a data key is kept after the last row that named it."""
_TOLD: Final = 20
"""Places that do not open, named one by one."""

_FOR_GOOD: Final = frozenset({"value_unreadable", "key_unavailable", "key_destroyed"})
"""What keeps one row from being opened, and no other."""

_PURPOSES: Final = {
    "versions": Purpose.VALUE,
    "bases": Purpose.RAW,
    "pushes": Purpose.RAW,
    "local_sides": Purpose.CONFLICT_LOCAL,
    "remote_sides": Purpose.CONFLICT_REMOTE,
    "endpoints": Purpose.WEBHOOK_SECRET,
}

Tell = Callable[[int, int], None]
"""Is told how much is done, and of how much; the second may be passed, for others work on."""


@dataclass(slots=True)
class Emptied:
    """Old data keys that no row names: those that went, and those that are kept yet."""

    removed: list[KeyId] = field(default_factory=list)
    waiting: list[KeyId] = field(default_factory=list)


@dataclass(slots=True)
class Rewrapped:
    """What came of it.

    Attributes:
        sealed: rows that were sealed anew.
        left: rows that name an old key still: they do not open, or somebody had them in hand.
        unreadable: rows that do not open, and are left as they are.
        places: the first of them, each with its table and its key.
        emptied: what became of the old keys.
    """

    sealed: int = 0
    left: int = 0
    unreadable: int = 0
    places: list[str] = field(default_factory=list)
    emptied: Emptied = field(default_factory=Emptied)


class Rewrapping:
    """Seals anew, tenant by tenant."""

    def __init__(self, db: Database, sealing: Sealing) -> None:
        self._db = db
        self._sealing = sealing

    async def run(self, tenant: TenantId, tell: Tell = lambda done, total: None) -> Rewrapped:
        """Seal anew all that stands under old data keys; the keys that nothing names go.

        Raises:
            KeyServiceError: there is no key to seal with.
            StoreError: what was sealed anew before stays so, and the rest is to do.
        """
        done = Rewrapped()
        total = await self._left(tenant)
        tell(0, total)
        keys = await self._sealing.for_tenant(tenant)
        for _ in range(ROUNDS if total else 0):
            before = done.sealed
            done.unreadable, done.places = 0, []
            for place in PLACES:
                await self._place(keys, place, done, lambda: tell(done.sealed, total))
            done.left = await self._left(tenant)
            if done.left <= done.unreadable or done.sealed == before:
                break
        done.emptied = await remove_emptied(self._db, tenant)
        return done

    async def _left(self, tenant: TenantId) -> int:
        """Rows that name an old data key."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            retired, named = await store.retired(tx), await store.count(tx)
        return sum(named[key].rows for key in retired if key in named)

    async def _place(
        self, keys: TenantKeys, place: Place, done: Rewrapped, tell: Callable[[], None]
    ) -> None:
        after = place.first
        while True:
            async with self._db.transaction(keys.tenant, read_only=True) as tx:
                retired = await store.retired(tx)
                rows = await store.find(tx, place, after, ROWS, list(retired), SIZE)
            if not rows:
                return
            stale = [row for row in rows if row["stale"]]
            if stale:
                done.sealed += await self._page(keys, place, stale, done)
                tell()
            after = store.at(place, rows[-1])

    async def _page(
        self, keys: TenantKeys, place: Place, rows: Sequence[Row], done: Rewrapped
    ) -> int:
        """Seal these rows anew; how many were stored."""
        opened: list[tuple[Row, bytes | None]] = []
        for row in rows:
            try:
                opened.append((row, await _open(keys, place, row)))
            except KeyServiceError as problem:
                if problem.code not in _FOR_GOOD or isinstance(problem, KeyServiceAwayError):
                    raise
                done.unreadable += 1
                if len(done.places) < _TOLD:
                    at = " ".join(map(str, store.at(place, row)))
                    done.places.append(f"{place.table} {at}")
        if not opened:
            return 0
        reserved = await self._sealing.data_key(keys.tenant, place.purpose, len(opened))
        cipher = envelope.cipher_of(reserved.key)
        sealer = Sealer(keys.tenant, reserved.key_id, cipher, self._sealing.random, len(opened))
        anew = [_sealed_anew(sealer, place, row, text) for row, text in opened]
        async with self._db.transaction(keys.tenant) as tx:
            return await store.put(tx, place, reserved.key_id, anew)


async def _open(keys: TenantKeys, place: Place, row: Row) -> bytes | None:
    """What a row holds; None: nothing, as a version that did not land."""
    if row["sealed"] is None:
        return None
    purpose, secret, path, version, extra = _bound(place, row)
    sealed = Sealed(KeyId(row["key_id"]), row["nonce"], row["sealed"])
    return await keys.open(
        purpose, secret, path, version, sealed, extra=extra, key_purpose=place.purpose
    )


def _sealed_anew(sealer: Sealer, place: Place, row: Row, text: bytes | None) -> Anew:
    at, was = store.at(place, row), row["nonce"]
    if text is None:
        return Anew(at, was, None, None)
    purpose, secret, path, version, extra = _bound(place, row)
    sealed = sealer.seal(purpose, secret, path, version, text, extra=extra)
    return Anew(at, was, sealed.nonce, sealed.sealed)


def _bound(place: Place, row: Row) -> tuple[Purpose, SecretId, LocalPath, int, str]:
    """What a row's ciphertext is bound to, beside its tenant and its key."""
    return (
        _PURPOSES[place.name],
        SecretId(row["secret_id"]),
        LocalPath(row["path"]),
        row["version"],
        row["extra"],
    )


async def remove_emptied(db: Database, tenant: TenantId, kept_s: float = KEPT_S) -> Emptied:
    """Remove the old data keys that no row has named for so many seconds, and write down of
    which others that is so from now on. Each is a transaction of its own.

    Raises:
        StoreError: those that went before are gone, and the others stay.
    """
    emptied = Emptied()
    async with db.transaction(tenant, read_only=True) as tx:
        retired: Mapping[KeyId, KeyPurpose] = await store.retired(tx)
    for key in retired:
        async with db.transaction(tenant) as tx:
            held = await store.lock_retired(tx, key, kept_s)
            if held is None:
                continue
            # A statement of its own: it sees what was committed before the lock.
            if await store.is_named(tx, key):
                if held["emptied"]:
                    await store.set_emptied(tx, key, False)
            elif held["due"]:
                await store.remove(tx, key)
                emptied.removed.append(key)
            else:
                if not held["emptied"]:
                    await store.set_emptied(tx, key, True)
                emptied.waiting.append(key)
    return emptied
