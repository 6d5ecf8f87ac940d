"""Does the database answer, and does its schema fit this program?"""

from functools import cache

from svsync.store.database import Database
from svsync.store.migrate import CODE_LEVEL, migrations


async def schema(db: Database) -> str:
    """`ok`, `behind` (migrations wait) or `ahead` (a newer svsync has migrated it).

    Raises:
        StoreUnavailableError: no answer.
        StoreError: there is no schema at all.
    """
    rows = await db.fetch_global("readiness.applied")
    if max((row["min_code"] for row in rows), default=0) > CODE_LEVEL:
        return "ahead"
    return "ok" if _numbers() <= {row["n"] for row in rows} else "behind"


@cache
def _numbers() -> frozenset[int]:
    return frozenset(migration.number for migration in migrations())
