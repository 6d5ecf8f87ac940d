"""Backends that stay open between two reads, so that a read needs no login.

One of each tenant's backends at most, for as long as its configuration is the one that
it was opened with. It is closed when nobody has used it for a while, when it was
configured anew, and at the end. Its credential is its session's matter: one that was
changed is asked for where the old login does not count any more. One with a budget of
calls gets some of them at a time, while there are any.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from svsync.domain.errors import SvsyncError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import BackendId, TenantId
from svsync.observe.logs import get_logger
from svsync.ports import Backend
from svsync.services.call_budgets import CallBudgets, per_day_of
from svsync.services.runs import Backends, OpenBackend
from svsync.store.federation import StoredBackend

IDLE_S: Final = 600.0
"""Seconds after which a backend that nobody used is closed."""
_FEW: Final = 8
"""Calls that one read may make, a login and tries again among them."""
_SPENT_S: Final = 30.0
"""Seconds after which a budget that was spent is asked for again."""
_AGAIN_S: Final = 5.0
"""Seconds within which a call is tried again. Whoever reads waits for twice that: they are
told that a backend asks for fewer calls, not that it was late."""


@dataclass(slots=True, eq=False)
class _Held:
    """One backend, open or about to be; `users` have it in hand."""

    tenant: TenantId
    spec: BackendSpec
    rev: int
    used_at: float
    users: int = 0
    opened: OpenBackend | None = None
    spent_until: float = 0.0
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def is_of(self, stored: StoredBackend) -> bool:
        same = self.spec is stored.spec or self.spec == stored.spec
        return self.rev == stored.rev and same


class OpenBackends:
    """The open backends of one process, of every tenant."""

    def __init__(
        self,
        backends: Backends,
        budgets: CallBudgets,
        *,
        clock: Callable[[], float],
        idle_s: float = IDLE_S,
    ) -> None:
        """`clock` gives monotonic seconds; after `idle_s` of them an unused one is closed."""
        self._backends = backends
        self._budgets = budgets
        self._clock = clock
        self._idle_s = idle_s
        self._held: dict[tuple[TenantId, BackendId], _Held] = {}
        self._retired: list[_Held] = []

    @property
    def many(self) -> int:
        """How many are open, or about to be."""
        return len(self._held) + len(self._retired)

    @asynccontextmanager
    async def use(self, tenant: TenantId, stored: StoredBackend) -> AsyncIterator[Backend]:
        """A backend as it is configured there, open at least until the block ends.

        Raises SvsyncError: it cannot be opened. Its calls raise `call_budget_spent` where no
        more may be made.
        """
        held = self._of(tenant, stored)
        held.users += 1
        try:
            yield await self._opened(tenant, held)
        finally:
            held.users -= 1
            held.used_at = self._clock()

    def _of(self, tenant: TenantId, stored: StoredBackend) -> _Held:
        key = (tenant, stored.spec.id)
        held = self._held.get(key)
        if held is not None and held.is_of(stored):
            return held
        if held is not None:
            self._retired.append(held)
        made = self._held[key] = _Held(tenant, stored.spec, stored.rev, self._clock())
        return made

    async def _opened(self, tenant: TenantId, held: _Held) -> Backend:
        opened = held.opened
        if opened is None or self._is_short(held, opened):
            async with held.opening:
                opened = held.opened
                if opened is None:
                    limited = per_day_of(held.spec) is not None
                    calls = await self._budgets.take(tenant, held.spec) if limited else None
                    opened = held.opened = await held.stack.enter_async_context(
                        self._backends.open(held.spec, tenant, calls_left=calls, patience=_AGAIN_S)
                    )
                elif self._is_short(held, opened):
                    calls = await self._budgets.take(tenant, held.spec)
                    opened.allow(calls)
                    if not calls:
                        held.spent_until = self._clock() + _SPENT_S
        return opened.backend

    def _is_short(self, held: _Held, opened: OpenBackend) -> bool:
        left = opened.calls_left()
        return left is not None and left < _FEW and self._clock() >= held.spent_until

    async def close_unused(self) -> None:
        """Close those that nobody has in hand and that are idle, or configured anew."""
        now = self._clock()
        for key, held in list(self._held.items()):
            if not held.users and now - held.used_at >= self._idle_s:
                self._retired.append(self._held.pop(key))
        closing = [held for held in self._retired if not held.users]
        self._retired = [held for held in self._retired if held.users]
        await asyncio.gather(*map(_close, closing))

    async def close_of(self, tenant: TenantId) -> None:
        """Close those of a tenant that was shredded, whoever has them in hand: they are signed in
        with a credential that it gave. One in hand may be opening: the next look closes it."""
        self._retired += [self._held.pop(key) for key in list(self._held) if key[0] == tenant]
        closing = [held for held in self._retired if held.tenant == tenant]
        self._retired = [h for h in self._retired if h.users or h.tenant != tenant]
        await asyncio.gather(*map(_close, closing))

    async def close(self) -> None:
        """Close all, whoever has them in hand."""
        closing = [*self._held.values(), *self._retired]
        self._held.clear()
        self._retired.clear()
        await asyncio.gather(*map(_close, closing))


async def _close(held: _Held) -> None:
    try:
        await held.stack.aclose()
    except SvsyncError as problem:
        get_logger().warning("backend_not_closed", backend_id=held.spec.id, error_code=problem.code)
    except Exception as bug:  # noqa: BLE001 - one backend that does not close ends nothing else
        get_logger().error("backend_not_closed", backend_id=held.spec.id, exc_info=bug)
