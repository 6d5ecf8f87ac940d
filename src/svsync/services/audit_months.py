"""The audit log by months: made ahead, and removed whole once their time is over.

What is about to be removed is recorded first, in the log itself: so that a chain whose
beginning is missing is told from one that somebody cut. Rows that no checkpoint covers yet
stay, whatever their age; but for those of a tenant that was shredded, which none will cover.
"""

import json
import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from svsync.domain.audit import TRIM, TRIMMER, Decision, Entry
from svsync.domain.errors import StoreError
from svsync.observe.logs import get_logger
from svsync.services.recording import Recorder
from svsync.store import audit_months as store
from svsync.store.database import Database

EVERY_S: Final = 86_400.0
"""Seconds between two looks at the months, whichever process has them."""
TASK: Final = "audit-months"
AHEAD: Final = 2
"""Months beyond this one that rows can be written to."""
_NAME: Final = re.compile(r"audit_([0-9]{4})_([0-9]{2})")


class AuditMonths:
    """Partitions of the log, and its retention, of every tenant at once."""

    def __init__(self, db: Database, recorder: Recorder, retention: float) -> None:
        """`retention`: seconds for which a row is kept at least."""
        self._db = db
        self._recorder = recorder
        self._retention = retention

    async def prepare(self) -> int:
        """Make the months that are missing, this one and those ahead; how many were made. What
        cannot be made is warned of: rows are kept all the same, where none can be removed.

        Raises StoreUnavailableError.
        """
        known = await store.months(self._db)
        made, month = 0, _month_of(known["now"])
        for _ in range(AHEAD + 1):
            if _named(month) not in known["names"]:
                made += await self._make(month)
            month = _next(month)
        return made

    async def _make(self, month: date) -> bool:
        try:
            async with self._db.transaction_of([]) as tx:
                return await store.make(tx, month)
        except StoreError as problem:
            if problem.code != StoreError.code:
                raise
            get_logger().warning(
                "audit_month_missing",
                error_code=problem.code,
                detail=f"the partition audit_{month:%Y_%m} cannot be made, so its rows go to"
                " audit_rest, from where nothing is removed: let the role of DATABASE_URL create"
                " tables in the schema",
            )
            return False

    async def trim(self) -> list[str]:
        """Remove the months that are over; their names.

        Raises:
            StoreError: the rest is due still. AuditUnavailableError: nothing was removed that
                is not recorded.
        """
        known = await store.months(self._db)
        tenants = await store.all_tenants(self._db)
        gone: list[str] = []
        for name in known["names"]:
            if (found := _NAME.fullmatch(name)) is None:
                continue
            month = date(int(found[1]), int(found[2]), 1)
            low, high = _start(month), _start(_next(month))
            if high > known["now"] - timedelta(seconds=self._retention):
                break
            async with self._db.transaction_of(tenants, read_only=True) as tx:
                held = await store.have_rows(tx, tenants, low, high)
                waits = await store.uncovered(tx, tenants, low, high)
            if waits:
                get_logger().warning("audit_month_uncovered", count=waits, detail=name)
                break
            detail = json.dumps({"before": high.isoformat().replace("+00:00", "Z")})
            for tenant in held:
                entry = Entry(tenant, "system", TRIMMER, TRIM, Decision.ALLOW, detail=detail)
                await self._recorder.record(entry)
            async with self._db.transaction_of(tenants) as tx:
                done = await store.drop(tx, month)
            if done == "uncovered":
                break
            if done == "removed":
                gone.append(name)
                get_logger().info("audit_month_removed", detail=name)
        return gone


def _named(month: date) -> str:
    return f"audit_{month:%Y_%m}"


def _month_of(moment: datetime) -> date:
    return moment.astimezone(UTC).date().replace(day=1)


def _next(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _start(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)
