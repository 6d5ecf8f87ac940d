"""Secrets to read, and who may read them: a store made ready for `bench.reads`."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import asyncpg

from bench.programs import Result, answer
from svsync.app import App, open_app
from svsync.config.model import Settings
from svsync.domain.access import SECRET_BYTES, token_text
from svsync.domain.ids import LocalPath, TenantId
from svsync.domain.values import Payload, SecretValue
from svsync.services.write_rows import Put

_POLICIES = """
WITH made AS (
  INSERT INTO policies (tenant_id, policy_id, name)
  SELECT 1, 'pol_' || n, 'policy ' || n FROM generate_series(0, $1::int - 1) n
)
INSERT INTO policy_rules (tenant_id, policy_id, ord, path_pattern, permissions)
SELECT 1, 'pol_' || n, 0, CASE n WHEN 0 THEN 'apps/**' ELSE 'other/team' || n || '/*/db-*' END,
  ARRAY['read'] FROM generate_series(0, $1::int - 1) n
"""
_GROUPS = """
INSERT INTO identity_groups (tenant_id, identity_id, groups)
SELECT 1, 'sa:reader-' || n, ARRAY['group:' || n % $2::int, 'group:' || (n + 1) % $2::int]
FROM generate_series(0, $1::int - 1) n
"""
_BINDINGS = """
INSERT INTO bindings (tenant_id, policy_id, identity_type, identity_id)
SELECT 1, 'pol_' || n, 'group', 'group:' || n % $2::int FROM generate_series(1, $1::int - 1) n
UNION ALL SELECT 1, 'pol_0', 'group', 'group:' || g FROM generate_series(0, $2::int - 1) g
"""
"""Every group has the policy that lets it read all, and its part of the others."""


async def fill(app: App, tenant: TenantId, count: int) -> list[str]:
    """Secrets of 150 bytes; their paths."""
    paths = [f"apps/a{number % 20:02d}/s{number:06d}" for number in range(count)]
    numbers = iter(range(count))

    async def writer() -> None:
        for number in numbers:
            value = {"username": f"service-{number:06d}", "password": f"{number:06d}{'x' * 94}"}
            put = Put(Payload.from_fields(value))
            await app.writes.put(tenant, LocalPath(paths[number]), put, by="sa:bench")

    await asyncio.gather(*(writer() for _ in range(8)))
    return paths


async def allow(connection: "asyncpg.Connection[Any]", given: Result) -> list[str]:
    """So many policies, tokens and groups; every reader may read all the secrets, and what
    else the policies of two groups allow. The tokens."""
    policies, tokens, groups = given["policies"], given["tokens"], given["groups"]
    texts = [
        token_text(TenantId(1), f"tok_{n:032x}", n.to_bytes(SECRET_BYTES)) for n in range(tokens)
    ]
    await connection.execute("SELECT set_config('svsync.tenants', '1', false)")
    await connection.execute(_POLICIES, policies)
    await connection.execute(_GROUPS, tokens, groups)
    await connection.execute(_BINDINGS, policies, groups)
    await connection.executemany(
        "INSERT INTO tokens (tenant_id, token_id, hash, identity_type, identity_id, scopes)"
        " VALUES (1, $1, $2, 'service_account', $3, '{secrets:read}')",
        [
            (f"tok_{n:032x}", hashlib.sha256(text.encode()).digest(), f"sa:reader-{n}")
            for n, text in enumerate(texts)
        ],
    )
    await connection.execute("ANALYZE")
    return texts


async def main(given: Result) -> Result:
    settings = Settings(
        database_url=SecretValue(given["dsn"]), state_dir=str(Path(given["state_dir"]))
    )
    async with open_app(settings, environ={}) as app:
        paths = await fill(app, TenantId(1), given["count"])
    connection: asyncpg.Connection[Any] = await asyncpg.connect(given["dsn"])
    try:
        return {"paths": paths, "tokens": await allow(connection, given)}
    finally:
        await connection.close()


if __name__ == "__main__":
    answer(main)
