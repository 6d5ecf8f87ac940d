"""Values that are brought to their places: by `copy`, and by `import env`.

A place that holds nothing gets the value. One that holds it already is left, so that a
second run does what the first one did not. One that holds another value is told of, and
is left unless its value is to be replaced; then too it is not, where somebody else writes
there meanwhile. What was deleted there is not brought back without being asked for.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from svsync.domain.errors import (
    BackendUnreachableError,
    KeyServiceAwayError,
    StoreError,
    SvsyncError,
)
from svsync.domain.ids import LocalPath
from svsync.domain.json_text import same_json, slice_members

T = TypeVar("T")

WORKERS: Final = 6
"""Secrets that are worked on at once."""
SOURCE_IN_CONFLICT: Final = "source_in_conflict"
TARGET_IN_CONFLICT: Final = "target_in_conflict"
FROM_STANDBY: Final = "read_from_standby"
_ENDS: Final = (StoreError, BackendUnreachableError, KeyServiceAwayError)
_ENDING_CODES: Final = frozenset(
    {
        "unauthenticated", "service_unreachable", "not_svsync", "redirected", "client_closed",
        "store_unavailable", "audit_unavailable", "overloaded", "tenant_shut", "rate_limited",
        "call_budget_spent",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """A secret as it was read. `text` is the exact JSON text of its value, `custom` its own
    fields; `version` as `cas` takes it; `from_standby`: its own backend is away."""

    text: str = field(repr=False)
    version: int
    secret_type: str
    tags: tuple[str, ...] = ()
    owner: str | None = None
    description: str | None = None
    custom: Mapping[str, str] = field(default_factory=dict)
    in_conflict: bool = False
    from_standby: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """What is to be written. None keeps what a secret that is there has.

    Attributes:
        skip_if_equal: no new version where the value is the same; the rest is written.
    """

    text: str = field(repr=False)
    secret_type: str | None = None
    tags: tuple[str, ...] | None = None
    owner: str | None = None
    description: str | None = None
    custom: Mapping[str, str] | None = None
    max_versions: int | None = None
    skip_if_equal: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Labels that a secret is to have at its place, whoever wrote it there: tags beside others,
    and what a file gives by itself. None: whatever is there."""

    tags: tuple[str, ...] = ()
    secret_type: str | None = None
    owner: str | None = None
    description: str | None = None
    max_versions: int | None = None

    def lacking(self, held: Held) -> tuple[str, ...]:
        """Names of those that a secret has not; `max_versions` is not told by a read."""
        found = [] if set(self.tags) <= set(held.tags) else ["tags"]
        pairs = {
            "type": (self.secret_type, held.secret_type),
            "owner": (self.owner, held.owner),
            "description": (self.description, held.description),
        }
        found += [name for name, (one, has) in pairs.items() if one is not None and one != has]
        return tuple(found)

    def added(self, held: Held, text: str) -> Given:
        """What is written to a secret that is there: what else it has stays."""
        return Given(
            text,
            secret_type=self.secret_type,
            tags=tuple(sorted({*held.tags, *self.tags})),
            owner=self.owner,
            description=self.description,
            max_versions=self.max_versions,
            skip_if_equal=True,
        )


class Access(Protocol):
    """Secrets as one caller reads and writes them, on the store itself or by a service.

    Each method records the access before it is done, and raises SvsyncError.
    """

    def names(self, prefix: str) -> AsyncGenerator["Names", None]:
        """All that begins with a string prefix, by path, page by page."""
        ...

    async def read(self, path: LocalPath) -> Held:
        """Its current value. Raises `secret_not_found`."""
        ...

    async def was_deleted(self, path: LocalPath) -> bool:
        """Of a path that is not there: was it, with a history that is still kept?"""
        ...

    async def write(self, path: LocalPath, given: Given, *, cas: int, detail: str) -> int:
        """A new version, where it is at version `cas` (0: where nothing is); its number, or that
        of the version which has the value already (`skip_if_equal`).
        `detail` says in the audit log where the value is from, as JSON text."""
        ...


