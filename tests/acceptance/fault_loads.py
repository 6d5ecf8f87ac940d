"""Who uses the service while everything fails: people and programs on both sides.

Each goes on until it is cancelled, and notes in the estate what it was answered as done,
or as refused. What nobody answered is nobody's promise.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp
from tests.acceptance.fault_estate import BY_HAND, SIDES, Estate, Side
from tests.acceptance.fault_evidence import Written
from tests.acceptance.serving import ask

from svsync.app import App
from svsync.domain.errors import (
    KeyServiceError,
    StoreError,
    SvsyncError,
    WriteOutcomeUnknownError,
)
from svsync.domain.ids import LocalPath
from svsync.domain.resolutions import Resolution
from svsync.domain.values import Payload
from svsync.services.write_rows import Put

Load = Callable[[Estate, App, random.Random], Awaitable[None]]

NAMES = 8
"""Secrets in each of a backend's two folders: few, so that each is written many times."""
_WITHOUT_AN_ANSWER = (StoreError, KeyServiceError, WriteOutcomeUnknownError)
"""Errors after which a write may have been made all the same."""


def _name(draw: random.Random) -> str:
    return f"folder{draw.randrange(2)}/name{draw.randrange(NAMES)}"


async def write_there(estate: Estate, _app: App, draw: random.Random) -> None:
    """Somebody writes to the backends, one value after the other."""
    number = 0
    while True:
        number += 1
        side, name = draw.choice(SIDES), _name(draw)
        value = {"there": str(number), "v": estate.canary.value()}
        with suppress(Exception):  # it may be restarting
            version = await estate.mounts[side.id].put(name, value)
            estate.wrote_there.append(Written(f"{side.prefix}/{name}", version, value))
        await asyncio.sleep(draw.uniform(0.02, 0.2))


async def write_here(side: Side, estate: Estate, app: App, draw: random.Random) -> None:
    """Somebody writes and deletes here what is written through to a backend."""
    number = 0
    tenant = await app.tenant(side.tenant)
    while True:
        number += 1
        path = LocalPath(f"{side.prefix}/{_name(draw)}")
        value = {"here": str(number), "v": estate.canary.value()}
        try:
            if draw.random() < 0.1:
                await app.writes.delete(tenant, path, by="sa:test")
            else:
                put = Put(Payload.from_fields(value))
                _note(estate, await app.writes.put(tenant, path, put, by="sa:test"), value)
        except _WITHOUT_AN_ANSWER:
            pass
        except SvsyncError:
            estate.refused.append((path, value))
        await asyncio.sleep(draw.uniform(0.1, 0.5))


async def settle_conflicts(estate: Estate, app: App, draw: random.Random) -> None:
    """A person looks at what waits, and decides."""
    number = 0
    tenant = await app.tenant(BY_HAND.tenant)
    while True:
        await asyncio.sleep(draw.uniform(0.3, 1.5))
        number += 1
        value = {"chosen": str(number), "v": estate.canary.value()}
        with suppress(SvsyncError):  # it moved on, or the store is away
            listed: Any = await app.conflicts.list_conflicts(tenant, BY_HAND.id)
            if not listed["conflicts"]:
                continue
            found = draw.choice(listed["conflicts"])
            resolution = draw.choice(list(Resolution))
            own = resolution is Resolution.USE_VALUE
            answer = await app.conflicts.resolve(
                tenant,
                BY_HAND.id,
                LocalPath(found["path"]),
                resolution,
                payload=Payload.from_fields(value) if own else None,
                conflict_id=found["conflict_id"],
                by="user:test",
            )
            if own:
                _note(estate, answer, value)


def _note(estate: Estate, answer: dict[str, Any], value: object) -> None:
    estate.wrote_here.append(Written(answer["path"], answer["version"], value))


async def ask_for_runs(estate: Estate, _app: App, draw: random.Random) -> None:
    """Somebody asks for runs over HTTP, whichever process answers."""
    while True:
        side = draw.choice(SIDES)
        body: dict[str, object] = {}
        if draw.random() < 0.5:
            body["paths"] = [f"{side.prefix}/{_name(draw)}"]
        place = draw.choice(estate.places)
        served = place.served
        if place.up and served is not None:
            with suppress(aiohttp.ClientError, OSError, ValueError):
                url = f"{served.url}/v1/federation/backends/{side.id}/sync"
                answer = await ask(url, token=estate.tokens[side.tenant], body=body, timeout=3)
                # Who stops lets go of its port at once, and any program may get that.
                gone = place.told or place.served is not served
                if answer.status == 202:
                    estate.asked.append(answer.json["run_id"])
                elif answer.status != 503 and (answer.request_id or not gone):
                    said = f"{answer.status} to a POST: {answer.request_id}, {answer.text[:300]}"
                    estate.said.append(f"{place.name} answered {said}")
        await asyncio.sleep(draw.uniform(0.1, 0.6))


async def jump(estate: Estate, _app: App, draw: random.Random) -> None:
    """The schedule's time comes, now and then."""
    while True:
        with suppress(Exception):  # the store may be away
            await estate.query(
                "UPDATE backend_health SET next_due_at = now() WHERE backend_id = $1",
                draw.choice(SIDES).id,
            )
        await asyncio.sleep(draw.uniform(0.5, 3.0))


LOADS: Sequence[Load] = (
    write_there,
    ask_for_runs,
    jump,
    settle_conflicts,
    *(partial(write_here, side) for side in SIDES if side.written),
)
