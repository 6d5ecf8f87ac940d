"""Secrets copied to new paths, as a mapping says; what is copied already is left.

The sources are listed first, so what is copied is what was there then, and a copy is never
a source (`config/copy_mapping` sees to that). Each secret is brought to its place by itself:
a run that was stopped is gone on with by the next one.
"""

import json
from collections.abc import Callable
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


@dataclass(frozen=True, slots=True)
class Copies:
    """All that a mapping means now.

    Attributes:
        unusable: sources that have no place, each with the reason.
        not_listed: prefixes below which there may be more.
        unmatched: lines, by their sources, that match nothing: most likely a slip.
        away: a backend of these could not be reached.
    """

    copies: tuple[Copy, ...]
    unusable: tuple[Placed, ...]
    not_listed: tuple[str, ...]
    unmatched: tuple[str, ...]
    away: BackendUnreachableError | None


async def find_copies(access: Access, mapping: CopyMapping) -> Copies:
    """Raises SvsyncError: nothing can be listed."""
    sources: dict[LocalPath, None] = {}
    prefixes: set[str] = set()
    for rule in mapping.rules.rules:
        if rule.spec.exclude or rule.remote is None:
            continue
        if rule.remote.slots:
            prefixes.add(rule.remote.literal)
        else:
            sources[LocalPath(rule.remote.text)] = None
    unusable: list[Placed] = []
    not_listed: list[str] = []
    away = None
    for prefix in sorted(prefixes):
        if any(prefix != other and prefix.startswith(other) for other in prefixes):
            continue
        names = await access.names(prefix)
        sources.update(dict.fromkeys(names.paths))
        unusable += [_unusable(one.name, one.reason, one.detail) for one in names.nameless]
        away = away or names.away
        if names.incomplete:
            not_listed.append(prefix)
    copies = []
    matched: set[int | None] = set()
    for source in sorted(sources):
        mapped = mapping.rules.to_local(RemotePath(source))
        matched.add(mapped.rule)
        if isinstance(mapped, Mapped):
            copies.append(Copy(source, mapped.local, mapping.labels[mapped.rule]))
        elif mapped.reason not in NOT_MEANT:
            message = mapped.detail.replace("path_mapping[", "paths[")
            unusable.append(_unusable(source, mapped.reason, message))
    unmatched = tuple(
        rule.remote.text
        for rule in mapping.rules.rules
        # What is left out need not be there.
        if rule.remote is not None and not rule.spec.exclude and rule.index not in matched
        if not rule.remote.literal.startswith(tuple(not_listed))
    )
    return Copies(tuple(copies), tuple(unusable), tuple(not_listed), unmatched, away)


def _unusable(source: str, reason: str, message: str) -> Placed:
    return Placed("", source, Outcome.FAILED, reason, message)


async def copy(
    access: Access,
    mapping: CopyMapping,
    report: Report,
    *,
    overwrite: bool,
    tell: Callable[[int, int], None],
) -> None:
    """Copy what is not there yet. `report` tells what was done at any moment, also of a run
    that ends early; `tell` is told how many are done, and of how many.

    Raises:
        SvsyncError: what is not about one secret alone: the store, or a backend, is away.
    """
    found = await find_copies(access, mapping)
    report.placed.extend(found.unusable)
    report.not_listed.extend(found.not_listed)
    report.unmatched.extend(found.unmatched)
    done = 0

    async def work(one: Copy) -> None:
        nonlocal done
        report.add(await _copy(access, one, overwrite=overwrite, dry=report.dry))
        done += 1
        tell(done, len(found.copies))

    await each(found.copies, work)
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
