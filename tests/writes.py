"""Writes to paths that are written through: what their tests do, and what they look at."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from tests.house import TENANT, House
from tests.waiting import try_once

from svsync.domain.errors import BackendUnreachableError
from svsync.domain.federation import Writes
from svsync.domain.ids import LocalPath
from svsync.domain.values import Payload
from svsync.ports import Operation
from svsync.services.run_ends import Ended
from svsync.services.sync import cycle
from svsync.services.sync.context import Run
from svsync.services.sync.intake import mark_denied
from svsync.services.write_rows import Put


async def written_through(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """One secret in sync, written through; what fails is not tried again."""
    try_once(monkeypatch)
    await house.configure(writes=Writes.WRITE_THROUGH)
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    return house


@pytest_asyncio.fixture
async def through(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house with one secret that is written through."""
    return await written_through(house, monkeypatch)


async def put(house: House, path: str, value: dict[str, str], **options: Any) -> dict[str, Any]:
    return await house.app.writes.put(
        TENANT, LocalPath(path), Put(Payload.from_fields(value), **options), by="sa:test"
    )


async def delete(house: House, path: str) -> dict[str, Any]:
    return await house.app.writes.delete(TENANT, LocalPath(path), by="sa:test")


def state(answer: dict[str, Any]) -> str:
    """What a writer is told of the backend."""
    return str(answer["write_through"]["state"])


def there(house: House, path: str) -> Any:
    """The value in the backend, parsed; None where nothing can be read."""
    secret = house.there.secret(path)
    if secret is None or secret.gone:
        return None
    return json.loads(secret.versions[secret.current].payload.data_text())


# --- what goes wrong --------------------------------------------------------------


def fall_down(house: House) -> None:
    """The backend is away for the next write's look at its name."""
    house.there.fail("metadata", BackendUnreachableError("down", operation="metadata", sent=False))


def lose(house: House, *, applied: bool, operation: Operation = "write") -> None:
    """The answer of the next such call is lost, after or before it was made."""

    async def cut(called: Operation, path: str) -> None:
        if called == operation:
            house.there.before = house.there.after = None
            raise BackendUnreachableError("cut", operation=operation)

    if applied:
        house.there.after = cut
    else:
        house.there.before = cut


async def overdue(house: House) -> None:
    """Whoever has a push in hand has had its time."""
    await house.admin.execute("UPDATE pushes SET deadline = now() - interval '1 s'")


async def run_listed_before(
    house: House, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[None]]
) -> Ended:
    """A run in which `meanwhile` happens once it has listed and compared everything."""

    async def then(run: Run) -> None:
        await mark_denied(run)
        await meanwhile()

    with monkeypatch.context() as patch:
        patch.setattr(cycle, "mark_denied", then)
        return await house.run()
