"""The root key under its key services: wrapped, opened by either, and taken over by new ones.

What is stored is to be what is configured: wrapped by the primary key service, and again by
the secondary one. A key service that is configured anew wraps what another one still opens,
in place of the one that is configured no more. Nothing that is stored is given up before
every configured key service opens what takes its place; what was wrapped is opened again
before it is believed.
"""

import asyncio
import hmac
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from svsync.domain.errors import KeyServiceAwayError, KeyServiceError
from svsync.ports import KeyService, KeyServices
from svsync.store import keys as store
from svsync.store.database import Database, Row

ROOT_CONTEXT: Final = {"svsync": "root"}
_ONE_KEY: Final = (
    "KMS_KEY_ID and KMS_KEY_ID_SECONDARY are two names of one key: were it lost, everything would"
    " be; name another one"
)


class Word(StrEnum):
    """How a key service stands to the root key."""

    OPENS = "opens"
    WRAPPED = "wrapped"
    """It has just taken it over."""
    UNUSED = "unused"
    """It could take it over, and does so at the next start."""
    AWAY = "away"
    SHUT = "shut"
    """It does not open it, or cannot be used."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One configured key service. `says` is a sentence for people where it does not open
    the root key; it holds no key and nothing that the service said."""

    role: str
    reference: str
    word: Word
    says: str = ""


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place where the root key is stored, wrapped."""

    reference: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class _Found:
    """What a service makes of what is stored: the key and the slot that it opened, or why not."""

    service: KeyService
    key: bytes | None = field(default=None, repr=False)
    slot: int = -1
    problem: KeyServiceError | None = None


async def wrapped(service: KeyService, key: bytes) -> bytes:
    """The key, wrapped by a service that was seen to open it again.

    Raises KeyServiceError.
    """
    made = await service.wrap(key, ROOT_CONTEXT)
    if not hmac.compare_digest(await service.unwrap(made, ROOT_CONTEXT), key):
        raise KeyServiceError(f"{service.reference} gave back another key than it was given")
    return made


async def wrapped_by(
    services: KeyServices, key: bytes
) -> tuple[tuple[str, bytes], tuple[str, bytes] | None, list[str]]:
    """A new root key, by the primary and by the secondary, each with its reference; and what
    people are to know.

    Raises KeyServiceError: the primary is not there. That the secondary is not is told.
    """
    first, second = services.primary, services.secondary
    if first is None:
        raise KeyServiceError(f"a new root key needs the primary key: {services.problems[0]}")
    made = (first.reference, await wrapped(first, key))
    if second is None:
        return made, None, []
    try:
        return made, (second.reference, await wrapped(second, key)), []
    except KeyServiceError as problem:
        return made, None, [_not_by_second(second, problem)]


@dataclass(frozen=True, slots=True)
class Opened:
    """The root key, and how each configured key service stands to it."""

    key: bytes
    standings: tuple[Standing, ...]

    def __repr__(self) -> str:
        return f"Opened(standings={self.standings!r})"

    @property
    def warnings(self) -> list[str]:
        return [one.says for one in self.standings if one.says]


async def open_root(
    db: Database, services: KeyServices, row: Row, *, take_over: bool = True
) -> Opened:
    """Unwrap a root key by each configured key service: all are tried, so that one that
    would not help is known before it is needed.

    Args:
        row: of `root_keys`.
        take_over: store it as it is configured by now; else nothing is changed, and a key
            service that is new is only tried.

    Raises:
        KeyServiceAwayError: no key service answers.
        KeyServiceError: none of them opens it.
    """
    slots = [_Slot(row["kms_ref"], row["wrapped"])]
    if row["wrapped_2"] is not None:
        slots.append(_Slot(row["kms_ref_2"], row["wrapped_2"]))
    configured = [s for s in (services.primary, services.secondary) if s is not None]
    found = await asyncio.gather(
        *(_find(one, slots, own=int(one is services.secondary)) for one in configured)
    )
    key = _the_key(found, row)
    standings, placed = [], []
    for one in found:
        role = "secondary" if one.service is services.secondary else "primary"
        standing, slot = await _place(one, role, slots, key, take_over)
        standings.append(standing)
        placed.append(slot)
    if len(found) == 2 and found[0].slot == found[1].slot >= 0:
        standings[1] = replace(standings[1], word=Word.SHUT, says=_ONE_KEY)
    elif take_over and services.primary is not None:
        await _store(db, row, slots, placed, [one.slot for one in found])
    return Opened(key, tuple(standings))


async def _find(service: KeyService, slots: list[_Slot], *, own: int) -> _Found:
    """Try the service's own slot first, then the other: it may have been the other one before."""
    problem: KeyServiceError | None = None
    for at in sorted(range(len(slots)), key=lambda n: n != own):
        try:
            return _Found(service, await service.unwrap(slots[at].wrapped, ROOT_CONTEXT), at)
        except KeyServiceAwayError as away:
            return _Found(service, problem=away)
        except KeyServiceError as refused:
            if problem is None or slots[at].reference == service.reference:
                problem = refused
    return _Found(service, problem=problem)


