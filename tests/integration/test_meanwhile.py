"""What a change feed names while a full run of the same backend is under way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House, Pause, counts, failure
from tests.patience import PATIENCE_S
from tests.writes import there

from svsync.app import new_id
from svsync.bus.local import LocalSignals
from svsync.domain.errors import ListingError, StoreError
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete, RuleSpec, Writes
from svsync.domain.guards import Allow
from svsync.domain.ids import RemotePath, RunId
from svsync.domain.runs import Stage
from svsync.services.run_ends import Ended
from svsync.services.scheduling import Scheduling
from svsync.services.sync import meanwhile
from svsync.services.sync.context import Run
from svsync.store import queue
from svsync.store.queue import Wanted

ALLOW_NOTHING = Allow()
LOOKS: list[int] = []
"""Looks at notices that runs of the test have ended."""


@pytest.fixture
async def full(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Two folders, ten secrets each, in sync."""
    monkeypatch.setattr(meanwhile, "LOOK_S", 0.001)

    async def look(*args: Any) -> None:
        await once(*args)
        LOOKS.append(1)

    once = meanwhile._look
    monkeypatch.setattr(meanwhile, "_look", look)
    await house.configure(
        rules=(RuleSpec("first/**", "first/**"), RuleSpec("second/**", "second/**"))
    )
    for folder in ("first", "second"):
        for n in range(10):
            house.there.put(f"{folder}/{n}", {"k": "1"})
    await house.run()
    LOOKS.clear()
    return house


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def notice(house: House, *paths: str) -> None:
    made = Scheduling(house.app.db, LocalSignals(), ids=new_id, health_interval=60)
    await made.notice(TENANT, BACKEND, [RemotePath(path) for path in paths], "vault-audit")


async def looked() -> None:
    """Wait until a look has begun and ended."""
    many = len(LOOKS) + 2

    async def they_have() -> bool:
        return len(LOOKS) >= many

    await until(they_have)


async def have(house: House, value: str, *paths: str) -> None:
    """Wait until these paths have the value here."""

    async def all_of_them() -> bool:
        return all([await house.data(path) == {"k": value} for path in paths])

    await until(all_of_them)


@asynccontextmanager
async def under_way(house: House, pause: Pause) -> AsyncIterator[asyncio.Task[Ended]]:
    """A full run that stands at the pause; it has ended with the block."""
    run = asyncio.create_task(house.run(allow=ALLOW_NOTHING))
    await asyncio.wait_for(pause.reached.wait(), PATIENCE_S)
    try:
        yield run
    finally:
        pause.let_go()
        await asyncio.gather(run, return_exceptions=True)


async def test_new_value_is_here_before_the_run_has_even_listed(full: House) -> None:
    async with under_way(full, Pause(full.there, "list", "second/")) as run:
        full.there.put("first/1", {"k": "2"})
        await notice(full, "first/1")
        await have(full, "2", "first/1")
        assert not run.done()
    ended = run.result()
    assert failure(ended) is None
    assert counts(ended)["updated"] == 1
    assert (await full.row("secrets", path="first/1"))["current_version"] == 2
    [waiting] = await full.rows("runs", state="queued")
    assert waiting["kind"] == "targeted", "the notice itself stays for the run that waits"
    assert counts(await full.run("first/1")).get("updated", 0) == 0


async def test_listing_that_is_older_than_what_was_brought_in_trips_no_guard(full: House) -> None:
    six = [f"first/{n}" for n in range(6)]
    async with under_way(full, Pause(full.there, "list", "second/")) as run:
        for path in six:  # their folder was listed before
            full.there.put(path, {"k": "2"})
        await notice(full, *six)
        await have(full, "2", *six)
    assert failure(run.result()) is None
    assert [await full.data(path) for path in six] == [{"k": "2"}] * 6


async def test_what_the_run_read_before_does_not_undo_what_was_brought_in(full: House) -> None:
    full.there.put("first/1", {"k": "2"})
    full.there.put("second/9", {"k": "2"})
    async with under_way(full, Pause(full.there, "read", "second/9")) as run:
        # The values of the batch are read in order, so that of the other one is in its hands.
        full.there.put("first/1", {"k": "3"})
        await notice(full, "first/1")
        await have(full, "3", "first/1")
    assert failure(run.result()) is None
    assert await full.data("first/1") == {"k": "3"}
    assert await full.data("second/9") == {"k": "2"}
    versions = await full.versions("first/1")
    assert versions[-1] == {"k": "3"}
    assert [v["k"] for v in versions] == sorted(v["k"] for v in versions)


