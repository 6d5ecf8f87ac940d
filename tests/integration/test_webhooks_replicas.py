"""Several processes deliver side by side, are woken, and die; receivers see none of it."""

import asyncio

import pytest
from aiohttp import web
from tests.house import BACKEND, backend
from tests.receivers import Hanging, Message, Receiver, WebhookDesk, desk

from svsync.domain.ids import BackendId
from svsync.services import deliveries
from svsync.services.deliveries import Deliveries

__all__ = ["desk"]

OTHER = BackendId("fed_other")


class Ear:
    """A waker that a test wakes."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        async with asyncio.timeout(seconds):
            await self.event.wait()
        self.event.clear()
        return True


async def test_replicas_side_by_side_send_each_event_once_and_in_order(desk: WebhookDesk) -> None:
    await desk.house.app.federation.apply([desk.house.spec, backend(id=OTHER, rules=())])
    async with Receiver() as first, Receiver() as second:
        await desk.endpoint(first.url)
        await desk.endpoint(second.url)
        for _ in range(4):
            await desk.tell(times=60)
            await desk.tell(times=60, backend=OTHER)
            await asyncio.gather(*(desk.another().deliver_due() for _ in range(3)))
        for receiver in (first, second):
            for of in (BACKEND, OTHER):
                got = [m.number for m in receiver.got if m.json["data"]["backend_id"] == of]
                assert got == list(range(1, 241))


async def test_workers_that_die_at_any_moment_lose_nothing_and_keep_the_order(
    desk: WebhookDesk,
) -> None:
    async with Receiver() as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell(times=300)
        for died_after in (1, 2, 40, 41, 120, 250):
            dying = asyncio.create_task(desk.another().deliver_due())
            await receiver.received(died_after)
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
        await desk.another().deliver_due()
        seen = list(dict.fromkeys(receiver.numbers))
        assert seen == list(range(1, 301))
        assert len({message.id for message in receiver.got}) == 300
        assert len(receiver.got) <= 306, "what was on its way, and no more, was sent twice"
    assert {state for state, _, _ in await desk.states()} == {"delivered"}


async def test_worker_whose_claim_may_be_over_sends_nothing_more(desk: WebhookDesk) -> None:
    moment = 0.0

    async def slow(_message: Message) -> web.Response:
        nonlocal moment
        moment += 50  # as if the process had stood still
        await desk.house.admin.execute(
            "UPDATE endpoints SET claim = claim + 1, claimed_until = now() + interval '1m'"
        )
        return web.Response()

    app = desk.house.app
    late = Deliveries(app.db, app.sealing, desk.client, random=lambda: 0.5, clock=lambda: moment)
    async with Receiver(slow) as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell(times=3)
        assert await late.deliver_due() == 1
    assert await desk.states() == [("due", 0, None)] * 3, "another one has it in hand"


async def test_new_event_is_heard_of_while_another_message_hangs(
    desk: WebhookDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "HEAR_S", 60.0)
    ear, hanging = Ear(), Hanging()
    async with Receiver(hanging) as dead, Receiver() as alive:
        await desk.endpoint(dead.url, types=["federation.sync.failed"])
        await desk.endpoint(alive.url, types=["federation.sync.completed"])
        await desk.tell("federation.sync.failed")
        working = asyncio.create_task(desk.deliveries.deliver_due(ear))
        await hanging.reached.wait()
        await desk.tell()
        ear.event.set()
        await alive.received(1)
        hanging.let_go()
        assert await working == 2


async def test_endpoint_that_was_removed_while_a_message_was_on_its_way_is_let_go(
    desk: WebhookDesk,
) -> None:
    hanging = Hanging()
    async with Receiver(hanging) as receiver:
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell(times=2)
        working = asyncio.create_task(desk.deliveries.deliver_due())
        await hanging.reached.wait()
        await desk.house.admin.execute("DELETE FROM endpoints WHERE endpoint_id = $1", endpoint)
        hanging.let_go()
        await working
    assert await desk.house.rows("deliveries") == []
