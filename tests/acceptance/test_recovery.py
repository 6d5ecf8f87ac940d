"""Does the recovery test tell a backup that comes back from one that does not?

The script is run as an operator runs it, from one PostgreSQL to another; pg_dump and
pg_restore are those of the server under test.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio
from tests.canary import Canary
from tests.debian import programs_of, server_named
from tests.house import TENANT, House, settings_for
from tests.patience import PATIENCE_S
from tests.postgres import KIND, connected, database_dsn

from svsync.app import open_app
from svsync.domain.audit import Decision, Entry
from svsync.kms.local import LocalKeyService

SCRIPT = Path(__file__).parents[2] / "config" / "recovery-test.sh"


@dataclass
class Recovery:
    """A store with an audit log, an empty database on another server, and the script."""

    house: House
    folder: Path
    keys: tuple[Path, Path]
    environment: dict[str, str]
    canary: Canary
    target: str

    async def run(
        self, *words: str, keys: int = 1, changes: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str]]:
        """The exit code; what the table says of each step, as `state what`."""
        given = [word for key in self.keys[:keys] for word in ("--key", str(key))]
        process = await asyncio.create_subprocess_exec(
            str(SCRIPT), *given, "--secret", "recovery/canary", "--field", "k", *words,
            env={**self.environment, **(changes or {})},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
        assert not self.canary.found_in(out), "a value turned up in the table"
        assert not self.canary.found_in(err)
        assert os.listdir(self.environment["TMPDIR"]) == [], "it leaves nothing behind"
        assert process.returncode is not None
        said = {line[:15].strip(): line[16:] for line in out.decode().splitlines()}
        return process.returncode, said | {"err": err.decode()}

    @property
    def digest(self) -> str:
        return sha256(self.value.encode()).hexdigest()

    @property
    def value(self) -> str:
        return f"{self.canary.marker}-of-the-recovery"


@pytest_asyncio.fixture
async def recovery(
    house: House, database_url: str, admin_url: str, state_dir: Path, tmp_path: Path
) -> AsyncIterator[Recovery]:
    both = replace(
        settings_for(database_url, state_dir), kms_key_id_secondary=f"file:{state_dir}/second.key"
    )
    async with open_app(both, environ={}, pool=2):
        pass  # which wraps the root key by the second one too
    keys = (tmp_path / "kms.key", tmp_path / "second.key")
    for kept in keys:
        shutil.copy(state_dir / kept.name, kept)
        kept.chmod(0o600)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    canary = Canary()
    async with server_named(KIND)(state_dir / "elsewhere", durable=False) as server:
        environment = {
            "PATH": f"{programs_of(KIND)}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "TMPDIR": str(scratch),
            "SOURCE_ADMIN_URL": admin_url,
            "TARGET_ADMIN_URL": database_dsn(server.admin_dsn, "svsync"),
            "TARGET_URL": server.dsn,
        }
        made = Recovery(house, tmp_path, keys, environment, canary, environment["TARGET_ADMIN_URL"])
        house.there.put("kv/a", {"k": "pulled"})
        await house.run()
        await house.write("recovery/canary", {"k": made.value})
        for number in range(3):
            entry = Entry(TENANT, "user", f"user:{number}", "secret.read", Decision.ALLOW)
            await house.app.recorder.record(entry)
        await house.app.checkpoints.run()
        yield made


async def test_backup_that_comes_back_is_told_step_by_step(recovery: Recovery) -> None:
    house = recovery.house
    before = await house.dump()
    code, said = await recovery.run("--sha256", recovery.digest, keys=2)
    assert (code, said["err"]) == (0, "")
    steps = ("target", "dump", "restore", "counts", "backends", "migrate", "after restore",
             "key", "secret", "audit log", "doctor")  # fmt: skip
    assert [said[step].partition(" ")[0] for step in steps] == ["ok"] * len(steps)
    assert said["secret"].endswith("recovery/canary is what it was")
    assert "noticed by itself. Safe to go on after the restore: 1 fences" in said["after restore"]
    assert said["backends"].endswith("1 paused in the copy: none is called")
    assert "second.key opens the root key by itself" in said["key"]
    # Three of before, and what was done in the copy: the restore, and the read.
    assert "default: 5 rows fit" in said["audit log"]
    assert await house.dump() == before, "of the source nothing is asked but a dump"
    async with connected(recovery.target) as there:
        who = await there.fetchval("SELECT identity_id FROM audit WHERE action = 'store.restored'")
        assert who.startswith("cli:")


async def test_dump_that_is_cut_off_fails(recovery: Recovery) -> None:
    whole = recovery.folder / "whole.dump"
    code, _ = await command(recovery, "pg_dump", "-Fc", "-f", str(whole), "-d",
                            recovery.environment["SOURCE_ADMIN_URL"])  # fmt: skip
    assert code == 0
    cut = recovery.folder / "cut.dump"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 9 // 10])
    code, said = await recovery.run("--dump", str(cut))
    assert (code, said["restore"].split()[0]) == (1, "FAILED")
    assert "pg_restore: error" in said["restore"]
    async with connected(recovery.target) as there:
        assert await there.fetchval("SELECT to_regclass('secrets')") is None
    code, said = await recovery.run("--dump", str(whole), "--sha256", recovery.digest)
    assert code == 0, said


async def test_dump_that_some_rows_were_left_out_of_fails(recovery: Recovery) -> None:
    """As many are here as in the dump, and the audit log is gone."""
    dump, source = str(recovery.folder / "part.dump"), recovery.environment["SOURCE_ADMIN_URL"]
    words = ("-Fc", "--exclude-table-data=audit*", "-f", dump, "-d", source)
    assert (await command(recovery, "pg_dump", *words))[0] == 0
    code, said = await recovery.run("--dump", dump)
    assert (code, said["counts"].split()[0]) == (1, "FAILED")
    assert "without the rows of public.audit_" in said["counts"]
    assert "public.audit_checkpoints" in said["counts"]


async def test_dump_of_something_else_and_one_of_inserts_say_what_is_wrong(
    recovery: Recovery,
) -> None:
    dump, source = str(recovery.folder / "other.dump"), recovery.environment["SOURCE_ADMIN_URL"]
    admin = recovery.house.admin
    await admin.execute("CREATE SCHEMA other CREATE TABLE one (a int)")
    code, _ = await command(recovery, "pg_dump", "-Fc", "-n", "other", "-f", dump, "-d", source)
    await admin.execute("DROP SCHEMA other CASCADE")
    assert code == 0
    code, said = await recovery.run("--dump", dump)
    assert (code, said["backends"]) == (
        1,
        'FAILED   ERROR:  relation "backends" does not exist',
    )
    async with connected(recovery.target) as there:
        await there.execute("DROP SCHEMA other CASCADE")
    assert (await command(recovery, "pg_dump", "-Fc", "--inserts", "-f", dump, "-d", source))[
        0
    ] == 0
    code, said = await recovery.run("--dump", dump)
    assert (code, "without --inserts" in said["counts"]) == (1, True)


async def test_dump_that_is_a_folder_is_taken(recovery: Recovery) -> None:
    """And a role for which the clock is set otherwise is at the same database all the same."""
    async with connected(recovery.target) as there:
        await there.execute("ALTER ROLE svsync SET timezone = 'Asia/Tokyo'")
    dump, source = str(recovery.folder / "dump"), recovery.environment["SOURCE_ADMIN_URL"]
    assert (await command(recovery, "pg_dump", "-Fd", "-f", dump, "-d", source))[0] == 0
    code, said = await recovery.run("--dump", dump, "--sha256", recovery.digest)
    assert (code, said["dump"], said["err"]) == (0, "ok       a folder, given", "")


async def test_role_that_sees_part_of_the_rows_pauses_no_part_of_the_backends(
    recovery: Recovery,
) -> None:
    """The doctor would log in at those that are hidden."""
    async with connected(recovery.target) as there:
        await there.execute(
            "CREATE ROLE bound; GRANT svsync TO bound; GRANT ALL ON SCHEMA public TO bound"
        )
    code, said = await recovery.run(
        changes={"TARGET_ADMIN_URL": f"{recovery.target}&options=-c%20role%3Dbound"}
    )
    assert (code, "backends" in said) == (1, False)
    assert "row-level security" in said["counts"]


@pytest.mark.parametrize(
    ("program", "when", "step"),
    [("psql", "FROM tenants", "audit log"), ("svsync", "doctor", "doctor")],
)
async def test_what_could_not_be_asked_is_no_success(
    recovery: Recovery, program: str, when: str, step: str
) -> None:
    """The connection is lost at a late moment: at the third look of the doctor, say."""
    folder = recovery.folder / "programs"
    folder.mkdir()
    script, asked = folder / program, folder / "asked"
    path = recovery.environment["PATH"]
    often = 3 if program == "svsync" else 1
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *"{when}"*) echo >> {asked}\n'
        f'  [ $(wc -l < {asked}) -lt {often} ] || {{ echo "{program}: gone" >&2; exit 2; }} ;;\n'
        "esac\n"
        f'exec {shutil.which(program, path=path)} "$@"\n'
    )
    script.chmod(0o755)
    code, said = await recovery.run(changes={"PATH": f"{folder}:{path}"})
    assert (code, said[step].split()[0]) == (1, "FAILED")
    assert said[step].endswith("gone")


async def test_key_that_is_another_one_fails(recovery: Recovery) -> None:
    recovery.keys[0].unlink()
    LocalKeyService.open(recovery.keys[0], create=True)
    code, said = await recovery.run("--sha256", recovery.digest)
    assert (code, said["key"].split()[0]) == (1, "FAILED")
    assert "kms.key" in said["key"]
    assert "secret" not in said, "nothing can be read"


async def test_each_of_two_keys_has_to_open_it_by_itself(recovery: Recovery) -> None:
    recovery.keys[1].unlink()
    LocalKeyService.open(recovery.keys[1], create=True)
    code, said = await recovery.run(keys=2)
    assert (code, said["key"].split()[0]) == (1, "FAILED")
    assert "second.key" in said["key"]


async def test_row_that_is_gone_from_the_audit_log_fails(recovery: Recovery) -> None:
    admin = recovery.house.admin
    await admin.execute("ALTER TABLE audit DISABLE TRIGGER USER")
    for part in await admin.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits"
                                  " WHERE inhparent = 'audit'::regclass"):  # fmt: skip
        await admin.execute(f"ALTER TABLE {part['name']} DISABLE TRIGGER USER")
    gone = await admin.execute("DELETE FROM audit WHERE identity_id = 'user:1'")
    assert gone == "DELETE 1"
    code, said = await recovery.run("--sha256", recovery.digest)
    assert (code, said["audit log"].split()[:2]) == (1, ["FAILED", "default:"])
    assert said["secret"].startswith("ok"), "what is well is told as well"


async def test_value_that_is_another_one_fails_and_is_not_shown(recovery: Recovery) -> None:
    """And a key service that the environment names opens it as a file does."""
    named = {"KMS_PROVIDER": "local", "KMS_KEY_ID": f"file:{recovery.keys[1]}"}
    wrong = sha256(b"another").hexdigest()
    code, said = await recovery.run("--sha256", wrong, keys=0, changes=named)
    assert said["key"] == "ok       local opens the root key by itself"
    assert (code, said["secret"].split()[0]) == (1, "FAILED")
    assert recovery.digest not in "".join(said.values())


async def test_target_that_is_not_empty_is_refused(recovery: Recovery) -> None:
    async with connected(recovery.target) as there:
        await there.execute("CREATE TABLE somebody_elses (a int)")
        code, said = await recovery.run()
        assert (code, "not empty" in said["err"]) == (2, True)
        assert await there.fetchval("SELECT to_regclass('secrets')") is None
        await there.execute("DROP TABLE somebody_elses")


@pytest.mark.parametrize(
    ("words", "changes", "says"),
    [
        (("--sha256", "abc"), {}, "--sha256 is 64"),
        (("--secrets", "a"), {}, "--secrets is no option"),
        (("--key", "/nowhere.key"), {}, "/nowhere.key cannot be read"),
        ((), {"TARGET_URL": "postgresql://svsync:hush@db/svsync"}, "PGPASSFILE"),
        ((), {"TARGET_URL": "postgresql://svsync@db/svsync?password=hush"}, "PGPASSFILE"),
        ((), {"TARGET_URL": "host=db user=svsync password = hush"}, "PGPASSFILE"),
        ((), {"TARGET_URL": ""}, "set TARGET_URL"),
    ],
)
async def test_what_cannot_be_tried_is_one_sentence(
    recovery: Recovery, words: tuple[str, ...], changes: dict[str, str], says: str
) -> None:
    code, said = await recovery.run(*words, changes=changes)
    assert (code, says in said["err"]) == (2, True), said["err"]
    assert "hush" not in said["err"]


async def command(recovery: Recovery, *words: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        *words, env=recovery.environment, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
async def test_script_has_no_mistakes_that_shellcheck_knows() -> None:
    process = await asyncio.create_subprocess_exec(
        "shellcheck", str(SCRIPT), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"")
