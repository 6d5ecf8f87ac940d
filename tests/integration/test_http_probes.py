"""Do the probes tell what they should, and nothing else?"""

import asyncio

from tests.api import Front
from tests.house import House

from svsync.services import readiness
from svsync.services.readiness import Readiness, Ready


async def test_liveness_says_ok_and_nothing_else(front: Front) -> None:
    answer = await front.client.with_token(None).get("/healthz")
    assert (answer.status, answer.body) == (200, "ok")


async def test_a_working_process_is_ready(front: Front) -> None:
    answer = await front.client.with_token(None).get("/readyz")
    assert (answer.status, answer.body) == (200, {"ready": True, "store": "ok", "schema": "ok"})


async def test_a_schema_that_does_not_fit_is_not_ready(front: Front) -> None:
    nobody = front.client.with_token(None)
    for change, found in (
        ("UPDATE schema_migrations SET min_code = 999", "ahead"),
        ("DELETE FROM schema_migrations", "behind"),
        ("DROP TABLE schema_migrations", "unknown"),
    ):
        await front.house.admin.execute(change)
        front.now[0] += readiness.FRESH_S
        answer = await nobody.get("/readyz")
        assert (answer.status, answer.body["schema"]) == (503, found)
        assert answer.body["ready"] is False


async def test_many_who_ask_at_once_make_one_look(house: House) -> None:
    ready = Readiness(house.app.db, lambda: 0.0)
    await house.admin.execute("UPDATE schema_migrations SET min_code = 999")
    first = await asyncio.gather(*(ready.look() for _ in range(20)))
    await house.admin.execute("DROP TABLE schema_migrations")
    assert {*first, await ready.look()} == {Ready("ok", "ahead")}


async def test_a_database_that_says_nothing_counts_as_away(house: House) -> None:
    async with house.admin.transaction():
        await house.admin.execute("LOCK TABLE schema_migrations IN ACCESS EXCLUSIVE MODE")
        found = await Readiness(house.app.db, lambda: 0.0, patience=0.1).look()
    assert found == Ready("unavailable", "unknown")
    assert not found.ready
    assert await Readiness(house.app.db, lambda: 0.0).look() == Ready("ok", "ok")
