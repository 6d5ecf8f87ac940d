"""Endpoints: made, shown, changed, tried, kept apart by tenant; and what retention leaves."""

import pytest
from aiohttp import web
from tests.house import BACKEND, TENANT, House
from tests.receivers import Receiver, WebhookDesk, desk, webhook_desk

from svsync.domain.errors import ConfigError, NotFoundError, SvsyncError
from svsync.domain.ids import TenantId
from svsync.domain.webhooks import TEST_TYPE, Subscription
from svsync.services.deliveries import Pruned, prune
from svsync.services.webhooks import EndpointChange
from svsync.store import federation

__all__ = ["desk"]

URL = "http://127.0.0.1:1/hook"
DAY = 86_400.0
OTHER = TenantId(2)


async def test_secret_is_shown_once_and_kept_sealed(desk: WebhookDesk) -> None:
    made = await desk.webhooks.create(TENANT, URL, Subscription(), by="sa:test")
    secret = str(made["secret"])
    assert secret.startswith("whsec_")
    [listed] = await desk.webhooks.list_endpoints(TENANT)
    assert listed == await desk.webhooks.show(TENANT, str(made["id"]))
    assert listed == {name: value for name, value in made.items() if name != "secret"}
    assert (listed["created_by"], listed["state"]) == ("sa:test", "active")
    dump = str(await desk.house.dump())
    assert str(made["id"]) in dump
    assert secret not in dump
    assert secret.encode().hex() not in dump
    [key] = await desk.house.rows("data_keys", purpose="webhook")
    assert key["key_id"] == (await desk.house.row("endpoints"))["key_id"]


async def test_secret_of_one_endpoint_does_not_open_in_another(desk: WebhookDesk) -> None:
    first, _ = await desk.endpoint(URL)
    second, _ = await desk.endpoint(URL)
    await desk.house.admin.execute(
        "UPDATE endpoints a SET nonce = b.nonce, sealed = b.sealed FROM endpoints b"
        " WHERE a.endpoint_id = $1 AND b.endpoint_id = $2",
        first,
        second,
    )
    with pytest.raises(SvsyncError, match="does not open"):
        await desk.webhooks.send_test(TENANT, first)


async def test_what_cannot_be_an_endpoint_is_refused_before_anything_is_made(house: House) -> None:
    async with webhook_desk(house, private=False) as strict:
        for url, wants, field in (
            ("https://10.0.0.1/", Subscription(), "url"),
            ("http://hooks.example.com/", Subscription(), "url"),
            ("https://hooks.example.com/", Subscription(types=("x",)), "types[0]"),
            ("https://hooks.example.com/", Subscription(path_patterns=("a//b",)), "path_patterns"),
        ):
            with pytest.raises(ConfigError) as caught:
                await strict.webhooks.create(TENANT, url, wants)
            assert caught.value.where.startswith(field)
        assert await strict.webhooks.list_endpoints(TENANT) == []


async def test_change_holds_for_what_is_handed_out_from_then_on(desk: WebhookDesk) -> None:
    async with Receiver() as before, Receiver() as after:
        endpoint, _ = await desk.endpoint(before.url)
        change = EndpointChange(url=after.url, types=["federation.sync.failed"])
        shown = await desk.webhooks.update(TENANT, endpoint, change)
        assert (shown["url"], shown["types"]) == (after.url, ["federation.sync.failed"])
        assert shown["path_patterns"] == []
        await desk.tell()
        await desk.tell("federation.sync.failed")
        await desk.deliveries.deliver_due()
        with pytest.raises(ConfigError, match=r"types\[0\]"):
            await desk.webhooks.update(TENANT, endpoint, EndpointChange(types=["x"]))
    assert (before.numbers, after.numbers) == ([], [2])


async def test_another_address_is_not_held_for_the_failures_of_the_one_before(
    desk: WebhookDesk,
) -> None:
    async with Receiver(500) as before, Receiver() as after:
        endpoint, _ = await desk.endpoint(before.url)
        await desk.tell(times=4)
        await desk.deliveries.deliver_due()
        await desk.webhooks.update(TENANT, endpoint, EndpointChange(url=after.url))
        assert await desk.deliveries.deliver_due() == 1
    assert after.numbers == [4]


