"""A secret that kills the worker which reads it: found by halves, and quarantined."""

from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tests.house import House, failure, skips

from svsync.domain.errors import StoreUnavailableError, SvsyncError
from svsync.services.sync import intake

POISON = "kv/07"


async def worker(house: House, *paths: str, poison: str | None = POISON, at: str = "read") -> bool:
    """One worker's run; False where it died of the poison. Its lease is over then."""
    db = house.app.db
    dead = False

    @asynccontextmanager
    async def transaction(*args: Any, **how: Any) -> Any:
        if dead:
            raise StoreUnavailableError("this process is gone")
        async with type(db).transaction(db, *args, **how) as tx:
            yield tx

    async def read(operation: str, path: str) -> None:
        nonlocal dead
        if operation == at and path == poison:
            dead = True
            raise StoreUnavailableError("this process is gone")

    db.transaction = transaction  # type: ignore[method-assign]
    house.there.before = read
    try:
        with suppress(SvsyncError):
            await house.run(*paths)
    finally:
        del db.transaction
        house.there.before = None
    if dead:
        await house.admin.execute("UPDATE leases SET expires_at = now()")
    return not dead


async def deaths(house: House, *paths: str) -> int:
    """Workers die until one comes through; how many."""
    for n in range(30):
        if await worker(house, *paths):
            return n
    raise AssertionError("no worker ever came through")


@pytest.fixture
async def poisoned(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(intake, "BATCH", 4)
    for n in range(16):
        house.there.put(f"kv/{n:02}", {"k": "1"})
    return house


async def test_path_that_kills_workers_is_alone_at_last_and_quarantined(poisoned: House) -> None:
    assert 3 <= await deaths(poisoned) <= 2 + 5
    row = await poisoned.row("sync_state", remote_path=POISON)
    assert (row["status"], row["reason"]) == ("quarantined", "crashes_worker")
    assert row["retry_at"] is not None
    assert len(await poisoned.paths()) == 15, "every other secret is here"
    ended = await poisoned.run()
    assert failure(ended) is None
    assert skips(ended) == {POISON: "quarantined"}
    assert (await poisoned.row("runs", run_id=ended.record.run_id))["suspects"] is None


async def test_known_secret_that_turns_poisonous_keeps_its_value(poisoned: House) -> None:
    await poisoned.run()
    for n in range(16):
        poisoned.there.put(f"kv/{n:02}", {"k": "2"})
    await deaths(poisoned)
    assert await poisoned.status("ext/07") == "quarantined"
    assert await poisoned.data("ext/07") == {"k": "1"}
    assert await poisoned.data("ext/08") == {"k": "2"}


async def test_due_again_it_is_taken_up_alone_and_one_more_death_is_enough(
    poisoned: House,
) -> None:
    await deaths(poisoned)
    before = await poisoned.row("sync_state", remote_path=POISON)
    await poisoned.admin.execute("UPDATE sync_state SET retry_at = now() WHERE retry_at > now()")
    assert await deaths(poisoned) == 1
    again = await poisoned.row("sync_state", remote_path=POISON)
    assert (again["status"], again["failures"]) == ("quarantined", before["failures"] + 1)


async def test_due_again_and_cured_it_is_in_sync(poisoned: House) -> None:
    await deaths(poisoned)
    await poisoned.admin.execute("UPDATE sync_state SET retry_at = now() WHERE retry_at > now()")
    assert await worker(poisoned, poison=None)
    assert await poisoned.status("ext/07") == "in_sync"
    assert len(await poisoned.paths()) == 16


async def test_targeted_run_leaves_a_quarantined_killer_alone(poisoned: House) -> None:
    await deaths(poisoned)
    assert await worker(poisoned, "ext/07", "ext/08")
    ended = await poisoned.run("ext/07")
    assert skips(ended) == {POISON: "quarantined"}


async def test_targeted_run_in_between_does_not_acquit_anybody(poisoned: House) -> None:
    """It neither took the suspects up nor died: the next full run goes on with them."""
    assert not await worker(poisoned)
    assert not await worker(poisoned)
    assert await worker(poisoned, "ext/01")
    assert await deaths(poisoned) <= 5
    assert await poisoned.status("ext/07") == "quarantined"


async def test_accident_leaves_no_suspect(poisoned: House) -> None:
    assert not await worker(poisoned)
    assert await worker(poisoned, poison=None)
    assert not await poisoned.rows("sync_state", status="quarantined")
    last = (await poisoned.rows("runs", state="completed"))[0]
    assert last["suspects"] is None
    assert last["attempts"] == 2, "the run that replaces a dead one knows of it"


async def test_worker_that_died_while_it_listed_makes_nobody_a_suspect(poisoned: House) -> None:
    for _ in range(3):
        assert not await worker(poisoned, at="list", poison="kv/")
    assert failure(await poisoned.run()) is None
    assert len(await poisoned.paths()) == 16
