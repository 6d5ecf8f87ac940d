"""What goes wrong around three processes of the service, under a load, and what is left.

`live` draws a history from a seed: faults, several at a time, then rest, and the end of all
processes. It gives what was left behind to `fault_evidence.py`. When things happen is up to
the machine, so a seed repeats a history only roughly.
"""

import asyncio
import json
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web
from tests.acceptance.fault_estate import (
    BACKENDS,
    INTERVAL_S,
    SEND_CLOSING_ONLY,
    Estate,
    Place,
    backend_of,
)
from tests.acceptance.fault_evidence import Evidence, Got
from tests.acceptance.serving import ask
from tests.receivers import Message, Receiver
from tests.servers import FaultyTcp

from svsync.app import open_app
from svsync.config.load import load
from svsync.domain.ids import LocalPath

NAMES = 8
"""Secrets in each of a backend's two folders: few, so that each is written many times."""
PAST_THE_LEASE_S = 32.0


# --- the load ---------------------------------------------------------------------


async def write_there(estate: Estate, draw: random.Random) -> None:
    """Somebody writes to the backends, one value after the other, for ever."""
    number = 0
    while True:
        number += 1
        bao = estate.mounts[backend_of(draw.randrange(BACKENDS))]
        value = {"n": str(number), "v": estate.canary.value()}
        with suppress(Exception):  # it may be restarting; what arrived is asked for at the end
            await bao.put(f"folder{draw.randrange(2)}/name{draw.randrange(NAMES)}", value)
        await asyncio.sleep(draw.uniform(0.02, 0.2))


async def ask_for_runs(estate: Estate, draw: random.Random) -> None:
    """Somebody asks for runs over HTTP, whichever process answers."""
    while True:
        backend = backend_of(draw.randrange(BACKENDS))
        body: dict[str, object] = {}
        if draw.random() < 0.5:
            body["paths"] = [f"{backend}/folder0/name{draw.randrange(NAMES)}"]
        place = draw.choice(estate.places)
        if place.up and place.served is not None:
            with suppress(aiohttp.ClientError, OSError, ValueError):
                url = f"{place.served.url}/v1/federation/backends/{backend}/sync"
                answer = await ask(url, token=estate.token, body=body, timeout=3)
                if answer.status == 202:
                    estate.asked.append(answer.json["run_id"])
                elif answer.status != 503:
                    estate.said.append(f"{place.name} answered {answer.status} to a POST")
        await asyncio.sleep(draw.uniform(0.1, 0.6))


async def jump(estate: Estate, draw: random.Random) -> None:
    """The schedule's time comes, now and then."""
    while True:
        backend = backend_of(draw.randrange(BACKENDS))
        with suppress(Exception):  # the store may be away
            await estate.query(
                "UPDATE backend_health SET next_due_at = now() WHERE backend_id = $1", backend
            )
        await asyncio.sleep(draw.uniform(0.5, 3.0))


# --- the faults -------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What may happen, to which thing; one happens to a thing at a time."""

    name: str
    to: str
    happen: Callable[[], Awaitable[None]]
    weight: int = 1

    @property
    def long(self) -> bool:
        return self.name.endswith("for long")


async def cut(proxy: FaultyTcp, seconds: float, how: str) -> None:
    """Nobody answers; connections break as they are used; or all goes into a black hole,
    and what was on its way is lost with its connection."""
    if how == "gone":
        await proxy.shut()
    else:
        proxy.fault = "reset" if how == "reset" else "hang"
    await asyncio.sleep(seconds)
    if how == "hang":
        await proxy.shut()
    proxy.fault = "none"
    if how != "reset":
        await proxy.open()


