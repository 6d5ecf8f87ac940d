"""Fixtures that every folder of tests may use; each plugin says what it gives."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.openbao",
    "tests.aws",
    "tests.azure",
    "tests.gcp",
    "tests.key_services",
    "tests.postgres",
    "tests.canary",
    "tests.house",
    "tests.aws_house",
    "tests.api",
    "tests.valkey",
    "tests.example",
]


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty state directory with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="svsync-"))
    yield folder
    shutil.rmtree(folder)
