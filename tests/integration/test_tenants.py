"""Tenants are kept apart by the database itself, also where a query forgets to."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from tests.house import House, backend, settings_for
from tests.postgres import connected

from svsync.app import open_app
from svsync.domain.errors import SchemaError
from svsync.domain.federation import ConflictPolicy, Writes

GLOBAL = {"tenants", "instances", "root_keys", "schema_migrations", "store_home"}
WORK = {"stage", "todo"}
"""No COPY goes into a table under row-level security; they hold no value."""
WRITTEN_ONCE = {"audit", "audit_checkpoints"}
OTHER = 2


OF_RIGHTS_AND_THE_LOG = (
    "INSERT INTO policies (tenant_id, policy_id, name) VALUES (1, 'pol', 'p')",
    "INSERT INTO policy_rules VALUES (1, 'pol', 0, '**', '{read}')",
    "INSERT INTO bindings (tenant_id, policy_id, identity_type, identity_id)"
    " VALUES (1, 'pol', 'group', 'g')",
    "INSERT INTO identity_groups (tenant_id, identity_id, groups) VALUES (1, 'user:u', '{g}')",
    "INSERT INTO audit_chains (tenant_id, chain_id, writer) VALUES (1, 0, 'w')",
    "INSERT INTO audit (tenant_id, chain_id, seq, at, identity_type, identity_id, action,"
    " decision, hash) VALUES (1, 0, 1, now(), 'user', 'user:u', 'secret.read', 'allow', '')",
    "INSERT INTO audit_checkpoints (tenant_id, n, at, heads, root, prev_hash, hash, key_id,"
    " signature) SELECT 1, 1, now(), '[]', '', '', '', min(key_id), '' FROM data_keys",
    "INSERT INTO audit_anchors (tenant_id, place, first_n, last_n) VALUES (1, 'file', 1, 1)",
    "INSERT INTO idempotency (tenant_id, identity_id, key, attempt, request)"
    " VALUES (1, 'user:u', 'k', 'a', '')",
    "INSERT INTO proxied_calls VALUES (1, 'fed_house', now(), 1)",
    "INSERT INTO backend_authorisations (tenant_id, backend_id, credential, origin, mapping,"
    " authorised_by) VALUES (1, 'fed_house', '', '', '', 'user:u')",
    "INSERT INTO feed_secrets (tenant_id, secret_id, backend_id, feed, hash, created_by)"
    " VALUES (1, 'fds', 'fed_house', 'http', '', 'user:u')",
)


@pytest.fixture
async def lived(house: House) -> House:
    """A house whose tenant has a row in every table it can have one in."""
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/app/b", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "there"})
    await house.write("ext/a", {"k": "here"})
    house.there.denied.add("kv/app/")
    await house.run()
    await house.configure(writes=Writes.WRITE_THROUGH)
    await house.write("ext/c", {"k": "1"})
    await house.admin.execute(
        "INSERT INTO stage_scopes (tenant_id, run_id, prefix, outcome)"
        " VALUES (1, 'r', 'p', 'failed')"
    )
    await house.admin.execute(
        "INSERT INTO dirty_paths (tenant_id, backend_id, remote_path, seq, feed)"
        " VALUES (1, 'fed_house', 'kv/a', 1, 'vault-audit')"
    )
    await house.admin.execute(
        "INSERT INTO endpoints (tenant_id, endpoint_id, url, types, key_id, nonce, sealed)"
        " SELECT 1, 'ep', 'https://hooks.example', '{}', min(key_id), '', '' FROM data_keys"
    )
    await house.admin.execute(
        "INSERT INTO deliveries (tenant_id, endpoint_id, event_id, backend_id, sequence, next_at,"
        " give_up_at, created_at) VALUES (1, 'ep', 'evt', 'fed_house', 1, now(), now(), now())"
    )
    await house.admin.execute(
        "INSERT INTO tokens (tenant_id, token_id, hash, identity_type, identity_id, scopes)"
        " VALUES (1, 'tok', '', 'user', 'u', '{}')"
    )
    await house.admin.execute(
        "INSERT INTO super_admins (tenant_id, identity_id, by) VALUES (1, 'user:u', 'bootstrap')"
    )
    for statement in OF_RIGHTS_AND_THE_LOG:
        await house.admin.execute(statement)
    await house.admin.execute("INSERT INTO tenants (tenant_id, slug) VALUES ($1, 'other')", OTHER)
    return house


async def tables(house: House) -> set[str]:
    """All but the parts of the audit log, which nobody reaches but through it."""
    rows = await house.admin.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = 'public'::regnamespace"
    )
    return {row["relname"] for row in rows}


@pytest.fixture
async def role(
    lived: House, database_url: str
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The ordinary role that svsync is, in a transaction of its own."""
    async with connected(database_url) as connection, connection.transaction():
        yield connection


