"""The sets of paths that patterns match: is there a path in these and not in those?

A pattern becomes a small automaton over characters. The search walks all of the
wanted ones in step, each in one state, and carries for each unwanted one the set
of states it could be in; breadth first, so the path found is a shortest one. Of
the characters that a wildcard would take, one that no unwanted pattern names is
at least as good as any other, so mostly one is tried.

For two wanted patterns alone the work is bounded by the product of their
lengths. With unwanted ones it can, for patterns made to that end, grow beyond
any bound; so every search has a budget, and says when it gave up.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from svsync.domain.paths import LOCAL_ALPHABET
from svsync.domain.patterns import Pattern

_ANY: Final = ""
"""The label of an edge that every character but `/` passes."""

_AFTER_DOT: Final = {"": ".", ".": ".."}


class UndecidedError(Exception):
    """The budget is spent; there may or may not be such a path."""


@dataclass(slots=True)
class Budget:
    """What a search, or several together, may cost: about a microsecond a unit."""

    units: int = 1_000_000

    def spend(self, units: int) -> None:
        """Raises UndecidedError when nothing is left."""
        if self.units < units:
            raise UndecidedError
        self.units -= units


@dataclass(frozen=True, slots=True)
class _Automaton:
    """States are numbers, 0 the first and the last one accepting."""

    edges: tuple[tuple[tuple[str, int], ...], ...]

    @property
    def accepting(self) -> int:
        return len(self.edges) - 1


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a search stands.

    `segment` is what tells the segment begun from an illegal one: empty, `.`,
    `..`, or `x` for any other.
    """

    wanted: tuple[int, ...]
    unwanted: tuple[frozenset[int], ...]
    segment: str = ""


def find_path(
    wanted: Sequence[Pattern], unwanted: Sequence[Pattern], *, budget: Budget, max_length: int
) -> str | None:
    """A shortest path that all wanted patterns match and no unwanted one does.

    Written in the local alphabet, without `.` and `..` segments, of at most
    `max_length` characters. None: there is none. Raises UndecidedError.
    """
    walked = [_automaton(pattern) for pattern in wanted]
    avoided = [_automaton(pattern) for pattern in unwanted]
    start = _Place((0,) * len(walked), (frozenset({0}),) * len(avoided))
    written = {start: ""}
    waiting = deque([start])
    while waiting:
        place = waiting.popleft()
        text = written[place]
        if (
            place.segment == "x"
            and all(at == one.accepting for at, one in zip(place.wanted, walked, strict=True))
            and not any(
                one.accepting in at for at, one in zip(place.unwanted, avoided, strict=True)
            )
        ):
            return text
        if len(text) == max_length:
            continue
        for char, following in _steps(place, walked, avoided):
            budget.spend(4 + sum(1 + len(states) for states in following.unwanted))
            if following not in written:
                written[following] = text + char
                waiting.append(following)
    return None


def _steps(
    place: _Place, walked: Sequence[_Automaton], avoided: Sequence[_Automaton]
) -> Iterator[tuple[str, _Place]]:
    choices = [one.edges[at] for at, one in zip(place.wanted, walked, strict=True)]
    for edges in product(*choices):
        labels = {label for label, _ in edges}
        named = labels - {_ANY}
        if len(named) > 1 or ("/" in named and (_ANY in labels or place.segment != "x")):
            continue
        for char in named or _characters_for(place, avoided):
            yield (
                char,
                _Place(
                    tuple(target for _, target in edges),
                    tuple(
                        _passed(one, at, char)
                        for at, one in zip(place.unwanted, avoided, strict=True)
                    ),
                    _segment_after(place.segment, char),
                ),
            )


def _characters_for(place: _Place, avoided: Sequence[_Automaton]) -> str:
    """Enough characters to stand for all that a wildcard takes here."""
    named = {
        label
        for states, one in zip(place.unwanted, avoided, strict=True)
        for state in states
        for label, _ in one.edges[state]
    }
    return next((char for char in LOCAL_ALPHABET if char not in named), LOCAL_ALPHABET)


def _passed(one: _Automaton, states: frozenset[int], char: str) -> frozenset[int]:
    return frozenset(
        target
        for state in states
        for label, target in one.edges[state]
        if label == char or (label == _ANY and char != "/")
    )


def _segment_after(segment: str, char: str) -> str:
    if char == "/":
        return ""
    return _AFTER_DOT.get(segment, "x") if char == "." else "x"


def _automaton(pattern: Pattern) -> _Automaton:
    edges: list[list[tuple[str, int]]] = [[]]

    def add(label: str) -> None:
        edges[-1].append((label, len(edges)))
        edges.append([])

    def add_wildcard() -> None:
        add(_ANY)
        edges[-1].append((_ANY, len(edges) - 1))

    for number, piece in enumerate(pattern.pieces()):
        if number:
            add("/")
        if piece is None:
            add_wildcard()
            edges[-1].append(("/", len(edges) - 2))
            continue
        for position, literal in enumerate(piece.literals):
            if position:
                add_wildcard()
            for char in literal:
                add(char)
    return _Automaton(tuple(tuple(leaving) for leaving in edges))
