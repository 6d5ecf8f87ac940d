"""How many calls of one identity are let through, by kind of call.

A bucket for each identity and kind, in this process alone: nobody else is asked, so a read
costs nothing more. It fills by this process's part of the rate that is configured: that
rate divided by the number of processes that answer the API.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from svsync.domain.access import Caller
from svsync.domain.errors import SvsyncError
from svsync.domain.ids import TenantId
from svsync.domain.limits import BURST_S, UNLIMITED, ApiRates, Category

_ROOM: Final = 20_000
"""Buckets that are kept. The one that was not used for longest is forgotten first; it is full
again unless as many identities call within seconds."""
_SECRETS: Final = "/v1/secrets"
_FEDERATION: Final = ("/v1/federation", "/v1/migration", "/v1/webhooks", "/v1/events")
_READS: Final = frozenset({"GET", "HEAD"})


class RateLimitedError(SvsyncError):
    """This identity makes more calls of the kind than it may."""

    code = "rate_limited"

    def __init__(self, category: Category, retry_after: int) -> None:
        super().__init__(
            f"more calls of the kind {category} than one identity may make: wait, and try again"
        )
        self.retry_after = retry_after


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Limits:
    """Counts calls, of every tenant."""

    def __init__(
        self,
        rates: ApiRates = UNLIMITED,
        *,
        clock: Callable[[], float],
        processes: Callable[[], int] = lambda: 1,
        room: int = _ROOM,
    ) -> None:
        """
        Args:
            rates: of one identity at all processes together.
            clock: seconds that never go back.
            processes: how many answer the API now, this one included.
        """
        self._rates = rates
        self._clock = clock
        self._processes = processes
        self._room = room
        self._buckets: OrderedDict[tuple[TenantId, str, Category], _Bucket] = OrderedDict()

    def take(self, caller: Caller, category: Category) -> None:
        """Let a call through. Raises RateLimitedError: it must wait."""
        rate = self._rates.of(category)
        if rate is None:
            return
        part = rate / max(1, self._processes())
        most = max(1.0, part * BURST_S)
        key = (caller.tenant, caller.identity.id, category)
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(most, now)
            if len(self._buckets) > self._room:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
            bucket.left = min(most, bucket.left + (now - bucket.at) * part)
            bucket.at = now
        if bucket.left < 1:
            raise RateLimitedError(category, max(1, math.ceil((1 - bucket.left) / part)))
        bucket.left -= 1

    def give_back(self, caller: Caller, category: Category) -> None:
        """A call that was let through is let through again, from its beginning."""
        bucket = self._buckets.get((caller.tenant, caller.identity.id, category))
        if bucket is not None:
            bucket.left += 1


def category_of(method: str, path: str) -> Category:
    """Of a route below `/v1/`."""
    if path.startswith(_SECRETS):
        return Category.SECRETS_READ if method in _READS else Category.SECRETS_WRITE
    return Category.FEDERATION if path.startswith(_FEDERATION) else Category.ADMIN
