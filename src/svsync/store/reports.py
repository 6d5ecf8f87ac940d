"""Reports of runs, a page at a time."""

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