async def test_nothing_goes_to_an_endpoint_that_is_disabled(desk: WebhookDesk) -> None:
    async with Receiver(500) as receiver:
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell()
        await desk.deliveries.deliver_due()
        shown = await desk.webhooks.update(TENANT, endpoint, EndpointChange(active=False))
        assert (shown["state"], shown["reason"], shown["due"]) == ("disabled", "by_request", 0)
        await desk.tell()
        assert await desk.deliveries.deliver_due() == 0
        with pytest.raises(ConfigError, match="disabled"):
            await desk.webhooks.replay(TENANT, endpoint)
        receiver.answer = 200
        shown = await desk.webhooks.update(TENANT, endpoint, EndpointChange(active=True))
        assert (shown["state"], shown["reason"]) == ("active", None)
        assert await desk.webhooks.replay(TENANT, endpoint) == 1
        await desk.deliveries.deliver_due()
    assert receiver.numbers == [1, 1]


async def test_removed_endpoint_takes_its_deliveries_along(desk: WebhookDesk) -> None:
    endpoint, _ = await desk.endpoint(URL)
    await desk.tell()
    await desk.deliveries.deliver_due()
    await desk.webhooks.delete(TENANT, endpoint)
    assert await desk.house.rows("deliveries") == []
    with pytest.raises(NotFoundError, match="webhooks list"):
        await desk.webhooks.delete(TENANT, endpoint)


