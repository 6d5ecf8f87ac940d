"""Whole houses on a server that stands in for AWS."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.aws import KEYS, aws_spec
from tests.house import BACKEND, House, open_house

from svsync.domain.federation import Mode

Database = tuple[str, str, Path]


@asynccontextmanager
async def house_of(
    url: str,
    prefix: str,
    database: Database,
    *,
    environ: Mapping[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[House]:
    """A house that syncs what is below a prefix to `ext/**`, and believes AWS at once.

    `database` as the fixture of that name gives it; `environ` is read at each login.
    """
    given = {"mode": Mode.SYNC, "extra": {"consistency_window": 0}, **settings}
    spec = aws_spec(url, prefix, id=BACKEND, name=str(BACKEND), **given)
    async with open_house(*database, spec, environ=environ or {"AWS_KEYS": KEYS}) as house:
        yield house


@pytest.fixture
def database(database_url: str, admin_url: str, state_dir: Path) -> Database:
    """What a house stands on."""
    return database_url, admin_url, state_dir
