"""The walk of the README, command by command, against a real OpenBao."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from tests.acceptance.serving import serving
from tests.docs.test_docs import code_blocks
from tests.openbao import Bao, credential_json
from tests.program import Program

SVSYNC = Path(sys.executable).with_name("svsync")


async def run(command: str, folder: Path, environ: dict[str, str]) -> tuple[int, str]:
    """One line of the README; its exit code and all that it wrote."""
    program, *arguments = command.split()
    assert program == "svsync"
    process = await asyncio.create_subprocess_exec(
        SVSYNC,
        *arguments,
        cwd=folder,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_the_commands_of_the_readme_do_what_it_says(
    kv2: Bao, database_url: str, state_dir: Path
) -> None:
    (policy,) = code_blocks("README.md", "hcl")
    (example,) = code_blocks("README.md", "yaml")
    login = await kv2.approle(
        policy.replace('"kv/', f'"{kv2.mount}/'), token_no_default_policy=True
    )
    await kv2.put("apps/db", {"password": "walked"})
    await kv2.put("sandbox/x", {"password": "not taken"})
    example = example.replace("# allow_loopback: true", "allow_loopback: true")
    example = example.replace("https://vault.internal:8200", kv2.url)
    example = example.replace('"kv/data/', f'"{kv2.mount}/data/')
    (state_dir / "svsync.yaml").write_text(example)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(state_dir),
        "COLUMNS": "200",
        "SVSYNC_STATE_DIR": str(state_dir),
        "DATABASE_URL": database_url,
        "VAULT_APPROLE": credential_json(login),
    }
    lines = [
        line
        for block in code_blocks("README.md", "sh")
        for line in block.splitlines()
        if line.startswith("svsync ")
    ]
    told = {}
    for line in lines:
        code, told[line.split(" --config")[0]] = await run(line, state_dir, environ)
        assert code == 0, f"{line}: {told}"
    tested = told["svsync backends test fed_vault"]
    assert "granted" in tested
    assert "missing" not in tested, "the policy of the README grants all that is asked for"
    assert "external/vault/apps/db" in told["svsync plan --backend fed_vault"]
    listed = told["svsync secrets list --prefix external/vault/"]
    assert "external/vault/apps/db" in listed
    assert "sandbox" not in listed
    assert "walked" in told["svsync secrets get external/vault/apps/db"]
    shared = f"{kv2.mount}/data/shared/mail"
    landed = (await kv2.request("GET", shared))["data"]
    assert isinstance(landed, dict)
    assert landed["data"] == {"host": "smtp.internal", "user": "orders"}
    assert landed["metadata"]["version"] == 1, "the run after the write wrote nothing"
    assert landed["metadata"]["custom_metadata"] == {"team": "pay", "svsync-managed": "true"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the read is by curl, which is not here")
async def test_first_read_by_curl_is_that_of_the_readme(database_url: str, state_dir: Path) -> None:
    [commands] = [block for block in code_blocks("README.md", "sh") if "TOKEN=" in block]
    (state_dir / "svsync.yaml").write_text("log_level: warn\n")
    environ = {"SVSYNC_STATE_DIR": str(state_dir), "DATABASE_URL": database_url}
    program = Program(environ, state_dir)
    await program("secrets", "write", "external/vault/apps/db", "password=walked")
    async with serving(program) as served:
        shell = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            commands.replace("http://127.0.0.1:8443", served.url),
            cwd=state_dir,
            env={**environ, "PATH": f"{SVSYNC.parent}:{os.environ['PATH']}"},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await shell.communicate()
        assert json.loads(out)["data"] == {"password": "walked"}
        assert await served.stopped() == 0
