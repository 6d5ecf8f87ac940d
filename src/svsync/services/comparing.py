"""Copies compared with their sources, without showing either; see also `comparing_backends`
and `comparing_env`.

Each side is read as any caller reads it, so the audit log tells of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from svsync.config.copy_mapping import CopyMapping
from svsync.domain.comparison import Verdict
from svsync.domain.comparison import compare as compare_members
from svsync.domain.errors import SvsyncError
from svsync.domain.globs import Glob
from svsync.domain.ids import LocalPath
from svsync.services.copying import Copies, Copy, wanted
from svsync.services.transfer import (
    SOURCE_IN_CONFLICT,
    TARGET_IN_CONFLICT,
    Access,
    Held,
    Wanted,
    each,
    ends_all,
    is_absent,
    unsure,
)


class What(StrEnum):
    """How two sides differ."""

    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    VALUE = "value_differs"
    TAGS = "tags_differ"
    LABELS = "labels_differ"
    NOT_COMPARED = "not_compared"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same on both sides; never a value.

    Attributes:
        path: the local path; of what has none, its name there.
        there: the other side's name.
        fields: names of members of the value, each with `different`, `only_here` or
            `only_there`; of labels, their names with `different`.
        tags: tags, each with `only_here` or `only_there`.
        reason: a code, of what could not be compared.
    """

    path: str
    there: str
    what: What
    fields: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    reason: str | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "path": self.path,
            "there": self.there,
            "what": str(self.what),
            "fields": dict(self.fields),
            "tags": dict(self.tags),
            "reason": self.reason,
        }


@dataclass(slots=True)
class Comparison:
    """What was compared so far, and what differs.

    Attributes:
        unmatched: lines of the mapping that match nothing that is there.
        left: variables of a `.env` file that its map leaves in the environment.
        comments: lines of that file with a comment, as `Variables` has them.
    """

    compared: int = 0
    differences: list[Difference] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    comments: list[int] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Is all equal? Of nothing at all that cannot be said."""
        return bool(self.compared) and not self.differences and not self.unmatched

    def as_json(self) -> dict[str, object]:
        told = sorted(self.differences, key=lambda one: (one.path, one.what))
        return {
            "compared": self.compared,
            "differences": [one.as_json() for one in told],
            "unmatched": self.unmatched,
            "left": self.left,
            "comments": self.comments,
        }


_SIDES: Final = {
    Verdict.DIFFERENT: "different",
    Verdict.ONLY_LOCAL: "only_here",
    Verdict.ONLY_REMOTE: "only_there",
}


def differences(
    path: str,
    there: str,
    values: tuple[str, str],
    tags: tuple[tuple[str, ...], tuple[str, ...]] | None,
) -> list[Difference]:
    """How two secrets differ: the one here and the one there, in this order; `tags` None:
    those there are not known."""
    found = []
    here, other = values
    members = [
        (one.name, _SIDES[one.verdict])
        for one in compare_members(here.encode(), other.encode(), exact=True)
        if one.verdict in _SIDES
    ]
    if members:
        found.append(Difference(path, there, What.VALUE, fields=tuple(sorted(members))))
    if tags is not None and set(tags[0]) != set(tags[1]):
        ours, theirs = map(set, tags)
        sides = [
            *((t, "only_here") for t in ours - theirs),
            *((t, "only_there") for t in theirs - ours),
        ]
        found.append(Difference(path, there, What.TAGS, tags=tuple(sorted(sides))))
    return found


# --- copies ---------------------------------------------------------------------------


async def compare_copies(
    access: Access,
    mapping: CopyMapping,
    comparison: Comparison,
    *,
    only: Glob | None,
    tell: Callable[[int], None],
) -> None:
    """Compare each copy with its source. Tags that a copy has beside those of its source, and
    of the mapping, are its own.

    Raises:
        SvsyncError: what is not about one secret alone.
    """
    found = Copies(access, mapping)

    async def work(one: Copy) -> None:
        if only is not None and not only(one.path):
            return
        comparison.differences += await _compare_copy(access, one)
        comparison.compared += 1
        tell(comparison.compared)

    try:
        await each(found.find(), work)
    finally:
        comparison.differences += [
            Difference(prefix, prefix, What.NOT_COMPARED, reason="not_listed")
            for prefix in found.not_listed
        ]
        if only is None:
            comparison.differences += [
                Difference(one.source, one.source, What.NOT_COMPARED, reason=one.reason)
                for one in found.unusable
            ]
            comparison.unmatched.extend(found.unmatched)
    if found.away is not None:  # what could be compared was
        raise found.away


async def _compare_copy(access: Access, one: Copy) -> list[Difference]:
    sides: list[Held | None] = []
    for path in (one.path, one.source):
        read = await read_side(access, path, one.path, one.source)
        if isinstance(read, Difference):
            return [read]
        sides.append(read)
    here, there = sides
    for held, conflict in ((there, SOURCE_IN_CONFLICT), (here, TARGET_IN_CONFLICT)):
        if held is not None and (reason := unsure(held, conflict)):
            return [Difference(one.path, one.source, What.NOT_COMPARED, reason=reason)]
    if there is None:
        return [Difference(one.path, one.source, What.MISSING_THERE)]
    if here is None:
        return [Difference(one.path, one.source, What.MISSING_HERE)]
    return placed_differently(one.path, one.source, here, there.text, wanted(one.labels, there))


async def read_side(
    access: Access, path: LocalPath, place: str, there: str
) -> Held | Difference | None:
    """One side; None: it is not there. A difference of `place` and `there` where it cannot be
    read. Raises SvsyncError: what is not about this secret alone."""
    try:
        return await access.read(path)
    except SvsyncError as error:
        if is_absent(error):
            return None
        if ends_all(error):
            raise
        return Difference(place, there, What.NOT_COMPARED, reason=error.code)


def placed_differently(
    path: str, there: str, here: Held, text: str, want: Wanted
) -> list[Difference]:
    """How a secret at its place differs from what was brought there. Tags that it has beside
    those that it is to have are its own."""
    tags = (tuple(set(want.tags) & set(here.tags)), want.tags)
    found = differences(path, there, (here.text, text), tags)
    if labels := [(name, "different") for name in want.lacking(here) if name != "tags"]:
        found.append(Difference(path, there, What.LABELS, fields=tuple(labels)))
    return found
