"""Which path kills the worker that takes it up: narrowed down from one death to the next.

A worker that dies says nothing. What it had in hand is written down beforehand, so each
death leaves a set of paths, one of which may be to blame:

- The first death may be anything. The next run works as ever.
- A second death with some of the same paths in hand makes these *suspects*. From then on
  they are taken up in halves, one half at a time and named before it is read.
- Whoever dies with one half in hand clears the other; at last one path is alone.
- A path that killed a worker when it was alone is guilty, and is quarantined.

The other paths go on in each of these runs, so nobody waits for a poisoned one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from svsync.domain.ids import RemotePath

_ENOUGH = 2
"""So many deaths with the same paths in hand are no accident."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Paths that so many workers in a row had in hand when they died."""

    paths: tuple[RemotePath, ...] = ()
    deaths: int = 0

    @property
    def guilty(self) -> RemotePath | None:
        """The one path left, where it has killed often enough."""
        return self.paths[0] if self.deaths >= _ENOUGH and len(self.paths) == 1 else None

    def pieces(self) -> list[Sequence[RemotePath]]:
        """The suspects in halves; none while it may have been an accident."""
        if self.deaths < _ENOUGH or len(self.paths) < 2:
            return []
        middle = (len(self.paths) + 1) // 2
        return [self.paths[:middle], self.paths[middle:]]

    def after_death(self, in_hand: Sequence[RemotePath], *, piece: bool) -> "Suspicion":
        """What is suspected once another worker has died.

        `in_hand` are the paths it was working on, of which the culprit is one; with
        `piece` it had taken up these alone, because they were suspected already.
        """
        if not in_hand:
            return self  # it died elsewhere: of listing, say
        if piece:
            return Suspicion(tuple(in_hand), max(self.deaths, _ENOUGH - 1) + 1)
        known = set(self.paths)
        common = tuple(path for path in in_hand if path in known)
        return Suspicion(common, self.deaths + 1) if common else Suspicion(tuple(in_hand), 1)
