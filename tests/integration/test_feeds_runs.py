"""From a change in a store to a version that is read: a queue's message, a targeted run.

What a queue keeps is let go of last, so a process may die anywhere on the way.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.aws import KEYS, Aws, aws_spec
from tests.gcp import PREFIX, Gcp, drivers, gcp_spec
from tests.house import BACKEND, House, open_house
from tests.patience import PATIENCE_S
from tests.pubsub import NAME, PubSub, notice, serving
from tests.queues import TestQueue, aws_event, happen, new_queue, route_events
from tests.waiting import queued, scheduling, until, work_all, work_all_now

from svsync.domain.errors import StoreUnavailableError
from svsync.domain.federation import Mode
from svsync.domain.ids import BackendId, RemotePath, TenantId
from svsync.feeds.aws_sqs import SqsFeed, feed
from svsync.services.feeds import Feeds, FeedState, OpenFeed
from svsync.services.owed import TakeNotice


@pytest.fixture
async def queue(roto: Aws) -> TestQueue:
    made = await new_queue(roto.url)
    await route_events(made)
    return made


@pytest.fixture
async def house(
    roto: Aws, queue: TestQueue, database_url: str, admin_url: str, state_dir: Path
) -> AsyncIterator[House]:
    """A house that hears of its secrets by the queue, and has seen them once."""
    await roto.put("app/db", {"password": "1"})
    spec = aws_spec(
        roto.url,
        roto.prefix,
        id=BACKEND,
        name=str(BACKEND),
        mode=Mode.SYNC,
        events=({"feed": "aws-sqs", "queue_url": queue.url},),
        extra={"consistency_window": 0, "feed_min_interval": 0},
    )
    async with open_house(
        database_url, admin_url, state_dir, spec, environ={"AWS_KEYS": KEYS}
    ) as found:
        await found.run()
        yield found


@asynccontextmanager
async def hearing(
    house: House, take: TakeNotice | None = None, opens: OpenFeed | None = None
) -> AsyncIterator[Callable[[], FeedState]]:
    """A process that listens; gives how its one feed stands."""
    feeds = Feeds(opens or house.app.registry.open_feed, take or scheduling(house).notice)
    feeds.follow(await house.app.federation.listening())
    task = asyncio.create_task(feeds.run())

    def state() -> FeedState:
        [found] = feeds.states()
        return found

    async def listens() -> bool:
        return not state().problem

    try:
        await until(listens)
        yield state
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def dirty(house: House) -> list[str]:
    return sorted(row["remote_path"] for row in await house.rows("dirty_paths"))


async def test_new_version_is_read_after_a_run_of_that_path_alone(
    roto: Aws, queue: TestQueue, house: House
) -> None:
    path = f"{roto.prefix}app/db"

    async def asked_for() -> bool:
        return await dirty(house) == [path]

    async def looked_at() -> bool:
        return await queued(house) == [("full", "feed")]

    async with hearing(house):
        await until(looked_at)  # what happened before anybody listened
        assert await work_all_now(house) == ["full"]
        await roto.put("app/db", {"password": "2"})
        await happen(queue, aws_event(secret=path))
        await until(asked_for)
        assert await work_all_now(house) == ["targeted"]
        assert await house.data("ext/app/db") == {"password": "2"}
        await queue.until_left(0)


async def test_notice_of_google_brings_the_new_version(
    gcp: Gcp, database_url: str, admin_url: str, state_dir: Path
) -> None:
    gcp.put("app_db", {"password": "1"})
    path = f"{PREFIX}app_db"
    spec = gcp_spec(
        id=BACKEND,
        name=str(BACKEND),
        mode=Mode.SYNC,
        events=({"feed": "gcp-pubsub", "subscription": NAME},),
        extra={"consistency_window": 0, "feed_min_interval": 0},
    )
    async with (
        serving(PubSub()) as there,
        open_house(
            database_url,
            admin_url,
            state_dir,
            spec,
            environ={"GCP_KEY": gcp.tokens.key.json()},
            drivers=drivers(gcp),
        ) as house,
    ):

        async def asked_for() -> bool:
            return await dirty(house) == [path]

        async def looked_at() -> bool:
            return await queued(house) == [("full", "feed")]

        await house.run()
        async with hearing(house, opens=lambda *_: there.feed()):
            await until(looked_at)
            assert await work_all_now(house) == ["full"]
            gcp.put("app_db", {"password": "2"})
            await there.publish(**notice(path))
            await until(asked_for)
            assert await work_all_now(house) == ["targeted"]
            assert await house.data("ext/app_db") == {"password": "2"}
            await there.until(lambda: there.left == 0)


async def test_nothing_is_lost_between_a_message_and_its_run(
    roto: Aws, queue: TestQueue, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process takes the message, cannot write it down, and dies; it comes to the next."""
    monkeypatch.setattr(feed, "SqsFeed", partial(SqsFeed, hidden_s=1))
    path = f"{roto.prefix}app/db"
    looked, told = asyncio.Event(), asyncio.Event()

    async def away(
        tenant: TenantId, backend: BackendId, paths: Collection[RemotePath] | None, by: str
    ) -> None:
        if paths:
            told.set()
        if paths is None and not looked.is_set():
            looked.set()
            return  # what happened before anybody listened
        raise StoreUnavailableError("no connection")

    async with hearing(house, away):
        async with asyncio.timeout(PATIENCE_S):
            await looked.wait()  # told before, the path would be a part of it
        await roto.put("app/db", {"password": "2"})
        await happen(queue, aws_event(secret=path))
        async with asyncio.timeout(PATIENCE_S):
            await told.wait()
        assert await queue.left() == 1
    assert await dirty(house) == []

    async def asked_for() -> bool:
        return await dirty(house) == [path]

    async with hearing(house):
        await until(asked_for)
        await queue.until_left(0)
    await work_all_now(house)
    assert await house.data("ext/app/db") == {"password": "2"}


async def test_forged_message_costs_a_look_at_one_path_and_no_more(
    roto: Aws, queue: TestQueue, house: House
) -> None:
    async with hearing(house) as state:
        for body in ("c4n4ry", '{"source": "aws.secretsmanager"}'):
            await queue.send(body)
        await queue.send(aws_event(secret="elsewhere/x"))
        await queue.send(aws_event(secret=f"{roto.prefix}never/there"))
        await queue.until_left(1)
        await work_all_now(house)
        assert (state().heard, state().unmapped, state().problem) == (2, 1, "")
    assert await house.paths() == ["ext/app/db"]
    assert await work_all(house) == []
