"""Lists, histories, reports and audit queries from a replica: how old, and when not."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.api import BACKENDS, DOCUMENT, Answer, Front, front, open_front
from tests.house import BACKEND, TENANT, House, house, open_house, settings_for
from tests.integration.test_http_access import NOBODYS
from tests.postgres import relayed
from tests.replicas import Pair, Replicated, pair, replicated_database

from svsync.app import make_doctor, open_app
from svsync.domain.federation import Mode
from svsync.domain.values import SecretValue
from svsync.embedded.postgres import EmbeddedPostgres
from svsync.services.findings import Finding
from svsync.store.database import open_database, open_spare
from svsync.store.replica import Replica

__all__ = ["front", "house", "pair"]

LAG = "X-SVSync-Replica-Lag-Ms"
SECRETS = "/v1/secrets"
AGED = {SECRETS, "/v1/audit/logs", f"{BACKENDS}/{{id}}/runs", f"{BACKENDS}/{{id}}/runs/{{run}}"}


@dataclass
class Aged:
    """A front whose lists come from a replica; `now` is what its clock shows."""

    front: Front
    replica: Replica
    pair: Pair
    now: list[float] = field(default_factory=lambda: [100.0])

    @property
    def house(self) -> House:
        return self.front.house

    async def fresh(self) -> None:
        """The replica has all, and a look in the next second will find it so."""
        await self.pair.caught_up()
        self.now[0] += 2
        await self.replica.look(TENANT)
        await self.pair.caught_up()

    async def paths(self) -> tuple[list[str], str | None]:
        """What a list shows, and how old it says that it is."""
        answer = await self.front.client.get(SECRETS)
        return [one["path"] for one in answer.body["secrets"]], answer.headers.get(LAG)


@pytest.fixture
async def database(pair: Pair) -> AsyncIterator[Replicated]:
    async with replicated_database(pair) as made:
        yield made


@pytest.fixture
async def aged(database: Replicated, pair: Pair, state_dir: Path) -> AsyncIterator[Aged]:
    now = [100.0]
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(
            open_house(database.url, database.admin_url, state_dir)
        )
        spare = await stack.enter_async_context(open_spare(database.standby_url, size=2))
        replica = Replica(house.app.db, spare, max_lag=5, clock=lambda: now[0])
        front = await stack.enter_async_context(open_front(house))
        house.app.db.replica = replica
        made = Aged(front, replica, pair, now)
        await made.fresh()
        yield made


# --- what is asked there, and what is not ---------------------------------------------


class Counted:
    """A replica that is never asked, and counts who would have."""

    def __init__(self) -> None:
        self.asked = 0

    async def read(self, *_: object) -> None:
        self.asked += 1


async def test_no_route_but_lists_reports_and_the_log_goes_to_a_replica(front: Front) -> None:
    house = front.house
    await house.write("app/a", {"k": "1"})
    counted = house.app.db.replica = Counted()
    ended = await house.run()
    asked = set()
    filled = NOBODYS | {"id": BACKEND, "path": "app/a", "run": ended.record.run_id}
    for template, operations in DOCUMENT["paths"].items():
        for method in operations.keys() & {"get", "post", "put", "patch", "delete"}:
            path = re.sub(r"\{(\w+)\}", lambda name: filled.get(name[1], "0" * 32), template)
            before = counted.asked
            await front.client.call(method.upper(), path, json={} if method != "get" else None)
            if counted.asked > before:
                asked.add((method, template))
    before = counted.asked
    await front.client.get(f"{SECRETS}/app/a")
    assert counted.asked == before, "a value is the primary's"
    await front.client.get(f"{SECRETS}/app/a?versions=true")
    assert counted.asked == before + 1
    assert asked == {("get", template) for template in AGED}


async def test_a_list_from_the_replica_says_how_old_it_is(aged: Aged) -> None:
    await aged.house.write("app/a", {"k": "1"})
    await aged.fresh()
    async with aged.pair.halted():
        await aged.house.write("app/b", {"k": "1"})
        aged.now[0] += 0.5
        assert await aged.paths() == (["app/a"], "500")
        aged.now[0] += 4.5
        assert await aged.paths() == (["app/a"], "5000")
        aged.now[0] += 0.25
        assert await aged.paths() == (["app/a", "app/b"], None), "too old"
    await aged.pair.caught_up()
    assert await aged.paths() == (["app/a", "app/b"], "250")


async def test_histories_reports_and_the_log_say_it_too(aged: Aged) -> None:
    await aged.house.write("app/a", {"k": "1"})
    ended = await aged.house.run()
    client = aged.front.client
    await client.get(f"{SECRETS}/app/a")
    await aged.fresh()
    runs = f"{BACKENDS}/{BACKEND}/runs"
    async with aged.pair.halted():
        answers: list[Answer] = [
            await client.get(f"{SECRETS}/app/a?versions=true"),
            await client.get(runs),
            await client.get(f"{runs}/{ended.record.run_id}"),
            await client.get("/v1/audit/logs?action=secret.read"),
        ]
    assert [answer.status for answer in answers] == [200] * 4
    assert all(LAG in answer.headers for answer in answers)
    assert len(answers[3].body["logs"]) == 1


async def test_a_value_is_read_as_it_was_written_just_before(aged: Aged) -> None:
    await aged.house.write("app/a", {"k": "1"})
    await aged.fresh()
    async with aged.pair.halted():
        await aged.house.write("app/a", {"k": "2"})
        answer = await aged.front.client.get(f"{SECRETS}/app/a")
        assert (answer.body["data"], LAG in answer.headers) == ({"k": "2"}, False)


async def test_what_the_replica_lacks_is_asked_of_the_primary(aged: Aged) -> None:
    client = aged.front.client
    async with aged.pair.halted():
        await aged.house.write("app/new", {"k": "1"})
        ended = await aged.house.run()
        found = await client.get(f"{SECRETS}/app/new?versions=true")
        assert (len(found.body["versions"]), LAG in found.headers) == (1, False)
        run = await client.get(f"{BACKENDS}/{BACKEND}/runs/{ended.record.run_id}")
        assert (run.status, LAG in run.headers) == (200, False)
        missing = await client.get(f"{SECRETS}/app/none?versions=true")
        assert missing.told == (404, "secret_not_found")


async def test_who_may_do_what_is_never_the_replicas_word(aged: Aged) -> None:
    client = aged.front.client
    assert client.token is not None
    async with aged.pair.halted():
        assert (await client.get(SECRETS)).status == 200
        await aged.front.access.revoke(TENANT, f"tok_{client.token.split('_')[2]}")
        assert (await client.get(SECRETS)).status == 401


async def test_a_list_across_a_flip_that_the_replica_lacks_is_incomplete(aged: Aged) -> None:
    house = aged.house
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.configure(mode=Mode.PROXY)
    await aged.fresh()
    async with aged.pair.halted():
        await house.configure(mode=Mode.SYNC)
        page = (await aged.front.client.get(SECRETS)).body
        assert page["incomplete"] is True


# --- a replica that is not to be asked ------------------------------------------------


async def test_a_replica_that_is_away_costs_no_answer(
    aged: Aged, database: Replicated, caplog: pytest.LogCaptureFixture
) -> None:
    async with relayed(database.standby_url) as (relay, address), open_spare(address, size=1) as s:
        replica = aged.house.app.db.replica = Replica(
            aged.house.app.db, s, max_lag=5, clock=lambda: aged.now[0]
        )
        await aged.house.write("app/a", {"k": "1"})
        await replica.look(TENANT)
        await aged.pair.caught_up()
        assert await aged.paths() == (["app/a"], "0")
        relay.leave()
        for _ in range(2):
            assert await aged.paths() == (["app/a"], None)
        relay.away = False
        assert (await aged.paths())[1] is None, "it is left alone for a moment"
        aged.now[0] += 5.0
        await replica.look(TENANT)
        await aged.pair.caught_up()
        assert (await aged.paths())[1] == "0"


async def test_a_replica_that_hangs_is_not_waited_for(aged: Aged, database: Replicated) -> None:
    async with relayed(database.standby_url) as (relay, address), open_spare(address, size=1) as s:
        aged.house.app.db.replica = Replica(
            aged.house.app.db, s, max_lag=5, clock=lambda: aged.now[0], patience=0.2
        )
        relay.frozen = True
        assert await aged.paths() == ([], None)
        relay.leave()


async def unfit(aged: Aged, dsn: str) -> str:
    """Why the replica at an address is not asked, which it is not."""
    async with open_spare(dsn, size=1) as spare:
        replica = aged.house.app.db.replica = Replica(aged.house.app.db, spare, max_lag=5)
        assert await aged.paths() == ([], None)
        return (await replica.look(TENANT)).problem


async def test_what_is_no_replica_is_not_asked(aged: Aged, database: Replicated) -> None:
    assert await unfit(aged, database.url) == "it is no replica"


async def test_another_servers_is_not_asked(
    aged: Aged, postgres: EmbeddedPostgres, database_url: str
) -> None:
    assert await unfit(aged, database_url) == "it is a replica of another server"


async def test_a_role_that_sees_all_tenants_is_not_used(aged: Aged, database: Replicated) -> None:
    powerful = database.standby_url.replace("svsync@", "postgres@", 1)
    assert await unfit(aged, powerful) == "its role is not held by row-level security"


# --- configured -----------------------------------------------------------------------


def configured(database: Replicated, state_dir: Path, **changes: Any) -> Any:
    made = settings_for(database.url, state_dir)
    read = SecretValue(changes.pop("read", database.standby_url))
    return replace(made, database_url_read=read, **changes)


async def test_the_setting_leads_there(database: Replicated, pair: Pair, state_dir: Path) -> None:
    async with open_app(configured(database, state_dir), environ={}) as app:
        assert isinstance(app.db.replica, Replica)
        await app.db.replica.look(TENANT)
        await pair.caught_up()
        found = await app.db.replica.look(TENANT)
        assert (found.problem, found.lag_s is not None) == ("", True)


async def doctor(settings: Any) -> Finding:
    [found] = [
        finding
        async for finding in make_doctor(settings, environ={}).examine()
        if finding.check == "replica"
    ]
    return found


async def test_the_doctor_tells_of_it(database: Replicated, pair: Pair, state_dir: Path) -> None:
    async with open_database(database.url):
        pass
    await pair.caught_up()
    good = await doctor(configured(database, state_dir))
    assert (good.state, good.says.split(",")[0]) == ("ok", "it answers lists")
    none = await doctor(configured(database, state_dir, read=database.url))
    assert none.state == "warning"
    assert "it is no replica" in none.says
    behind = await doctor(configured(database, state_dir, max_replica_lag=0))
    assert (behind.state, "behind" in behind.says) == ("warning", True)