@dataclass(frozen=True, slots=True)
class Nameless:
    """Something that a backend has under a name that no path can be, and why (a skip reason)."""

    name: str
    reason: str
    detail: str = "no path of svsync can be this name"


@dataclass(frozen=True, slots=True)
class Names:
    """A page of paths in their order.

    Attributes:
        incomplete: a backend did not list all.
        nameless: what backends have there that has no path; a service does not tell.
        away: a backend cannot be reached; a service does not tell that either.
    """

    paths: tuple[LocalPath, ...]
    incomplete: bool
    nameless: tuple[Nameless, ...] = ()
    away: BackendUnreachableError | None = None


class Outcome(StrEnum):
    CREATED = "created"
    UNCHANGED = "unchanged"
    OVERWRITTEN = "overwritten"
    LABELLED = "labelled"
    DIFFERS = "differs"
    FAILED = "failed"


WELL: Final = (Outcome.CREATED, Outcome.UNCHANGED, Outcome.OVERWRITTEN, Outcome.LABELLED)


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of one value.

    Attributes:
        path: its place; empty where it has none.
        source: where it is from.
        reason: a code, of what could not be done.
        message: the same in a sentence.
        version: the one that was written.
        before: the version that was replaced.
        dropped: names of members that only that version has.
        labels: names of labels that it lacked, and got or would get.
    """

    path: str
    source: str
    outcome: Outcome
    reason: str | None = None
    message: str | None = None
    version: int | None = None
    before: int | None = None
    dropped: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        return {
            "path": self.path or None,
            "source": self.source,
            "outcome": str(self.outcome),
            "reason": self.reason,
            "message": self.message,
            "version": self.version,
            "replaced_version": self.before,
            "dropped_fields": list(self.dropped),
            "labels": list(self.labels),
        }


@dataclass(slots=True)
class Report:
    """What a run did so far.

    Attributes:
        dry: nothing was written, and it says what would be.
        placed: all but those that were there already.
        unchanged: how many those are.
        not_listed: prefixes below which a backend did not list all.
        unmatched: lines of the mapping that match nothing that is there.
    """

    dry: bool = False
    placed: list[Placed] = field(default_factory=list)
    unchanged: int = 0
    not_listed: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)

    def add(self, one: Placed) -> None:
        if one.outcome is Outcome.UNCHANGED:
            self.unchanged += 1
        else:
            self.placed.append(one)

    @property
    def well(self) -> bool:
        """Is every value where it belongs, or would be?"""
        missing = self.not_listed or self.unmatched
        return not missing and all(one.outcome in WELL for one in self.placed)

    def counts(self) -> dict[str, int]:
        many = Counter(one.outcome for one in self.placed)
        many[Outcome.UNCHANGED] = self.unchanged
        return {str(outcome): many[outcome] for outcome in Outcome}

    def reasons(self) -> dict[str, int]:
        """How many were not placed for each reason."""
        many = Counter(one.reason for one in self.placed if one.reason is not None)
        return {reason: many[reason] for reason in sorted(many)}

    def as_json(self) -> dict[str, object]:
        told = sorted(self.placed, key=lambda one: (one.path, one.source))
        return {
            "dry_run": self.dry,
            "counts": self.counts(),
            "reasons": self.reasons(),
            "not_listed": self.not_listed,
            "unmatched": self.unmatched,
            "secrets": [one.as_json() for one in told],
        }


def ends_all(error: SvsyncError) -> bool:
    """Is it about more than one secret, so that the rest would fail as well?"""
    return isinstance(error, _ENDS) or error.code in _ENDING_CODES


def is_absent(error: SvsyncError) -> bool:
    return error.code == "secret_not_found"


def unsure(held: Held, conflict: str) -> str | None:
    """Why what was read may not be what counts there, a code; None: it is. `conflict` is that
    of a secret whose two sides wait for a person."""
    if held.in_conflict:
        return conflict
    return FROM_STANDBY if held.from_standby else None


def not_sure(path: str, source: str, read: str, reason: str) -> Placed:
    """What became of a value where that which was read at `read` is `unsure`."""
    if reason == FROM_STANDBY:
        said = f"the backend of {read} is away, and what stands by for it may be behind"
    else:
        said = f"{read} is in conflict with its backend: resolve that first"
    return Placed(path, source, Outcome.FAILED, reason, said)


async def place(
    access: Access,
    path: LocalPath,
    source: str,
    given: Given,
    wanted: Wanted,
    *,
    overwrite: bool,
    dry: bool,
    detail: str,
) -> Placed:
    """Bring a value to its place. `given` is what it gets where nothing is there, `wanted`
    what it gets in any case.

    Raises SvsyncError: what is not about this secret alone (`ends_all`).
    """
    held = None
    try:
        held = await access.read(path)
    except SvsyncError as error:
        if not is_absent(error):
            return failed(path, source, error)
    if held is not None:
        return await _renew(
            access, path, source, held, given, wanted, overwrite=overwrite, dry=dry, detail=detail
        )
    try:
        if not overwrite and await access.was_deleted(path):
            return _left(path, source, "deleted_here", "it was deleted there")
        version = None if dry else await access.write(path, given, cas=0, detail=detail)
    except SvsyncError as error:
        return failed(path, source, error)
    return Placed(path, source, Outcome.CREATED, version=version)


async def _renew(
    access: Access,
    path: LocalPath,
    source: str,
    held: Held,
    given: Given,
    wanted: Wanted,
    *,
    overwrite: bool,
    dry: bool,
    detail: str,
) -> Placed:
    """Bring a value to a place where there is one."""
    if reason := unsure(held, TARGET_IN_CONFLICT):
        return not_sure(path, source, path, reason)
    same, labels = same_json(held.text, given.text), wanted.lacking(held)
    if same and not labels:
        return Placed(path, source, Outcome.UNCHANGED)
    if not overwrite:
        if same:
            return _left(path, source, "labels_differ", f"it lacks {', '.join(labels)} there")
        return _left(path, source, "value_differs", "another value is there")
    version = None
    if not dry:
        added = wanted.added(held, given.text)
        if not same:  # its type says what the value is
            added = replace(added, secret_type=given.secret_type, skip_if_equal=False)
        try:
            version = await access.write(path, added, cas=held.version, detail=detail)
        except SvsyncError as error:
            return failed(path, source, error)
    if same:
        return Placed(path, source, Outcome.LABELLED, labels=labels)
    dropped = sorted(slice_members(held.text).keys() - slice_members(given.text).keys())
    return Placed(
        path, source, Outcome.OVERWRITTEN,
        version=version, before=held.version, dropped=tuple(dropped), labels=labels,
    )  # fmt: skip


def failed(path: str, source: str, error: SvsyncError) -> Placed:
    """An error as what became of one value. Raises it where it is about more than that."""
    if ends_all(error):
        raise error
    return Placed(path, source, Outcome.FAILED, error.code, error.message)


def _left(path: str, source: str, reason: str, what: str) -> Placed:
    message = f"{what}: --overwrite writes it all the same"
    return Placed(path, source, Outcome.DIFFERS, reason, message)


async def each(
    items: Iterable[T] | AsyncGenerator[T, None], work: Callable[[T], Awaitable[None]]
) -> None:
    """Do this work for every item, several at once; the first error ends the rest. An item is
    asked for once somebody has time for it, so that no more of them are held."""
    async with aclosing(_one_by_one(items)) as waiting:
        taking = asyncio.Lock()

        async def worker() -> None:
            while True:
                async with taking:
                    try:
                        item = await anext(waiting)
                    except StopAsyncIteration:
                        return
                await work(item)

        tasks = [asyncio.create_task(worker()) for _ in range(WORKERS)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _one_by_one(items: Iterable[T] | AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    if isinstance(items, AsyncGenerator):
        async with aclosing(items):
            async for item in items:
                yield item
    else:
        for item in items:
            yield item
