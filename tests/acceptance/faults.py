"""What goes wrong around three processes of the service, under a load, and what is left.

`live` draws a history from a seed: faults, several at a time, then rest, and the end of all
processes. It has what was left behind gathered (`fault_gathering.py`) for those who look at
it (`fault_evidence.py`). When things happen is up to the machine, so a seed repeats a history
only roughly.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from tests.acceptance.fault_estate import INTERVAL_S, SIDES, Estate, Place
from tests.acceptance.fault_evidence import Evidence
from tests.acceptance.fault_gathering import gather
from tests.acceptance.fault_loads import LOADS
from tests.patience import PATIENCE_S
from tests.receivers import Message, Receiver
from tests.servers import FaultyTcp

from svsync.app import App, open_app

PAST_THE_LEASE_S = 32.0
SPELL_S = 45.0
"""Then all is well until a run has gone through: else, on a slow machine, none ever would."""
SPARED = 0.8
"""How often a process that still starts is let be: on a slow machine none would ever work."""


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
    spell = loop.time() + SPELL_S

    async def one(fault: Fault) -> None:
        estate.done.append(f"{fault.to} {fault.name}")
        await fault.happen()
        busy.pop(fault.to, None)

    async with asyncio.TaskGroup() as tasks:
        first = [f for f in every if f.long]
        draw.shuffle(first)
        while loop.time() < until:
            if loop.time() > spell:
                await _let_work(estate, busy.values())
                spell = loop.time() + SPELL_S
            # None that would last longer than the history.
            short = [f for f in every if not f.long or until - loop.time() > PAST_THE_LEASE_S]
            spared = _starting(estate) if draw.random() < SPARED else set()
            free = [f for f in first or short if f.to not in busy.keys() | spared]
            if free:
                [fault] = draw.choices(free, [f.weight for f in free])
                first = [f for f in first if fault.name != f.name]
                busy[fault.to] = tasks.create_task(one(fault))
            await asyncio.sleep(draw.uniform(0.3, 2.0))


async def _let_work(estate: Estate, faults: Collection[asyncio.Task[None]]) -> None:
    """Return once these faults are over and a run has gone through since, or takes too long."""
    if faults:
        await asyncio.wait(faults)
    [[now]] = await estate.query("SELECT clock_timestamp()")

    async def through() -> bool:
        return bool(await estate.query(_THROUGH, now))

    await _wait(through, INTERVAL_S)
    estate.done.append("all was well for a moment")


def _starting(estate: Estate) -> set[str]:
    return {place.name for place in estate.places if not place.up}


# --- a whole history --------------------------------------------------------------


async def live(estate: Estate, seconds: float, seed: int) -> Evidence:
    """Faults under a load for so long, then rest; what is left behind once all processes
    were stopped in order."""
    draw = random.Random(seed)
    keepers = [asyncio.create_task(place.keep()) for place in estate.places]
    try:
        await _wait(lambda: all(place.up for place in estate.places), PATIENCE_S)
        async with open_app(
            estate.settings, environ=estate.environment, apply_backends=False
        ) as app:
            await _under_load(estate, app, draw, seed, seconds)
            told = await _come_to_rest(estate)
            # One that is only starting is cancelled by a signal; one that serves is told to stop.
            if not await _wait(lambda: all(place.up for place in estate.places), PATIENCE_S):
                estate.said.append("not every process came up again")
            await _end(keepers)
            await _stop(estate)
            return await gather(estate, app, told)
    finally:
        await _end(keepers)


async def _under_load(
    estate: Estate, app: App, draw: random.Random, seed: int, seconds: float
) -> None:
    loads = [
        asyncio.ensure_future(load(estate, app, random.Random(seed + n)))
        for n, load in enumerate(LOADS, 1)
    ]
    try:
        await let_happen(estate, seconds, draw)
        estate.said += [f"a load ended: {load.exception()!r}" for load in loads if load.done()]
    finally:
        await _end(loads)


async def _end(tasks: Sequence[asyncio.Future[None]]) -> None:
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


_THROUGH = (
    "SELECT FROM runs WHERE state = 'completed' AND kind <> 'probe' AND ended_at > $1 LIMIT 1"
)
# One that was handed over may have been listed before. And where a delete here met a change
# there, a run keeps both values first, and the next one deletes.
_IN_SYNC = """
SELECT count(DISTINCT (tenant_id, backend_id)) FROM runs r
WHERE kind = 'full' AND state = 'completed' AND result = 'ok' AND started_at > $1
  AND NOT handed_over
  AND NOT EXISTS (SELECT FROM runs w WHERE w.tenant_id = r.tenant_id AND w.backend_id = r.backend_id
                  AND w.kind <> 'probe' AND w.state IN ('queued', 'running'))
  AND NOT EXISTS (SELECT FROM sync_state p WHERE p.tenant_id = r.tenant_id
                  AND p.backend_id = r.backend_id AND p.status = 'pending_push')"""
_TIME_PASSES = """
WITH held AS (UPDATE endpoints SET held_until = NULL)
UPDATE deliveries SET next_at = now() WHERE state = 'due' AND next_at > now()"""
# Who kills processes at random makes some path look as if it had.
_QUARANTINES_END = """
UPDATE sync_state SET retry_at = now() WHERE status = 'quarantined' AND reason = 'crashes_worker'
AND retry_at > now()"""
# Of pushes whose sender is no more: its run has ended, or a load has.
_PUSHES_ARE_OVERDUE = """
UPDATE pushes p SET deadline = now() WHERE state IN ('planned', 'sent') AND deadline > now()
AND NOT EXISTS (SELECT FROM runs r WHERE r.tenant_id = p.tenant_id AND r.run_id = p.run_id
                AND r.state = 'running')"""


_SCHEDULE_COMES = """
UPDATE backend_health SET next_due_at = now() WHERE next_due_at <= now() + make_interval(secs => $1)
RETURNING clock_timestamp()"""
# All events that there are, in the moment in which none of them is left to deliver.
_TOLD = """
SELECT backend_id, last_sequence FROM backend_health
WHERE NOT EXISTS (SELECT FROM outbox WHERE pending)
  AND NOT EXISTS (SELECT FROM deliveries WHERE state = 'due')"""


async def _come_to_rest(estate: Estate) -> dict[str, int]:
    """Without anybody asking: all in sync within two intervals, and every event delivered;
    the numbers that the events of each backend had come to by then.

    The time until the next run passes at once, as does that between two tries, that in which
    a push is its sender's, and that for which a path is left alone.
    """
    due = await estate.query(_SCHEDULE_COMES, INTERVAL_S)
    if len(due) != len(SIDES):
        estate.said.append("not every backend is due within an interval")
    healed = due[0][0]
    told: dict[str, int] = {}

    async def in_sync() -> bool:
        await estate.query(_QUARANTINES_END)
        await estate.query(_PUSHES_ARE_OVERDUE)
        [[number]] = await estate.query(_IN_SYNC, healed)
        return bool(number == len(SIDES))

    async def delivered() -> bool:
        await estate.query(_TIME_PASSES)
        told.update(await estate.query(_TOLD))
        return bool(told)

    if not await _wait(in_sync, 2 * INTERVAL_S):
        states = await estate.query(
            "SELECT tenant_id, backend_id, kind, state, result, error_code, not_before, worker"
            " FROM runs"
            " WHERE queued_at > $1 OR state IN ('queued', 'running') ORDER BY run_id", healed
        )  # fmt: skip
        estate.said.append(f"not in sync after two intervals: {[dict(row) for row in states]}")
    if not await _wait(delivered, 90):
        estate.said.append("not every event was delivered 90 s after all was well again")
    return told


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
