"""How the whole stands, for people who look on; and the stop of all runs.

A look costs the store four small statements, however many backends and secrets there
are, so that it may be taken every second by anybody.
"""

from collections.abc import Sequence
from typing import Any, Final

from svsync.domain.costs import Terms
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import BackendSpec, from_json
from svsync.domain.ids import BackendId, TenantId
from svsync.domain.runs import Stage
from svsync.services.backend_status import status_json
from svsync.services.runs import Backends
from svsync.services.secrets import time_of
from svsync.store import overview
from svsync.store.database import Database, Row
from svsync.store.overview import Stopped

RESUME: Final = "`svsync backends resume --all`"
"""What ends the stop of all runs."""
_UNTIL_STAGED: Final = {Stage.CONNECT, Stage.LIST, Stage.STAGE}
_UNTIL_COMPARED: Final = {*_UNTIL_STAGED, Stage.DIFF}


class Overview:
    """Looks at the backends of a tenant, and at what all tenants share."""

    def __init__(self, db: Database, backends: Backends) -> None:
        self._db = db
        self._backends = backends

    async def look(self, tenant: TenantId) -> dict[str, Any]:
        """How things stand, ready to be printed; names and numbers, never a value.

        `at` is the database's clock, and so is every other moment. Of a backend: its status
        as the API gives it, and `name`, `type`, `state`, `syncs` (it has cycles; else it is
        only probed), `max_staleness_s`, `stale` (older
        than that, or than three intervals where there is none), `tls_verify` (false: the
        backend is not checked to be who it says), `runs_waiting`, and `run`: the one at
        work, with `stage`, `listed`, `to_do`, `done` (committed for sure) and `in_hand`
        (being read or committed after those), each null until it is known.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows = await overview.backends(tx)
            running, waiting = await overview.runs(tx)
        processes = await overview.processes(self._db)
        now, stopped = await overview.now(self._db)
        return {
            "at": time_of(now),
            "stopped": stopped_json(stopped),
            "processes": [
                {
                    "id": row["instance_id"],
                    "roles": row["roles"],
                    "version": row["version"],
                    "started_at": time_of(row["started_at"]),
                    "silent_s": round(row["silent_s"], 1),
                }
                for row in processes
            ],
            "runs": {"running": running, "waiting": waiting},
            "backends": self._shown(rows),
        }

    async def page(
        self,
        tenant: TenantId,
        *,
        only: Sequence[BackendId] | None = None,
        after: str = "",
        limit: int,
    ) -> dict[str, Any]:
        """The same of some backends: `at`, `runs` (of all backends), `backends`, `next_cursor`.

        Args:
            only: these, as far as they are there; None: every one.
            after: the `next_cursor` of the page before.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows = await overview.backends(tx, only=only, after=after, limit=limit + 1)
            running, waiting = await overview.runs(tx)
        now, _ = await overview.now(self._db)
        backends = self._shown(rows[:limit])
        return {
            "at": time_of(now),
            "runs": {"running": running, "waiting": waiting},
            "backends": backends,
            "next_cursor": backends[-1]["id"] if len(rows) > limit else None,
        }

    def _shown(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        known = [(from_json(row["spec"]), row) for row in rows]
        return [_backend(spec, self._backends.terms(spec), row) for spec, row in known]

    async def stopped(self) -> Stopped | None:
        """Since when and by whom all runs are stopped; None: they are not."""
        _, found = await overview.now(self._db)
        return found

    async def stop(self, by: str) -> Stopped:
        """Let no run of any tenant begin any more; those under way end as ever.

        Where that is so already, whoever was first stays named.
        """
        return await overview.stop(self._db, by)

    async def go_on(self) -> None:
        """Let runs begin again."""
        await overview.go_on(self._db)

    async def refuse_stopped(self) -> None:
        """Raise SvsyncError `stopped` while all runs are stopped."""
        found = await self.stopped()
        if found is not None:
            raise SvsyncError(
                f"all runs were stopped by {found.by} at {time_of(found.since)}: {RESUME} lets"
                " them begin again",
                code="stopped",
            )


def stopped_json(found: Stopped | None) -> dict[str, str | None] | None:
    return None if found is None else {"since": time_of(found.since), "by": found.by}


def _backend(spec: BackendSpec, terms: Terms, row: Row) -> dict[str, Any]:
    return {
        "name": spec.name,
        "type": spec.type,
        "state": row["state"],
        "syncs": row["syncs"],
        **status_json(spec, terms, row["state"], row),
        "max_staleness_s": spec.max_staleness,
        "stale": row["stale"],
        "tls_verify": spec.config.get("tls_verify") is not False,
        "runs_waiting": row["waiting"],
        "run": None if row["run_id"] is None else _run(row),
    }


def _run(row: Row) -> dict[str, Any]:
    # What the row has of earlier stages is of an earlier worker, until this one gets there.
    staged = None if row["stage"] in _UNTIL_STAGED else row["staged_count"]
    to_do = row["todo_count"] if row["stage"] not in _UNTIL_COMPARED else None
    done = None if to_do is None else min(row["batch_cursor"], to_do)
    return {
        "run_id": row["run_id"],
        "kind": row["kind"],
        "stage": row["stage"],
        "started_at": time_of(row["started_at"]),
        "worker": row["worker"],
        "listed": staged,
        "to_do": to_do,
        "done": done,
        "in_hand": None if done is None else min(row["batch_size"] or 0, to_do - done),
    }
