"""Numbered SQL files, applied in order, each once and in a transaction of its own, by one
process at a time.

The lock is the transaction's, so that it goes with it, also where a pooler gives the next
one to another session. Where nothing is pending nobody waits for anybody.

A migration is never edited after a release: old code must be able to run on the
new schema, so a change expands first and contracts one release later. Each file
names in `-- min_code: N` the oldest code that may run on the schema it makes;
a database that asks for newer code than this is refused.

Log of code levels:
    1  first store
"""

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import asyncpg

from svsync.domain.errors import SchemaError, StoreUnavailableError
from svsync.store.database import translated

if TYPE_CHECKING:  # generic in its stubs only
    Connection = asyncpg.Connection[asyncpg.Record]

CODE_LEVEL = 1
"""What this program understands; raised with each migration that old code cannot run on."""

_LOCK = 0x5356_5359_4E43  # "SVSYNC": one number for all processes of this program


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str
    min_code: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations that this program brings, in order."""
    found = []
    for file in resources.files("svsync.store").joinpath("migrations").iterdir():
        named = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if named is None:
            continue
        sql = file.read_text("utf-8")
        level = re.search(r"^-- min_code: (\d+)$", sql, flags=re.MULTILINE)
        assert level is not None, f"{file.name} names no min_code"
        found.append(Migration(int(named[1]), named[2], sql, int(level[1])))
    return sorted(found, key=lambda m: m.number)


async def migrate(dsn: str, *, apply: bool = True) -> list[Migration]:
    """Bring the schema up to date; the migrations that were applied.

    With `apply` false nothing is written, and pending migrations are an error.

    Raises:
        SchemaError: the database is ahead of this program, a migration was
            changed after it was applied, or `apply` is false and some wait.
        StoreUnavailableError: no connection.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        OSError,
        TimeoutError,
        ValueError,
    ) as error:
        raise StoreUnavailableError(
            f"the database cannot be reached ({type(error).__name__}): start it, or check"
            " DATABASE_URL"
        ) from None
    try:
        with translated():
            return await _migrate(connection, apply=apply)
    finally:
        await connection.close()


async def _migrate(connection: "Connection", *, apply: bool) -> list[Migration]:
    applied = await _applied(connection)
    _refuse_mismatch(applied)
    pending = [m for m in migrations() if m.number not in applied]
    if not pending:
        return []
    if not apply:
        raise SchemaError(
            f"the database lacks {len(pending)} migration(s), the next is "
            f"{pending[0].number:04d}_{pending[0].name}: run `svsync migrate`",
            code="migrations_pending",
        )
    async with _alone(connection):
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (n int PRIMARY KEY, name text NOT NULL,"
            " sha256 text NOT NULL, min_code int NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
    return [m for m in pending if await _apply(connection, m)]


async def _apply(connection: "Connection", migration: Migration) -> bool:
    """False: somebody else has applied it meanwhile."""
    async with _alone(connection):
        applied = await _applied(connection)
        _refuse_mismatch(applied)
        if migration.number in applied:
            return False
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migrations (n, name, sha256, min_code) VALUES ($1, $2, $3, $4)",
            migration.number, migration.name, migration.digest, migration.min_code,
        )  # fmt: skip
        return True


@asynccontextmanager
async def _alone(connection: "Connection") -> AsyncIterator[None]:
    """A transaction, of which there is one at a time among all processes."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        yield


async def _applied(connection: "Connection") -> dict[int, asyncpg.Record]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return {}
    rows = await connection.fetch("SELECT n, name, sha256, min_code FROM schema_migrations")
    return {row["n"]: row for row in rows}


def _refuse_mismatch(applied: dict[int, asyncpg.Record]) -> None:
    level = max((row["min_code"] for row in applied.values()), default=0)
    if level > CODE_LEVEL:
        raise SchemaError(
            f"the database asks for code level {level} and this svsync is level {CODE_LEVEL}: "
            "run the newer svsync that migrated it",
            code="database_ahead",
        )
    known = {m.number: m for m in migrations()}
    for number, row in sorted(applied.items()):
        if number in known and known[number].digest != row["sha256"]:
            raise SchemaError(
                f"migration {number:04d}_{row['name']} differs from the one that was applied: "
                "this svsync does not belong to this database",
                code="migration_changed",
            )