def _the_key(found: list[_Found], row: Row) -> bytes:
    keys = [one.key for one in found if one.key is not None]
    if not keys:
        named = " or ".join(one.service.reference for one in found)
        why = "; ".join(one.problem.message for one in found if one.problem is not None)
        away = found and all(isinstance(one.problem, KeyServiceAwayError) for one in found)
        raise (KeyServiceAwayError if away else KeyServiceError)(
            f"the root key of this database was wrapped by {row['kms_ref']} and does not open"
            f" with {named}: bring that key back, nothing can be read without it ({why})",
            code="root_key_unavailable",
        )
    if not hmac.compare_digest(keys[0], keys[-1]):
        raise KeyServiceError(
            "the two wrapped forms of the root key hold different keys: one of them was put there"
            " by somebody else; restore root_keys from a backup, and do not start before",
            code="root_key_unavailable",
        )
    return keys[0]


async def _place(
    found: _Found, role: str, slots: list[_Slot], key: bytes, take_over: bool
) -> tuple[Standing, _Slot | None]:
    """Where the service's own wrapped form is, made if it is new here; None: nowhere."""
    reference, problem = found.service.reference, found.problem
    if found.key is not None:
        slot = _Slot(reference, slots[found.slot].wrapped)
        return Standing(role, reference, Word.OPENS), slot
    if isinstance(problem, KeyServiceAwayError):
        says = f"the root key was not opened with the {role}: {problem.message}"
        return Standing(role, reference, Word.AWAY, says), None
    if any(slot.reference == reference for slot in slots):
        says = (
            f"the root key does not open with the {role} {reference} any more: were the other"
            f" key lost, everything would be ({problem.message if problem else ''})"
        )
        return Standing(role, reference, Word.SHUT, says), None
    try:
        slot = _Slot(reference, await wrapped(found.service, key))
        return Standing(role, reference, Word.WRAPPED if take_over else Word.UNUSED), slot
    except KeyServiceError as refused:
        word = Word.AWAY if isinstance(refused, KeyServiceAwayError) else Word.SHUT
        return Standing(role, reference, word, _not_by_second(found.service, refused)), None


def _not_by_second(service: KeyService, problem: KeyServiceError) -> str:
    return (
        f"the root key is not wrapped by {service.reference} yet, and will be at a later start:"
        f" {problem.message}"
    )


async def _store(
    db: Database, row: Row, slots: list[_Slot], placed: list[_Slot | None], used: list[int]
) -> None:
    """Make what is stored what is configured, once every configured service has its place."""
    wanted = [slot for slot in placed if slot is not None]
    if len(wanted) < len(placed):
        return
    if len(wanted) == 1:
        # A second one that is not configured any more may be missed yet.
        wanted += [slot for at, slot in enumerate(slots) if at not in used][:1]
    if wanted == slots:
        return
    first, second = wanted[0], wanted[1] if len(wanted) > 1 else None
    await store.rewrap_root(
        db,
        row["root_id"],
        (row["wrapped"], row["wrapped_2"]),
        (first.reference, first.wrapped),
        None if second is None else (second.reference, second.wrapped),
    )
