"""What is read through, in the order of paths, one folder after another.

A folder is asked for when the walk gets to it, and no sooner: whoever joins it with a list
of their own says how far they need it. On the way back up from a place in the middle, the
folders around that are asked for as well, but only once the walk comes to what lies behind.

So many calls a walk, and seconds: then it stops, and `stopped` says where to go on. A
backend that cannot be asked is not asked again on the same walk.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from svsync.domain.ids import BackendId
from svsync.services.proxied_folders import BEHIND, ProxiedFolder

CALLS: Final = 50
"""Folders of backends that one walk asks for; the one that it is in when they are used up is
asked for whole."""
WALK_S: Final = 10.0
"""Seconds after which it asks for no more."""

Look = Callable[[str, Collection[BackendId]], Awaitable[ProxiedFolder]]
"""Looks into a local folder, without asking some backends. Raises StoreUnavailableError."""
Listed = dict[str, object]
"""A secret as lists show it."""


@dataclass(slots=True)
class _Within:
    """A folder that the walk is in, or gets to.

    Attributes:
        root: what every path begins with that matters.
        above: only what is greater has not been seen.
        rest: what is in it and was not seen yet, the least one last; None: not asked yet.
    """

    folder: str
    root: str
    above: str
    rest: list[tuple[str, Listed | None]] | None = None


class ProxiedWalk:
    """One walk. Made by `Proxying.walk`.

    Attributes:
        epoch: under which the owners stood whom it asks; see `ProxiedPaths`.
        incomplete: a backend could not be asked, or did not tell all, on the way so far.
        stopped: it asks for no more, and all up to this was seen; None: it did not stop.
    """

    def __init__(
        self,
        look: Look,
        roots: Sequence[str],
        after: str,
        *,
        epoch: int,
        clock: Callable[[], float],
        calls: int = CALLS,
    ) -> None:
        """`roots`: what paths begin with that matter, in order, none the beginning of
        another; `clock`: monotonic seconds; `calls`: of a walk."""
        self._look = look
        self._clock = clock
        self._until = clock() + WALK_S
        self._calls = calls
        self._asked = 0
        self._failed: set[BackendId] = set()
        self._last: tuple[str, ProxiedFolder] | None = None
        self._way = _way(roots, after)
        self.epoch = epoch
        self.incomplete = False
        self.stopped: str | None = None

    @property
    def over(self) -> bool:
        """Was all seen that there is?"""
        return not self._way

    async def least(self, bound: str | None) -> Listed | None:
        """The first secret that was not taken and is not greater than `bound` (None: any);
        None where there is none, or it stopped before it knew.

        Raises StoreUnavailableError: the store does not tell how a backend is opened.
        """
        while self._way and self.stopped is None:
            here = self._way[-1]
            if here.rest is None:
                if bound is not None and (here.above >= bound or here.root > bound):
                    return None
                await self._list(here)
            elif not here.rest:
                self._way.pop()
            else:
                place, secret = here.rest[-1]
                if bound is not None and place > bound:
                    return None
                if secret is not None:
                    return secret
                here.rest.pop()
                self._way.append(_Within(place, here.root, place))
        return None

    def take(self) -> None:
        """Pass by the secret that `least` gave."""
        rest = self._way[-1].rest
        assert rest
        rest.pop()

    async def _list(self, here: _Within) -> None:
        if self._last is None or self._last[0] != here.folder:
            # The first is always asked for, so that each walk gets further.
            if self._asked and (self._asked >= self._calls or self._clock() >= self._until):
                self.stopped = here.above
                return
            found = await self._look(here.folder, self._failed)
            self._last = here.folder, found
            self._asked += found.calls
            self._failed |= found.failed
            self.incomplete |= found.incomplete
        _, found = self._last
        inside: list[tuple[str, Listed | None]] = [*found.secrets.items()]
        inside += [(folder, None) for folder in found.folders]
        here.rest = sorted(
            (
                (place, secret)
                for place, secret in inside
                if place > here.above and place.startswith(here.root)
            ),
            key=lambda one: one[0],
            reverse=True,
        )


def _way(roots: Sequence[str], after: str) -> list[_Within]:
    """Where a walk begins, the first folder last; from a place within one, with those around."""
    way: list[_Within] = []
    seen = after
    for root in roots:
        if root + BEHIND <= after:
            continue
        outer, above = _around(root), seen
        if after.startswith(root):
            inner = _around(after.removesuffix("/" + BEHIND))
            while len(inner) > len(outer):
                way.append(_Within(inner, root, above))
                inner, above = _around(inner[:-1]), inner + BEHIND
        way.append(_Within(outer, root, above))
        seen = root + BEHIND
    return way[::-1]


def _around(path: str) -> str:
    """The folder that a path is in, with its slash; that of a folder is itself."""
    return path[: path.rfind("/") + 1]
