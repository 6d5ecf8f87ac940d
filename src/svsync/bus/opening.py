"""Which signals a process has: over Redis where there is a URL, else its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from svsync.bus.local import LocalSignals, SignalCounts
from svsync.domain.values import SecretValue
from svsync.observe.logs import get_logger
from svsync.ports import Signals


class CountedSignals(Signals, Protocol):
    """Signals that also tell what happened to them, for the metrics."""

    @property
    def counts(self) -> SignalCounts: ...


@asynccontextmanager
async def open_signals(url: SecretValue | None) -> AsyncIterator[CountedSignals]:
    """The signals of this process while the block lasts, over Redis at `url` or without.

    A Redis that is away delays the start by a second at most and is joined once it
    answers. Raises ConfigError for a URL that means nothing.
    """
    if url is None:
        get_logger().info("signals_local", detail="no Redis: signals stay inside this process")
        yield LocalSignals()
        return
    from svsync.bus.joined import redis_signals  # the library is loaded by those who use it

    async with redis_signals(url) as signals:
        yield signals
