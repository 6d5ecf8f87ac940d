"""`svsync demo` as a stranger runs it: it ends well, shows no value, leaves nothing behind."""

import asyncio
import os
import re
import shlex
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from tests import printed
from tests.docs.test_docs import text_of
from tests.patience import PATIENCE_S
from tests.program import Program, Said

from svsync.cli import demo_secrets
from svsync.cli.demo_trials import ARRIVALS

STEPS = ["source", "plan", "first_pull", "quiet", "rotation", "deletion"]
STEPS += ["write_through", "lost_answer", "backup", "conflict", "resolve", "delete_both"]
STEPS += ["guard", "outage", "found_out", "drift", "at_rest"]
LIKE_A_VALUE = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{36,}")
"""What the demo makes up as it goes on: longer than any id, and without a hyphen."""
WRITES_THROUGH = 11
"""At least as many reach OpenBao: one more where the write in the outage is given up first."""
NOBODY = 65534
SOMEBODYS_PRODUCTION = "postgresql://nobody@127.0.0.1:1/production"


@pytest.fixture
def program(state_dir: Path) -> Program:
    """Works in a folder of its own, with a home and a place for temporary files."""
    for name in ("work", "home", "tmp"):
        (state_dir / name).mkdir()
    environment = {
        "HOME": str(state_dir / "home"),
        "TMPDIR": str(state_dir / "tmp"),
        "DATABASE_URL": SOMEBODYS_PRODUCTION,
    }
    return Program(environment, state_dir / "work", alone=True)


def values() -> Iterator[str]:
    """What is in the secrets of the demo, as OpenBao has them when it begins."""
    pulled = demo_secrets.platform(), demo_secrets.payments(), demo_secrets.legacy()
    for secret in chain(*pulled, demo_secrets.shared(), demo_secrets.arrivals(ARRIVALS)):
        yield from map(demo_secrets.needle, secret.versions)


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that work in a folder or were told of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            place = os.readlink(process / "cwd")
        except OSError:
            continue  # ended meanwhile, or somebody else's
        if f"{folder}/" in said or place.startswith(f"{folder}/"):
            found.append(said)
    return found


def assert_nothing_left(program: Program) -> None:
    assert processes_in(program.folder / ".demo") == []
    assert [entry.name for entry in program.folder.iterdir()] == [".demo"]
    for name in ("home", "tmp"):
        assert list((program.folder.parent / name).iterdir()) == []


async def test_demo_turns_out_as_told_and_shows_no_value(program: Program) -> None:
    said = await program("demo")
    assert (said.code, said.err) == (0, "")
    assert_nothing_left(program)
    written = said.out + (program.folder / ".demo/state/svsync.log").read_text()
    assert [v for v in values() if v in written] == []
    assert LIKE_A_VALUE.fullmatch(demo_secrets.needle(demo_secrets.database("made/up")))
    assert LIKE_A_VALUE.findall(written) == []
    assert said.out.count("\n\n") > len(STEPS)
    assert max(map(len, said.out.partition("three things")[0].splitlines())) <= 80
    assert (program.folder / ".demo/approle.json").stat().st_mode & 0o777 == 0o600
    _assert_readme_shows_it(said.out)
    await _assert_commands_work(program, said)


def _assert_readme_shows_it(out: str) -> None:
    """The README's excerpt is what is printed, but for seconds."""
    excerpt = text_of("README.md").partition("What `make demo` prints")[2].split("```")[1]
    shown, printed = (
        [re.sub(r" +", " ", re.sub(r"\d+\.\d s", "N s", line)) for line in text.splitlines()]
        for text in (excerpt, out)
    )
    assert len(shown) > 12
    assert [line for line in shown if line not in printed] == []


async def _assert_commands_work(program: Program, said: Said) -> None:
    """What is offered to try works, with the servers long gone."""
    offered = [line.split() for line in said.out.splitlines() if line.startswith("  ")]
    assert [words[0] for words in offered] == ["svsync"] * 3
    without = {name: v for name, v in program.environment.items() if name != "DATABASE_URL"}
    tried = await asyncio.gather(
        *(Program(without, program.folder)(*words[1:]) for words in offered)
    )
    assert [(one.code, one.sentences) for one in tried] == [(0, [])] * 3
    history, conflicts, runs = (one.out for one in tried)
    assert "import" in history
    assert "external/legacy/apps/payroll/db" in conflicts
    assert "mass_delete_guard" in runs
    assert_nothing_left(program)


def _ordinary_user() -> int | None:
    """A user to run as instead of root, if such a one gets at this Python and svsync."""
    if os.geteuid() != 0:
        return None
    places = [Path(sys.executable).resolve(), Path(sys.prefix), Path(demo_secrets.__file__)]
    parents = {parent for place in places for parent in (place, *place.parents)}
    return NOBODY if all(parent.stat().st_mode & 0o005 == 0o005 for parent in parents) else None


async def test_ordinary_user_gets_the_numbers_as_one_json_object(program: Program) -> None:
    user = _ordinary_user()
    if user is not None:
        for folder in (program.folder.parent, *program.folder.parent.iterdir()):
            os.chown(folder, user, user)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "svsync", "demo", "--json"),
        cwd=program.folder,
        env={"PATH": os.defpath, **program.environment, "SVSYNC_STATE_DIR": ".demo"},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        user=user,
    )
    said = await program.ended(process)
    assert (said.code, said.err) == (0, "")
    printed.check(["demo", "--json"], said.code, said.out)
    told = said.json
    assert [name for name in told if name in STEPS] == STEPS
    assert told["demo"] == "ok"
    assert told["quiet"]["platform"]["api_calls"]["read"] == 0
    assert {s["reason"] for s in told["first_pull"]["platform"]["skipped"]} == {
        "denied",
        "illegal_path",
    }
    assert told["outage"]["final"] == ARRIVALS
    assert told["write_through"]["refused"] == "remote_changed"
    assert told["lost_answer"]["code"] == "write_outcome_unknown"
    assert told["backup"]["outage"]["state"] == "pending"
    for found in (told["found_out"]["found"], told["drift"]["pushed"], told["drift"]["drift"]):
        assert (found["result"], found["counts"]["pushed"]) == ("ok", 1)
    assert told["at_rest"]["found"] == 0
    assert told["at_rest"]["pushes"] >= WRITES_THROUGH
    assert [v for v in values() if v in said.out] == []
    assert_nothing_left(program)


async def test_impatient_person_in_the_middle_leaves_nothing_running(program: Program) -> None:
    process = await program.start("demo")
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        while not (await process.stdout.readline()).startswith(b"3 "):
            pass
    assert any("openbao" in said for said in processes_in(program.folder / ".demo"))
    second = await program("demo")
    assert second.code == 1
    assert "another demo is at work" in second.sentence
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    said = await program.ended(process)
    assert said.code in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert said.sentences == ["svsync: interrupted"]
    assert_nothing_left(program)


async def test_folder_of_somebody_else_is_refused_and_left_alone(program: Program) -> None:
    mine = program.folder / "mine"
    (mine / "state").mkdir(parents=True)
    (mine / "state" / "thesis.txt").write_text("all of it")
    said = await program(*shlex.split("demo --state-dir mine"))
    assert said.code == 2
    assert "holds what no demo has put there" in said.sentence
    assert [path.name for path in mine.rglob("*")] == ["state", "thesis.txt"]
