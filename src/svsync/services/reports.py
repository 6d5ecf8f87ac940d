"""Reports of past runs as the API gives them: pages, one whole, one in brief."""

import re
from collections.abc import Sequence
from typing import Final

from svsync.domain.errors import NotFoundError
from svsync.domain.ids import BackendId, RunId, TenantId
from svsync.domain.runs import Skipped, SkipReason
from svsync.services.run_rows import run_of
from svsync.store import federation, queue, reports
from svsync.store.database import Database, Row, Transaction

_IN_SHORT: Final = ("run_id", "kind", "state", "result", "started_at", "duration_ms")
_RUN_ID: Final = re.compile(r"run_[0-9a-f]{32}")


class Reports:
    """Reports of every tenant's runs."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(
        self, tenant: TenantId, backend: str, *, limit: int, before: str | None
    ) -> tuple[list[dict[str, object]], str | None]:
        """Runs of a backend in brief, newest first; and where the next page begins, if any.

        Args:
            before: the id that the page before gave; None: from the newest on.

        Raises:
            NotFoundError: there is no such backend.
        """

        async def look(tx: Transaction) -> list[Row]:
            stored = await federation.get(tx, backend)
            return await reports.page(
                tx, stored.spec.id, before=RunId(before) if before else None, limit=limit + 1
            )

        rows = await self._db.read(tenant, look)
        runs = [_brief(row) for row in rows[:limit]]
        return runs, rows[limit - 1]["run_id"] if len(rows) > limit else None

    async def show(self, tenant: TenantId, backend: str, run: str) -> dict[str, object]:
        """One run of a backend, with the paths it skipped.

        Raises:
            NotFoundError: there is no such backend, or no such run of it.
        """

        async def look(tx: Transaction) -> tuple[Row, list[Row]]:
            stored = await federation.get(tx, backend)
            row = await queue.get(tx, RunId(run)) if _RUN_ID.fullmatch(run) else None
            if row is None or row["backend_id"] != stored.spec.id:
                raise NotFoundError("there is no such run of this backend", code="run_not_found")
            return row, await queue.skips(tx, RunId(run))

        row, skips = await self._db.read(tenant, look)
        return run_of(
            row,
            [Skipped(s["remote_path"], SkipReason.of(s["reason"]), s["detail"]) for s in skips],
        )

    async def last(
        self, tenant: TenantId, backends: Sequence[BackendId], *, each: int
    ) -> list[dict[str, object]]:
        """Of each of some backends that is there, by id, the last runs in a few words, newest
        first; without dry runs, and those that only wait."""

        async def look(tx: Transaction) -> list[Row]:
            return await reports.last(tx, backends, each)

        found: dict[str, list[dict[str, object]]] = {}
        for row in await self._db.read(tenant, look):
            runs = found.setdefault(row["backend_id"], [])
            if row["run_id"] is not None:
                runs.append(_in_short(row))
        return [{"id": backend, "runs": runs} for backend, runs in found.items()]

    async def brief(self, tenant: TenantId, run: object) -> dict[str, object] | None:
        """A run without the paths it skipped; None where there is none of that id."""
        if not isinstance(run, str):
            return None
        async with self._db.transaction(tenant, read_only=True) as tx:
            row = await queue.get(tx, RunId(run))
        return None if row is None else _brief(row)


def _in_short(row: Row) -> dict[str, object]:
    whole = run_of(row, ())
    return {name: whole[name] for name in _IN_SHORT}


def _brief(row: Row) -> dict[str, object]:
    found = run_of(row, ())
    del found["skipped"]  # how many there are stands in `counts`
    return found
