"""What is told to receivers, in which order, how often, and what is written down of it."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import WebhookVerificationError
from tests.house import BACKEND, TENANT, backend
from tests.patience import PATIENCE_S
from tests.receivers import Hanging, Message, Receiver, WebhookDesk, desk, webhook_desk
from tests.waiting import somebody_waits_for_a_lock, until

from svsync.domain.ids import BackendId
from svsync.domain.webhooks import Answer, message_id
from svsync.store import outbox

__all__ = ["desk"]

DELIVERED = ("delivered", 1, None)


async def test_event_arrives_signed_with_its_number(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        endpoint, secret = await desk.endpoint(receiver.url)
        await desk.tell(counts={"created": 1})
        assert await desk.deliveries.deliver_due() == 1
    [message] = receiver.got
    told = message.verified_by(secret)
    assert set(told) == {"type", "timestamp", "data"}
    assert told["type"] == "federation.sync.completed"
    assert told["timestamp"].endswith("Z")
    assert told["data"] == {"backend_id": BACKEND, "counts": {"created": 1}, "sequence": 1}
    assert message.headers["Content-Type"] == "application/json"
    event = await desk.house.row("outbox")
    assert message.id == message_id(event["event_id"], endpoint)
    assert await desk.states() == [DELIVERED]
    assert await desk.deliveries.next_due() is None


async def test_changed_body_is_refused_by_the_verifier(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        _, secret = await desk.endpoint(receiver.url)
        await desk.tell()
        await desk.deliveries.deliver_due()
    [message] = receiver.got
    forged = Message(message.headers, message.body.replace(BACKEND, "fed_other"), message.request)
    with pytest.raises(WebhookVerificationError):
        forged.verified_by(secret)


async def test_both_secrets_sign_while_one_is_rotated(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        endpoint, old = await desk.endpoint(receiver.url)
        rotated = await desk.webhooks.rotate_secret(TENANT, endpoint)
        new = str(rotated["secret"])
        assert rotated["previous_valid_until"]
        await desk.tell()
        await desk.deliveries.deliver_due()
        await desk.house.admin.execute(
            "UPDATE endpoints SET rotated_at = now() - interval '25 hours'"
        )
        await desk.tell()
        await desk.deliveries.deliver_due()
    during, after = receiver.got
    assert during.verified_by(old) == during.verified_by(new)
    after.verified_by(new)
    with pytest.raises(WebhookVerificationError):
        after.verified_by(old)


async def test_leaked_secret_is_replaced_at_once(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        endpoint, old = await desk.endpoint(receiver.url)
        rotated = await desk.webhooks.rotate_secret(TENANT, endpoint, at_once=True)
        await desk.tell()
        await desk.deliveries.deliver_due()
    assert rotated["previous_valid_until"] is None
    receiver.got[0].verified_by(str(rotated["secret"]))
    with pytest.raises(WebhookVerificationError):
        receiver.got[0].verified_by(old)


async def test_events_of_a_backend_arrive_in_their_order(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell(times=250)  # more than are handed out, and read, at once
        assert await desk.deliveries.deliver_due() == 250
    assert receiver.numbers == list(range(1, 251))
    assert receiver.most == 1


async def test_failed_event_is_sent_again_under_its_id_and_lets_the_next_pass(
    desk: WebhookDesk,
) -> None:
    async with Receiver(500) as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell()
        await desk.deliveries.deliver_due()
        assert await desk.states() == [("due", 1, "receiver_failed")]
        wait = await desk.deliveries.next_due()
        assert wait is not None
        assert 3 < wait <= 5
        receiver.answer = 200
        await desk.tell()
        assert await desk.deliveries.deliver_due() == 1
        assert receiver.numbers == [1, 2]
        await desk.later()
        await desk.deliveries.deliver_due()
    assert receiver.numbers == [1, 2, 1]
    assert receiver.got[0].id == receiver.got[2].id
    assert await desk.states() == [("delivered", 2, None), DELIVERED]


async def test_receiver_that_was_down_gets_everything_in_the_old_order(desk: WebhookDesk) -> None:
    async with Receiver(503) as receiver:
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell(times=5)
        await desk.deliveries.deliver_due()
        await desk.house.admin.execute("UPDATE endpoints SET held_until = NULL")
        shown = await desk.webhooks.show(TENANT, endpoint)
        assert (shown["failures"], shown["due"]) == (3, 5)
        assert shown["failing_since"]
        receiver.got.clear()
        receiver.answer = 200
        await desk.deliveries.deliver_due()
        assert receiver.numbers == [4, 1, 2, 3, 5]
    assert (await desk.webhooks.show(TENANT, endpoint))["failing_since"] is None


async def test_endpoint_that_is_down_is_left_alone_for_a_while(desk: WebhookDesk) -> None:
    async with Receiver(500) as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell(times=9)
        await desk.deliveries.deliver_due()
        tried = len(receiver.got)
        assert tried == 3
        assert await desk.deliveries.deliver_due() == 0
        wait = await desk.deliveries.next_due()
        assert wait is not None
        assert 0 < wait <= 1
        await desk.house.admin.execute("UPDATE endpoints SET held_until = now()")
        assert await desk.deliveries.deliver_due() == 1


async def test_receiver_says_how_long_to_wait(desk: WebhookDesk) -> None:
    async with Receiver(
        lambda _: web.Response(status=429, headers={"retry-after": "600"})
    ) as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell(times=3)
        assert await desk.deliveries.deliver_due() == 1
        wait = await desk.deliveries.next_due()
        assert wait is not None
        assert 590 < wait <= 600
        receiver.answer = lambda _: web.Response(status=503, headers={"retry-after": "86400"})
        await desk.later()
        await desk.deliveries.deliver_due()
        wait = await desk.deliveries.next_due()
        assert wait is not None
        assert 3500 < wait <= 3600


async def test_receiver_that_is_gone_is_disabled(desk: WebhookDesk) -> None:
    async with Receiver(410) as receiver:
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell(times=3)
        await desk.deliveries.deliver_due()
        assert len(receiver.got) == 1
        await desk.tell()
        assert await desk.deliveries.deliver_due() == 0
    shown = await desk.webhooks.show(TENANT, endpoint)
    assert (shown["state"], shown["reason"], shown["due"]) == ("disabled", "gone", 0)
    dead = ("dead", 0, "endpoint_disabled")
    assert await desk.states() == [("dead", 1, "gone"), dead, dead]


async def test_what_failed_for_a_day_is_dead_and_can_be_replayed(desk: WebhookDesk) -> None:
    async with Receiver(500) as receiver:
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell(times=2)
        await desk.deliveries.deliver_due()
        await desk.house.admin.execute("UPDATE deliveries SET give_up_at = now()")
        for _ in range(2):  # the last try, and what waits behind an endpoint that is down
            await desk.later()
            await desk.deliveries.deliver_due()
        assert await desk.states() == [
            ("dead", 2, "receiver_failed"),
            ("dead", 1, "receiver_failed"),
        ]
        assert await desk.deliveries.next_due() is None
        receiver.answer = 200
        assert await desk.webhooks.replay(TENANT, endpoint) == 2
        await desk.later()
        await desk.deliveries.deliver_due()
        assert await desk.states() == [DELIVERED, DELIVERED]
        first = (await desk.house.row("outbox", sequence=1))["event_id"]
        assert await desk.webhooks.replay(TENANT, endpoint, event=first) == 1
        await desk.deliveries.deliver_due()
    assert receiver.numbers[-3:] == [1, 2, 1]
    assert len({message.id for message in receiver.got}) == 2


async def test_each_endpoint_gets_what_it_asked_for(desk: WebhookDesk) -> None:
    async with Receiver() as everything, Receiver() as some:
        await desk.endpoint(everything.url)
        await desk.endpoint(
            some.url,
            types=["federation.secret.changed", "federation.sync.completed"],
            path_patterns=["team/**"],
            only_if_changed=True,
        )
        two = [{"path": "team/a", "version": 2}, {"path": "else/b", "version": 1}]
        await desk.tell("federation.secret.changed", secrets=two)
        await desk.tell("federation.secret.changed", secrets=two[1:])
        await desk.tell(counts={"unchanged": 5})
        await desk.tell(counts={"updated": 1})
        await desk.tell("federation.backend.stale")
        await desk.deliveries.deliver_due()
    assert everything.numbers == [1, 2, 3, 4, 5]
    assert everything.got[0].json["data"]["secrets"] == two
    assert some.numbers == [1, 4]
    assert some.got[0].json["data"]["secrets"] == two[:1]
    assert some.got[0].id != everything.got[0].id


async def test_events_of_before_the_first_endpoint_cost_nothing_and_are_not_told(
    desk: WebhookDesk,
) -> None:
    await desk.tell(times=3)
    assert await desk.house.rows("outbox", pending=True) == []
    async with Receiver() as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell()
        await desk.deliveries.deliver_due()
    assert receiver.numbers == [4]


async def test_receiver_that_hangs_delays_no_other(desk: WebhookDesk) -> None:
    hanging = Hanging()
    async with Receiver(hanging) as dead, Receiver() as alive:
        await desk.endpoint(dead.url)
        await desk.endpoint(alive.url)
        await desk.tell()
        working = asyncio.create_task(desk.deliveries.deliver_due())
        await hanging.reached.wait()
        await desk.tell(times=20)
        await alive.received(21)
        assert len(dead.got) == 1
        hanging.let_go()
        assert await working == 42
    assert dead.numbers == alive.numbers == list(range(1, 22))


async def test_backend_whose_message_hangs_delays_no_other_backend(desk: WebhookDesk) -> None:
    other = BackendId("fed_other")
    await desk.house.app.federation.apply([desk.house.spec, backend(id=other, rules=())])
    hanging = Hanging()
    async with Receiver() as receiver:
        receiver.answer = lambda m: (
            hanging(m) if m.json["data"]["backend_id"] == BACKEND else web.Response()
        )
        await desk.endpoint(receiver.url)
        await desk.tell(times=2)
        await desk.tell(times=5, backend=other)
        working = asyncio.create_task(desk.deliveries.deliver_due())
        await receiver.received(6)
        hanging.let_go()
        assert await working == 7


async def test_two_workers_never_send_one_delivery_at_once(desk: WebhookDesk) -> None:
    hanging = Hanging()
    async with Receiver(hanging) as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell(times=30)
        first = asyncio.create_task(desk.deliveries.deliver_due())
        await hanging.reached.wait()
        assert await desk.another().deliver_due() == 0
        hanging.let_go()
        sent = await asyncio.gather(first, *(desk.another().deliver_due() for _ in range(3)))
    assert sum(sent) == 30
    assert receiver.numbers == list(range(1, 31))


async def test_death_between_answer_and_record_sends_again_under_the_same_id(
    desk: WebhookDesk,
) -> None:
    hanging = Hanging()
    async with Receiver(hanging) as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell()
        dying = asyncio.create_task(desk.deliveries.deliver_due())
        await hanging.reached.wait()
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        assert await desk.states() == [("due", 0, None)]
        receiver.answer = 200
        # A process that is killed leaves the endpoint in its hand.
        await desk.house.admin.execute("UPDATE endpoints SET claimed_until = now() + interval '1m'")
        assert await desk.another().deliver_due() == 0
        wait = await desk.another().next_due()
        assert wait is not None
        assert 50 < wait <= 60
        await desk.house.admin.execute("UPDATE endpoints SET claimed_until = now()")
        assert await desk.another().deliver_due() == 1
    assert receiver.got[0].id == receiver.got[1].id


async def test_what_was_taken_over_is_settled_by_who_has_it_now(desk: WebhookDesk) -> None:
    hanging = Hanging()
    async with Receiver(hanging) as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell()
        late = asyncio.create_task(desk.deliveries.deliver_due())
        await hanging.reached.wait()
        await desk.house.admin.execute("UPDATE endpoints SET claimed_until = now()")
        receiver.answer = 500
        async with asyncio.timeout(PATIENCE_S):
            while len(receiver.got) < 2:
                await desk.another().deliver_due()
        hanging.let_go()
        await late
    assert await desk.states() == [("due", 1, "receiver_failed")]


async def test_message_that_is_not_answered_in_time_is_tried_again(desk: WebhookDesk) -> None:
    hanging = Hanging()
    async with Receiver(hanging) as receiver, webhook_desk(desk.house, timeout=0.2) as hasty:
        await hasty.endpoint(receiver.url)
        await hasty.tell()
        await hasty.deliveries.deliver_due()
        hanging.let_go()
    assert await desk.states() == [("due", 1, "timeout")]


async def test_endpoint_whose_secret_does_not_open_keeps_nobody_from_the_others(
    desk: WebhookDesk,
) -> None:
    async with Receiver() as receiver:
        broken, _ = await desk.endpoint(receiver.url)
        await desk.endpoint(receiver.url)
        await desk.house.admin.execute(
            "UPDATE endpoints SET nonce = '\\x000000000000000000000000' WHERE endpoint_id = $1",
            broken,
        )
        await desk.tell()
        assert await desk.deliveries.deliver_due() == 1
        assert await desk.deliveries.deliver_due() == 0
        wait = await desk.deliveries.next_due()
    assert wait is not None
    assert wait > 50


async def test_defect_at_one_endpoint_keeps_nobody_from_the_others_and_is_not_tried_at_once(
    desk: WebhookDesk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Receiver() as receiver:
        broken, _ = await desk.endpoint(f"{receiver.url}/broken")
        await desk.endpoint(receiver.url)
        send = desk.client.send

        async def defective(url: str, *rest: Any) -> Answer:
            if url.endswith("/broken"):
                raise LookupError("a defect of ours")
            return await send(url, *rest)

        monkeypatch.setattr(desk.client, "send", defective)
        await desk.tell(times=3)
        async with asyncio.timeout(PATIENCE_S):
            assert await desk.deliveries.deliver_due() == 3
        assert receiver.numbers == [1, 2, 3]
        wait = await desk.deliveries.next_due()
        assert wait is not None
        assert wait > 50
        assert capsys.readouterr().err.count("webhooks_broke") == 1
        monkeypatch.undo()
        await desk.later()
        assert await desk.deliveries.deliver_due() == 3
    assert receiver.numbers == [1, 2, 3] * 2
    assert {state for state, _, _ in await desk.states()} == {"delivered"}
    assert (await desk.webhooks.show(TENANT, broken))["failing_since"] is None


async def test_endpoint_that_is_gone_while_events_are_handed_out_is_given_none_of_them(
    desk: WebhookDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    fan_out = outbox.fan_out

    async def gone(_message: Message) -> web.Response:
        reached.set()
        await go.wait()
        return web.Response(status=410)

    async def disabled_or_waits() -> bool:
        [row] = await desk.house.rows("endpoints")
        return row["state"] == "disabled" or await somebody_waits_for_a_lock(desk.house)

    async def late(*args: Any, **how: Any) -> None:
        go.set()
        await until(disabled_or_waits)
        await fan_out(*args, **how)

    async with Receiver(gone) as receiver:
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell()
        sending = asyncio.create_task(desk.deliveries.deliver_due())
        await reached.wait()
        monkeypatch.setattr(outbox, "fan_out", late)
        await desk.tell()
        await desk.another().deliver_due()
        await sending
    shown = await desk.webhooks.show(TENANT, endpoint)
    assert (shown["state"], shown["due"]) == ("disabled", 0), "nothing waits for ever"
    assert await desk.states() == [("dead", 1, "gone"), ("dead", 0, "endpoint_disabled")]
