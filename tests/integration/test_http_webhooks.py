"""Webhooks over HTTP: made, changed, tried, replayed, rotated, and told to whom they may be."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.api import ROBOT, Answer, Client, Front, open_front
from tests.house import BACKEND, TENANT, House
from tests.receivers import Receiver, WebhookDesk, webhook_desk

from svsync.domain.access import Scope
from svsync.domain.bindings import Bound, BoundType
from svsync.domain.policies import Permission
from svsync.domain.webhooks import NAMING, TEST_TYPE, EventType
from svsync.services.policies import NewRule
from svsync.services.webhook_rights import WebhookRights

WEBHOOKS = "/v1/webhooks"
NOBODYS = "whk_" + "0" * 32
CYCLES: dict[str, Any] = {"types": ["federation.sync.completed", "federation.sync.failed"]}


@pytest_asyncio.fixture
async def inner(house: House) -> AsyncIterator[Front]:
    """The API of an operator who lets messages go to this machine."""
    async with open_front(house, allow_private_targets=True) as opened:
        yield opened


@pytest_asyncio.fixture
async def desk(house: House) -> AsyncIterator[WebhookDesk]:
    async with webhook_desk(house) as made:
        yield made


async def made(front: Front, url: str = "http://127.0.0.1:9/x", **wants: Any) -> Any:
    answer = await front.client.post(WEBHOOKS, json={"url": url, **wants})
    assert answer.status == 201, answer.body
    return answer.body


async def patched(client: Client, webhook: str, change: dict[str, Any]) -> Answer:
    return await client.call("PATCH", f"{WEBHOOKS}/{webhook}", json=change)


async def writer(front: Front, *, lists: str | None = None) -> Client:
    """Somebody with the scope, who may list a pattern."""
    if lists is not None:
        policies = front.house.app.policies
        rules = [NewRule(lists, [Permission.LIST])]
        policy = await policies.create(TENANT, "lister", rules, by="test")
        bound = Bound.of(BoundType.SERVICE_ACCOUNT, ROBOT.id)
        await policies.bind(TENANT, str(policy["id"]), bound, by="test")
    return front.client.with_token(await front.token(Scope.FEDERATION_WRITE))


async def recorded(front: Front, action: str) -> list[Any]:
    rows = await front.house.admin.fetch(
        "SELECT * FROM audit WHERE action = $1 ORDER BY at, chain_id, seq", action
    )
    return [{**row, "detail": json.loads(row["detail"] or "null")} for row in rows]


# --- endpoints --------------------------------------------------------------------


async def test_an_endpoint_is_made_shown_and_listed_and_its_secret_is_shown_once(
    inner: Front,
) -> None:
    first = await made(inner, **CYCLES, path_patterns=["app/**"], only_if_changed=True)
    secret = first.pop("secret")
    assert secret.startswith("whsec_")
    assert (first["types"], first["path_patterns"]) == (CYCLES["types"], ["app/**"])
    assert (first["only_if_changed"], first["created_by"]) == (True, ROBOT.id)
    assert (await inner.client.get(f"{WEBHOOKS}/{first['id']}")).body == first
    second = await made(inner)
    pages = [(await inner.client.get(f"{WEBHOOKS}?limit=1")).body]
    cursor = pages[0]["next_cursor"]
    pages.append((await inner.client.get(f"{WEBHOOKS}?limit=1&cursor={cursor}")).body)
    assert [w["id"] for page in pages for w in page["webhooks"]] == [first["id"], second["id"]]
    assert pages[1]["next_cursor"] is None
    assert secret not in json.dumps(pages)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://hooks.example.com/x"}, "url"),
        ({"url": "https://10.0.0.1/x"}, "url"),
        ({"url": "https://hooks.example.com/x?token=CANARY"}, "url"),
        ({"url": 7}, "url"),
        ({"types": ["federation.sync.done"]}, "types[0]"),
        ({"types": "federation.sync.failed"}, "types"),
        ({"path_patterns": ["a//b"]}, "path_patterns[0]"),
        ({"path_patterns": ["a"] * 101}, "path_patterns"),
        ({"only_if_changed": "yes"}, "only_if_changed"),
        ({"secret": "whsec_CANARY"}, "secret"),
    ],
)
async def test_what_cannot_be_used_is_refused_by_its_field(
    front: Front, change: dict[str, Any], field: str
) -> None:
    there = await made(front, "https://hooks.example.com/")
    for answer in (
        await front.client.post(WEBHOOKS, json={"url": "https://hooks.example.com/"} | change),
        await patched(front.client, there["id"], change),
    ):
        assert (answer.status, answer.body["error"]["field"]) == (422, field)
        assert "CANARY" not in json.dumps(answer.body)
    [left] = (await front.client.get(WEBHOOKS)).body["webhooks"]
    assert left == {name: value for name, value in there.items() if name != "secret"}


async def test_a_change_merges_and_null_is_an_empty_list(inner: Front) -> None:
    webhook = (await made(inner, **CYCLES, path_patterns=["app/**"]))["id"]
    narrowed = (await patched(inner.client, webhook, {"types": CYCLES["types"][:1]})).body
    assert (narrowed["types"], narrowed["path_patterns"]) == (CYCLES["types"][:1], ["app/**"])
    wide = (await patched(inner.client, webhook, {"types": None, "path_patterns": None})).body
    assert (wide["types"], wide["path_patterns"]) == ([], [])
    off = (await patched(inner.client, webhook, {"state": "disabled"})).body
    assert (off["state"], off["reason"]) == ("disabled", "by_request")
    refused = await inner.client.post(f"{WEBHOOKS}/{webhook}/replay")
    assert refused.told == (409, "endpoint_disabled")
    on = (await patched(inner.client, webhook, {"state": "active"})).body
    assert (on["state"], on["reason"]) == ("active", None)


async def test_an_endpoint_goes_with_its_deliveries(inner: Front, desk: WebhookDesk) -> None:
    webhook = (await made(inner))["id"]
    await desk.tell()
    await desk.deliveries.deliver_due()
    assert len(await inner.house.rows("deliveries")) == 1
    assert (await inner.client.call("DELETE", f"{WEBHOOKS}/{webhook}")).status == 204
    again = await inner.client.call("DELETE", f"{WEBHOOKS}/{webhook}")
    assert again.told == (404, "webhook_not_found")
    assert await inner.house.rows("deliveries") == []


async def test_another_tenants_webhooks_are_as_unknown_as_those_of_nobody(inner: Front) -> None:
    webhook = await made(inner)
    stranger = inner.client.with_token(await inner.other_tenant())
    for method, below, body in (
        ("GET", "", None),
        ("PATCH", "", {"only_if_changed": True}),
        ("PATCH", "", {"state": "disabled"}),
        ("PATCH", "", {"url": "http://127.0.0.1:8/theirs"}),
        ("DELETE", "", None),
        ("GET", "/deliveries", None),
        ("POST", "/test", None),
        ("POST", "/replay", None),
        ("POST", "/rotate", None),
    ):
        foreign = await stranger.call(method, f"{WEBHOOKS}/{webhook['id']}{below}", json=body)
        unknown = await stranger.call(method, f"{WEBHOOKS}/{NOBODYS}{below}", json=body)
        assert foreign.told == unknown.told == (404, "webhook_not_found")
        told = [answer.body["error"]["message"] for answer in (foreign, unknown)]
        assert told[0].replace(webhook["id"], "") == told[1].replace(NOBODYS, "")
        for no_id in ("whk_1", "%00", "a%20b"):
            answer = await stranger.call(method, f"{WEBHOOKS}/{no_id}{below}", json=body)
            assert answer.told == (404, "webhook_not_found")
    assert (await stranger.get(WEBHOOKS)).body["webhooks"] == []
    left = (await inner.client.get(f"{WEBHOOKS}/{webhook['id']}")).body
    assert left == {name: value for name, value in webhook.items() if name != "secret"}


async def test_a_change_may_be_bound_to_the_revision_that_was_looked_at(inner: Front) -> None:
    answer = await inner.client.post(WEBHOOKS, json={"url": "http://127.0.0.1:9/x"})
    at, first = f"{WEBHOOKS}/{answer.body['id']}", answer.headers["ETag"]
    assert first == (await inner.client.get(at)).headers["ETag"] == '"r1"'
    change = {"only_if_changed": True}
    moved = await inner.client.call("PATCH", at, json=change, headers={"If-Match": first})
    assert (moved.status, moved.headers["ETag"], moved.body["rev"]) == (200, '"r2"', 2)
    before = len(await recorded(inner, "webhook.update"))
    for method, body in (
        ("PATCH", {"state": "disabled"}),
        ("PATCH", {"url": "http://127.0.0.1:9/y"}),
        ("DELETE", None),
    ):
        late = await inner.client.call(method, at, json=body, headers={"If-Match": first})
        assert (late.told, late.body["error"]["field"]) == ((412, "version_conflict"), "If-Match")
        for odd in ('W/"r2"', '"v2"', "r2", '"r1", "r2"', '"r0"'):
            answer = await inner.client.call(method, at, json=body, headers={"If-Match": odd})
            assert (answer.status, answer.body["error"]["field"]) == (422, "If-Match")
    assert (await inner.client.get(at)).body == moved.body
    assert len(await recorded(inner, "webhook.update")) == before + 2  # none is tried again
    await inner.client.post(f"{at}/rotate")  # changes nothing of what is shown
    gone = await inner.client.call("DELETE", at, headers={"If-Match": '"r2"'})
    assert gone.status == 204


async def test_an_endpoint_that_svsync_let_go_is_at_another_revision(
    inner: Front, desk: WebhookDesk
) -> None:
    async with Receiver(410) as receiver:
        webhook = await made(inner, receiver.url)
        await desk.tell()
        await desk.deliveries.deliver_due()
    at = f"{WEBHOOKS}/{webhook['id']}"
    found = await inner.client.get(at)
    assert (found.body["reason"], found.headers["ETag"]) == ("gone", '"r2"')
    late = await inner.client.call("PATCH", at, json={"types": []}, headers={"If-Match": '"r1"'})
    assert late.told == (412, "version_conflict")


async def test_there_are_so_many_endpoints_at_most(
    inner: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svsync.services.webhooks.MOST_ENDPOINTS", 1)
    await made(inner)
    answer = await inner.client.post(WEBHOOKS, json={"url": "http://127.0.0.1:9/y"})
    assert answer.told == (422, "too_many_endpoints")


# --- messages ---------------------------------------------------------------------


async def test_what_was_made_over_http_is_told_signed_by_the_secret_that_was_shown(
    inner: Front, desk: WebhookDesk
) -> None:
    async with Receiver() as receiver:
        webhook = await made(inner, receiver.url, types=["federation.secret.changed"])
        inner.house.there.put("kv/a", {"k": "1"})
        await inner.house.run()
        await desk.deliveries.deliver_due()
    [message] = receiver.got
    told = message.verified_by(webhook["secret"])
    assert [secret["path"] for secret in told["data"]["secrets"]] == ["ext/a"]
    [delivery] = (await inner.client.get(f"{WEBHOOKS}/{webhook['id']}/deliveries")).body[
        "deliveries"
    ]
    assert (delivery["webhook_id"], delivery["state"]) == (message.id, "delivered")
    assert delivery["backend_id"] == BACKEND


async def test_one_message_is_sent_for_a_test_and_what_came_of_it_is_told(inner: Front) -> None:
    async with Receiver() as receiver:
        webhook = await made(inner, receiver.url, **CYCLES)
        at = f"{WEBHOOKS}/{webhook['id']}/test"
        told = (await inner.client.post(at)).body
        assert (told["delivered"], told["status_code"], told["error_code"]) == (True, 200, None)
        [message] = receiver.got
        assert message.verified_by(webhook["secret"])["type"] == TEST_TYPE
        assert message.id == told["webhook_id"]
        receiver.answer = 500
        told = (await inner.client.post(at)).body
        assert (told["delivered"], told["error_code"]) == (False, "receiver_failed")


async def test_a_message_never_goes_to_the_api_itself(inner: Front) -> None:
    itself = f"{inner.listener.url}/v1/webhooks"
    assert (await inner.client.post(WEBHOOKS, json={"url": itself})).code == "target_refused"
    webhook = (await made(inner, itself.replace("127.0.0.1", "localhost")))["id"]
    told = (await inner.client.post(f"{WEBHOOKS}/{webhook}/test")).body
    assert (told["delivered"], told["error_code"]) == (False, "target_refused")


async def test_both_secrets_sign_after_a_rotation_and_the_old_one_not_at_once(
    inner: Front,
) -> None:
    async with Receiver() as receiver:
        webhook = await made(inner, receiver.url)
        at = f"{WEBHOOKS}/{webhook['id']}"
        second = (await inner.client.post(f"{at}/rotate")).body
        assert second["previous_valid_until"].endswith("Z")
        await inner.client.post(f"{at}/test")
        third = (await inner.client.post(f"{at}/rotate", json={"at_once": True})).body
        assert third["previous_valid_until"] is None
        await inner.client.post(f"{at}/test")
    both, alone = receiver.got
    assert both.verified_by(webhook["secret"]) == both.verified_by(second["secret"])
    assert alone.verified_by(third["secret"])
    for old in (webhook["secret"], second["secret"]):
        with pytest.raises(Exception, match="signature"):
            alone.verified_by(old)


async def test_deliveries_are_paged_and_the_dead_are_replayed(
    inner: Front, desk: WebhookDesk
) -> None:
    async with Receiver(410) as receiver:
        webhook = (await made(inner, receiver.url))["id"]
        await desk.tell(times=3)
        await desk.deliveries.deliver_due()
        at = f"{WEBHOOKS}/{webhook}"
        first = (await inner.client.get(f"{at}/deliveries?state=dead&limit=2")).body
        rest = (
            await inner.client.get(f"{at}/deliveries?limit=2&cursor={first['next_cursor']}")
        ).body
        dead = [d["event_id"] for d in first["deliveries"] + rest["deliveries"]]
        assert (len(dead), rest["next_cursor"]) == (3, None)
        assert (await inner.client.get(f"{at}/deliveries?state=due")).body["deliveries"] == []
        receiver.answer = 200
        await patched(inner.client, webhook, {"state": "active"})
        one = await inner.client.post(f"{at}/replay", json={"event_id": dead[0]})
        assert one.body == {"id": webhook, "replayed": 1}
        assert (await inner.client.post(f"{at}/replay")).body["replayed"] == 2
        await desk.deliveries.deliver_due()
    assert sorted(m.number for m in receiver.got[-3:]) == [1, 2, 3]
    unknown = await inner.client.post(f"{at}/replay", json={"event_id": "evt_" + "0" * 32})
    assert unknown.told == (404, "delivery_not_found")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/deliveries?state=lost", "state"),
        ("/deliveries?limit=0", "limit"),
        ("/deliveries?cursor=evt_1", "cursor"),
        ("?cursor=whk_1", "cursor"),
    ],
)
async def test_a_query_that_cannot_be_used_is_refused_by_its_name(
    inner: Front, path: str, field: str
) -> None:
    webhook = "" if path.startswith("?") else f"/{(await made(inner))['id']}"
    answer = await inner.client.get(f"{WEBHOOKS}{webhook}{path}")
    assert (answer.status, answer.body["error"]["field"]) == (422, field)


# --- who may have what told -------------------------------------------------------


async def test_names_of_secrets_are_told_to_nobody_whose_maker_may_not_list_them(
    inner: Front,
) -> None:
    client = await writer(inner, lists="app/**")
    url = {"url": "http://127.0.0.1:9/x"}
    for wants in (
        {},
        {"types": ["federation.secret.changed"]},
        {"types": ["federation.conflict.detected"], "path_patterns": ["**"]},
        {"path_patterns": ["app/**", "ext/*"]},
    ):
        refused = await client.post(WEBHOOKS, json=url | wants)
        assert refused.told == (403, "forbidden")
        assert "list" in refused.body["error"]["message"]
    for wants in (
        CYCLES,
        {"path_patterns": ["app/*"]},
        {"types": ["federation.secret.changed"], "path_patterns": ["app/**"]},
    ):
        assert (await client.post(WEBHOOKS, json=url | wants)).status == 201
    asked = await recorded(inner, "webhook.create")
    assert [row["decision"] for row in asked] == ["deny"] * 4 + ["allow"] * 3
    assert asked[-1]["detail"]["path_patterns"] == ["app/**"]
    assert asked[-1]["detail"]["host"] == "127.0.0.1"


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://127.0.0.1:8/theirs"},
        {"types": ["federation.secret.changed"]},
        {"path_patterns": ["**"]},
    ],
)
async def test_nobody_turns_what_they_may_not_list_to_themselves(
    inner: Front, change: dict[str, Any]
) -> None:
    webhook = await made(inner)
    client = await writer(inner, lists="app/**")
    refused = await patched(client, webhook["id"], change)
    assert refused.told == (403, "forbidden")
    left = (await inner.client.get(f"{WEBHOOKS}/{webhook['id']}")).body
    assert left["url"] == webhook["url"]
    assert (left["types"], left["path_patterns"]) == ([], [])
    [asked] = await recorded(inner, "webhook.update")
    assert (asked["decision"], asked["detail"]["webhook"]) == ("deny", webhook["id"])


async def test_what_names_no_secret_may_be_narrowed_and_shut_with_the_scope_alone(
    inner: Front,
) -> None:
    webhook = (await made(inner))["id"]
    client = await writer(inner)
    assert (await patched(client, webhook, {"state": "disabled"})).status == 200
    assert (await patched(client, webhook, {"state": "active"})).told == (403, "forbidden")
    assert (await patched(client, webhook, CYCLES)).status == 200
    assert (await patched(client, webhook, {"state": "active"})).status == 200
    for verb in ("rotate", "replay"):
        assert (await client.post(f"{WEBHOOKS}/{webhook}/{verb}")).status == 200


async def test_a_change_is_made_of_what_somebody_was_asked_about_and_of_nothing_else(
    inner: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question and the change another caller turns it to where they are told."""
    webhook = (await made(inner, **CYCLES))["id"]
    client = await writer(inner)
    require = WebhookRights.require

    async def overtaken(self: WebhookRights, *asked: Any) -> None:
        await require(self, *asked)
        await inner.house.admin.execute("UPDATE endpoints SET types = '{}'")

    monkeypatch.setattr(WebhookRights, "require", overtaken)
    refused = await patched(client, webhook, {"url": "http://127.0.0.1:8/theirs"})
    assert refused.told == (403, "forbidden")
    asked = await recorded(inner, "webhook.update")
    assert [row["decision"] for row in asked] == ["allow", "deny"]
    assert (await inner.client.get(f"{WEBHOOKS}/{webhook}")).body["url"].endswith(":9/x")


