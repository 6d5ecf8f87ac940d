"""Is nothing answered that is not recorded, and is whoever waits told in time?"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.house import TENANT, House, house
from tests.patience import PATIENCE_S
from tests.postgres import Relay, relayed
from tests.program import until

from svsync.domain.audit import Decision, Entry
from svsync.domain.errors import StoreUnavailableError
from svsync.services import recording
from svsync.services.recording import (
    IDLE,
    Access,
    AuditUnavailableError,
    Recorder,
    _Slot,
    open_recorder,
)
from svsync.store import audit as store
from svsync.store import database
from svsync.store.database import Row, open_database

__all__ = ["house"]

ENTRY = Entry(TENANT, "user", "user:a", "secret.read", Decision.ALLOW)
SHORT = 0.2
"""Seconds in which a row must be committed, in these tests."""


async def fits(house: House) -> bool:
    report = await house.app.verification.verify(TENANT)
    assert report.fits, report.as_json()
    return True


@asynccontextmanager
async def behind_a_relay(database_url: str) -> AsyncIterator[tuple[Relay, Recorder]]:
    """A recorder whose database can fall silent."""
    async with (
        relayed(database_url) as (relay, dsn),
        open_database(dsn, size=2) as db,
        open_recorder(db, "test:1", audit_timeout=1) as recorder,
    ):
        recorder._timeout = SHORT
        for slot in recorder._slots:
            slot._timeout = SHORT
        yield relay, recorder


async def test_whoever_waits_is_told_in_time_where_the_database_falls_silent(
    house: House, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes until its connection is given up."""
    monkeypatch.setattr(database, "ROLLBACK_S", 3600)
    append = store.record
    async with behind_a_relay(database_url) as (relay, recorder):
        await recorder.record(ENTRY)

        async def silent(*args: Any) -> None:
            relay.frozen = True
            await append(*args)

        monkeypatch.setattr(store, "record", silent)
        try:
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(AuditUnavailableError, match="not answered"):
                    await recorder.record(ENTRY)
        finally:
            relay.leave()
    assert len(await house.rows("audit")) >= 1
    assert await fits(house)


