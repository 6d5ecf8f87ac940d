"""One side of a mapping rule: a pattern, compiled to a matcher without backtracking.

    kv/data/**            `**`      one or more whole segments
    kv/data/db-*          `*`       one segment, or part of one; never empty
    {team}/app/config     `{name}`  the same by name; may stand elsewhere on the other side

Between two wildcards stands a literal, and each literal is taken where it first
occurs behind the one before. That is the whole algorithm, used twice: on the
characters of a segment, and on the segments of a path, where the "literals" are
the runs of segments between `**`. Taking the first occurrence never has to be
revised (whatever matches with a later one matches with the first as well), so a
match costs at most pattern times path steps whatever a user writes, and gives the
one reading in which earlier wildcards hold least. The mirror image, from the
end, gives the reading in which they hold most; where both are equal there is no
third. There is no regular expression of a user's in it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

MAX_PATTERN_BYTES: Final = 512
MAX_SEGMENT_WILDCARDS: Final = 4

_WILDCARD = re.compile(r"\*|\{([A-Za-z_][A-Za-z0-9_]{0,31})\}")


class PatternError(ValueError):
    """A text that is no pattern; the message says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: the literals around its wildcards, so one more than those."""

    literals: tuple[str, ...]

    def read(self, text: str, *, last: bool = False) -> tuple[str, ...] | None:
        """What each wildcard holds, or None; `last`: by the last occurrences."""
        if len(self.literals) == 1:
            return () if text == self.literals[0] else None
        head, *between, tail = self.literals
        if len(text) <= len(head) + len(tail) or not (
            text.startswith(head) and text.endswith(tail)
        ):
            return None
        body = text[len(head) : len(text) - len(tail)]
        return _read_backward(body, between) if last else _read_forward(body, between)


Run = tuple[Segment, ...]
"""The segments between two `**`, or before the first, or behind the last."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern.

    Attributes:
        text: the pattern with `/` between its segments.
        runs: its segments, split at each `**`.
        slots: a key for each wildcard, in order: kind and position (`*`, `*2`,
            `**`), or the name in braces. Two sides fit when these are the same.
        literal: what every match starts with.
        whole_tail: literal text and then one `**`, and nothing else.
        certain: no path can be read in two ways, for there is at most one
            wildcard in a segment and one `**` in the pattern.
    """

    text: str
    runs: tuple[Run, ...]
    slots: tuple[str, ...]
    literal: str
    whole_tail: bool
    certain: bool

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Compile `text`. Raises PatternError."""
        if not text:
            raise PatternError("the pattern is empty; write a path, or '**' for everything")
        if (size := len(text.encode(errors="replace"))) > MAX_PATTERN_BYTES:
            raise PatternError(f"the pattern is {size} bytes long; at most {MAX_PATTERN_BYTES}")
        runs: list[list[Segment]] = [[]]
        slots: list[str] = []
        previous = ""
        for piece in text.split("/"):
            if piece == "**":
                if previous == "**":
                    raise PatternError("two '**' side by side cannot be told apart; write one")
                slots.append("**")
                runs.append([])
            else:
                segment, names = _parse_segment(piece)
                slots += names
                runs[-1].append(segment)
            previous = piece
        return cls(
            text=text,
            runs=tuple(tuple(run) for run in runs),
            slots=_numbered(slots),
            literal=text[: first.start()] if (first := _WILDCARD.search(text)) else text,
            whole_tail=slots == ["**"] and text.endswith("**"),
            certain=len(runs) <= 2 and all(len(s.literals) <= 2 for run in runs for s in run),
        )

    def read(self, segments: Sequence[str], *, last: bool = False) -> tuple[str, ...] | None:
        """What each slot holds in a path given as segments, or None: no match.

        `**` holds its segments joined by `/`. With `last` every literal is taken
        at its last occurrence instead of its first.
        """
        if len(self.runs) == 1:
            run = self.runs[0]
            return _read_run(run, segments, 0, last) if len(run) == len(segments) else None
        head, *between, tail = self.runs
        end = len(segments) - len(tail)
        if end <= len(head):
            return None
        first = _read_run(head, segments, 0, last)
        final = _read_run(tail, segments, end, last) if first is not None else None
        if first is None or final is None:
            return None
        place = _place_backward if last else _place_forward
        middle = place(between, segments, len(head), end)
        return None if middle is None else first + middle + final

    def pieces(self) -> Iterator[Segment | None]:
        """Its segments in order; None stands for `**`."""
        for number, run in enumerate(self.runs):
            if number:
                yield None
            yield from run

    def is_read_one_way(self, segments: Sequence[str], captures: tuple[str, ...]) -> bool:
        """Whether `captures`, the first reading of these segments, is the only one."""
        return self.certain or self.read(segments, last=True) == captures

    def render(self, captures: Sequence[str]) -> str:
        """The path in which each slot holds the capture at its position."""
        held = iter(captures)
        return "/".join(
            next(held) if piece is None else _fill(piece, held) for piece in self.pieces()
        )


