"""Does a process that is up go on while a newer svsync migrates its database?"""

import pytest
from tests.house import TENANT, House
from tests.waiting import ask

from svsync.bus.local import LocalSignals
from svsync.domain.errors import StoreUnavailableError
from svsync.store import readiness, schedule, webhooks
from svsync.store.database import Row
from svsync.store.migrate import CODE_LEVEL

NEWER = "INSERT INTO schema_migrations (n, name, sha256, min_code) VALUES ($1, 'x', 'y', $2)"


async def endpoints(house: House) -> list[Row]:
    async with house.app.db.transaction(TENANT) as tx:
        return await webhooks.list_endpoints(tx)


async def test_statement_whose_table_was_extended_fails_once_and_may_be_tried_again(
    house: House,
) -> None:
    await endpoints(house)
    await house.admin.execute("ALTER TABLE endpoints ADD COLUMN later int")
    with pytest.raises(StoreUnavailableError, match="try again"):
        await endpoints(house)
    assert await endpoints(house) == []


async def test_process_begins_no_run_on_a_schema_that_asks_for_newer_code(house: House) -> None:
    await ask(house, LocalSignals())
    assert await could_begin(house) == 1
    await house.admin.execute(NEWER, 9998, CODE_LEVEL)
    assert await could_begin(house) == 1
    await house.admin.execute(NEWER, 9999, CODE_LEVEL + 1)
    assert await could_begin(house) == 0


async def test_process_begins_no_run_that_it_had_in_hand_before_the_schema_was_migrated(
    house: House,
) -> None:
    run = await ask(house, LocalSignals())
    await house.admin.execute(NEWER, 9999, CODE_LEVEL + 1)
    assert await house.app.runs.work(TENANT, run, lambda: False) is None
    await house.admin.execute("DELETE FROM schema_migrations WHERE n = 9999")
    assert await house.app.runs.work(TENANT, run, lambda: False) is not None


async def could_begin(house: House) -> int:
    async with house.app.db.transaction_of([TENANT]) as tx:
        return len(await schedule.candidates(tx, 10))


async def test_process_is_ready_on_a_newer_schema_until_that_asks_for_newer_code(
    house: House,
) -> None:
    assert await readiness.schema(house.app.db) == "ok"
    await house.admin.execute(NEWER, 9998, CODE_LEVEL)
    assert await readiness.schema(house.app.db) == "ok"
    await house.admin.execute(NEWER, 9999, CODE_LEVEL + 1)
    assert await readiness.schema(house.app.db) == "ahead"
