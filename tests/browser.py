"""A real Chromium: the one on PATH, or Debian's, unpacked into a folder of the tests.

Nothing is installed: the packages and what they need are fetched with lists and a cache of our
own, unpacked, and found by `LD_LIBRARY_PATH`. So it works without root and is left out of what
the machine has. Where there is neither a Chromium nor apt, its tests are skipped.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

_FOLDER: Final = Path(__file__).parents[1] / ".browser"
_OPTIONS: Final = (
    "--no-sandbox",  # the tests may run as root, and look at nothing but this machine
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True)
class Chromium:
    """Its program, and what has to be in its environment."""

    program: Path
    environment: dict[str, str]


def chromium() -> Chromium:
    """The one of the machine, or our own. Skips where there can be none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Chromium(Path(found), {})
    root = _FOLDER / "root"
    with _alone():
        if not (_FOLDER / "done").exists():
            _fetch(root)
            (_FOLDER / "done").touch()
    # Some keep what they need in a folder of their own, which they look for where Debian has it.
    libraries = sorted(
        {str(found.parent) for top in ("lib", "usr/lib") for depth in ("*", "*/*")
         for found in root.glob(f"{top}/{depth}/lib*.so*")}
    )  # fmt: skip
    return Chromium(
        root / "usr/lib/chromium/chromium",
        {
            "LD_LIBRARY_PATH": ":".join(libraries),
            "FONTCONFIG_PATH": str(root / "etc/fonts"),
            "XDG_DATA_DIRS": str(root / "usr/share"),
        },
    )


class _alone:
    """One process of the tests fetches it; the others wait."""

    def __enter__(self) -> None:
        _FOLDER.mkdir(exist_ok=True)
        self._file = (_FOLDER / "lock").open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _fetch(root: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("no Chromium is on PATH and there is no apt to fetch one: install chromium")
    apt = _FOLDER / "apt"
    for place in ("lists/partial", "cache/archives/partial"):
        (apt / place).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()  # as if nothing were installed: the whole closure is fetched
    options = [
        *("-o", f"Dir::State::lists={apt / 'lists'}"),
        *("-o", f"Dir::State::status={apt / 'status'}"),
        *("-o", f"Dir::Cache={apt / 'cache'}"),
        *("-o", "APT::Sandbox::User="),
        *("-o", "Debug::NoLocking=1"),
    ]
    wanted = ["chromium", "fonts-dejavu-core", "fontconfig-config"]
    get = ["apt-get", "-qq", "-y", *options]
    for command in (
        [*get, "update"],
        [*get, "--no-install-recommends", "--download-only", "install", *wanted],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip("no Chromium is on PATH, and apt could not fetch one: install chromium")
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        if package.name.startswith("libc6_"):
            continue  # that of the machine fits its loader, another one need not
        subprocess.run(["dpkg-deb", "-x", package, root], check=True, capture_output=True)
    shutil.rmtree(apt)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    found = chromium()
    async with async_playwright() as driver:
        started = await driver.chromium.launch(
            executable_path=found.program,
            args=[*_OPTIONS],
            env={**os.environ, **found.environment},
        )
        yield started
        await started.close()
