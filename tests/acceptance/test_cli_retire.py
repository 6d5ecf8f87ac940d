"""Does the plan say what is ready, and of the rest why it is not, and run nothing?"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from tests.acceptance.conftest import Desk, open_desk
from tests.audited import AuditedBao, audited_bao, quiet_log
from tests.openbao import credential_json, guide_policy
from tests.postgres import connected

from svsync.embedded.postgres import EmbeddedPostgres

__all__ = ["audited_bao"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def desk(
    postgres: EmbeddedPostgres, audited_bao: AuditedBao, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Desk]:
    quiet_log(audited_bao.folder / "audit.log.1.gz", datetime.now(UTC), timedelta(hours=2))
    async with open_desk(postgres, audited_bao, tmp_path_factory.mktemp("desk")) as made:
        yield made


async def read_here(desk: Desk, path: str) -> None:
    async with connected(desk.database) as admin:
        await admin.execute(
            "INSERT INTO audit (tenant_id, chain_id, seq, at, identity_type, identity_id, action,"
            " decision, secret_path, hash) SELECT 1, 0, count(*), now(), 'service_account',"
            " 'sa:billing', 'secret.read', 'allow', $1, '' FROM audit",
            path,
        )


async def synced(desk: Desk, *names: str) -> tuple[str, Path, str]:
    """A backend with these secrets, synced by a role; its id, its file, its credential."""
    for name in names:
        await desk.bao.put(name, {"k": desk.program.canary.marker})
    login = await desk.bao.approle(guide_policy(desk.bao.mount))
    role = credential_json(login)
    backend, file = desk.backend(config={"auth_method": "approle", "auth_config_path": "env:ROLE"})
    said = await desk.program("--config", str(file), "run-once", "--backend", backend, ROLE=role)
    assert said.code == 0
    return backend, file, role


async def test_a_plan_says_all_and_runs_nothing(desk: Desk, audited_bao: AuditedBao) -> None:
    backend, file, role = await synced(desk, "apps/db", "apps/unread")
    await read_here(desk, f"{backend}/apps/db")
    words = ("retire", "plan", f"{backend}/**", "--idle", "1h")
    logged = (*words, "--audit-log", str(audited_bao.audit_log))
    said = await desk.program("--config", str(file), *logged, ROLE=role)
    assert said.code == 0
    command = f"vault kv delete -address={desk.bao.url} -mount={desk.bao.mount} apps/db"
    assert said.out.splitlines()[-1] == command
    assert "none was run" in said.out
    assert "The audit log tells of reads until 20" in said.out
    [held] = [line for line in said.out.splitlines() if line.startswith(f"{backend}/apps/unread")]
    assert "nobody has read it here since" in held
    found = await desk.program("--config", str(file), *logged, "--json", ROLE=role)
    assert [row["command_line"] for row in found.json["ready"]] == [command]
    assert [row["path"] for row in found.json["held"]] == [f"{backend}/apps/unread"]
    assert found.json["audit_log"]["broken_lines"] == 0
    unlogged = await desk.program("--config", str(file), *words, ROLE=role)
    assert "Nothing is ready to be retired." in unlogged.out
    assert "source_unknown: 2" in unlogged.out
    here = await desk.program(
        "--config", str(file), "inventory", "readers", "--prefix", f"{backend}/", "--json"
    )
    assert [(r["path"], r["reader"], r["reads"]) for r in here.json["readers"]] == [
        (f"{backend}/apps/db", "sa:billing", 1)
    ]
    logs = await desk.program(
        "--config", str(file), "audit", "query", "--action", "retirement.plan", "--json", ROLE=role
    )
    assert len(logs.json["logs"]) == 3
    assert await desk.bao.request("GET", f"{desk.bao.mount}/data/apps/db")


async def test_a_backend_that_is_away_is_exit_3(desk: Desk) -> None:
    backend, file, role = await synced(desk, "apps/db")
    away = desk.file(
        {
            "allow_loopback": True,
            "backends": [
                {
                    "id": backend,
                    "name": backend,
                    "type": "hashicorp-vault",
                    "mode": "sync",
                    "config": {
                        "endpoint": "http://127.0.0.1:1",
                        "auth_method": "approle",
                        "auth_config_path": "env:ROLE",
                    },
                    "path_mapping": [
                        {"local": f"{backend}/**", "remote": f"{desk.bao.mount}/data/**"}
                    ],
                }
            ],
        }
    )
    words = ("retire", "plan", f"{backend}/**", "--idle", "1h", "--json")
    said = await desk.program("--config", str(away), *words, ROLE=role)
    assert (said.code, said.json["error"]["code"]) == (3, "backend_unreachable")
    assert file.exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("a/**",), 2, "--idle"),
        (("a/**", "--idle", "soon"), 2, "--idle"),
        (("a/**", "--idle", "1s"), 2, "--idle"),
        (("a/***", "--idle", "1h"), 2, "PATTERN 'a/***'"),
        (("a/**", "--idle", "1h", "--ours", " "), 2, "--ours"),
        (("a/**", "--idle", "1h", "--audit-log", "missing"), 2, "missing cannot be read"),
        (("a/**", "--idle", "1h", "--backend", "nobody"), 1, "nobody"),
    ],
)
async def test_what_cannot_be_planned_is_one_sentence(
    desk: Desk, words: tuple[str, ...], code: int, says: str
) -> None:
    _, file = desk.backend()
    said = await desk.program("--config", str(file), "retire", "plan", *words, "--json")
    assert says in said.sentence
    assert (said.code, said.out == "") == (code, code == 2)


async def test_nothing_that_fits_is_said(desk: Desk) -> None:
    _, file = desk.backend()
    words = ("retire", "plan", "nothing/**", "--idle", "7d")
    said = await desk.program("--config", str(file), *words)
    assert (said.code, said.out) == (0, "No synced secret fits.\n")


async def test_what_is_read_through_is_said_to_be_kept_nowhere_here(desk: Desk) -> None:
    backend, file = desk.backend(mode="proxy")
    words = ("retire", "plan", f"{backend}/apps/**", "--idle", "7d")
    said = await desk.program("--config", str(file), *words)
    assert f"{backend}/** is read through" in said.out
    assert (await desk.program("--config", str(file), *words, "--json")).json["read_through"] == [
        f"{backend}/**"
    ]
