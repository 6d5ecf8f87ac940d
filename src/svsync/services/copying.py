"""Secrets copied to new paths, as a mapping says; what is copied already is left.

The sources are listed page by page while they are copied, so that a mapping may mean more
than memory holds; a copy is never a source (`config/copy_mapping` sees to that). Each secret
is brought to its place by itself: a run that was stopped is gone on with by the next one.
"""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from svsync.config.copy_mapping import CopyMapping, Labels
from svsync.domain.errors import BackendUnreachableError, SvsyncError
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.mapping import Mapped
from svsync.services.nameless import NOT_MEANT
from svsync.services.transfer import (
    SOURCE_IN_CONFLICT,
    Access,
    Given,
    Held,
    Outcome,
    Placed,
    Report,
    Wanted,
    each,
    failed,
    is_absent,
    not_sure,
    place,
    unsure,
)


@dataclass(frozen=True, slots=True)
class Copy:
    """One secret, where it is copied to, and what it gets there."""

    source: LocalPath
    path: LocalPath
    labels: Labels


class Copies:
    """All that a mapping means, found page by page; what was told of is not kept.

    Attributes:
        unusable: sources that have no place, each with the reason.
        not_listed: prefixes below which there may be more.
        unmatched: lines, by their sources, that match nothing: most likely a slip. Known at the
            end.
        away: a backend of these could not be reached.
    """

    def __init__(self, access: Access, mapping: CopyMapping) -> None:
        self._access = access
        self._mapping = mapping
        self._matched: set[int | None] = set()
        self.unusable: list[Placed] = []
        self.not_listed: list[str] = []
        self.unmatched: tuple[str, ...] = ()
        self.away: BackendUnreachableError | None = None

    async def find(self) -> AsyncGenerator[Copy, None]:
        """Each copy once. Raises SvsyncError: nothing can be listed."""
        named, prefixes = self._sources()
        for prefix in sorted(prefixes):
            if any(prefix != other and prefix.startswith(other) for other in prefixes):
                continue
            whole = True
            async with aclosing(self._access.names(prefix)) as pages:
                async for page in pages:
                    named.difference_update(page.paths)
                    for copy in map(self._copy, page.paths):
                        if copy is not None:
                            yield copy
                    self.unusable += [_unusable(n.name, n.reason, n.detail) for n in page.nameless]
                    self.away = self.away or page.away
                    whole &= not page.incomplete
            if not whole:
                self.not_listed.append(prefix)
        for copy in map(self._copy, sorted(named)):
            if copy is not None:
                yield copy
        self.unmatched = self._lines_without_any()

    def _sources(self) -> tuple[set[LocalPath], set[str]]:
        """Those that are named, and what the names of all others begin with."""
        named: set[LocalPath] = set()
        prefixes: set[str] = set()
        for rule in self._mapping.rules.rules:
            if rule.spec.exclude or rule.remote is None:
                continue
            if rule.remote.slots:
                prefixes.add(rule.remote.literal)
            else:
                named.add(LocalPath(rule.remote.text))
        return named, prefixes

    def _copy(self, source: LocalPath) -> Copy | None:
        mapped = self._mapping.rules.to_local(RemotePath(source))
        self._matched.add(mapped.rule)
        if isinstance(mapped, Mapped):
            return Copy(source, mapped.local, self._mapping.labels[mapped.rule])
        if mapped.reason not in NOT_MEANT:
            message = mapped.detail.replace("path_mapping[", "paths[")
            self.unusable.append(_unusable(source, mapped.reason, message))
        return None

    def _lines_without_any(self) -> tuple[str, ...]:
        return tuple(
            rule.remote.text
            for rule in self._mapping.rules.rules
            # What is left out need not be there.
            if rule.remote is not None and not rule.spec.exclude
            if rule.index not in self._matched
            if not rule.remote.literal.startswith(tuple(self.not_listed))
        )


def _unusable(source: str, reason: str, message: str) -> Placed:
    return Placed("", source, Outcome.FAILED, reason, message)


async def copy(
    access: Access,
    mapping: CopyMapping,
    report: Report,
    *,
    overwrite: bool,
    tell: Callable[[int], None],
) -> None:
    """Copy what is not there yet. `report` tells what was done at any moment, also of a run
    that ends early; `tell` is told how many are done.

    Raises:
        SvsyncError: what is not about one secret alone: the store, or a backend, is away.
    """
    found = Copies(access, mapping)
    done = 0

    async def work(one: Copy) -> None:
        nonlocal done
        report.add(await _copy(access, one, overwrite=overwrite, dry=report.dry))
        done += 1
        tell(done)

    try:
        await each(found.find(), work)
    finally:
        report.placed.extend(found.unusable)
        report.not_listed.extend(found.not_listed)
        report.unmatched.extend(found.unmatched)
    if found.away is not None:  # what could be copied was
        raise found.away


async def _copy(access: Access, one: Copy, *, overwrite: bool, dry: bool) -> Placed:
    try:
        held = await access.read(one.source)
    except SvsyncError as error:
        if is_absent(error):
            said = f"there is no secret at {one.source}, or it may not be read"
            return Placed(one.path, one.source, Outcome.FAILED, error.code, said)
        return failed(one.path, one.source, error)
    if reason := unsure(held, SOURCE_IN_CONFLICT):
        return not_sure(one.path, one.source, one.source, reason)
    detail = json.dumps({"copied_from": one.source})
    return await place(
        access,
        one.path,
        one.source,
        _given(one, held),
        wanted(one.labels, held),
        overwrite=overwrite,
        dry=dry,
        detail=detail,
    )


def _given(one: Copy, held: Held) -> Given:
    """What the copy gets: what its source has, with what the mapping says."""
    labels = one.labels
    return Given(
        held.text,
        secret_type=labels.secret_type or held.secret_type,
        tags=wanted(labels, held).tags,
        owner=labels.owner or held.owner,
        description=labels.description or held.description or f"Copied from {one.source}",
        custom=held.custom,
        max_versions=labels.max_versions,
    )


def wanted(labels: Labels, held: Held) -> Wanted:
    """What a copy of this source is to have: its tags, and what the mapping says."""
    return Wanted(
        tuple(sorted({*held.tags, *labels.tags})),
        secret_type=labels.secret_type,
        owner=labels.owner,
        description=labels.description,
        max_versions=labels.max_versions,
    )
