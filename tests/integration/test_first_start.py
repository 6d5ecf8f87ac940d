"""A first start by the wrong role leaves nothing behind that keeps the right one out."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.house import settings_for
from tests.postgres import connected, database_dsn

from svsync.app import migrate_only, open_app
from svsync.domain.errors import SchemaError
from svsync.embedded.postgres import EmbeddedPostgres


@pytest.fixture
async def fresh(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The name of an empty database without a schema."""
    name = f"fresh_{secrets.token_hex(8)}"
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"CREATE DATABASE {name} OWNER svsync")
        yield name
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("command", ["start", "migrate"])
async def test_superuser_is_refused_before_it_makes_a_schema(
    fresh: str, postgres: EmbeddedPostgres, state_dir: Path, command: str
) -> None:
    async def first(dsn: str) -> None:
        settings = settings_for(database_dsn(dsn, fresh), state_dir)
        if command == "migrate":
            await migrate_only(settings)
            return
        async with open_app(settings, environ={}):
            pass

    with pytest.raises(SchemaError) as refused:
        await first(postgres.admin_dsn)
    assert refused.value.code == "role_too_powerful"
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    async with connected(database_dsn(postgres.admin_dsn, fresh)) as admin:
        assert await admin.fetch(tables) == []
    await first(postgres.dsn)
