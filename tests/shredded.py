"""A tenant that is shredded, by a second process: that of the command."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from tests.house import TENANT, House, open_house

from svsync.config.model import LogFormat, LogLevel
from svsync.domain.audit import Decision, Entry
from svsync.domain.ids import TenantId
from svsync.observe.logs import configure
from svsync.services.tenants import Shredded
from svsync.store import tenants as store


@pytest.fixture
def log() -> Iterator[Callable[[], list[Any]]]:
    """What is logged in the test."""
    stream = StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    configure(LogLevel.INFO, LogFormat.JSON)


@pytest.fixture
async def other(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> AsyncIterator[House]:
    """A second process on the same store: the one of the command."""
    async with open_house(database_url, admin_url, state_dir, house.spec) as second:
        second.there._secrets = house.there._secrets
        yield second


async def shred(house: House) -> Shredded:
    return await house.app.tenants.shred(TENANT, "default")


def done_to(tenant: TenantId, action: str) -> Entry:
    """What a command records."""
    return Entry(tenant, "operator", "cli:a", action, Decision.ALLOW)


async def status(house: House) -> str:
    word: str = await house.admin.fetchval("SELECT status FROM tenants WHERE tenant_id = 1")
    return word


async def broken_off(house: House, *, at: str) -> None:
    """Shred it, and die at this statement of `store.tenants`."""

    async def dies(*_: object) -> None:
        raise RuntimeError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, at, dies)
        with pytest.raises(RuntimeError):
            await shred(house)
