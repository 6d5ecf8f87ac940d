"""From a write in OpenBao to the new version in svsync's store, by the `vault-audit` feed.

OpenBao, `svsync serve` and PostgreSQL are processes of their own. Here is who writes, and
who looks into the store every 5 ms for what was written.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg

from bench.programs import Result
from bench.rig import MOUNT, Source, audited_openbao, fresh_database, name_of
from bench.service import PROGRAM, Service, environment, serving
from svsync.embedded.postgres import EmbeddedPostgres

_BACKEND: Final = "fed_bench"
_POLL_S: Final = 0.005
_AT_ONCE: Final = 2
"""Secrets that are written at one moment."""
_APART_S: Final = 1.05
"""Runs that feeds ask for are a second apart at least: a write that comes sooner would
measure that setting."""
_CONFIG = """
allow_loopback: true
backends:
  - id: fed_bench
    name: bench
    type: hashicorp-vault
    mode: sync
    config:
      endpoint: "{url}"
      auth_method: approle
      auth_config_path: "env:BENCH_CREDENTIAL"
    path_mapping:
      - {{local: "ext/**", remote: "{mount}/data/**"}}
    events:
      - {{feed: vault-audit, listen: "unix:{socket}"}}
    feed_min_interval: 1s
    sync_interval: 1h
"""
_CURRENT = """
SELECT s.path, v.remote_version FROM secrets s
JOIN versions v
  ON v.tenant_id = s.tenant_id AND v.secret_id = s.secret_id AND v.version = s.current_version
WHERE s.path = ANY ($1::text[])
"""
_SYNCED = """
SELECT (SELECT count(*) FROM secrets) = {}
  AND NOT EXISTS (SELECT FROM runs WHERE state IN ('queued', 'running'))
"""
_IN_FULL = "SELECT EXISTS (SELECT FROM runs WHERE kind = 'full' AND state = 'running')"
_NONE_WAITS = "SELECT NOT EXISTS (SELECT FROM runs WHERE kind = 'full' AND state = 'queued')"
_FULL_S = """
SELECT coalesce(sum(extract(epoch FROM coalesce(ended_at, now()) - greatest(started_at, $1))), 0)
FROM runs WHERE kind = 'full' AND started_at IS NOT NULL AND coalesce(ended_at, now()) > $1
"""


async def feed_delays(
    server: EmbeddedPostgres, state: Path, *, secrets: int, bursts: int
) -> Result:
    """Seconds from write to version, `alone` and with one full cycle after the other `beside`."""
    folder = state / "feed"
    folder.mkdir()
    socket = folder / "audit.sock"
    async with (
        audited_openbao(folder, secrets, socket) as source,
        fresh_database(server, "feed") as dsn,
        _served(dsn, folder, source, socket) as (service, token),
        _connected(dsn) as connection,
        aiohttp.ClientSession(headers={"X-Vault-Token": source.root_token}) as http,
    ):
        looking = _Looking(connection, http, source)
        await _until(connection, _SYNCED.format(secrets))
        alone = await looking.bursts(bursts)
        cycles = asyncio.create_task(_keep_running(service, token, connection_to=dsn))
        try:
            beside = await looking.bursts(bursts, while_full=True)
        finally:
            cycles.cancel()
            await asyncio.gather(cycles, return_exceptions=True)
    return {"alone": alone, "beside": beside}


@dataclass(frozen=True, slots=True)
class _Looking:
    """Writes to OpenBao, and looks for it in the store."""

    connection: "asyncpg.Connection[Any]"
    http: aiohttp.ClientSession
    source: Source

    async def bursts(self, times: int, *, while_full: bool = False) -> Result:
        """Writes, a few at a time; `while_full`, each while a full run is under way."""
        began = await self.connection.fetchval("SELECT now()")
        clock = asyncio.get_running_loop().time
        start, took = clock(), []
        for _ in range(times):
            if while_full:
                await _until(self.connection, _IN_FULL)
            pause = clock() + _APART_S + random.random() / 4
            took += await self._burst()
            await asyncio.sleep(max(0.0, pause - clock()))
        full = float(await self.connection.fetchval(_FULL_S, began))
        took.sort()
        return {
            "writes": len(took),
            "p50_s": took[len(took) // 2],
            "p99_s": took[len(took) * 99 // 100],
            "full_share": full / (clock() - start),
        }

    async def _burst(self) -> list[float]:
        """Seconds from the answer to each write until its version is the current one."""
        names = [name_of(n) for n in random.sample(range(self.source.count), _AT_ONCE)]
        answered: dict[str, tuple[str, float]] = {}
        clock = asyncio.get_running_loop().time

        async def write(name: str) -> None:
            place = f"{self.source.url}/v1/{MOUNT}/data/{name}"
            body = {"data": {"password": random.randbytes(16).hex()}}
            async with self.http.post(place, json=body) as response:
                made = await response.json()
            answered[f"ext/{name}"] = (str(made["data"]["version"]), clock())

        await asyncio.gather(*(write(name) for name in names))
        took = []
        async with asyncio.timeout(60):
            while answered:
                for path, version in await self.connection.fetch(_CURRENT, list(answered)):
                    if version == answered[path][0]:
                        took.append(clock() - answered.pop(path)[1])
                await asyncio.sleep(_POLL_S)
        return took


async def _keep_running(service: Service, token: str, *, connection_to: str) -> None:
    """One full run after the other, asked for over the API, until cancelled."""
    place = f"{service.url}/v1/federation/backends/{_BACKEND}/sync"
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        _connected(connection_to) as connection,
        aiohttp.ClientSession(headers=headers) as http,
    ):
        while True:
            async with http.post(place, json={}) as response:
                assert response.status == 202, response.status
            # The next one waits while this one runs, so that there is no pause between.
            await _until(connection, _NONE_WAITS)


async def _until(connection: "asyncpg.Connection[Any]", query: str) -> None:
    """Return when the database says that something is so."""
    async with asyncio.timeout(300):
        while True:
            if await connection.fetchval(query):
                return
            await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def _served(
    dsn: str, folder: Path, source: Source, socket: Path
) -> AsyncIterator[tuple[Service, str]]:
    """`svsync serve` that listens on the socket, and a token for its API."""
    config = folder / "svsync.yaml"
    config.write_text(_CONFIG.format(url=source.url, mount=MOUNT, socket=socket))
    at = ("--config", str(config))
    credential = {"role_id": source.role_id, "secret_id": source.secret_id}
    given = {"BENCH_CREDENTIAL": json.dumps(credential)}
    async with serving(dsn, folder, *at, **given) as service:
        making = await asyncio.create_subprocess_exec(
            PROGRAM, "tokens", "create", "--identity", "sa:bench", "--scope", "admin", "--json",
            *at, cwd=folder, env=environment(dsn, folder) | given, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        made, _ = await making.communicate()
        yield service, str(json.loads(made)["token"])


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(dsn)
    try:
        await connection.execute("SELECT set_config('svsync.tenants', '1', false)")
        yield connection
    finally:
        await connection.close()
