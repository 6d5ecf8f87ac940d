"""Reports of runs, a page at a time."""

from collections.abc import Sequence
from typing import Final

from svsync.domain.ids import BackendId, RunId
from svsync.store.database import Row, Transaction

_BEHIND_ALL: Final = "~"
"""Sorts behind every run's id."""


async def page(
    tx: Transaction, backend: BackendId, *, before: RunId | None, limit: int
) -> list[Row]:
    """The backend's runs before one of them, newest first."""
    return await tx.fetch("reports.page", tx.tenant, backend, before or _BEHIND_ALL, limit)


async def last(tx: Transaction, backends: Sequence[BackendId], each: int) -> list[Row]:
    """The last runs of each of some backends, by backend and newest first; of one that has none,
    a row of nulls."""
    return await tx.fetch("reports.last", tx.tenant, list(backends), each)
