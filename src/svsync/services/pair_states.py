"""The state of each federated secret of a backend, for somebody who may list some of them.

What policies give begins with certain strings, so only those ranges of paths are looked at.
"""

from typing import Final

from svsync.domain.changes import PairStatus
from svsync.domain.errors import UsageError
from svsync.domain.ids import TenantId
from svsync.domain.policies import Permission, Permissions
from svsync.services.proxied_folders import BEHIND
from svsync.services.secrets import time_of
from svsync.store import backends as store
from svsync.store import federation
from svsync.store.database import Database, Row

MAX_PAGE: Final = 1_000
_BETWEEN: Final = "|"
"""Between the local and the remote path of a cursor; no local path holds it."""


class PairStates:
    """Pairs of every tenant's backends."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(
        self,
        tenant: TenantId,
        permissions: Permissions,
        backend: str,
        *,
        prefix: str = "",
        state: PairStatus | None = None,
        limit: int = 100,
        cursor: str = "",
    ) -> dict[str, object]:
        """Pairs by local path, of which the caller may list the secret.

        Args:
            prefix: what their local paths begin with; it may end within a segment.
            state: these alone; None: all but those that are detached.
            cursor: the `next_cursor` of the page before. It names a path that was shown.

        Raises:
            NotFoundError: there is no such backend.
            UsageError: `bad_cursor`.
        """
        limit = min(max(1, limit), MAX_PAGE)
        after = _place(cursor)
        shown: list[Row] = []
        async with self._db.transaction(tenant, read_only=True) as tx:
            named = (await federation.get(tx, backend)).spec.id
            given = permissions.prefixes(Permission.LIST)
            more = True
            while more and len(shown) <= limit:
                asked = [
                    (max(one, prefix, after[0]), min(one + BEHIND, prefix + BEHIND))
                    for one in given
                ]
                ranges = [(first, end) for first, end in asked if first < end]
                rows = await store.states(tx, named, after, state and str(state), ranges, MAX_PAGE)
                more = len(rows) == MAX_PAGE
                for row in rows:
                    after = (row["path"], row["remote_path"])
                    if permissions.decide(row["path"], Permission.LIST) is not None:
                        shown.append(row)
        page = shown[:limit]
        following = None
        if len(shown) > limit:
            following = _BETWEEN.join((page[-1]["path"], page[-1]["remote_path"]))
        return {
            "backend_id": named,
            "secrets": [_described(row) for row in page],
            "next_cursor": following,
        }


def _place(cursor: str) -> tuple[str, str]:
    local, between, remote = cursor.partition(_BETWEEN)
    if cursor and not between:
        raise UsageError("cursor: must be the next_cursor of the page before", code="bad_cursor")
    return local, remote


def _described(row: Row) -> dict[str, object]:
    return {
        "path": row["path"],
        "remote_path": row["remote_path"],
        "status": row["status"],
        "version": row["version"],
        "synced_at": time_of(row["synced_at"]),
        "reason": row["reason"],
        "failures": row["failures"],
        "retry_at": time_of(row["retry_at"]),
        "moved_to": row["moved_to"],
    }
