"""Tenants by commands: made, listed, and shredded while a process serves."""

import asyncio
import json
import os
import pty
import secrets
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import ask, new_token, serving
from tests.house import House
from tests.patience import PATIENCE_S
from tests.postgres import connected
from tests.program import Program, until


@pytest.fixture
def program(house: House, database_url: str, state_dir: Path, tmp_path: Path) -> Program:
    """Works on the store of the house, in processes of its own."""
    environment = {"DATABASE_URL": database_url, "SVSYNC_STATE_DIR": str(state_dir)}
    return Program(environment, tmp_path)


async def actions(house: House, slug: str) -> list[str]:
    rows = await house.admin.fetch(
        "SELECT action FROM audit JOIN tenants USING (tenant_id) WHERE slug = $1 ORDER BY at", slug
    )
    return [row["action"] for row in rows]


# --- made and listed --------------------------------------------------------------------


async def test_a_tenant_is_made_recorded_and_usable(house: House, program: Program) -> None:
    said = await program("tenants", "create", "acme", "--json")
    assert (said.code, said.json) == (0, {"tenant": "acme", "status": "active"})
    assert await actions(house, "acme") == ["tenant.create"]
    value = program.canary.value()
    wrote = await program("secrets", "write", "own/x", f"k={value}", "--tenant", "acme")
    assert wrote.code == 0
    listed = (await program("tenants", "list", "--json")).json["tenants"]
    assert [(t["slug"], t["status"], t["backends"]) for t in listed] == [
        ("acme", "active", 0),
        ("default", "active", 1),
    ]
    seen = (await program("tenants", "list")).out
    assert "acme" in seen
    assert "active" in seen


@pytest.mark.parametrize("slug", ["Acme", "-a", "a_b", "a" * 64, "", "a/b"])
async def test_what_is_no_slug_is_refused_before_anything_is_opened(
    tmp_path: Path, slug: str
) -> None:
    bare = Program({"SVSYNC_STATE_DIR": str(tmp_path / "state")}, tmp_path)
    for verb in ("create", "shred"):
        said = await bare("tenants", verb, "--", slug)
        assert (said.code, said.out) == (2, "")
        assert "slug" in said.sentence
    assert not (tmp_path / "state").exists()


async def test_a_slug_that_is_taken_is_refused(house: House, program: Program) -> None:
    said = await program("tenants", "create", "default", "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "tenant_exists")
    assert "choose another slug" in said.sentence
    assert await actions(house, "default") == []


async def test_no_service_is_asked(program: Program) -> None:
    said = await program("tenants", "list", "--url", "http://127.0.0.1:1", "--token", "t")
    assert said.code == 2


# --- shredded ---------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--confirm", "defualt"), ("--json",)])
async def test_nothing_is_shredded_that_nobody_confirmed(
    house: House, program: Program, more: tuple[str, ...]
) -> None:
    await house.write("own/x", {"k": "1"})
    said = await program("tenants", "shred", "default", *more)
    assert (said.code, said.out) == (2, "")
    assert "confirm" in said.sentence
    assert await house.data("own/x") == {"k": "1"}
    assert "tenant.shred" not in await actions(house, "default")


async def test_it_says_what_it_did_and_is_recorded_under_a_signature(
    house: House, program: Program
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    said = await program("tenants", "shred", "default", "--confirm", "default", "--json")
    told: dict[str, Any] = said.json
    assert said.code == 0
    assert {name: told[name] for name in ("tenant", "status", "shredded_before")} == {
        "tenant": "default",
        "status": "shredded",
        "shredded_before": False,
    }
    assert (told["backends_paused"], told["secrets_removed"]) == (1, 1)
    assert told["keys_destroyed"] >= 2
    assert (told["keys_erased"], told["last_checkpoint_signed"]) == (True, True)
    row = await house.row("audit", action="tenant.shred")
    assert row["identity_id"].startswith("cli:")
    chain = await house.row("audit_chains", chain_id=row["chain_id"])
    assert chain["covered_seq"] >= row["seq"], "the last that its key signed"
    again = await program("tenants", "shred", "default")
    assert again.code == 0, "nothing is left to confirm"
    assert "shredded before" in again.out
    listed = (await program("tenants", "list", "--json")).json["tenants"]
    assert [tenant["status"] for tenant in listed] == ["shredded"]


async def test_commands_on_it_are_told_so(house: House, program: Program) -> None:
    shredded = await program("tenants", "shred", "default", "--confirm", "default")
    assert "let them expire" in shredded.out
    for words in (("secrets", "list"), ("secrets", "write", "a", "k=1"), ("keys", "status")):
        said = await program(*words, "--json")
        assert (said.code, said.json["error"]["code"]) == (1, "tenant_shredded")
    assert (await program("tenants", "shred", "nobody", "--confirm", "nobody")).code == 1
    logs = (await program("audit", "query", "--action", "tenant.shred", "--json")).json["logs"]
    assert [row["decision"] for row in logs] == ["allow"]


async def test_it_says_where_no_last_checkpoint_was_signed(house: House, program: Program) -> None:
    assert (await program("audit", "key")).code == 0
    await house.admin.execute("UPDATE data_keys SET wrapped = '\\x00' WHERE purpose = 'audit_sign'")
    said = await program("tenants", "shred", "default", "--confirm", "default")
    assert (said.code, "No last checkpoint was signed" in said.out) == (0, True)


async def test_keys_of_the_other_tenants_are_replaced_all_the_same(
    house: House, program: Program
) -> None:
    assert (await program("tenants", "create", "acme")).code == 0
    assert (await program("tenants", "shred", "default", "--confirm", "default")).code == 0
    root = await program("keys", "rotate", "--root", "--json")
    assert (root.code, root.json["root"]) == (0, {"old": 1, "new": 2})
    [rotated] = (await program("keys", "rotate", "--all-tenants", "--json")).json["rotated"]
    assert rotated["tenant"] == "acme"
    [done] = (await program("keys", "rewrap", "--all-tenants", "--json")).json["tenants"]
    assert done["tenant"] == "acme"
    assert (await program("keys", "rotate", "--json")).json["error"]["code"] == "tenant_shredded"


async def test_its_log_is_checked_by_a_key_that_was_kept(
    house: House, program: Program, tmp_path: Path
) -> None:
    kept = tmp_path / "key.json"
    kept.write_text((await program("audit", "key", "--json")).out)
    assert (await program("tenants", "shred", "default", "--confirm", "default")).code == 0
    without = await program("audit", "verify")
    assert (without.code, "--key FILE" in without.sentence) == (2, True)
    said = await program("audit", "verify", "--key", str(kept), "--json")
    assert (said.code, said.json["misfits"]) == (0, [])
    other = json.loads(kept.read_text())
    other["keys"][0]["public_key"] = "00" * 32
    kept.write_text(json.dumps(other))
    assert (await program("audit", "verify", "--key", str(kept))).code == 1
    kept.write_text("{}")
    assert (await program("audit", "verify", "--key", str(kept))).code == 2
    assert (await program("audit", "key", "--json")).json["error"]["code"] == "tenant_shredded"


async def typed(program: Program, text: bytes) -> tuple[int, str]:
    """`tenants shred default` on a terminal, where somebody types this: how it ended, and what
    it showed there. No text: it is interrupted meanwhile."""
    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], **program.environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "svsync", "tenants", "shred", "default",
        cwd=program.folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    shown = b""
    answered = False
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    shown += os.read(ours, 65_536)
                except BlockingIOError:
                    await asyncio.sleep(0.01)
                except OSError:  # nobody has the other end any more
                    break
                if not answered and b"to go on" in shown:
                    answered = True
                    if text:
                        os.write(ours, text)
                    else:
                        process.send_signal(signal.SIGINT)
            return await process.wait(), shown.decode()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        os.close(ours)


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        (b"default\n", 0, "shredded"),
        (b"yes\n", 2, "active"),
        (b"\n", 2, "active"),
        (b"\x04", 2, "active"),
        (b"", 130, "active"),
    ],
    ids=["slug", "yes", "nothing", "end", "interrupted"],
)
async def test_on_a_terminal_the_slug_is_typed_out(
    house: House, program: Program, text: bytes, code: int, status: str
) -> None:
    ended, shown = await typed(program, text)
    assert (ended, "type default to go on" in shown) == (code, True), shown
    assert (await house.row("tenants"))["status"] == status