async def test_look_without_an_answer_is_told_in_time_and_decides_nothing(
    database_url: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: list[Row] = []

    class Asked(Access):
        __slots__ = ()

        def settle(self, row: Row) -> Entry | None:
            decided.append(row)
            return ENTRY

    monkeypatch.setattr(recording, "LOOK_S", SHORT)
    go_on = asyncio.Event()
    look = store.look

    async def late(db: Any, asked: Any, _seconds: float) -> Any:
        await go_on.wait()
        return await look(db, asked, 5)

    monkeypatch.setattr(store, "look", late)
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        await house.app.recorder.submit(Asked(TENANT))
    go_on.set()
    monkeypatch.setattr(store, "look", look)
    await house.app.recorder.record(ENTRY)
    assert decided == []


async def test_outcome_that_nobody_knows_ends_the_chain_and_its_rows_still_link(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows were committed, and the answer to that was lost."""
    append = store.record
    for _ in range(2):
        await house.app.recorder.record(ENTRY)

    async def lost(*args: Any) -> None:
        await append(*args)
        raise StoreUnavailableError("lost")

    monkeypatch.setattr(store, "record", lost)
    with pytest.raises(AuditUnavailableError):
        await house.app.recorder.record(ENTRY)
    monkeypatch.setattr(store, "record", append)
    for _ in range(4):
        await house.app.recorder.record(ENTRY)
    assert len(await house.rows("audit")) == 7

    async def is_told() -> bool:
        return len(await house.rows("audit_chains", end_reason="outcome_unknown")) == 1

    await until(is_told)
    [ended] = await house.rows("audit_chains", end_reason="outcome_unknown")
    rows = await house.rows("audit", chain_id=ended["chain_id"])
    assert max(row["seq"] for row in rows) == ended["ended_seq"] + 1
    assert await fits(house)
    await house.app.checkpoints.run()
    assert await fits(house)


async def test_whoever_waits_does_not_wait_for_the_end_of_a_chain_to_be_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, end = store.record, store.end_chains
    told: list[str] = []

    async def fails(*_: Any) -> None:
        raise StoreUnavailableError("away")

    async def no_end(*args: Any) -> None:
        told.append(args[2])
        raise StoreUnavailableError("away")

    await house.app.recorder.record(ENTRY)
    monkeypatch.setattr(store, "record", fails)
    monkeypatch.setattr(store, "end_chains", no_end)
    for _ in range(4):
        with pytest.raises(AuditUnavailableError):
            await house.app.recorder.record(ENTRY)
    assert told == []
    monkeypatch.setattr(store, "record", append)
    monkeypatch.setattr(store, "end_chains", end)
    # Told once rows are committed again, by each writer.
    for _ in range(4):
        await house.app.recorder.record(ENTRY)
    for slot in house.app.recorder._slots:
        await slot.close()
    reasons = {row["end_reason"] for row in await house.rows("audit_chains")}
    assert "outcome_unknown" in reasons
    assert await fits(house)


async def test_idle_chain_is_left_for_a_new_one(house: House) -> None:
    """For checkpoints look at a chain without rows for a day only."""
    slot = _Slot(house.app.db, "test:1", 2.0)
    now = datetime.now(UTC)
    await house.append(slot, [ENTRY], now)
    await house.append(slot, [ENTRY], now + IDLE)
    await house.append(slot, [ENTRY], now + 2 * IDLE + timedelta(seconds=1))
    chains = await house.rows("audit_chains", writer="test:1")
    assert [(c["ended_seq"], c["end_reason"]) for c in chains] == [(2, "idle"), (None, None)]
    assert await fits(house)


async def test_what_comes_after_the_end_is_refused_at_once(database_url: str, house: House) -> None:
    async with open_database(database_url, size=1) as db:
        async with open_recorder(db, "test:1", audit_timeout=2) as recorder:
            await recorder.record(ENTRY)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(AuditUnavailableError, match="stopping"):
                await recorder.record(ENTRY)
    [chain] = await house.rows("audit_chains", writer="test:1:1") or await house.rows(
        "audit_chains", writer="test:1:2"
    )
    assert (chain["ended_seq"], chain["end_reason"]) == (1, "closed")
    assert await fits(house)


async def test_what_waits_at_the_end_is_refused(
    database_url: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = asyncio.Event()

    async def look(*_: Any) -> Any:
        await stuck.wait()

    async with open_database(database_url, size=1) as db:
        async with open_recorder(db, "test:1", audit_timeout=2) as recorder:
            monkeypatch.setattr(store, "look", look)
            monkeypatch.setattr(recording, "BATCH", 1)
            waiting = [asyncio.create_task(recorder.record(ENTRY)) for _ in range(5)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in ended] == [AuditUnavailableError] * 5
    assert await house.rows("audit") == []


async def test_a_caller_who_leaves_hinders_nobody_else(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever they do: while waiting, while it is looked up, while it is committed."""
    look, append = store.look, store.record
    leaving: list[asyncio.Task[None]] = []

    def cancelling(call: Callable[..., Any]) -> Callable[..., Any]:
        async def cancels(*args: Any) -> Any:
            for task in leaving:
                task.cancel()
            await asyncio.sleep(0)
            return await call(*args)

        return cancels

    for place, call in (("look", look), ("record", append)):
        monkeypatch.setattr(store, place, cancelling(call))
        leaving[:] = [asyncio.create_task(house.app.recorder.record(ENTRY)) for _ in range(3)]
        staying = [asyncio.create_task(house.app.recorder.record(ENTRY)) for _ in range(3)]
        await asyncio.gather(*staying)
        gone = await asyncio.gather(*leaving, return_exceptions=True)
        assert {type(one) for one in gone} == {asyncio.CancelledError}
        monkeypatch.undo()
    assert house.app.recorder._many == 0
    assert await fits(house)


async def test_a_mistake_in_one_batch_fails_that_batch_alone(house: House) -> None:
    class Broken(Access):
        __slots__ = ()

        def settle(self, row: Row) -> Entry | None:
            raise RuntimeError("a mistake")

    with pytest.raises(AuditUnavailableError, match="could not be recorded"):
        await house.app.recorder.submit(Broken(TENANT))
    await house.app.recorder.record(ENTRY)
    assert await fits(house)


async def test_a_mistake_in_telling_an_end_does_not_end_the_log(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken(*_given: object) -> None:
        raise RuntimeError

    recorder = house.app.recorder
    with monkeypatch.context() as patched:
        patched.setattr(recording._Slot, "tell_ends", mistaken)
        for _ in range(4):
            await recorder.record(ENTRY)
    await recorder.record(ENTRY)
    assert await fits(house)