def _parse_segment(piece: str) -> tuple[Segment, list[str]]:
    if not piece:
        raise PatternError(
            "the pattern has an empty segment; it neither starts nor ends with '/' nor holds '//'"
        )
    if piece in (".", ".."):
        raise PatternError(f"the pattern has a segment '{piece}'; write the path without it")
    if "**" in piece:
        raise PatternError(f"'**' stands for whole segments; in '{piece}' write '*'")
    literals: list[str] = []
    names: list[str] = []
    at = 0
    for wildcard in _WILDCARD.finditer(piece):
        literals.append(piece[at : wildcard.start()])
        names.append(wildcard[0])
        at = wildcard.end()
    literals.append(piece[at:])
    if any("{" in literal or "}" in literal for literal in literals):
        raise PatternError(
            f"'{piece}' has braces that hold no name; write {{name}} with letters, digits and '_'"
        )
    if len(names) > MAX_SEGMENT_WILDCARDS:
        raise PatternError(
            f"'{piece}' has {len(names)} wildcards; at most {MAX_SEGMENT_WILDCARDS} a segment"
        )
    if "" in literals[1:-1]:
        raise PatternError(f"in '{piece}' two wildcards stand side by side; put text between them")
    return Segment(tuple(literals)), names


def _numbered(kinds: Sequence[str]) -> tuple[str, ...]:
    """`*`, `*2`, `*3`, …; a name must be the only one of its kind."""
    seen: dict[str, int] = {}
    keys: list[str] = []
    for kind in kinds:
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] > 1 and kind.startswith("{"):
            raise PatternError(f"{kind} stands twice; give each wildcard its own name")
        keys.append(kind if seen[kind] == 1 else f"{kind}{seen[kind]}")
    return tuple(keys)


def _read_forward(body: str, between: Sequence[str]) -> tuple[str, ...] | None:
    held: list[str] = []
    at = 0
    for literal in between:
        found = body.find(literal, at + 1)
        if found < 0:
            return None
        held.append(body[at:found])
        at = found + len(literal)
    return (*held, body[at:]) if at < len(body) else None


def _read_backward(body: str, between: Sequence[str]) -> tuple[str, ...] | None:
    held: list[str] = []
    end = len(body)
    for literal in reversed(between):
        found = body.rfind(literal, 0, end - 1) if end else -1
        if found < 0:
            return None
        held.append(body[found + len(literal) : end])
        end = found
    return (body[:end], *reversed(held)) if end else None


def _read_run(run: Run, segments: Sequence[str], at: int, last: bool) -> tuple[str, ...] | None:
    held: tuple[str, ...] = ()
    for offset, segment in enumerate(run):
        captures = segment.read(segments[at + offset], last=last)
        if captures is None:
            return None
        held += captures
    return held


def _place_forward(
    between: Sequence[Run], segments: Sequence[str], start: int, end: int
) -> tuple[str, ...] | None:
    held: tuple[str, ...] = ()
    at = start
    for run in between:
        for found in range(at + 1, end - len(run)):
            captures = _read_run(run, segments, found, False)
            if captures is not None:
                held += ("/".join(segments[at:found]), *captures)
                at = found + len(run)
                break
        else:
            return None
    return (*held, "/".join(segments[at:end])) if at < end else None


def _place_backward(
    between: Sequence[Run], segments: Sequence[str], start: int, end: int
) -> tuple[str, ...] | None:
    held: tuple[str, ...] = ()
    for run in reversed(between):
        for found in range(end - len(run) - 1, start, -1):
            captures = _read_run(run, segments, found, True)
            if captures is not None:
                held = (*captures, "/".join(segments[found + len(run) : end]), *held)
                end = found
                break
        else:
            return None
    return ("/".join(segments[start:end]), *held) if start < end else None


def _fill(segment: Segment, held: Iterator[str]) -> str:
    text = segment.literals[0]
    for literal in segment.literals[1:]:
        text += next(held) + literal
    return text