# --- beside a service -------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="session")
async def test_a_service_that_read_it_answers_410_and_pulls_nothing_again(desk: Desk) -> None:
    program = desk.program
    slug = f"t-{secrets.token_hex(4)}"
    assert (await program("tenants", "create", slug)).code == 0
    name, file = desk.backend(tenant=slug, sync_interval="30s")
    await desk.bao.put("app/a", {"k": program.canary.value("a")})
    token = await new_token(program, "--tenant", slug)
    config = ("--config", str(file))

    async def counts() -> tuple[int, int, int]:
        async with connected(desk.database) as admin:
            row = await admin.fetchrow(
                "SELECT (SELECT count(*) FROM secrets s WHERE s.tenant_id = t.tenant_id),"
                " (SELECT count(*) FROM runs r WHERE r.tenant_id = t.tenant_id),"
                " (SELECT count(*) FROM runs r WHERE r.tenant_id = t.tenant_id AND"
                " r.ended_at IS NULL)"
                " FROM tenants t WHERE slug = $1",
                slug,
            )
            assert row is not None
            return tuple(row)

    async def due() -> None:
        async with connected(desk.database) as admin:
            await admin.execute(
                "UPDATE backend_health h SET next_due_at = now() FROM tenants t"
                " WHERE t.tenant_id = h.tenant_id AND t.slug = $1",
                slug,
            )

    async with serving(program, *config) as served:
        path = f"/v1/secrets/{name}/app/a"

        async def is_there() -> bool:
            return (await ask(served.url, path, token=token)).status == 200

        await until(is_there)
        for _ in range(2):
            assert (await ask(served.url, path, token=token)).status == 200
        assert (await ask(served.url, "/v1/secrets", token=token)).status == 200
        said = await program("tenants", "shred", slug, "--confirm", slug, "--json", *config)
        assert (said.code, said.json["backends_paused"]) == (0, 1)
        _, runs, _ = await counts()
        assert (await served.says("shredded_tenant_put_away"))["tenant"] == slug
        for at in (path, "/v1/secrets", f"{path}?version=1"):
            answer = await ask(served.url, at, token=token)
            assert (answer.status, answer.json["error"]["code"]) == (410, "tenant_shredded")
        await due()
        pushed = await program("secrets", "write", f"{name}/b", "k=1", "--tenant", slug, *config)
        assert pushed.code == 1
        assert await served.stopped() == 0
    await due()
    async with serving(program, *config) as served:
        told = await served.says("backend_passed_over")
        assert told["detail"] == "its tenant was shredded: take it out of the file"
        assert (await ask(served.url, path, token=token)).status == 410
        assert await served.stopped() == 0
    assert await counts() == (0, runs, 0)
