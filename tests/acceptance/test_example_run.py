"""Does `run-once` sync a backend that a third party's package brings, and refuse it unasked?"""

import json
from dataclasses import replace
from pathlib import Path

from tests.acceptance.conftest import Desk
from tests.example import KIND, corner_of, install

from svsync.embedded.valkey import ValkeyServer


async def test_run_with_a_plugin_pulls_and_writes_through(
    desk: Desk, shared_valkey: ValkeyServer, tmp_path: Path
) -> None:
    canary = desk.program.canary
    async with corner_of(shared_valkey) as corner:
        await corner.put("db", {"password": canary.value()})
        places = {
            **desk.program.environment,
            "PYTHONPATH": ":".join(install(tmp_path)),
            "REDIS_LOGIN": json.dumps(corner.login),
        }
        program = replace(desk.program, environment=places)
        spec = {
            "id": "fed_redis",
            "name": "redis",
            "type": KIND,
            "mode": "sync",
            "writes": "write_through",
            "seed_remote": True,
            "config": {
                "endpoint": f"redis://127.0.0.1:{shared_valkey.port}",
                "auth_config_path": "env:REDIS_LOGIN",
            },
            "path_mapping": [{"local": "redis/**", "remote": f"{corner.prefix}**"}],
        }
        document = {"allow_loopback": True, "backends": [spec]}
        refused = await program(
            "run-once", "--backend", "fed_redis", "--config", str(desk.file(document))
        )
        assert refused.code == 2
        assert "is not a type that this svsync has" in refused.sentence

        file = str(desk.file({**document, "allowed_plugins": [KIND]}))
        at = ("--backend", "fed_redis", "--config", file, "--json")
        said = await program("run-once", *at)
        assert (said.code, said.json["counts"]["created"]) == (0, 1)
        again = await program("run-once", *at)
        assert again.json["api_calls"].get("read", 0) == 0
        assert again.json["counts"]["unchanged"] == 1

        value = json.dumps({"password": canary.value(), "user": "new"}).encode()
        wrote = await program(
            "secrets", "write", "redis/db", "--json-file", "-", "--config", file,
            stdin=value,
        )  # fmt: skip
        assert wrote.code == 0
        there = await corner.hands.hget(corner.prefix + "db", "value")
        assert json.loads(there) == json.loads(value)
        assert await corner.hands.hget(corner.prefix + "db", "version") == b"2"