def test_each_event_that_names_secrets_is_known_as_such() -> None:
    assert {str(kind) for kind in NAMING} == {
        str(kind) for kind in EventType if ".secret." in kind or ".conflict." in kind
    }


async def test_reading_takes_the_scope_to_read_and_nothing_more(inner: Front) -> None:
    webhook = (await made(inner))["id"]
    reader = inner.client.with_token(await inner.token(Scope.FEDERATION_READ))
    for path in ("", f"/{webhook}", f"/{webhook}/deliveries"):
        assert (await reader.get(f"{WEBHOOKS}{path}")).status == 200
    refused = await reader.post(WEBHOOKS, json={"url": "http://127.0.0.1:9/x", **CYCLES})
    assert refused.told == (403, "forbidden")


# --- requests that are sent again ---------------------------------------------------


async def test_an_endpoint_is_made_once_and_its_secret_is_not_kept(inner: Front) -> None:
    key = {"Idempotency-Key": "k1"}
    body = {"url": "http://127.0.0.1:9/x", **CYCLES}
    first = await inner.client.post(WEBHOOKS, json=body, headers=key)
    again = await inner.client.post(WEBHOOKS, json=body, headers=key)
    assert (first.status, again.told) == (201, (409, "idempotency_answer_not_kept"))
    assert len((await inner.client.get(WEBHOOKS)).body["webhooks"]) == 1
    assert first.body["secret"] not in str(await inner.house.dump())
    other = await inner.client.post(WEBHOOKS, json=body | {"types": []}, headers=key)
    assert other.told == (422, "idempotency_key_reused")
    at = f"{WEBHOOKS}/{first.body['id']}/rotate"
    turned = [await inner.client.post(at, headers={"Idempotency-Key": "k2"}) for _ in range(2)]
    assert [answer.status for answer in turned] == [200, 409]


async def test_a_message_of_a_test_is_sent_once_for_a_key(inner: Front) -> None:
    async with Receiver() as receiver:
        webhook = (await made(inner, receiver.url))["id"]
        at, key = f"{WEBHOOKS}/{webhook}/test", {"Idempotency-Key": "k"}
        first, again = [await inner.client.post(at, headers=key) for _ in range(2)]
    assert first.body == again.body
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(receiver.got) == 1
    assert len(await recorded(inner, "webhook.test")) == 2