async def stand_still(place: Place, seconds: float) -> None:
    """A process that stands still, and goes on with what it had in hand."""
    if place.served is None:
        return
    stopped = place.served
    with suppress(ProcessLookupError):
        stopped.tell(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        stopped.tell(signal.SIGCONT)


async def refuse(receiver: Receiver, seconds: float, draw: random.Random) -> None:
    """A receiver that takes messages, and says at times that it did not."""

    def answer(_message: Message) -> web.Response:
        return web.Response(status=draw.choice([200, 500, 429]))

    receiver.answer = answer
    await asyncio.sleep(seconds)
    receiver.answer = 200


def faults_of(estate: Estate, draw: random.Random) -> list[Fault]:
    """Everything that may happen."""

    async def cut_off(proxy: FaultyTcp) -> None:
        await cut(proxy, draw.uniform(0.5, 5.0), draw.choice(["gone", "reset", "hang"]))

    async def ended(place: Place, number: signal.Signals) -> None:
        place.end(number)

    found = [
        Fault("the store restarts", "store", partial(estate.store.restart, crash=False)),
        Fault("the store crashes", "store", partial(estate.store.restart, crash=True)),
        Fault("OpenBao restarts", "bao", estate.bao.restart),
        Fault("is cut off for long", "bao", partial(cut, estate.proxies["bao"], 12.0, "gone")),
    ]
    for place in estate.places:
        of = place.name
        found += [
            Fault("is killed", of, partial(ended, place, signal.SIGKILL), 3),
            Fault("is stopped", of, partial(ended, place, signal.SIGTERM), 2),
            Fault("has no store", of, partial(cut_off, place.store), 3),
            Fault("has no store for long", of, partial(cut, place.store, 25.0, "hang")),
            Fault("stands still", of, partial(stand_still, place, draw.uniform(0.5, 5.0))),
            Fault("stands still for long", of, partial(stand_still, place, PAST_THE_LEASE_S)),
        ]
    for name, proxy in estate.proxies.items():
        weight = {"redis": 2, "bao": 3}.get(name, 1)
        found.append(Fault("is cut off", name, partial(cut_off, proxy), weight))
    for name, receiver in estate.receivers.items():
        found.append(Fault("refuses", name, partial(refuse, receiver, 3.0, draw)))
    return found


async def let_happen(estate: Estate, seconds: float, draw: random.Random) -> None:
    """Faults for so long, several at a time; return when all of them are over.

    Those that last longest come first, so that the shortest history has them.
    """
    every = faults_of(estate, draw)
    busy: dict[str, asyncio.Task[None]] = {}
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def one(fault: Fault) -> None:
        estate.done.append(f"{fault.to} {fault.name}")
        await fault.happen()
        busy.pop(fault.to, None)

    async with asyncio.TaskGroup() as tasks:
        first = [f for f in every if f.long]
        draw.shuffle(first)
        while loop.time() < until:
            # None that would last longer than the history.
            short = [f for f in every if not f.long or until - loop.time() > PAST_THE_LEASE_S]
            free = [f for f in first or short if f.to not in busy]
            if free:
                [fault] = draw.choices(free, [f.weight for f in free])
                first = [f for f in first if fault.name != f.name]
                busy[fault.to] = tasks.create_task(one(fault))
            await asyncio.sleep(draw.uniform(0.3, 2.0))


# --- a whole history --------------------------------------------------------------


async def live(estate: Estate, seconds: float, seed: int) -> Evidence:
    """Faults under a load for so long, then rest; what is left behind once all processes
    were stopped in order."""
    draw = random.Random(seed)
    keepers = [asyncio.create_task(place.keep()) for place in estate.places]
    loads = []
    try:
        await _wait(lambda: all(place.up for place in estate.places), 60)
        loads = [
            asyncio.create_task(load(estate, random.Random(seed + n)))
            for n, load in enumerate((write_there, ask_for_runs, jump), 1)
        ]
        await let_happen(estate, seconds, draw)
        await _end(loads)
        await _come_to_rest(estate)
    finally:
        await _end([*loads, *keepers])
    await _stop(estate)
    return await _evidence(estate)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(holds: Callable[[], bool | Awaitable[bool]], seconds: float) -> bool:
    """Does it come to hold within so many seconds?"""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return True
        await asyncio.sleep(0.2)
    return False


# One that was handed over may have been listed before.
_IN_SYNC = """
SELECT count(DISTINCT backend_id) FROM runs r
WHERE kind = 'full' AND state = 'completed' AND result = 'ok' AND started_at > $1
  AND NOT handed_over
  AND NOT EXISTS (SELECT FROM runs w WHERE w.backend_id = r.backend_id AND w.kind <> 'probe'
                  AND w.state IN ('queued', 'running'))"""
_TIME_PASSES = """
WITH held AS (UPDATE endpoints SET held_until = NULL)
UPDATE deliveries SET next_at = now() WHERE state = 'due' AND next_at > now()"""


async def _come_to_rest(estate: Estate) -> None:
    """Without anybody asking: all in sync within two intervals, and every event delivered,
    for which the time between two tries passes at once."""
    [[healed]] = await estate.query("SELECT clock_timestamp()")

    async def in_sync() -> bool:
        [[number]] = await estate.query(_IN_SYNC, healed)
        return bool(number == BACKENDS)

    async def delivered() -> bool:
        await estate.query(_TIME_PASSES)
        [[left]] = await estate.query(
            "SELECT (SELECT count(*) FROM deliveries WHERE state = 'due')"
            " + (SELECT count(*) FROM outbox WHERE pending)"
        )
        return bool(left == 0)

    if not await _wait(in_sync, 2 * INTERVAL_S):
        states = await estate.query(
            "SELECT backend_id, kind, state, result, error_code, not_before, worker FROM runs"
            " WHERE queued_at > $1 OR state IN ('queued', 'running') ORDER BY run_id", healed
        )  # fmt: skip
        estate.said.append(f"not in sync after two intervals: {[dict(row) for row in states]}")
    if not await _wait(delivered, 90):
        estate.said.append("not every event was delivered 90 s after all was well again")


async def _stop(estate: Estate) -> None:
    """All at once, in order."""
    for place in estate.places:
        place.end(signal.SIGTERM)
    for place in estate.places:
        assert place.served is not None
        code = await place.served.code()
        if code != 0:
            estate.said.append(f"{place.name} ended with {code} when it was told to stop")
        await place.served.aclose()


async def _evidence(estate: Estate) -> Evidence:
    versions = await estate.query(
        "SELECT s.path, v.* FROM versions v JOIN secrets s USING (tenant_id, secret_id)"
    )
    events = await estate.query(
        "SELECT type, backend_id AS backend, sequence, payload::json->>'run_id' AS run_id"
        " FROM outbox ORDER BY backend_id, sequence"
    )
    left = await estate.query(
        "SELECT backend_id FROM leases WHERE holder IS NOT NULL AND tenant_id <> 0"
    )
    estate.said += [f"somebody holds the lease of {row['backend_id']}" for row in left]
    for name, receiver in estate.receivers.items():
        if any(estate.canary.found_in(message.body) for message in receiver.got):
            estate.said.append(f"{name}: a value was sent to a webhook")
    for place in estate.places:
        estate.said += place.said
        for served in place.all:
            estate.said += [f"{place.name}: {line}" for line in served.lines if _is_bad(line)]
    return Evidence(
        runs=await estate.query("SELECT * FROM runs"),
        versions=versions,
        events=events,
        asked=estate.asked,
        got={name: _got(receiver) for name, receiver in estate.receivers.items()},
        wanted={"closing": SEND_CLOSING_ONLY},
        here=await _here(estate, sorted({row["path"] for row in versions})),
        there=await _there(estate),
        said=estate.said,
    )


def _is_bad(line: dict[str, Any]) -> bool:
    """Whatever is an error, but that a client, which is ours, gave up in its request."""
    impatient = (line["event"], line.get("error_class")) == (
        "request_failed",
        "ConnectionResetError",
    )
    return bool(line["level"] == "error") and not impatient


def _got(receiver: Receiver) -> list[Got]:
    return [
        Got(m.id, m.body, m.json["type"], m.json["data"]["backend_id"], m.number)
        for m in receiver.got
    ]


async def _here(estate: Estate, paths: list[str]) -> dict[str, object]:
    settings = load(str(estate.file), estate.environment)
    found: dict[str, object] = {}
    async with open_app(settings, environ=estate.environment) as app:
        tenant = await app.tenant("default")
        for path in paths:
            _, text = await app.secrets.get(tenant, LocalPath(path))
            found[path] = json.loads(text)
    return found


async def _there(estate: Estate) -> dict[str, object]:
    found: dict[str, object] = {}
    for backend, bao in estate.mounts.items():
        for folder in range(2):
            listed: Any = await bao.request("GET", f"{bao.mount}/metadata/folder{folder}?list=true")
            for name in listed["data"]["keys"]:
                path = f"folder{folder}/{name}"
                answer: Any = await bao.request("GET", f"{bao.mount}/data/{path}")
                found[f"{backend}/{path}"] = answer["data"]["data"]
    return found
