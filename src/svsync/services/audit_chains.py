"""How the chains of the audit log stand: how far each goes, and how far that is signed and kept
outside.

It is what the store says of itself. Whether it is true, `svsync audit verify` finds out.
"""

from collections.abc import Sequence
from typing import Any, Final

from svsync.domain.ids import TenantId
from svsync.services.secrets import time_of
from svsync.store import audit_chains as store
from svsync.store import checkpoints
from svsync.store.database import Database, Row

_NEWEST: Final = 2**63 - 1


class AuditChains:
    """The chains of every tenant."""

    def __init__(self, db: Database, places: Sequence[str]) -> None:
        """`places`: outside, that checkpoints are given to now."""
        self._db = db
        self._places = places

    async def look(
        self, tenant: TenantId, *, limit: int, before: int | None = None
    ) -> dict[str, Any]:
        """The newest checkpoint, how many rows are under none, what the places outside have,
        and a page of chains, newest first. Of a place its kind is told: where exactly it is, is
        the operator's.

        Args:
            before: the `next_cursor` of the page before.

        Raises StoreError.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            last = await checkpoints.last(tx)
            uncovered = await checkpoints.went_on(tx, [tenant])
            known = {row["place"]: row for row in await store.anchors(tx)}
            rows = await store.page(tx, before or _NEWEST, limit + 1)
        newest = last["n"] or 0
        return {
            "checkpoint": None if not newest else {"n": newest, "at": time_of(last["at"])},
            "uncovered": uncovered.get(tenant, 0),
            "anchors": [
                _anchor(place, known.get(place), newest, in_use=place in self._places)
                for place in sorted({*self._places, *known})
            ],
            "chains": [_chain(row) for row in rows[:limit]],
            "next_cursor": str(rows[limit - 1]["chain_id"]) if len(rows) > limit else None,
        }


def _anchor(place: str, row: Row | None, newest: int, *, in_use: bool) -> dict[str, Any]:
    return {
        "kind": place.partition(":")[0],
        "in_use": in_use,
        "first_n": None if row is None else row["first_n"],
        "last_n": None if row is None else row["last_n"],
        "anchored_at": None if row is None else time_of(row["anchored_at"]),
        "behind": newest - (0 if row is None else row["last_n"]),
    }


def _chain(row: Row) -> dict[str, Any]:
    head = None
    if row["seq"] is not None:
        head = {"seq": row["seq"], "at": time_of(row["at"]), "hash": row["hash"].hex()}
    state = "at_rest" if row["at_rest"] else "open"
    return {
        "chain": row["chain_id"],
        "writer": row["writer"],
        "started_at": time_of(row["started_at"]),
        "state": state if row["end_reason"] is None else "ended",
        "end_reason": row["end_reason"],
        "rows": 0 if head is None else row["seq"] - row["trimmed_seq"],
        "head": head,
        "trimmed_seq": row["trimmed_seq"],
        "covered_seq": row["covered_seq"],
        "covered_at": time_of(row["covered_at"]),
    }
