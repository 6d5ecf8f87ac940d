"""`svsync demo --keep` as a stranger runs it: what it offers works, and it ends without a trace."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from tests.acceptance.test_demo import _ordinary_user, assert_nothing_left, processes_in, program
from tests.acceptance.test_demo import values as demo_values
from tests.house import TENANT, House, house
from tests.patience import PATIENCE_S
from tests.program import Program

from svsync.cli import demo_secrets
from svsync.cli.demo_keep import Kept, keep_up
from svsync.domain.errors import SetupError

__all__ = ["house", "program"]

WHOLE = ("-m", "svsync")
TO_THE_FIRST_PULL = (
    "-c",
    "from svsync.cli import demo_steps, main\ndemo_steps.STEPS = demo_steps.STEPS[:3]\nmain.run()",
)
"""The program with a short play, where only what follows it is asked for."""
BILLING = next(s for s in demo_secrets.platform() if s.path == "databases/prod/billing")

needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None, reason="curl is not installed: the printed commands need it"
)


async def start(
    program: Program, play: tuple[str, ...], *args: str, user: int | None = None
) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *play, "demo", "--keep", *args),
        cwd=program.folder,
        env={"PATH": os.environ["PATH"], **program.environment},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        user=user,
    )


async def end(process: Process) -> None:
    """If it has not ended: in order, for else it leaves servers behind."""
    if process.returncode is None:
        process.terminate()
        await process.communicate()


async def said_until(process: Process, end: str) -> str:
    """What it prints, up to the line that begins so."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while not (lines and lines[-1].startswith(end)):
            line = await process.stdout.readline()
            assert line, "".join(lines)
            lines.append(line.decode())
    return "".join(lines)


async def tried(line: str, token: str) -> tuple[int, Any]:
    """A printed command in a shell that has the token; the status and the answer's object."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", line + r" -w '\n%{http_code}'"),
        env={"PATH": os.environ["PATH"], "SVSYNC_TOKEN": token},
        stdout=PIPE,
    )
    out, _ = await process.communicate()
    body, _, status = out.decode().rpartition("\n")
    return int(status), json.loads(body)


async def assert_as_told(commands: list[str], token: str) -> None:
    proxied, synced, denied = [await tried(line, token) for line in commands]
    assert (proxied[0], proxied[1]["data"]) == (200, BILLING.versions[-1])
    assert (synced[0], synced[1]["data"]) == (200, BILLING.versions[-1])
    assert proxied[1]["federation"]["mode"] == "proxy"
    assert synced[1]["federation"]["mode"] == "sync"
    assert denied[0] == 403
    assert "no policy lets you read" in denied[1]["error"]["message"]


@needs_curl
async def test_what_it_offers_works_until_ctrl_c_and_nothing_is_left(program: Program) -> None:
    process = await start(program, WHOLE)
    try:
        out = await said_until(process, "Who asked for what")
        assert [v for v in demo_values() if v in out] == []
        token = re.findall(r"^  export SVSYNC_TOKEN=(\S+)$", out, re.MULTILINE)[0]
        commands = re.findall(r"^  (curl .*)$", out, re.MULTILINE)
        await assert_as_told(commands, token)
        console = re.findall(r"^console +(\S+)$", out, re.MULTILINE)[0]
        async with aiohttp.ClientSession() as session, session.get(console) as page:
            assert "<title>svsync</title>" in await page.text()
        asked = await Program({"HOME": program.environment["HOME"]}, program.folder)(
            "audit", "query", "--json", "--identity-id", "sa:demo", "--config", ".demo/svsync.yaml"
        )
        assert [(row["action"], row["decision"]) for row in asked.json["logs"]] == [
            ("secret.read", "deny"),
            ("secret.read", "allow"),
            ("secret.read", "allow"),
        ]
        # As a terminal sends it, and once more by somebody who cannot wait.
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        said = await program.ended(process)
    finally:
        await end(process)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[-1] == "Ended; nothing is left running, and .demo is removed."
    assert processes_in(program.folder / ".demo") == []
    assert list(program.folder.iterdir()) == []
    for name in ("home", "tmp"):
        assert list((program.folder.parent / name).iterdir()) == []


@needs_curl
async def test_ordinary_user_gets_one_json_object_and_keeps_the_folder_that_was_named(
    program: Program,
) -> None:
    user = _ordinary_user()
    if user is not None:
        for folder in (program.folder.parent, *program.folder.parent.iterdir()):
            os.chown(folder, user, user)
    process = await start(program, TO_THE_FIRST_PULL, "--json", "--state-dir", ".demo", user=user)
    try:
        told = json.loads(await said_until(process, "}"))
        assert told["demo"] == "ok"
        kept = told["kept"]
        await assert_as_told(kept["commands"], kept["token"])
        async with aiohttp.ClientSession() as session, session.get(kept["metrics"]) as page:
            assert "svsync_workers" in await page.text()
        assert any("serve" in line for line in processes_in(program.folder / ".demo"))
        process.terminate()
        said = await program.ended(process)
    finally:
        await end(process)
    assert (said.code, said.out, said.err) == (0, "", "")
    assert_nothing_left(program)
    assert (program.folder / ".demo/state/serve.log").stat().st_size
    assert (program.folder / ".demo/svsync.yaml").exists()


async def test_service_that_ends_by_itself_ends_what_was_kept_up(
    house: House, database_url: str, tmp_path: Path
) -> None:
    secret = tmp_path / "url"
    secret.touch(mode=0o600)
    secret.write_text(database_url)
    config = tmp_path / "svsync.yaml"
    state = house.app.settings.state_dir
    config.write_text(json.dumps({"database_url": f"file:{secret}", "state_dir": state}))
    server = SimpleNamespace(server=SimpleNamespace(url="https://127.0.0.1:1"))
    hands: Any = SimpleNamespace(app=house.app, tenant=TENANT, estate=server, state_dir=tmp_path)
    told: list[Kept] = []

    def tell(kept: Kept) -> None:
        told.append(kept)
        os.kill(service_of(config), signal.SIGKILL)

    with pytest.raises(SetupError, match="ended by itself"):
        await keep_up(hands, config, asyncio.Event(), tell)
    assert told[0].token.reveal() not in repr(told)
    assert processes_in(tmp_path) == []


async def test_service_that_cannot_start_is_told(house: House, tmp_path: Path) -> None:
    hands: Any = SimpleNamespace(app=house.app, tenant=TENANT, state_dir=tmp_path)
    with pytest.raises(SetupError, match=r"did not start: see .*/serve\.log"):
        await keep_up(hands, tmp_path / "missing.yaml", asyncio.Event(), lambda _: None)


def service_of(config: Path) -> int:
    """The process that serves by this configuration."""
    [found] = [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if str(config).encode() in _words(process)
    ]
    return found


def _words(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
