"""Do the probes tell what they should, and nothing else?"""

import asyncio

from tests.api import BACKENDS, Front
from tests.house import House

from svsync.services import readiness
from svsync.services.readiness import Readiness, Ready


async def test_liveness_says_ok_and_nothing_else(front: Front) -> None:
    answer = await front.client.with_token(None).get("/healthz")
    assert (answer.status, answer.body) == (200, "ok")


async def test_a_working_process_is_ready(front: Front) -> None:
    answer = await front.client.with_token(None).get("/readyz")
    assert (answer.status, answer.body) == (
        200,
        {"ready": True, "store": "ok", "schema": "ok", "keys": "ok"},
    )


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


async def test_without_its_store_everything_says_so_and_goes_on_afterwards(front: Front) -> None:
    admin = front.house.admin
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")  # superusers get in
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        name,
    )
    refused = await front.client.get(BACKENDS)
    assert refused.told == (503, "store_unavailable")
    assert refused.headers["Retry-After"] == "1"
    told = await front.client.with_token(None).get("/readyz")
    assert (told.status, told.body["store"]) == (503, "unavailable")
    assert (await front.client.get("/healthz")).status == 200

    await admin.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
    front.now[0] += readiness.FRESH_S
    assert (await front.client.get("/readyz")).status == 200
    assert (await front.client.get(BACKENDS)).status == 200
