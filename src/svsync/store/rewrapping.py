"""What is sealed, place by place, and which data keys nothing names any more.

`PLACES` is the one list of what is sealed with data keys; a test holds it against the schema.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from svsync.domain.envelope import KeyPurpose
from svsync.domain.ids import KeyId
from svsync.store.columns import columns
from svsync.store.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class Place:
    """Columns that hold what a data key sealed.

    Attributes:
        name: of its statements, and for people.
        table, key, nonce, sealed: where it is.
        first: less than the key of each row; as many columns as that has behind the tenant.
        purpose: of the keys that seal here.
    """

    name: str
    table: str
    key: str
    nonce: str
    sealed: str
    first: tuple[object, ...] = ("",)
    purpose: KeyPurpose = KeyPurpose.VALUE


PLACES: Final = (
    Place("versions", "versions", "key_id", "nonce", "sealed", first=(0, 0)),
    Place(
        "bases", "sync_state", "base_raw_key", "base_raw_nonce", "base_raw_sealed",
        first=("", "", ""),
    ),
    Place("pushes", "pushes", "before_key_id", "before_nonce", "before_sealed"),
    Place("local_sides", "conflicts", "local_key_id", "local_nonce", "local_sealed"),
    Place("remote_sides", "conflicts", "remote_key_id", "remote_nonce", "remote_sealed"),
    Place("endpoints", "endpoints", "key_id", "nonce", "sealed", purpose=KeyPurpose.WEBHOOK),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Anew:
    """A row as it was found, and what is to stand there; None where it holds nothing."""

    at: tuple[object, ...]
    was: bytes | None
    nonce: bytes | None
    sealed: bytes | None


@dataclass(frozen=True, slots=True)
class Named:
    """How many rows name a data key, and how many of them hold something that it sealed."""

    rows: int
    sealed: int


async def retired(tx: Transaction) -> dict[KeyId, KeyPurpose]:
    """The data keys that seal nothing new."""
    rows = await tx.fetch("rewrapping.retired", tx.tenant)
    return {KeyId(row["key_id"]): KeyPurpose(row["purpose"]) for row in rows}


async def count(tx: Transaction) -> dict[KeyId, Named]:
    """What names each data key; it reads all that is sealed of the tenant, without values."""
    rows = await tx.fetch("rewrapping.count", tx.tenant)
    return {KeyId(row["key_id"]): Named(row["named"], row["sealed"]) for row in rows}


async def find(
    tx: Transaction,
    place: Place,
    after: Sequence[object],
    rows: int,
    keys: Sequence[KeyId],
    size: int,
) -> list[Row]:
    """A page of a place, of so many rows and about so many bytes; `stale` are those under
    one of `keys`. The next page begins behind `at` of its last row."""
    return await tx.fetch(
        f"rewrapping.find_{place.name}", tx.tenant, *after, rows, list(keys), size
    )


def at(place: Place, row: Row) -> tuple[object, ...]:
    """The key of a row of a page."""
    return tuple(row)[: len(place.first)]


async def put(tx: Transaction, place: Place, key: KeyId, anew: Sequence[Anew]) -> int:
    """Store what was sealed anew under `key`, but for what is not any more as it was found, or
    is in somebody's hand: that is left as it is. How many were stored."""
    rows = [(*one.at, one.was, one.nonce, one.sealed) for one in anew]
    return await tx.execute(
        f"rewrapping.put_{place.name}", tx.tenant, key, *columns(rows, len(place.first) + 3)
    )


async def lock_retired(tx: Transaction, key: KeyId, seconds: float) -> Row | None:
    """A data key that only opens, kept from whoever would name it; `emptied` and `due`: since
    when nothing does. None: somebody else has it in hand."""
    return await tx.fetchrow("rewrapping.lock_retired", tx.tenant, key, seconds)


async def is_named(tx: Transaction, key: KeyId) -> bool:
    """Does any row say that it was sealed under this key?"""
    return bool(await tx.fetchval("rewrapping.is_named", tx.tenant, key))


async def set_emptied(tx: Transaction, key: KeyId, emptied: bool) -> None:
    """Write down that nothing names the key from now on, or that something does again."""
    await tx.execute("rewrapping.set_emptied", tx.tenant, key, emptied)


async def remove(tx: Transaction, key: KeyId) -> None:
    await tx.execute("rewrapping.remove", tx.tenant, key)