async def test_only_plain_new_values_are_brought_in_and_the_rest_waits(full: House) -> None:
    full.there.put("first/5", {"k": "old"})
    full.there.put("first/5", {"k": "new"})
    await full.configure(
        conflict_resolution=ConflictPolicy.MANUAL,
        writes=Writes.LOCAL,
        on_remote_delete=OnRemoteDelete.SOFT_DELETE,
    )
    await full.run()
    await full.write("first/2", {"k": "ours"})
    async with under_way(full, Pause(full.there, "list", "second/")):
        full.there.put("first/2", {"k": "theirs"})  # changed on both sides
        full.there.remove("first/3")
        full.there.put("first/new", {"k": "2"})
        full.there.put("first/4", {"k": "2"})
        full.there.rollback("first/5", 2)
        named = ["first/2", "first/3", "first/new", "first/4", "first/5", "nowhere/x"]
        await notice(full, *named)
        await have(full, "2", "first/4")
        assert await full.rows("conflicts") == []
        assert await full.data("first/2") == {"k": "ours"}
        assert await full.data("first/3") == {"k": "1"}
        assert await full.data("first/5") == {"k": "new"}
        assert "first/new" not in await full.paths()
    ended = await full.run("first/2", "first/3", "first/new")
    assert failure(ended) is None
    assert len(await full.rows("conflicts", state="open")) == 1
    assert await full.data("first/new") == {"k": "2"}


async def test_where_more_are_named_than_a_guard_lets_pass_nothing_is_brought_in(
    full: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meanwhile, "MOST", 3)
    async with under_way(full, Pause(full.there, "list", "second/")):
        for n in range(5):
            full.there.put(f"first/{n}", {"k": "2"})
        for path in ("first/0", "first/1", "first/2"):
            await notice(full, path)
            await have(full, "2", path)
        await notice(full, "first/3", "first/4")
        await looked()
        assert await full.data("first/3") == await full.data("first/4") == {"k": "1"}


async def test_what_was_brought_in_counts_for_the_guard_and_is_told_by_it(full: House) -> None:
    ten = [f"first/{n}" for n in range(10)]
    async with under_way(full, Pause(full.there, "list", "second/")) as run:
        for path in ten:
            full.there.put(path, {"k": "2"})
        await notice(full, *ten)
        await have(full, "2", *ten)
        for n in range(10):
            full.there.put(f"second/{n}", {"k": "2"})
    ended = run.result()
    assert failure(ended) == "mass_overwrite_guard"
    assert ended.record.error is not None
    assert "20 values, with 20 known" in ended.record.error.message
    assert "10 that a change feed named were brought in" in ended.record.error.message
    assert await full.data("second/1") == {"k": "1"}


async def test_value_that_went_backwards_after_it_was_brought_in_is_seen(full: House) -> None:
    six = [f"second/{n}" for n in range(6)]
    async with under_way(full, Pause(full.there, "list", "second/")) as run:
        for path in six:
            full.there.put(path, {"k": "2"})
        await notice(full, *six)
        await have(full, "2", *six)
        for path in six:
            full.there.rollback(path, 1)
    ended = run.result()
    assert failure(ended) is None
    assert counts(ended)["rolled_back"] == 6
    assert [await full.data(path) for path in six] == [{"k": "1"}] * 6


async def test_writes_while_the_run_lists_are_no_values_that_went_backwards(full: House) -> None:
    await full.configure(
        conflict_resolution=ConflictPolicy.BACKEND_WINS, writes=Writes.WRITE_THROUGH
    )
    await full.run()
    async with under_way(full, Pause(full.there, "list", "second/")) as run:
        for n in range(6):
            await full.write(f"first/{n}", {"k": "ours"})
    assert failure(run.result()) is None
    assert there(full, "first/1") == {"k": "ours"} == await full.data("first/1")


async def test_run_after_a_death_keeps_its_hands_where_they_are_seen(full: House) -> None:
    async with full.app.db.transaction(TENANT) as tx:
        await queue.claim(tx, BACKEND, RunId("run_dead"), Wanted("full", "run_once"), holder="x:1")
    await full.admin.execute("UPDATE leases SET expires_at = now()")
    async with under_way(full, Pause(full.there, "list", "second/")):
        full.there.put("first/1", {"k": "2"})
        await notice(full, "first/1")
    assert not LOOKS
    async with under_way(full, Pause(full.there, "list", "second/")):
        full.there.put("first/2", {"k": "2"})
        await notice(full, "first/2")
        await have(full, "2", "first/2")


async def test_what_fails_beside_the_run_is_not_told_as_its_stage(
    full: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = asyncio.Event()

    async def refuse(run: Run, _outcomes: object) -> None:
        with run.spending(Stage.COMMIT):
            refused.set()
            raise StoreError("the database refused a statement")

    async def fail(operation: str, path: str) -> None:
        if (operation, path) == ("list", "second/"):
            await asyncio.wait_for(refused.wait(), PATIENCE_S)
            raise ListingError("broken", operation="list", code="listing_failed")

    monkeypatch.setattr(meanwhile, "commit", refuse)
    full.there.before = fail
    full.there.put("first/1", {"k": "2"})
    await notice(full, "first/1")
    error = (await full.run()).record.error
    assert error is not None
    assert (error.code, error.stage) == ("listing_failed", Stage.LIST)


async def test_dry_run_brings_in_nothing(full: House) -> None:
    pause = Pause(full.there, "list", "second/")
    run = asyncio.create_task(full.run(dry=True))
    await asyncio.wait_for(pause.reached.wait(), PATIENCE_S)
    full.there.put("first/1", {"k": "2"})
    await notice(full, "first/1")
    pause.let_go()
    await run
    assert not LOOKS
    assert await full.data("first/1") == {"k": "1"}
    assert there(full, "first/1") == {"k": "2"}
