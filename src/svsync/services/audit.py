"""The audit log as people ask it: who did what, newest first."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from svsync.domain.audit import EPOCH, MICROSECOND, microseconds
from svsync.domain.ids import TenantId
from svsync.domain.moments import parse_moment
from svsync.store import audit as store
from svsync.store.audit import Asking
from svsync.store.database import Database, Row, Transaction

QUERY: Final = "audit.query"
"""What the log calls a look at itself."""
CURSOR: Final = r"[0-9]{1,17}-[0-9]{1,19}-[0-9]{1,19}"
"""Of so many digits each moment is one: the last is in the year 5138."""
_ALL_TIME: Final = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows somebody asks for; None: whatever it is.

    Attributes:
        secret_path: a path, or with `/**` at its end whatever is below one.
        begin, end: texts of moments, `domain.moments`: from then on, and before then.
        cursor: the `next_cursor` of the page before.
    """

    identity_id: str | None = None
    secret_path: str | None = None
    action: str | None = None
    decision: str | None = None
    begin: str | None = None
    end: str | None = None
    limit: int = 100
    cursor: str | None = None


class AuditLog:
    """Pages of the log."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def logs(self, tenant: TenantId, asked: Asked) -> dict[str, Any]:
        """A page: `logs`, and `next_cursor` where there are more.

        Raises:
            ValueError: a moment or the cursor that means nothing; the caller checks them.
            StoreError: the log cannot be looked at now.
        """

        async def look(tx: Transaction) -> list[Row]:
            now = await store.now(tx)
            asking = Asking(
                begin=parse_moment(asked.begin, now) if asked.begin else _ALL_TIME[0],
                end=parse_moment(asked.end, now) if asked.end else _ALL_TIME[1],
                limit=asked.limit + 1,
                identity=asked.identity_id,
                path=asked.secret_path,
                action=asked.action,
                decision=asked.decision,
                before=_place(asked.cursor) if asked.cursor else None,
            )
            return await store.page(tx, asking)

        rows = await self._db.read(tenant, look)
        more = len(rows) > asked.limit
        rows = rows[: asked.limit]
        return {
            "logs": [_shown(row) for row in rows],
            "next_cursor": _cursor(rows[-1]) if more else None,
        }


def _place(cursor: str) -> tuple[datetime, int, int]:
    if not re.fullmatch(CURSOR, cursor):
        raise ValueError("no cursor")
    at, chain, seq = (int(part) for part in cursor.split("-"))
    return EPOCH + at * MICROSECOND, min(chain, 2**63 - 1), min(seq, 2**63 - 1)


def _cursor(row: Row) -> str:
    return f"{microseconds(row['at'])}-{row['chain_id']}-{row['seq']}"


def _shown(row: Row) -> dict[str, Any]:
    return {
        "timestamp": row["at"].isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "action": row["action"],
        "secret_path": row["secret_path"],
        "identity_id": row["identity_id"],
        "identity_type": row["identity_type"],
        "decision": row["decision"],
        "version": row["version"],
        "backend_id": row["backend_id"],
        "request_id": row["request_id"],
        "source_ip": row["source_ip"],
        "id": f"aud_{row['chain_id']}_{row['seq']}",
    }
