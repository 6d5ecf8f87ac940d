"""Two regions of AWS, each a server of its own: the second one stands by for the first.

What is replicated comes with its name, its versions and its labels, and cannot be written
in the second region (API reference, ReplicateSecretToRegions and DescribeSecret).
"""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.api import BACKENDS, Answer, Front, open_front
from tests.aws import Aws, AwsFront, aws_spec
from tests.aws_house import Database, house_of
from tests.house import BACKEND, House, counts, failure
from tests.waiting import try_once

from svsync.domain.errors import BackendUnreachableError
from svsync.domain.federation import BackendSpec, Mode, OnRemoteDelete, Writes
from svsync.domain.ids import BackendId

SECOND = BackendId("fed_second")
ELSEWHERE = "eu-west-1"
URL = "/v1/secrets/ext/a"


@pytest.fixture(autouse=True)
def _tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    try_once(monkeypatch)


@pytest.fixture
def replica(moto: Aws, roto: Aws) -> Aws:
    """The region that stands by: another server, with the same names."""
    return replace(moto, prefix=roto.prefix, region=ELSEWHERE)


@dataclass
class Regions:
    """Two regions with the same secret, and a house that knows both.

    Attributes:
        owner, second: the fronts before the two servers.
    """

    house: House
    owner: AwsFront
    second: AwsFront

    def lose_the_owner(self) -> None:
        self.owner.refuse_as("", "InternalServiceError", 500)


def standby(url: str, prefix: str, mode: Mode) -> BackendSpec:
    return aws_spec(
        url,
        prefix,
        id=SECOND,
        name="second",
        mode=mode,
        config={"region": ELSEWHERE},
        extra={"standby_for": BACKEND},
    )


@asynccontextmanager
async def regions(
    roto: Aws, replica: Aws, database: Database, mode: Mode, **settings: Any
) -> AsyncIterator[Regions]:
    async with AsyncExitStack() as stack:
        owner, second = [
            await stack.enter_async_context(AwsFront(one.url)) for one in (roto, replica)
        ]
        house = await stack.enter_async_context(
            house_of(owner.url, roto.prefix, database, mode=mode, **settings)
        )
        both = [house.spec, standby(second.url, replica.prefix, mode)]
        await house.app.federation.apply(both)
        yield Regions(house, owner, second)


async def read(front: Front, source: str | None = None) -> Answer:
    answer = await front.client.get(URL)
    assert answer.headers.get("X-SVSync-Source") == source, answer.body
    return answer


async def test_second_region_is_read_through_while_the_first_is_away(
    roto: Aws, replica: Aws, database: Database
) -> None:
    for region in (roto, replica):
        await region.put("a", {"k": "1"}, team="x")
    async with (
        regions(roto, replica, database, Mode.PROXY) as both,
        open_front(both.house) as front,
    ):
        assert (await read(front, "backend")).body["data"] == {"k": "1"}
        assert both.second.seen == []

        both.lose_the_owner()
        for _ in range(2):
            answer = await read(front, "standby")
            assert answer.body["data"] == {"k": "1"}
            assert answer.body["federation"]["backend_id"] == SECOND
            assert answer.body["metadata"]["custom"] == {"team": "x"}
        told = await both.house.admin.fetch("SELECT backend_id FROM audit ORDER BY seq")
        assert [row["backend_id"] for row in told] == [BACKEND, SECOND, SECOND]
        written = await front.client.call("PUT", URL, json={"data": {"k": "2"}})
        assert written.told == (405, "proxied_path_read_only")
        assert json.loads(await replica.value("a")) == {"k": "1"}


async def test_second_region_has_no_say_where_the_first_answers(
    roto: Aws, replica: Aws, database: Database
) -> None:
    """What is gone in the first is gone, whatever the second still holds; and the second's
    lack says nothing of the first."""
    await replica.put("a", {"k": "1"})
    async with (
        regions(roto, replica, database, Mode.PROXY) as both,
        open_front(both.house) as front,
    ):
        assert (await front.client.get(URL)).told == (404, "secret_not_found")
        assert both.second.seen == []
        await replica.delete("a")
        both.lose_the_owner()
        assert (await front.client.get(URL)).told == (502, "backend_unreachable")


async def test_synced_reads_go_on_and_the_second_region_is_never_written(
    roto: Aws, replica: Aws, database: Database
) -> None:
    for region in (roto, replica):
        await region.put("a", {"k": "1"})
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH}
    async with (
        regions(roto, replica, database, Mode.SYNC, **settings) as both,
        open_front(both.house) as front,
    ):
        house = both.house
        await house.run()
        both.lose_the_owner()
        assert failure(await house.run()) == "backend_unreachable"
        assert (await read(front)).body["data"] == {"k": "1"}
        with pytest.raises(BackendUnreachableError):
            await house.write("ext/a", {"k": "2"})

        both.second.seen.clear()
        ended = await house.run(backend=SECOND)
        assert (failure(ended), counts(ended)) == (None, {})
        assert {line.split(" ")[0] for line in both.second.seen} <= {
            "ListSecrets",
            "GetCallerIdentity",
        }
        assert json.loads(await replica.value("a")) == {"k": "1"}

        both.owner.rules.clear()
        await house.write("ext/a", {"k": "3"})
        assert json.loads(await roto.value("a")) == {"k": "3"}
        assert json.loads(await replica.value("a")) == {"k": "1"}
        status = await front.client.get(f"{BACKENDS}/{SECOND}/status")
        assert status.body["secrets_synced"] == 0


async def test_path_that_never_came_is_read_in_the_second_region_until_the_first_is_back(
    roto: Aws, replica: Aws, database: Database
) -> None:
    """Before the first full run is through, what is not here is read through."""
    for region in (roto, replica):
        await region.put("a", {"k": "1"})
    async with (
        regions(roto, replica, database, Mode.PROXY) as both,
        open_front(both.house) as front,
    ):
        house = both.house
        synced = replace(house.spec, mode=Mode.SYNC)
        await house.app.federation.apply(
            [synced, standby(both.second.url, replica.prefix, Mode.PROXY)]
        )
        both.lose_the_owner()
        assert failure(await house.run()) == "backend_unreachable"
        assert (await read(front, "standby")).body["data"] == {"k": "1"}
        assert await house.paths() == []
        both.owner.rules.clear()
        assert counts(await house.run())["created"] == 1
        assert (await read(front)).body["data"] == {"k": "1"}


async def test_region_that_was_wrong_deletes_nothing_and_is_put_right(
    moto: Aws, database: Database
) -> None:
    await moto.put("a", {"k": "1"})
    settings: dict[str, Any] = {
        "on_remote_delete": OnRemoteDelete.SOFT_DELETE,
        "writes": Writes.WRITE_THROUGH,
        "propagate_deletes": True,
    }
    async with house_of(moto.url, moto.prefix, database, **settings) as house:
        await house.run()
        config = house.spec.config
        await house.configure(config={**config, "region": ELSEWHERE})
        ended = await house.run()
        assert failure(ended) is None
        assert counts(ended) == {"detached": 1}
        assert await house.data("ext/a") == {"k": "1"}
        assert (await house.row("sync_state"))["status"] == "detached"
        await house.configure(config=config)
        await house.run()
        assert (await house.row("sync_state"))["status"] == "in_sync"
        assert await house.versions("ext/a") == [{"k": "1"}]
    assert await replace(moto, region=ELSEWHERE).listed() == []
    assert json.loads(await moto.value("a")) == {"k": "1"}
