"""A process that is frozen in the middle of a transaction keeps nobody waiting for long."""

import asyncio

import pytest
from tests.house import BACKEND, TENANT, House
from tests.patience import PATIENCE_S

from svsync.domain.errors import StoreUnavailableError
from svsync.store import database, queue
from svsync.store.database import Database, open_database


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    short = database._IDLE.replace("'10s'", "'200ms'")
    assert short != database._IDLE, "others may wait for as long as this limit"
    monkeypatch.setattr(database, "_IDLE", short)


@pytest.mark.parametrize("of_all", [False, True])
async def test_what_a_frozen_process_had_locked_is_free_again(
    house: House, database_url: str, monkeypatch: pytest.MonkeyPatch, of_all: bool
) -> None:
    shorten(monkeypatch)
    await house.run()

    async def freeze(frozen: Database) -> None:
        begun = frozen.transaction_of([TENANT]) if of_all else frozen.transaction(TENANT)
        async with begun as tx:
            await tx.fetch("queue.lock_lease", TENANT, BACKEND)
            async with asyncio.timeout(PATIENCE_S), house.app.db.transaction(TENANT) as other:
                await queue.raise_fence(other, BACKEND)

    async with open_database(database_url, size=1) as frozen:
        with pytest.raises(StoreUnavailableError):
            await freeze(frozen)
