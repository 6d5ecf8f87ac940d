"""Is what keeps svsync in order told plainly: configuration, schema, keys, mapping, streams?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.acceptance.conftest import Desk
from tests.postgres import connected
from tests.program import Program

SCHEMA = (Path(__file__).parents[2] / "config/svsync.schema.json").read_text()
HEAVY = ("asyncpg", "cryptography", "hvac", "aiohttp", "rich", "structlog", "yaml")


@pytest.fixture
def bare(tmp_path: Path) -> Program:
    """A program without any store: what works here needs none."""
    return Program({"SVSYNC_STATE_DIR": str(tmp_path / "state")}, tmp_path)


async def test_help_loads_nothing_heavy() -> None:
    """That is what makes it quick."""
    script = (
        "import sys; from svsync.cli.main import main; code = main(['--help']);"
        f" print([m for m in {HEAVY} if m in sys.modules], code, file=sys.stderr)"
    )
    ended = subprocess.run(  # noqa: ASYNC221 - nothing else runs
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stderr == "[] 0\n"
    assert "run-once" in ended.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("backnds: []", "backends"),
        ("backends: [{id: fed_a, name: a, type: nope}]", "svsync.yaml:1: backends[0]"),
        ("database_url: postgresql://u:MARK@h/d", "svsync.yaml:1: database_url"),
        ("a: [", "svsync.yaml:"),
        ("", "empty"),
    ],
    ids=["unknown-key", "unknown-type", "literal", "broken", "empty"],
)
async def test_a_wrong_file_is_exit_2_with_its_place(bare: Program, text: str, says: str) -> None:
    file = bare.folder / "svsync.yaml"
    file.write_text(text.replace("MARK", bare.canary.marker))
    for command in (("config", "check"), ("status",)):
        said = await bare("--config", str(file), *command, "--json")
        assert (said.code, said.out) == (2, "")
        assert says in said.sentence
    assert not (bare.folder / "state").exists()


async def test_a_rule_that_cannot_be_used_is_told_with_file_and_line(desk: Desk) -> None:
    rule = {"local": "x/**", "remote": "sys/**"}
    _, file = desk.backend(path_mapping=[rule])
    lines = file.read_text().splitlines()
    line = 1 + next(n for n, text in enumerate(lines) if '"sys/**"' in text)
    for command in (("config", "check"), ("status",), ("map", "lint")):
        said = await desk.program(*command, "--config", str(file))
        assert said.code == 2
        assert f"{file}:{line}: backends[0].path_mapping[0].remote: " in said.sentence


async def test_a_file_that_was_named_and_is_not_there_is_exit_2(bare: Program) -> None:
    said = await bare("status", "--config", "nowhere.yaml")
    assert (said.code, said.sentence) == (
        2,
        "svsync: nowhere.yaml: does not exist; create it or correct --config",
    )


async def test_the_schema_is_the_published_one(bare: Program) -> None:
    schema = await bare("config", "schema")
    assert schema.out == SCHEMA


async def test_a_mapping_is_tried_without_a_store(bare: Program) -> None:
    backend = {
        "id": "fed_a",
        "name": "a",
        "type": "hashicorp-vault",
        "config": {"endpoint": "https://v:8200", "auth_method": "token", "auth_config_path": "a/b"},
        "path_mapping": [
            {"local": "ext/**", "remote": "kv/data/**"},
            {"local": "ext/late/**", "remote": "kv/data/late/**"},
        ],
    }
    file = bare.folder / "map.yaml"
    file.write_text(json.dumps({"backends": [backend]}, indent=1))
    at = ("--config", str(file), "--json")
    said = await bare("map", "test", "--backend", "a", "kv/data/x/y", "ext/x", *at)
    assert said.code == 0
    remote, local = said.json["paths"]
    assert remote["as_remote"]["local"] == "ext/x/y"
    assert remote["as_remote"]["captures"] == [{"name": "**", "value": "x/y"}]
    assert remote["as_local"]["reason"] == "unmapped"
    assert local["as_local"]["remote"] == "kv/data/x"
    outside = await bare("map", "test", "kv/data/x", "--backend", "fed_a", "elsewhere", *at)
    assert (outside.code, outside.sentences) == (1, [])
    lint = await bare("map", "lint", *at)
    [finding] = lint.json["findings"]
    assert (lint.code, finding["rule"]) == (1, 1)
    assert finding["where"].startswith(f"{file}:")
    unknown = await bare("map", "lint", "--backend", "fed_b", *at)
    assert (unknown.code, unknown.json["error"]["code"]) == (1, "backend_not_found")


async def test_a_migrated_database_says_so_and_its_keys_show_no_key(desk: Desk) -> None:
    assert (await desk.program("secrets", "list", "--json")).json["secrets"] == []
    migrated = await desk.program("migrate", "--json")
    assert (migrated.code, migrated.json) == (0, {"applied": []})
    await desk.program("secrets", "write", "k/a", "v=@-", stdin=b"1")
    keys = await desk.program("keys", "status", "--json")
    assert {key["kind"] for key in keys.json["keys"]} == {"root", "data"}
    assert set(keys.json["keys"][0]) == {
        "kind", "id", "purpose", "state", "reserved", "created_at", "age_s", "wrapped_by",
        "sealed", "emptied_at",
    }  # fmt: skip


async def test_a_database_ahead_of_the_program_is_refused(desk: Desk) -> None:
    await desk.program("migrate")
    async with connected(desk.database) as admin:
        await admin.execute(
            "INSERT INTO schema_migrations (n, name, sha256, min_code) VALUES (999, 'x', 'x', 999)"
        )
        try:
            said = await desk.program("status", "--json")
        finally:
            await admin.execute("DELETE FROM schema_migrations WHERE n = 999")
    assert (said.code, said.json["error"]["code"]) == (1, "database_ahead")
    assert "newer svsync" in said.sentence


async def test_no_migrate_refuses_a_database_that_lacks_some(desk: Desk) -> None:
    await desk.program("migrate")
    async with connected(desk.database) as admin:
        await admin.execute("UPDATE schema_migrations SET n = -n")
        try:
            said = await desk.program("status", "--no-migrate", "--json")
        finally:
            await admin.execute("UPDATE schema_migrations SET n = -n")
    assert (said.code, said.json["error"]["code"]) == (1, "migrations_pending")
    assert "svsync migrate" in said.sentence


async def test_a_database_that_is_not_there_is_one_sentence_without_its_password(
    desk: Desk,
) -> None:
    url = f"postgresql://svsync:{desk.program.canary.marker}@127.0.0.1:1/svsync"
    said = await desk.program("status", "--json", DATABASE_URL=url)
    assert (said.code, said.json["error"]["code"]) == (1, "store_unavailable")
    assert "DATABASE_URL" in said.sentence


async def test_a_state_folder_that_cannot_be_is_one_sentence(bare: Program) -> None:
    in_the_way = bare.folder / "file"
    in_the_way.touch()
    said = await bare("status", "--json", SVSYNC_STATE_DIR=str(in_the_way / "state"))
    assert (said.code, said.json["error"]["code"]) == (1, "setup")
    assert str(in_the_way) in said.sentence


async def test_backends_are_listed_shown_and_tested(desk: Desk) -> None:
    backend, file = desk.backend()
    at = ("--config", str(file), "--json")
    listed = await desk.program("backends", "list", *at)
    assert listed.json["backends"][0]["id"] == backend
    shown = await desk.program("backends", "show", backend, *at)
    assert shown.json["config"]["auth_config_path"] == "env:BAO_TOKEN"
    assert desk.token not in shown.out + listed.out
    tested = await desk.program("backends", "test", backend, *at)
    assert (tested.code, tested.json["status"]) == (0, "healthy")
    assert {check["state"] for check in tested.json["checks"]} == {"granted"}
    powerless = await desk.bao.token('path "nothing/*" { capabilities = ["read"] }')
    denied = await desk.program("backends", "test", backend, *at, BAO_TOKEN=powerless)
    assert (denied.code, denied.json["status"]) == (1, "denied")


async def test_a_backend_that_vanished_from_the_file_is_paused_and_does_not_run(desk: Desk) -> None:
    first, file = desk.backend()
    await desk.program("backends", "list", "--config", str(file))
    _, without = desk.backend()
    at = ("--config", str(without), "--json")
    status = await desk.program("status", "--backend", first, *at)
    assert status.json["paused"] is True
    said = await desk.program("run-once", "--backend", first, *at)
    assert (said.code, said.out) == (2, "")
    assert "paused" in said.sentence


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
async def test_completion_knows_the_commands(bare: Program, shell: str) -> None:
    said = await bare("completion", shell)
    assert (said.code, said.sentences) == (0, [])
    for words in ("run-once", "use-remote"):
        assert words in said.out


async def test_wrong_usage_is_one_sentence_and_exit_2(bare: Program) -> None:
    for words, says in (
        ((), "COMMAND"),
        (("run-onc",), "the nearest is run-once"),
        (("run-once",), "--backend"),
        (("secrets", "get", "a", "b"), "a word too many"),
        (("secrets", "get", "a//b"), "empty segment"),
        (("secrets", "get", "a", "--field", "b", "--json"), "--field"),
        (("run-once", "--backend", "a", "--path", "a**"), "whole segments"),
    ):
        said = await bare(*words)
        assert (said.code, said.out) == (2, "")
        assert says in said.sentence
    version = await bare("--version")
    assert (version.code, version.err) == (0, "")
    assert version.out.startswith("svsync ")


async def test_a_device_that_takes_no_output_is_exit_1(bare: Program) -> None:
    command = f"{sys.executable} -m svsync config schema"
    full = await _shell(bare, f"{command} > /dev/full")
    assert full[0] == 1
    assert full[2].count("\n") == 1
    assert "cannot be written" in full[2]
    gone = await _shell(bare, f"set -o pipefail; {command} | true")
    assert gone == (0, "", "")
    closed = await _shell(bare, f"{command} >&- 2>&- <&-")
    assert closed[0] == 0


async def _shell(program: Program, line: str) -> tuple[int, str, str]:
    ended = subprocess.run(  # noqa: ASYNC221 - nothing else runs
        ["bash", "-c", line],
        cwd=program.folder,
        env={"PATH": os.environ["PATH"], **program.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr
