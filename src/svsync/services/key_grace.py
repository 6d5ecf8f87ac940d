"""For how long a running process goes on without its key services.

The root key is unwrapped once, at start. From then on its key services are asked again and
again whether they still open it. While one of them does, all is well. Where none does, the
process goes on for `kms_grace`: an outage is ridden out. After that it forgets its keys and
refuses whatever needs one, until a key service opens the root key again: so a key that was
disabled stops every process in a known time, and none has to be restarted afterwards.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from svsync.domain.errors import KeyServiceError, SvsyncError
from svsync.observe.logs import get_logger
from svsync.services.root_keys import Standing, Word
from svsync.services.sealing import Sealing

LOOK_S: Final = 300.0
"""Seconds between two looks."""
SOON_S: Final = 30.0
"""The same while a key service is away."""


class KeyGrace:
    """Looks after the key services of one process."""

    def __init__(
        self, sealing: Sealing, grace_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """The root key was opened just now. `clock`: seconds that never go back."""
        self._sealing = sealing
        self._grace_s = grace_s
        self._clock = clock
        self._opened_at = clock()
        self._said = _said(sealing.standings)
        self.away_s = 0.0
        """Seconds since a key service last opened the root key; 0: one did at the last look."""
        self.shut = False
        """The keys are forgotten."""

    def next_look_s(self) -> float:
        """Seconds until the next look is due."""
        if not self._said:
            return min(LOOK_S, max(self._grace_s, SOON_S))
        left = self._grace_s - self.away_s
        return SOON_S if self.shut or left <= 0 else min(SOON_S, left)

    async def look(self) -> None:
        """Ask, and say what has changed; raises nothing."""
        log = get_logger()
        try:
            standings = await self._sealing.look()
            if self.shut:
                await self._sealing.open_root()
        except KeyServiceError as problem:
            self.away_s = max(self._clock() - self._opened_at, 1e-9)
            if problem.message not in self._said:
                self._said = frozenset({problem.message})
                log.error("key_service", detail=problem.message)
            if self.away_s >= self._grace_s and not self.shut:
                self.shut = True
                why = (
                    f"no key service has opened the root key for {self._grace_s:.0f} s"
                    " (kms_grace), so the keys were put away: bring one back"
                )
                self._sealing.shut(why)
                log.error("keys_shut", detail=why)
            return
        except SvsyncError:
            return  # it is the database that is away: nothing is known of the keys
        for detail in sorted(_said(standings) - self._said):
            log.warning("key_service", detail=detail)
        if self._said and not _said(standings):
            log.info("key_service_back")
        self._said = _said(standings)
        self._opened_at, self.away_s, self.shut = self._clock(), 0.0, False


def _said(standings: tuple[Standing, ...]) -> frozenset[str]:
    """What people are to know. A key service that wraps nothing while we run was one of those
    that did when we started: whoever gives up another key for it would lose everything."""
    return frozenset(
        f"the root key is not wrapped by {one.reference} any more: a process with other key"
        " services stored it; configure the same for all, and start this one again"
        if one.word is Word.UNUSED
        else one.says
        for one in standings
        if one.says or one.word is Word.UNUSED
    )


async def keep_looking(grace: KeyGrace) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(grace.next_look_s())
        await grace.look()