async def test_test_message_is_signed_and_leaves_no_trace(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        endpoint, secret = await desk.endpoint(receiver.url, types=["federation.sync.failed"])
        told = await desk.webhooks.send_test(TENANT, endpoint)
        assert (told["delivered"], told["status_code"], told["error_code"]) == (True, 200, None)
        [message] = receiver.got
        assert message.verified_by(secret)["type"] == TEST_TYPE
        assert told["webhook_id"] == message.id
        receiver.answer = 500
        told = await desk.webhooks.send_test(TENANT, endpoint)
        assert (told["delivered"], told["error_code"]) == (False, "receiver_failed")
    assert await desk.house.rows("deliveries") == []
    assert (await desk.webhooks.show(TENANT, endpoint))["failures"] == 0


async def test_deliveries_are_listed_newest_first_and_by_pages(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        receiver.answer = lambda m: web.Response(status=500 if m.number == 3 else 200)
        endpoint, _ = await desk.endpoint(receiver.url)
        await desk.tell(times=5)
        await desk.deliveries.deliver_due()
    shown: list[dict[str, object]] = []
    cursor = None
    for _ in range(3):
        page = await desk.webhooks.deliveries(TENANT, endpoint, limit=2, cursor=cursor)
        shown += page["deliveries"]
        cursor = page["next_cursor"]
    assert cursor is None
    events = [d["event_id"] for d in shown]
    assert events == sorted(events, key=str, reverse=True)
    assert {d["sequence"] for d in shown} == {1, 2, 3, 4, 5}
    [failed] = [d for d in shown if d["sequence"] == 3]
    assert (failed["state"], failed["status_code"], failed["attempts"]) == ("due", 500, 1)
    assert failed["next_at"]
    assert failed["webhook_id"] == receiver.got[2].id
    only = await desk.webhooks.deliveries(TENANT, endpoint, state="due")
    assert only["deliveries"] == [failed]
    with pytest.raises(ConfigError, match="state"):
        await desk.webhooks.deliveries(TENANT, endpoint, state="lost")
    with pytest.raises(ConfigError, match="limit"):
        await desk.webhooks.deliveries(TENANT, endpoint, limit=0)


async def test_event_that_was_never_told_cannot_be_replayed(desk: WebhookDesk) -> None:
    endpoint, _ = await desk.endpoint(URL)
    with pytest.raises(NotFoundError, match="evt_none"):
        await desk.webhooks.replay(TENANT, endpoint, event="evt_none")
    assert await desk.webhooks.replay(TENANT, endpoint) == 0


async def other_tenant(desk: WebhookDesk) -> None:
    """A second tenant, with a backend of the same id."""
    await desk.house.admin.execute("INSERT INTO tenants (tenant_id, slug) VALUES (2, 'other')")
    for table, changed in (("backends", {"tenant_id": OTHER}), ("backend_health", {})):
        row = dict(await desk.house.row(table)) | {"tenant_id": OTHER} | changed
        names = ", ".join(row)
        places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
        await desk.house.admin.execute(
            f"INSERT INTO {table} ({names}) VALUES ({places})", *row.values()
        )


async def test_endpoint_of_another_tenant_is_as_one_that_is_not_there(desk: WebhookDesk) -> None:
    await other_tenant(desk)
    async with Receiver() as ours, Receiver() as theirs:
        endpoint, _ = await desk.endpoint(ours.url)
        await desk.webhooks.create(OTHER, theirs.url, Subscription())
        for asked in (
            desk.webhooks.show(OTHER, endpoint),
            desk.webhooks.update(OTHER, endpoint, EndpointChange(active=False)),
            desk.webhooks.delete(OTHER, endpoint),
            desk.webhooks.rotate_secret(OTHER, endpoint),
            desk.webhooks.send_test(OTHER, endpoint),
            desk.webhooks.deliveries(OTHER, endpoint),
            desk.webhooks.replay(OTHER, endpoint),
        ):
            with pytest.raises(NotFoundError, match="there is no endpoint"):
                await asked
        await desk.tell(times=2)
        await desk.tell(tenant=OTHER)
        assert await desk.deliveries.deliver_due() == 3
    assert (ours.numbers, theirs.numbers) == ([1, 2], [1])


async def test_tenant_that_is_suspended_is_told_nothing(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell()
        await desk.house.admin.execute("UPDATE tenants SET status = 'suspended'")
        assert await desk.deliveries.deliver_due() == 0
        assert await desk.deliveries.next_due() is None
        await desk.house.admin.execute("UPDATE tenants SET status = 'active'")
        assert await desk.deliveries.deliver_due() == 1


async def test_retention_removes_what_everybody_was_told_of(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        receiver.answer = lambda m: web.Response(status=500 if m.number == 2 else 200)
        await desk.endpoint(receiver.url)
        await desk.tell(times=4)
        await desk.deliveries.deliver_due()
        await desk.tell()
        db = desk.house.app.db
        assert await prune(db, TENANT, 7 * DAY) == Pruned(0, 0)
        for table in ("outbox", "deliveries"):
            await desk.house.admin.execute(
                f"UPDATE {table} SET created_at = now() - interval '8 days'"
            )
        await desk.house.admin.execute("UPDATE deliveries SET ended_at = now() - interval '8 days'")
        assert await prune(db, TENANT, 7 * DAY) == Pruned(3, 3)
        left = [row["sequence"] for row in await desk.house.rows("outbox")]
        assert left == [2, 5], "one is due still, one was told to nobody yet"
        receiver.answer = 200
        await desk.later()
        await desk.deliveries.deliver_due()
        assert receiver.numbers[-2:] == [2, 5]
        await desk.house.admin.execute("UPDATE deliveries SET ended_at = now() - interval '8 days'")
        await desk.house.admin.execute("UPDATE deliveries SET created_at = ended_at")
        assert await prune(db, TENANT, 7 * DAY) == Pruned(2, 1)
        assert (await desk.house.row("outbox"))["sequence"] == 5, "where numbers go on"


async def test_backend_that_was_removed_is_told_of_to_the_end(desk: WebhookDesk) -> None:
    async with Receiver() as receiver:
        await desk.endpoint(receiver.url)
        await desk.tell(times=2)
        async with desk.house.app.db.transaction(TENANT) as tx:
            await federation.remove(tx, BACKEND)
        await desk.deliveries.deliver_due()
    assert receiver.numbers == [1, 2]
