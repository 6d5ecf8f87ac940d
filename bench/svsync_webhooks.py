"""svsync's deliveries, from the outbox to receivers in this process.

Events are put in the outbox by the statements that runs use, and sent by the loop of
`svsync serve`: handed out to endpoints, signed, posted, and written down.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from bench.programs import Result, answer
from bench.receivers import Receiver, receiving
from svsync.app import App, new_id, open_app, open_webhooks
from svsync.bus.local import LocalSignals
from svsync.config.model import Settings
from svsync.daemon.service import POOL
from svsync.domain.federation import BackendSpec, Mode, RuleSpec
from svsync.domain.ids import BackendId
from svsync.domain.values import SecretValue
from svsync.domain.webhooks import Subscription
from svsync.services.deliveries import Deliveries, keep_delivering
from svsync.services.scheduling import EVENTS
from svsync.services.webhooks import Webhooks
from svsync.store import outbox
from svsync.store.outbox import Event
from svsync.testing.memory import MemoryDriver, MemoryStore

_A_RUN: Final = 50
"""Events that are written in one transaction."""
_PAUSE_S: Final = 0.1


def backends(count: int) -> list[BackendSpec]:
    return [
        BackendSpec(
            id=BackendId(f"fed_{number:02}"),
            name=f"backend {number}",
            type="memory",
            rules=(RuleSpec(f"ext{number}/**", f"kv{number}/**"),),
            mode=Mode.SYNC,
        )
        for number in range(count)
    ]


def event_of(backend: BackendId) -> Event:
    """What a batch of ten changed secrets is told by."""
    secrets = [
        {"path": f"ext/team/service-{number:03}/database", "change": "updated", "version": 7}
        for number in range(10)
    ]
    about = {"backend_id": backend, "tenant": "default", "run_id": "run_01JZ0000000000000000000000"}
    return Event("federation.secret.changed", {**about, "secrets": secrets})


@asynccontextmanager
async def opened(
    given: Result, specs: Sequence[BackendSpec]
) -> AsyncIterator[tuple[App, Webhooks, Deliveries]]:
    settings = Settings(
        database_url=SecretValue(given["dsn"]),
        state_dir=str(Path(given["state_dir"])),
        backends=tuple(specs),
        allow_private_targets=True,
    )
    drivers = {"memory": MemoryDriver(MemoryStore())}
    async with (
        open_app(settings, environ={}, drivers=drivers, pool=POOL) as app,
        open_webhooks(app) as (webhooks, deliveries),
    ):
        yield app, webhooks, deliveries


async def tell(app: App, backend: BackendId, many: int) -> list[str]:
    """Events of one backend, as one transaction of a run leaves them; their ids."""
    ids = [new_id("evt") for _ in range(many)]
    left = iter(ids)
    async with app.db.transaction(await app.tenant("default")) as tx:
        await outbox.add(tx, backend, [event_of(backend)] * many, event_ids=lambda: next(left))
    return ids


async def throughput(given: Result) -> Result:
    """Deliveries a second: `count` events of `backends` backends to one receiver."""
    specs, count = backends(given["backends"]), given["count"]
    async with (
        receiving() as receiver,
        opened(given, specs) as (app, webhooks, deliveries),
    ):
        await webhooks.create(await app.tenant("default"), receiver.url, Subscription())
        each = count // len(specs)
        for start in range(0, each, _A_RUN):
            for spec in specs:
                await tell(app, spec.id, min(_A_RUN, each - start))
        began, spent = time.perf_counter(), time.process_time()
        sent = await deliveries.deliver_due()
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
        assert sent == len(receiver.arrived) == each * len(specs), sent
        _assert_order(receiver, len(specs), each)
        body = receiver.bodies[0].decode()
    return {"per_second": sent / seconds, "cpu_s": spent, "body": body}


def _assert_order(receiver: Receiver, backends: int, each: int) -> None:
    seen: dict[str, list[int]] = {}
    for body in receiver.bodies:
        data = json.loads(body)["data"]
        seen.setdefault(data["backend_id"], []).append(data["sequence"])
    assert len(seen) == backends
    assert all(numbers == list(range(1, each + 1)) for numbers in seen.values())


async def delays(given: Result) -> Result:
    """Seconds from an event's commit to its arrival at nine receivers, one event after the
    other for `seconds`, beside a tenth that `hangs`, or does not."""
    specs = backends(8)
    async with AsyncExitStack() as stack:
        nine = [await stack.enter_async_context(receiving()) for _ in range(9)]
        tenth = await stack.enter_async_context(receiving(hangs=given["hangs"]))
        app, webhooks, deliveries = await stack.enter_async_context(opened(given, specs))
        for receiver in (tenth, *nine):
            await webhooks.create(await app.tenant("default"), receiver.url, Subscription())
        signals = LocalSignals()
        delivering = asyncio.create_task(keep_delivering(deliveries, signals))
        told: dict[str, float] = {}
        until = time.monotonic() + given["seconds"]
        while time.monotonic() < until:
            backend = specs[len(told) % len(specs)].id
            [event] = await tell(app, backend, 1)
            told[event] = time.monotonic()
            await signals.wake(EVENTS)
            await asyncio.sleep(_PAUSE_S)
        async with asyncio.timeout(30):
            await asyncio.gather(*(receiver.received(len(told)) for receiver in nine))
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
        assert tenth.arrived
    took = sorted(
        moment - told[message.rpartition("_")[0]]
        for receiver in nine
        for message, moment in receiver.arrived.items()
    )
    assert len(took) == 9 * len(told)
    return {
        "events": len(told),
        "at_tenth": len(tenth.arrived),
        "p50_s": took[len(took) // 2],
        "p99_s": took[len(took) * 99 // 100],
    }


async def main(given: Result) -> Result:
    return await {"throughput": throughput, "delays": delays}[given["step"]](given)


if __name__ == "__main__":
    answer(main)
