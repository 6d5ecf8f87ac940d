"""What backends are still to be told: notices, gathered over a window, and handed over.

It is kept in memory only. Who took a notice from a place that would tell it again can wait
until it is written down, and only then let go of it there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from svsync.domain.errors import StoreError
from svsync.domain.feeds import MOST_PATHS
from svsync.domain.ids import BackendId, RemotePath, TenantId
from svsync.observe.logs import get_logger

WINDOW_S: Final = 0.1
"""Seconds from the first notice of a burst to its handing over."""

_PAUSE_S: Final = 1.0

TakeNotice = Callable[[TenantId, BackendId, Collection[RemotePath] | None, str], Awaitable[None]]
"""Asks for a run of these remote paths, or of all (None), because this feed told so.

Raises StoreError where it could not be written down; a backend that is gone, or paused,
is no error."""

Whose = tuple[TenantId, BackendId]


@dataclass(slots=True)
class _News:
    """Of one backend: some paths, or (None) that anything may have changed.

    `waiting` are done once it was handed over.
    """

    feed: str
    paths: set[RemotePath] | None = field(default_factory=set)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def add(self, paths: Iterable[RemotePath] | None) -> None:
        if paths is None or self.paths is None:
            self.paths = None
            return
        self.paths.update(paths)
        if len(self.paths) > MOST_PATHS:
            self.paths = None

    def handed_over(self) -> None:
        for one in self.waiting:
            if not one.done():  # nobody may wait any more
                one.set_result(None)


class Owed:
    """See the module; the arguments are those of `feeds.Feeds`."""

    def __init__(
        self,
        take_notice: TakeNotice,
        *,
        window_s: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._take_notice = take_notice
        self._window_s = window_s
        self._sleep = sleep
        self._owed: dict[Whose, _News] = {}
        self._handing: dict[Whose, _News] = {}
        self._something = asyncio.Event()

    def owe(self, whose: Whose, feed: str, paths: Iterable[RemotePath] | None) -> None:
        """A backend is to be told of these paths, or that anything may have changed."""
        self._owed.setdefault(whose, _News(feed)).add(paths)
        self._something.set()

    async def kept(self, those: Iterable[Whose]) -> None:
        """Until nothing is left that these backends were owed when this was asked."""
        waiting = []
        for whose in those:
            for news in (self._owed.get(whose), self._handing.get(whose)):
                if news is not None:
                    waiting.append(asyncio.get_running_loop().create_future())
                    news.waiting.append(waiting[-1])
        await asyncio.gather(*waiting)

    async def hand_over(self) -> None:
        """Do so until cancelled; what the store does not take is handed over again, with
        what came since."""
        while True:
            await self._something.wait()
            await self._sleep(self._window_s)
            self._something.clear()
            self._handing, self._owed = self._owed, {}
            failed: StoreError | None = None
            for whose, news in list(self._handing.items()):
                try:
                    await self._take_notice(*whose, news.paths, news.feed)
                except StoreError as error:
                    failed = error
                    again = self._owed.setdefault(whose, _News(news.feed))
                    again.add(news.paths)
                    again.waiting += news.waiting
                else:
                    news.handed_over()
                del self._handing[whose]
            if failed is not None:
                get_logger().warning("change_notice_failed", error=failed, count=len(self._owed))
                await self._sleep(_PAUSE_S)
                self._something.set()
