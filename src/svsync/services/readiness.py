"""Is this process ready to work: does its store answer, with a schema that fits, and has it
the keys?

A probe needs no token, so it must not be a way to keep the database busy: one look is
under way at a time, and stands for all who ask within a second.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from svsync.domain.errors import StoreError, StoreUnavailableError
from svsync.store import readiness
from svsync.store.database import Database

PATIENCE_S: Final = 2.0
"""Seconds until a database that says nothing counts as one that is away."""

FRESH_S: Final = 1.0
"""For so many seconds what was found stands."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What was found.

    Attributes:
        store: `ok` or `unavailable`.
        schema: `ok`, `behind`, `ahead`, or `unknown` where nothing can be said of it.
        keys: `ok`, or `shut` where no key service has opened the root key for `kms_grace`.
    """

    store: str
    schema: str
    keys: str = "ok"

    @property
    def ready(self) -> bool:
        return (self.store, self.schema, self.keys) == ("ok", "ok", "ok")


class Readiness:
    def __init__(
        self,
        db: Database,
        clock: Callable[[], float],
        *,
        patience: float = PATIENCE_S,
        keys_shut: Callable[[], bool] = lambda: False,
    ) -> None:
        """`clock`: seconds that never go back; `patience`: seconds that an answer may take."""
        self._keys_shut = keys_shut
        self._db = db
        self._clock = clock
        self._patience = patience
        self._one = asyncio.Lock()
        self._found: tuple[float, Ready] | None = None

    async def look(self) -> Ready:
        """How it stands now, at most a second ago."""
        async with self._one:
            if self._found is None or self._clock() - self._found[0] >= FRESH_S:
                keys = "shut" if self._keys_shut() else "ok"
                found = replace(await self._ask(), keys=keys)
                self._found = (self._clock(), found)
            return self._found[1]

    async def _ask(self) -> Ready:
        asked = asyncio.create_task(self._schema())
        try:
            await asyncio.wait({asked}, timeout=self._patience)
            return asked.result() if asked.done() else Ready("unavailable", "unknown")
        finally:
            asked.cancel()
            await asyncio.wait({asked}, timeout=self._patience)

    async def _schema(self) -> Ready:
        try:
            return Ready("ok", await readiness.schema(self._db))
        except StoreUnavailableError:
            return Ready("unavailable", "unknown")
        except StoreError:
            return Ready("ok", "unknown")
