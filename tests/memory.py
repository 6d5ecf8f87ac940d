"""Where tests keep what need not outlast them: in memory, where the machine has room for it.

A clone of the template is a thousand small files and a key file waits for the disk: in
memory the one takes a fifth of the time and the other none.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_PLACE: Final = Path("/dev/shm")
_ROOM: Final = 4 << 30
"""Bytes; the tests take a tenth of that."""
_SHARED: Final = "TESTS_SHARED_FOLDER"


def in_memory() -> Path | None:
    """A folder in memory for temporary ones, or None: then they are where they are else."""
    with contextlib.suppress(OSError):
        if os.access(_PLACE, os.W_OK) and shutil.disk_usage(_PLACE).free >= _ROOM:
            return _PLACE
    return None


def shared_folder() -> Path:
    """One for all workers of this session, and for no other session."""
    return Path(os.environ[_SHARED])


def pytest_configure(config: pytest.Config) -> None:
    """Workers inherit the environment of whoever starts them."""
    if not hasattr(config, "workerinput"):
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="svsync-tests-", dir=in_memory())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Whoever started the workers outlives them."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_SHARED), ignore_errors=True)


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty state directory with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="svsync-", dir=in_memory()))
    yield folder
    shutil.rmtree(folder)
