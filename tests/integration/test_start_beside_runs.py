"""A process brings its file in while others work the backends that it names."""

import asyncio

from tests.house import BACKEND, TENANT, House, backend
from tests.patience import PATIENCE_S

from svsync.domain.ids import BackendId
from svsync.store import queue

OTHER = BackendId("fed_other")
_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
"""


async def test_backend_that_stays_as_it_is_is_not_waited_for(house: House) -> None:
    """Who locked all leases one after the other would deadlock with runs and the schedule."""
    async with house.app.db.transaction(TENANT) as run:
        await queue.lock_lease(run, BACKEND)
        async with asyncio.timeout(PATIENCE_S):
            assert await house.app.federation.apply([house.spec]) == []


async def test_backend_that_is_new_is_brought_in_beside_one_that_is_at_work(house: House) -> None:
    async with house.app.db.transaction(TENANT) as run:
        await queue.lock_lease(run, BACKEND)
        new = backend(id=OTHER, rules=())
        async with asyncio.timeout(PATIENCE_S):
            assert await house.app.federation.apply([house.spec, new]) == [OTHER]


async def test_backend_that_changes_waits_for_the_transaction_of_its_run(house: House) -> None:
    async with house.app.db.transaction(TENANT) as run:
        await queue.lock_lease(run, BACKEND)
        changing = asyncio.create_task(house.configure(sync_interval=60))
        while not await house.admin.fetchval(_WAITING):
            assert not changing.done()
            await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_S):
        await changing


async def test_backend_that_the_file_names_again_is_active_again(house: House) -> None:
    await house.app.federation.apply([])
    assert (await house.app.federation.show(TENANT, BACKEND))["state"] == "paused"
    assert await house.app.federation.apply([house.spec]) == [BACKEND]
    assert (await house.app.federation.show(TENANT, BACKEND))["state"] == "active"
