"""The login of a session, for as long as it is good: had once, shared, and had anew in time.

It is replaced at two thirds of its life, before the next call; while one caller does that the
others go on with what is still good, and so do all where another login is not to be had now.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

from svsync.domain.errors import BackendError, BackendUnreachableError, ThrottledError

T = TypeVar("T")

RENEW_AT: Final = 2 / 3
"""Of a login's life, when another one is asked for."""
ASK_AGAIN_S: Final = 60.0
"""Seconds for which a login that is still good is used after another one was not had."""


class CountedCall(Protocol):
    """Runs one call of the class `login` under the backend's limits and counts it."""

    def __call__(self, attempt: Callable[[], Awaitable[T]], /) -> Awaitable[T]: ...


async def uncounted(attempt: Callable[[], Awaitable[T]]) -> T:
    """The same, neither counted nor limited."""
    return await attempt()


class Lasting(Protocol):
    """A login, since when (monotonic seconds), and for how long (seconds; 0: for ever)."""

    @property
    def since(self) -> float: ...

    @property
    def ttl(self) -> float: ...


L = TypeVar("L", bound=Lasting)


class KeptLogin(Generic[L]):
    """What one session is signed in with. Safe for concurrent use.

    Args:
        sign_in: gets another login; it is given the one that was refused, None: none was.
        clock: monotonic seconds.

    Attributes:
        now: the login that was had last; None: none is.
    """

    def __init__(
        self,
        sign_in: Callable[[L | None], Awaitable[L]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sign_in = sign_in
        self._clock = clock
        self._lock = asyncio.Lock()
        self._ask_again_at = 0.0
        self.now: L | None = None

    async def get(self, refused: L | None = None) -> L:
        """A login that is good, and another one than the one that was refused.

        Raises what `sign_in` raises; of a BackendError nothing was sent.
        """
        login = self.now
        renewed = self._lock.locked()
        if renewed and login is not None and login is not refused and not self._is_over(login):
            return login
        try:
            async with self._lock:
                login = self.now
                if login is None or login is refused or self._is_due(login):
                    login = self.now = await self._sign_in_or_keep(login, refused)
                return login
        except BackendError as error:
            error.sent = False
            raise

    def forget(self) -> None:
        """The next call signs in."""
        self.now = None

    def _is_due(self, login: L) -> bool:
        due = max(login.since + login.ttl * RENEW_AT, self._ask_again_at)
        return login.ttl > 0 and (self._clock() >= due or self._is_over(login))

    def _is_over(self, login: L) -> bool:
        return login.ttl > 0 and self._clock() >= login.since + login.ttl

    async def _sign_in_or_keep(self, login: L | None, refused: L | None) -> L:
        try:
            return await self._sign_in(refused)
        except (BackendUnreachableError, ThrottledError):
            if login is None or login is refused or self._is_over(login):
                raise
            self._ask_again_at = self._clock() + ASK_AGAIN_S
            return login
