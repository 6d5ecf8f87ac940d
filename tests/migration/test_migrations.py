"""The schema is made once, by one process at a time, and never by the wrong program."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from tests.house import backend, settings_for
from tests.patience import PATIENCE_S
from tests.postgres import connected, database_dsn
from tests.waiting import until

from svsync.app import open_app
from svsync.domain.errors import SchemaError, StoreError, StoreUnavailableError
from svsync.embedded.postgres import EmbeddedPostgres
from svsync.store.database import statements
from svsync.store.migrate import _LOCK as LOCK
from svsync.store.migrate import CODE_LEVEL, migrate, migrations


@pytest.fixture
async def empty(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database with nothing in it, as the ordinary role that owns it."""
    name = f"test_{secrets.token_hex(8)}"
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"CREATE DATABASE {name} OWNER svsync")
    yield database_dsn(postgres.dsn, name)
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def applied(url: str) -> list[tuple[int, str]]:
    async with connected(url) as connection:
        rows = await connection.fetch("SELECT n, sha256 FROM schema_migrations ORDER BY n")
    return [(row["n"], row["sha256"]) for row in rows]


async def shape(url: str) -> list[str]:
    """Every column, index, constraint and policy, as text."""
    async with connected(url) as connection:
        rows = await connection.fetch(
            "SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable,"
            " column_default) AS line FROM information_schema.columns WHERE table_schema = 'public'"
            " UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
            " UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid)"
            " FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
            " UNION ALL SELECT tablename || qual || with_check FROM pg_policies"
        )
    return sorted(row["line"] for row in rows)


async def waits_for_the_lock(admin: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return bool(
        await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event = 'advisory'"
        )
    )


async def test_empty_database_is_brought_up_to_date_once(empty: str) -> None:
    assert [m.number for m in await migrate(empty)] == [m.number for m in migrations()]
    assert await migrate(empty) == []
    assert await applied(empty) == [(m.number, m.digest) for m in migrations()]


async def test_two_processes_migrate_one_database_one_after_the_other(empty: str) -> None:
    done = await asyncio.gather(*(migrate(empty) for _ in range(4)))
    once = [migration.number for applied in done for migration in applied]
    assert sorted(once) == [migration.number for migration in migrations()]


async def test_nobody_waits_for_a_migration_where_nothing_is_pending(database_url: str) -> None:
    async with connected(database_url) as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        async with asyncio.timeout(PATIENCE_S):
            assert await migrate(database_url) == []


async def test_who_waited_looks_again_at_what_is_applied(empty: str) -> None:
    """By then a newer program may have migrated it."""
    await migrate(empty)
    last = migrations()[-1].number
    async with connected(empty) as other, connected(empty) as watching:
        await other.execute("DELETE FROM schema_migrations WHERE n = $1", last)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        waiting = asyncio.create_task(migrate(empty))
        await until(partial(waits_for_the_lock, watching))
        await other.execute(
            "INSERT INTO schema_migrations (n, name, sha256, min_code) VALUES (9999, 'x', 'y', $1)",
            CODE_LEVEL + 1,
        )
        await transaction.commit()
        with pytest.raises(SchemaError) as refused:
            await waiting
    assert refused.value.code == "database_ahead"


async def test_every_start_finds_the_schema_that_a_migration_from_zero_makes(
    empty: str, database_url: str
) -> None:
    await migrate(empty)
    assert await shape(empty) == await shape(database_url)


async def test_pending_migrations_are_an_error_where_none_may_be_applied(empty: str) -> None:
    with pytest.raises(SchemaError, match="svsync migrate") as refused:
        await migrate(empty, apply=False)
    assert refused.value.code == "migrations_pending"
    async with connected(empty) as connection:
        assert await connection.fetchval("SELECT to_regclass('schema_migrations')") is None


async def test_database_that_is_up_to_date_needs_no_permission_to_migrate(
    database_url: str,
) -> None:
    assert await migrate(database_url, apply=False) == []


async def test_database_that_is_ahead_is_refused(database_url: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute(
            "INSERT INTO schema_migrations (n, name, sha256, min_code) VALUES (9999, 'x', 'y', $1)",
            CODE_LEVEL + 1,
        )
    for apply in (True, False):
        with pytest.raises(SchemaError, match="newer svsync") as refused:
            await migrate(database_url, apply=apply)
        assert refused.value.code == "database_ahead"


async def test_newer_schema_that_this_program_may_use_is_used(database_url: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute(
            "INSERT INTO schema_migrations (n, name, sha256, min_code) VALUES (9999, 'x', 'y', $1)",
            CODE_LEVEL,
        )
    assert await migrate(database_url) == []


async def test_migration_that_was_changed_afterwards_is_refused(database_url: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute(
            "UPDATE schema_migrations SET sha256 = $1", hashlib.sha256(b"another").hexdigest()
        )
    with pytest.raises(SchemaError) as refused:
        await migrate(database_url)
    assert refused.value.code == "migration_changed"


async def test_migration_that_fails_leaves_nothing_of_itself(empty: str) -> None:
    async with connected(empty) as connection:
        await connection.execute("CREATE TABLE versions (t text)")
    with pytest.raises(StoreError, match="refused a statement"):
        await migrate(empty)
    assert await applied(empty) == []
    async with connected(empty) as connection:
        assert await connection.fetchval("SELECT to_regclass('secrets')") is None
        await connection.execute("DROP TABLE versions")
    assert len(await migrate(empty)) == len(migrations())


async def test_database_that_cannot_be_reached_is_said_so() -> None:
    with pytest.raises(StoreUnavailableError):
        await migrate("postgresql://svsync@/nothing?host=/nonexistent")


async def test_superuser_is_refused_before_anything_is_made(
    empty: str, postgres: EmbeddedPostgres, state_dir: Path
) -> None:
    name = empty.partition("?")[0].rpartition("/")[2]
    powerful = database_dsn(postgres.admin_dsn, name)
    with pytest.raises(SchemaError, match="superuser"):
        async with open_app(settings_for(powerful, state_dir, backend())):
            pass
    async with connected(empty) as connection:
        assert await connection.fetchval("SELECT to_regclass('schema_migrations')") is None


async def test_every_statement_fits_the_schema(database_url: str) -> None:
    unfit = {}
    async with connected(database_url) as connection:
        for name, sql in statements().items():
            try:
                await connection.prepare(sql)
            except asyncpg.PostgresError as refused:
                unfit[name] = str(refused)
    assert unfit == {}


async def test_app_that_may_not_migrate_says_what_to_do(empty: str, state_dir: Path) -> None:
    settings = replace(settings_for(empty, state_dir, backend()), migrate_on_start=False)
    with pytest.raises(SchemaError, match="svsync migrate"):
        async with open_app(settings):
            pass
