"""svsync itself on a backend in memory that makes its entries when asked.

The store is filled by set-based SQL, as a first import would have left it: one
live version a secret, and pairs whose base is what the backend lists. So cycles
over a million are measured without importing a million first.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from bench.programs import Result, answer
from bench.svsync_vault import one_run
from svsync.app import App, open_app
from svsync.config.load import load
from svsync.domain.federation import BackendSpec, HistoryMode, Mode, RuleSpec
from svsync.domain.guards import Allow
from svsync.domain.ids import BackendId
from svsync.domain.values import Payload
from svsync.testing.memory import MemoryDriver, MemoryStore

PREFIX = "big/"
_SEED = 100
"""Secrets that svsync imports itself; the others are made in their likeness."""
_SIZE = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
_OF_RUNS = "SELECT pg_total_relation_size('runs') + pg_total_relation_size('outbox')"


@asynccontextmanager
async def opened(given: Result, store: MemoryStore) -> AsyncIterator[App]:
    config = Path(given["state_dir"]) / "svsync.yaml"
    config.write_text(f"state_dir: {given['state_dir']}\ndatabase_url: env:BENCH_DATABASE\n")
    environ = {"BENCH_DATABASE": given["dsn"]}
    backend = BackendSpec(
        id=BackendId("fed_bench"),
        name="bench",
        type="memory",
        mode=Mode.SYNC,
        history=HistoryMode.FULL,
        rules=(RuleSpec(local="ext/**", remote=f"{PREFIX}**"),),
    )
    drivers = {"memory": MemoryDriver(store)}
    async with open_app(load(str(config), environ), environ=environ, drivers=drivers) as app:
        await app.federation.apply([backend])
        yield app


async def fill(given: Result) -> Result:
    """Make the store of `count` secrets, in sync."""
    store = MemoryStore()
    store.generate(PREFIX, _SEED)
    async with opened(given, store) as app:
        first = await one_run(app)
    assert first["counts"]["created"] == _SEED, first
    connection: asyncpg.Connection[Any] = await asyncpg.connect(given["dsn"])
    await connection.execute("SELECT set_config('svsync.tenants', '1', false)")
    make, *rest = Path(__file__).with_name("fill.sql").read_text("utf-8").split(";")
    await connection.execute(make, _SEED, given["count"])
    for statement in rest:
        await connection.execute(statement)
    await connection.close()
    return {}


async def cycles(given: Result) -> Result:
    """A quiet cycle, then one after `changed` secrets were written; `round` from 0."""
    store = MemoryStore()
    made = store.generate(PREFIX, given["count"])
    step = given["count"] // given["changed"]

    def write(number: int) -> None:
        for index in range(number % step, given["count"], step):
            store.put(made.path(index), {})

    for earlier in range(given["round"]):
        write(earlier)
    async with opened(given, store) as app:
        quiet = await one_run(app)
        assert quiet["counts"]["unchanged"] == given["count"], quiet
        assert quiet["calls"]["read"] == 0, quiet
        write(given["round"])
        changed = await one_run(app, Allow(mass_overwrite=True))
        assert changed["counts"]["updated"] == given["changed"], changed
    return {"quiet": quiet, "changed": changed}


async def sizes(given: Result) -> Result:
    """Bytes that Postgres holds for each of `count` secrets of `versions` versions, and for
    each of `runs` quiet runs afterwards, their events included."""
    store = MemoryStore()
    async with opened(given, store) as app:
        before = await _size(given["dsn"])
        for number in range(given["count"]):
            for version in range(given["versions"]):
                text = f'{{"username":"service-{number:06d}","password":"{version:03d}-'
                value = Payload.from_json_text((text + "x" * (198 - len(text)) + '"}').encode())
                assert value.size == 200
                store.put(f"{PREFIX}{number // 100:03d}/{number:06d}", value)
        run = await one_run(app)
        imported = given["count"] * (given["versions"] - 1)
        assert run["counts"]["imported_versions"] == imported, run
        full = await _size(given["dsn"])
        told = await _size(given["dsn"], _OF_RUNS)
        for _ in range(given["runs"]):
            await one_run(app)
        return {
            "bytes": (full - before) / given["count"],
            "run_bytes": (await _size(given["dsn"], _OF_RUNS) - told) / given["runs"],
        }


async def _size(dsn: str, statement: str = _SIZE) -> int:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(dsn)
    await connection.execute("VACUUM")
    found: int = await connection.fetchval(statement)
    await connection.close()
    return int(found)


async def main(given: Result) -> Result:
    return await {"fill": fill, "cycles": cycles, "sizes": sizes}[given["step"]](given)


if __name__ == "__main__":
    answer(main)
