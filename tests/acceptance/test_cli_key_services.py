"""Is a key service configured by the environment alone, and is what goes wrong told plainly?"""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.key_services import Home
from tests.program import Program, Said


@pytest.fixture
def program(database_url: str, state_dir: Path, tmp_path: Path, vault_home: Home) -> Program:
    """Which has its keys from Vault."""
    environment = {
        "DATABASE_URL": database_url,
        "SVSYNC_STATE_DIR": str(state_dir),
        "SVSYNC_ALLOW_LOOPBACK": "true",
        "KMS_PROVIDER": "vault",
        "KMS_KEY_ID": vault_home.key,
        "SVSYNC_KMS_ACCESS": json.dumps(dict(vault_home.access)),
        **vault_home.environ,
    }
    return Program(environment, tmp_path)


def silent(said: Said, home: Home) -> Said:
    for secret in home.secrets:
        assert secret not in said.out + said.err
    return said


async def test_vault_and_a_key_file_wrap_the_root_key_and_either_opens_it(
    program: Program, vault_home: Home, state_dir: Path
) -> None:
    both: dict[str, Any] = {"KMS_KEY_ID_SECONDARY": f"file:{state_dir}/kms.key"}
    first = silent(await program("keys", "status", "--json", **both), vault_home)
    assert first.code == 0
    wrapped_by = [key["wrapped_by"] for key in first.json["keys"] if key["kind"] == "root"]
    assert len(wrapped_by) == 1
    assert vault_home.key in wrapped_by[0]
    assert f"local:{state_dir}/kms.key" in wrapped_by[0]
    away: dict[str, Any] = {"SVSYNC_KMS_ACCESS": json.dumps(dict(vault_home.away))}
    without = silent(await program("keys", "status", "--json", **both, **away), vault_home)
    assert without.code == 0
    [warned] = [json.loads(line) for line in without.err.splitlines()]
    assert (warned["event"], warned["level"]) == ("key_service", "warn")
    assert "takes no connection" in warned["detail"]


async def test_without_any_of_its_keys_nothing_starts_and_one_sentence_says_so(
    program: Program, vault_home: Home
) -> None:
    assert (await program("keys", "status")).code == 0
    away: dict[str, Any] = {"SVSYNC_KMS_ACCESS": json.dumps(dict(vault_home.away))}
    for command in (("keys", "status"), ("serve",), ("status",)):
        quiet: dict[str, Any] = {"BIND_ADDRESS": "127.0.0.1:0", "METRICS_ADDRESS": "off"}
        said = silent(await program(*command, **away, **quiet), vault_home)
        assert said.code != 0
        assert "the root key of this database" in said.sentence
        assert "takes no connection" in said.sentence
    found = silent(await program("doctor", "--json", **away), vault_home)
    assert found.code != 0
    assert "takes no connection" in found.out


async def test_configuration_that_means_nothing_is_exit_2(program: Program) -> None:
    said = await program("keys", "status", KMS_KEY_ID="svsync")
    assert said.code == 2
    assert said.sentence.startswith("svsync: KMS_KEY_ID: must be, for vault, the mount and the key")
