"""Audited reads a second: svsync, a handler that does nothing, and OpenBao's own GET, asked
by the same client in turn; and reads that pass through to that OpenBao, beside such that pass
through what does nothing else."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.programs import Result, ended, run_program, started
from bench.rig import MOUNT, Source, fresh_database, name_of
from bench.service import serving
from svsync.embedded.postgres import EmbeddedPostgres

CONNECTIONS: Final = 64
_BEARER: Final = ("Authorization", "Bearer ")
_BYTES: Final = 420
"""Of an answer of svsync to a read of such a secret."""
_NOTHING: Final = "bench.floors.nothing_server"
_PASSING: Final = "bench.floors.passing_server"
_RECORDING: Final = "bench.floors.recording_server"
_THROUGH: Final = 16
"""Connections of those who read through, and of those who ask OpenBao beside them."""


async def read_rounds(
    server: EmbeddedPostgres,
    state: Path,
    source: Source,
    *,
    rounds: int,
    seconds: float,
    count: int,
) -> list[Result]:
    """Each of them in turn: one policy and one token with few secrets, and with as many as the
    many of each have; nothing, OpenBao as root and by an AppRole with the default policy;
    through to OpenBao by a narrow token and by one with the default policy besides, OpenBao by
    each of them, and through to it with nothing between but a row that is written."""
    few = {"policies": 1, "tokens": 1, "groups": 1, "count": 20}
    one = few | {"count": count}
    many = {"policies": count, "tokens": count, "groups": max(2, count // 10), "count": count}
    made = []
    paths = [f"/v1/{MOUNT}/data/{name_of(n)}" for n in range(min(20, source.count))]
    async with (
        fresh_database(server, "reads_few") as dsn,
        _prepared(dsn, state, few) as at_few,
        fresh_database(server, "reads_one") as dsn_of_one,
        _prepared(dsn_of_one, state, one) as at_one,
        fresh_database(server, "reads_many") as dsn_of_many,
        _prepared(dsn_of_many, state, many) as at_many,
        _proxied(server, state, "narrow", source.url, source.token, source.count) as narrow,
        _proxied(server, state, "wide", source.url, source.default_token, source.count) as wide,
        fresh_database(server, "reads_recorded") as dsn_of_rows,
        _floor(_NOTHING, bytes=_BYTES) as url,
        _floor(_PASSING, url=source.url, token=source.token) as passing,
        _floor(_RECORDING, url=source.url, token=source.token, dsn=dsn_of_rows) as recording,
    ):
        nothing = {"url": url, "paths": ["/v1/x"], "tokens": ["x"]}
        places = {"few": at_few, "one": at_one, "many": at_many, "nothing": nothing}
        for _ in range(rounds):
            seen: Result = {}
            for name, place in places.items():
                seen[name] = await _asked(place, *_BEARER, seconds)
            for name, token in (("root", source.root_token), ("approle", source.default_token)):
                bao = {"url": source.url, "paths": paths, "tokens": [token]}
                seen[name] = await _asked(bao, "X-Vault-Token", "", seconds)
            # All of them, so that few who read through meet at one.
            every = [f"/v1/{MOUNT}/data/{name_of(n)}" for n in range(source.count)]
            alone, rows = (
                {"url": at, "paths": every, "tokens": ["x"]} for at in (passing, recording)
            )
            for name, place in (
                ("through", narrow),
                ("own", {"url": source.url, "paths": every, "tokens": [source.token]}),
                ("passing", alone),
                ("recording", rows),
                ("wide", wide),
                ("default", {"url": source.url, "paths": every, "tokens": [source.default_token]}),
            ):
                header = ("X-Vault-Token", "") if place["url"] == source.url else _BEARER
                seen[name] = await _asked(place, *header, seconds, _THROUGH)
            seen["row"] = {"bytes": await _bytes_a_row(dsn)}
            made.append(seen)
    return made


_BYTES_A_ROW: Final = """
SELECT (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits
        WHERE inhparent = 'audit'::regclass)::float8 / (SELECT count(*) FROM audit)
"""


async def _bytes_a_row(dsn: str) -> float:
    """Of the audit log of a database, its indexes included."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(dsn)
    try:
        await connection.execute("SELECT set_config('svsync.tenants', '1', false)")
        found: float = await connection.fetchval(_BYTES_A_ROW)
    finally:
        await connection.close()
    return found


async def _asked(
    place: Result, header: str, scheme: str, seconds: float, connections: int = CONNECTIONS
) -> Result:
    return await run_program(
        "bench.load",
        header=header,
        scheme=scheme,
        connections=connections,
        seconds=seconds,
        **place,
    )


@asynccontextmanager
async def _prepared(dsn: str, state: Path, given: Result) -> AsyncIterator[Result]:
    made = await run_program("bench.svsync_reads", dsn=dsn, state_dir=str(state), **given)
    paths = [f"/v1/secrets/{path}" for path in made["paths"]]
    async with serving(dsn, state, "--role", "api") as service:
        yield {"url": service.url, "paths": paths, "tokens": made["tokens"]}


@asynccontextmanager
async def _proxied(
    server: EmbeddedPostgres, state: Path, name: str, url: str, token: str, count: int
) -> AsyncIterator[Result]:
    """A service that reads all secrets of the OpenBao at `url` through, by that token."""
    backend = {
        "id": "fed_bench",
        "name": "bench",
        "type": "hashicorp-vault",
        "mode": "proxy",
        "config": {
            "endpoint": url,
            "auth_method": "token",
            "auth_config_path": "env:BENCH_TOKEN",
        },
        "path_mapping": [{"local": "apps/**", "remote": f"{MOUNT}/data/apps/**"}],
    }
    config = state / f"through_{name}.yaml"
    config.write_text(json.dumps({"allow_loopback": True, "backends": [backend]}))  # it is YAML
    given = {"policies": 1, "tokens": 1, "groups": 1, "count": 0}
    async with fresh_database(server, f"reads_{name}") as dsn:
        made = await run_program("bench.svsync_reads", dsn=dsn, state_dir=str(state), **given)
        paths = [f"/v1/secrets/{name_of(n)}" for n in range(count)]
        arguments = ("--role", "api", "--config", str(config))
        async with serving(dsn, state, *arguments, BENCH_TOKEN=token) as service:
            yield {"url": service.url, "paths": paths, "tokens": made["tokens"]}


@asynccontextmanager
async def _floor(module: str, **given: object) -> AsyncIterator[str]:
    process = await started(module, **given)
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())["url"]
    finally:
        await ended(module, process)
