"""Does the doctor tell of receivers of webhooks that take nothing, without calling them?"""

from dataclasses import replace

from tests.house import TENANT
from tests.receivers import Receiver, WebhookDesk, desk

from svsync.app import make_doctor
from svsync.services.findings import Finding, State
from svsync.services.webhooks import EndpointChange
from svsync.testing.memory import MemoryDriver

__all__ = ["desk"]


async def findings(desk: WebhookDesk) -> list[Finding]:
    settings = replace(desk.house.app.settings, backends=())
    driver = MemoryDriver(desk.house.there)
    doctor = make_doctor(settings, environ={}, drivers={"memory": driver})
    return [f async for f in doctor.examine() if f.check.startswith("webhook")]


async def the_one(desk: WebhookDesk) -> Finding:
    [found] = await findings(desk)
    return found


async def test_receivers_that_take_what_they_are_told_are_well(desk: WebhookDesk) -> None:
    assert "none is configured" in (await the_one(desk)).says
    async with Receiver() as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell()
        await desk.deliveries.deliver_due()
        found = await the_one(desk)
    assert (found.state, found.says) == (State.OK, "receivers: 1, and none is behind")
    assert len(receiver.got) == 1, "nobody is called for a look"


async def test_receiver_that_takes_nothing_is_told_with_its_reason(desk: WebhookDesk) -> None:
    async with Receiver(500) as receiver:
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell()
        await desk.deliveries.deliver_due()
        found = await the_one(desk)
        assert (found.check, found.state) == (f"webhook {endpoint}", State.WARNING)
        assert "has taken nothing since" in found.says
        assert "receiver_failed; what waits for it: 1" in found.says
        assert f"svsync webhooks deliveries --tenant default {endpoint}" in found.advice
        assert receiver.url not in found.says + found.advice, "an address may hold a token"


async def test_deliveries_that_were_given_up_are_told_with_what_sends_them(
    desk: WebhookDesk,
) -> None:
    async with Receiver(500) as receiver:
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell()
        await desk.deliveries.deliver_due()
        await desk.house.admin.execute("UPDATE deliveries SET give_up_at = now()")
        await desk.later()
        await desk.deliveries.deliver_due()
        says = {found.says: found.advice for found in await findings(desk)}
        assert says["deliveries that were given up: 1"].endswith(
            f"svsync webhooks replay --tenant default {endpoint}"
        )
        receiver.answer = 200
        await desk.webhooks.replay(TENANT, endpoint)
        await desk.later()
        await desk.deliveries.deliver_due()
        assert (await the_one(desk)).state is State.OK


async def test_endpoint_whose_receiver_is_gone_is_told_one_that_was_put_off_is_not(
    desk: WebhookDesk,
) -> None:
    async with Receiver(410) as receiver:
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell()
        await desk.deliveries.deliver_due()
        [disabled, *_] = await findings(desk)
        assert (disabled.check, disabled.state) == (f"webhook {endpoint}", State.WARNING)
        assert "it is disabled (gone)" in disabled.says
        assert f"/v1/webhooks/{endpoint}" in disabled.advice
        await desk.webhooks.update(TENANT, endpoint, EndpointChange(active=True))
        await desk.webhooks.update(TENANT, endpoint, EndpointChange(active=False))
        assert (await the_one(desk)).state is State.OK