async def test_every_table_but_the_named_ones_is_under_forced_row_security(house: House) -> None:
    rows = await house.admin.fetch(
        "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced FROM pg_class"
        " WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    assert {row["relname"] for row in rows if not row["forced"]} == GLOBAL | WORK


async def test_every_key_begins_with_the_tenant(house: House) -> None:
    rows = await house.admin.fetch(
        "SELECT c.relname, a.attname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]"
        " WHERE k.contype = 'p' AND NOT c.relispartition"
        " AND c.relnamespace = 'public'::regnamespace"
    )
    assert {row["relname"] for row in rows if row["attname"] != "tenant_id"} == GLOBAL - {"tenants"}
    assert {row["relname"] for row in rows} == await tables(house) - WORK


async def test_query_without_a_tenant_shows_nothing(
    lived: House, role: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for table in await tables(lived) - GLOBAL - WORK:
        assert await lived.admin.fetchval(f"SELECT count(*) FROM {table}"), f"{table} is empty"
        assert await role.fetch(f"SELECT * FROM {table}") == []


async def test_other_tenant_reads_no_row(
    lived: House, role: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await role.execute("SELECT set_config('svsync.tenants', $1, true)", str(OTHER))
    for table in await tables(lived) - GLOBAL - WORK:
        assert await role.fetch(f"SELECT * FROM {table} WHERE tenant_id = 1") == []


async def test_other_tenant_changes_and_deletes_no_row(
    lived: House, role: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    before = await lived.dump()
    await role.execute("SELECT set_config('svsync.tenants', $1, true)", str(OTHER))
    for table in await tables(lived) - GLOBAL - WORK:
        changed = await role.execute(f"UPDATE {table} SET tenant_id = 2 WHERE tenant_id = 1")
        deleted = await role.execute(f"DELETE FROM {table}")
        assert (changed, deleted) == ("UPDATE 0", "DELETE 0")
    assert await lived.dump() == before


async def test_no_row_can_be_given_to_another_tenant(
    lived: House, role: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await role.execute("SELECT set_config('svsync.tenants', '1', true)")
    for table in await tables(lived) - GLOBAL - WORK - {"backends", "data_keys", "secrets"}:
        with pytest.raises(asyncpg.PostgresError) as refused:
            async with role.transaction():
                await role.execute(f"UPDATE {table} SET tenant_id = 2")
        if table in WRITTEN_ONCE:
            assert isinstance(refused.value, asyncpg.RaiseError)
            continue
        assert isinstance(
            refused.value, asyncpg.InsufficientPrivilegeError | asyncpg.ForeignKeyViolationError
        )


async def test_setting_ends_with_its_transaction(lived: House, database_url: str) -> None:
    async with connected(database_url) as connection:
        async with connection.transaction():
            await connection.execute("SELECT set_config('svsync.tenants', '1', true)")
            assert await connection.fetchval("SELECT count(*) FROM secrets") == 3
        assert await connection.fetchval("SELECT count(*) FROM secrets") == 0


async def test_role_that_row_security_does_not_bind_is_refused(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    with pytest.raises(SchemaError, match="superuser or has BYPASSRLS") as refused:
        async with open_app(settings_for(admin_url, state_dir, backend())):
            pass
    assert refused.value.code == "role_too_powerful"
    async with connected(admin_url) as admin:
        assert await admin.fetchval("SELECT count(*) FROM root_keys") == 0


async def test_part_of_the_audit_log_shows_nothing_by_itself(
    lived: House, role: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await role.execute("SELECT set_config('svsync.tenants', '1', true)")
    parts = await role.fetch("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")
    assert len(parts) > 1
    assert len(await role.fetch("SELECT * FROM audit")) == 1
    for part in parts:
        assert await role.fetch(f"SELECT * FROM {part['relname']}") == []
