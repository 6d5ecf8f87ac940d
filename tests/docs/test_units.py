"""Are the units of systemd what systemd understands, and as closed as the page says?"""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.cli_page import commands
from tests.docs.test_docs import ROOT, text_of

from svsync.cli.main import build_parser
from svsync.config.model import ROWS

UNITS = ROOT / "systemd"
PROGRAM = "/opt/svsync/bin/svsync"
SERVICES = ("svsync.service", "svsync-run-once@.service", "svsync-retention.service")
MOST_EXPOSED = 1.1
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def lines(unit: str) -> Iterator[tuple[str, str, str]]:
    """Each setting of a unit with its section."""
    section = ""
    for line in text_of(f"systemd/{unit}").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield section, name, value


def setting(unit: str, name: str) -> str:
    [found] = [value for _, key, value in lines(unit) if key == name]
    return found


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(h?)", text).groups()  # type: ignore[union-attr]
    return int(number) * (3600 if unit else 1)


@needs_systemd
def test_systemd_understands_each_line(tmp_path: Path) -> None:
    """With a program where the units have theirs: one that is missing would be all it tells."""
    program = tmp_path / "svsync"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    files = [path for path in UNITS.iterdir() if path.is_file()]
    for file in files:
        name = file.name.replace("@.", "@fed_abc.")
        (tmp_path / name).write_text(file.read_text("utf-8").replace(PROGRAM, str(program)))
    units = sorted(str(path) for path in tmp_path.iterdir() if path != program)
    assert len(units) == len(files)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_no_service_is_more_exposed_than_the_page_says(unit: str) -> None:
    said = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            f"--threshold={round(MOST_EXPOSED * 10)}",
            UNITS / unit,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"exposure of {MOST_EXPOSED}" in text_of("docs/how-to/systemd.md")


def test_what_a_service_may_not_is_the_same_in_all_of_them() -> None:
    parts = {
        text_of(f"systemd/{unit}").partition("# --- what it may not")[2].partition("\n[")[0].strip()
        for unit in SERVICES
    }
    assert len(parts) == 1
    for name in ("User", "StateDirectory", "LoadCredential", "BindReadOnlyPaths", "UMask"):
        assert len({setting(unit, name) for unit in SERVICES}) == 1, name


def test_account_of_the_units_is_the_one_that_sysusers_makes() -> None:
    [line] = [
        line for line in text_of("systemd/sysusers.d/svsync.conf").splitlines() if line[0] != "#"
    ]
    assert line.split()[:2] == ["u", setting("svsync.service", "User")]


@pytest.mark.parametrize("unit", SERVICES)
def test_unit_starts_a_command_that_there_is(unit: str) -> None:
    program, *words = setting(unit, "ExecStart").replace("%i", "fed_abc").split()
    assert program == PROGRAM
    args = build_parser().parse_args(words)
    assert args.config == "/etc/svsync/svsync.yaml"
    there = {" ".join(names) for names, _, _ in commands(build_parser())}
    assert args.words.removeprefix("svsync ") in there


def test_settings_that_units_give_by_environment_are_settings() -> None:
    known = {row.variable for row in ROWS.values()}
    for unit in SERVICES:
        given = dict(
            value.partition("=")[::2] for _, name, value in lines(unit) if name == "Environment"
        )
        assert given
        assert set(given) <= known


@pytest.mark.parametrize("unit", SERVICES)
def test_to_be_told_to_stop_is_no_failure(unit: str) -> None:
    """By itself systemd takes the signal for none, and not the exit code that tells of it."""
    assert str(128 + signal.SIGTERM) in setting(unit, "SuccessExitStatus").split()


def test_service_has_the_time_that_it_needs_to_stop() -> None:
    grace = int(ROWS["shutdown_grace"].read_default())
    assert seconds(setting("svsync.service", "TimeoutStopSec")) > grace + 5 + 5


def test_timers_start_the_services_of_their_names() -> None:
    for timer in UNITS.glob("*.timer"):
        assert timer.with_suffix(".service").name in SERVICES
        assert ("Install", "WantedBy", "timers.target") in lines(timer.name)
