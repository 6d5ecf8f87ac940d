"""Runs that wait, in tests: who makes them, works them, and gives them back."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from tests.house import BACKEND, TENANT, House
from tests.patience import PATIENCE_S

from svsync import registry
from svsync.app import new_id
from svsync.backends.guarded import BackendGuard, RetryPolicy
from svsync.bus.local import LocalSignals
from svsync.domain.errors import HandedOverError
from svsync.domain.ids import RunId
from svsync.services.scheduling import Scheduling


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def somebody_waits_for_a_lock(house: House) -> bool:
    return bool(
        await house.admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


def try_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails at a backend is not tried again."""
    once = partial(BackendGuard, retry=RetryPolicy(attempts=1))
    monkeypatch.setattr(registry, "BackendGuard", once)


def scheduling(house: House, signals: LocalSignals | None = None) -> Scheduling:
    return Scheduling(house.app.db, signals or LocalSignals(), ids=new_id, health_interval=60)


async def queued(house: House) -> list[tuple[str, str]]:
    """Kind and trigger of the runs that wait."""
    rows = await house.rows("runs", state="queued")
    return sorted((row["kind"], row["trigger"]) for row in rows)


async def ask(house: House, signals: LocalSignals | None = None, *paths: str) -> RunId:
    """A run that somebody asked for; of everything, unless paths are given."""
    made = scheduling(house, signals)
    return (await made.trigger(TENANT, BACKEND, paths=list(paths) or None)).run_id


async def work_all(house: House) -> list[str]:
    """Work what waits, one after another; the kinds, in the order in which they began."""
    kinds = []
    for row in await house.admin.fetch("SELECT run_id FROM runs WHERE state = 'queued'"):
        ended = await house.app.runs.work(TENANT, RunId(row["run_id"]), lambda: False)
        assert ended is not None
        kinds.append(str(ended.record.kind))
    return kinds


async def work_all_now(house: House) -> list[str]:
    """The same, whatever they wait for."""
    await house.admin.execute("UPDATE runs SET not_before = now() WHERE state = 'queued'")
    return await work_all(house)


async def work_until(
    house: House,
    run: RunId,
    reads: str,
    meanwhile: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Work a run until it reads this remote path; `meanwhile` happens then, and the worker
    is to end, so it gives the run back."""
    came = stopping = False

    async def reached(operation: str, path: str) -> None:
        nonlocal came, stopping
        if (operation, path) == ("read", reads) and not came:
            came = True
            if meanwhile is not None:
                await meanwhile()
            stopping = True  # not before: a run that is given back ends what it reads

    house.there.before = reached
    try:
        with pytest.raises(HandedOverError):
            await house.app.runs.work(TENANT, run, lambda: stopping)
    finally:
        house.there.before = None
