"""A request with an `Idempotency-Key` is done once, however often it is sent."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from tests.api import Answer, Client, Front, front, open_front
from tests.house import TENANT, House, house
from tests.integration.test_reading import allow
from tests.integration.test_retention import AT_ONCE
from tests.writes import fall_down, through

from svsync.domain.access import Caller, Identity, Scope
from svsync.domain.errors import StoreUnavailableError
from svsync.http.idempotency import IDEMPOTENCY, idempotent
from svsync.http.identity import ADDRESS, CALLER, REQUEST_ID, CallersHandler
from svsync.services.idempotency import Idempotency, KeyTakenError
from svsync.services.retention import Retention

__all__ = ["front", "house", "through"]

A = "/v1/secrets/app/a"
KEY = {"Idempotency-Key": "k-1"}
MARK = "canary-91ab"


async def put(client: Client, value: str = "1", path: str = A, **headers: str) -> Answer:
    return await client.call("PUT", path, json={"data": {"k": value}}, headers={**KEY, **headers})


async def age(front: Front, seconds: int) -> None:
    await front.house.admin.execute(
        f"UPDATE idempotency SET made_at = made_at - make_interval(secs => {seconds})"
    )


async def current(front: Front, path: str = "app/a") -> int:
    version: int = (await front.house.row("secrets", path=path))["current_version"]
    return version


async def test_a_repeated_write_is_answered_as_the_first_and_not_done_again(front: Front) -> None:
    first = await put(front.client)
    again = await put(front.client)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status, again.body, again.headers["ETag"]) == (201, first.body, '"v1"')
    assert await current(front) == 1
    other = await put(front.client, **{"Idempotency-Key": "k-2"})
    assert (other.status, other.body["version"]) == (200, 2)


async def test_delete_and_restore_are_done_once_too(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    for _ in range(2):
        gone = await front.client.call("DELETE", A, headers=KEY)
        assert (gone.status, gone.headers["X-SVSync-Write-Through"]) == (204, "not_configured")
    for _ in range(2):
        back = await front.client.post(f"{A}/restore", headers={"Idempotency-Key": "k-2"})
        assert (back.status, back.body["version"]) == (200, 2)
    assert (await front.client.post(f"{A}/restore")).told == (409, "not_deleted")


async def test_another_request_with_the_key_is_refused(front: Front) -> None:
    await put(front.client)
    for answer in (
        await put(front.client, "2"),
        await put(front.client, path="/v1/secrets/app/b"),
        await put(front.client, **{"If-Match": '"v1"'}),
        await front.client.call("DELETE", A, headers=KEY),
    ):
        assert answer.told == (422, "idempotency_key_reused")
    assert await current(front) == 1
    assert len(await front.house.rows("secrets")) == 1


async def test_a_key_is_its_identitys_and_its_tenants(front: Front) -> None:
    await put(front.client)
    access = front.access
    other = await access.create(
        TENANT, Identity.parse("sa:other"), [Scope.ADMIN], expires_in=60, by="cli:test"
    )
    assert (await put(front.client.with_token(other.text.reveal()), "2")).body["version"] == 2
    stranger = front.client.with_token(await front.other_tenant())
    assert (await put(stranger, "3")).status == 201


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256])
async def test_a_key_that_is_none_is_refused(front: Front, key: str) -> None:
    answer = await put(front.client, **{"Idempotency-Key": key})
    assert (answer.told, answer.body["error"]["field"]) == (
        (422, "invalid_field"), "Idempotency-Key",
    )  # fmt: skip
    assert not await front.house.rows("secrets")


async def test_a_repeated_request_of_somebody_who_may_no_more_is_refused(front: Front) -> None:
    await allow(front, "app/**", "write")
    client = front.client.with_token(await front.token(Scope.SECRETS_WRITE))
    assert (await put(client)).status == 201
    await front.house.admin.execute("DELETE FROM policies")
    await front.house.admin.execute("UPDATE tenants SET auth_epoch = auth_epoch + 1")
    assert (await put(client)).told == (403, "forbidden")


# --- what did nothing gives its key back ----------------------------------------------


async def test_a_write_that_did_nothing_may_be_sent_again_with_its_key(front: Front) -> None:
    refused = await put(front.client, **{"If-Match": '"v1"'})
    assert refused.told == (412, "version_conflict")
    await front.house.write("app/a", {"k": "1"})
    assert (await put(front.client, **{"If-Match": '"v1"'})).body["version"] == 2


async def test_a_write_that_its_backend_did_not_take_is_done_when_it_is_sent_again(
    through: House,
) -> None:
    fall_down(through)
    async with open_front(through) as front:
        path = "/v1/secrets/ext/a"
        assert (await put(front.client, "2", path)).told == (502, "backend_unreachable")
        assert (await put(front.client, "2", path)).status == 200
        assert await through.data("ext/a") == {"k": "2"}


# --- what nobody knows ----------------------------------------------------------------


async def test_a_request_with_the_key_of_one_under_way_waits(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = type(front.house.app.writes)
    reached, go, done = asyncio.Event(), asyncio.Event(), writes.write

    async def slow(self: Any, *args: Any, **named: Any) -> Any:
        reached.set()
        await go.wait()
        return await done(self, *args, **named)

    monkeypatch.setattr(writes, "write", slow)
    first = asyncio.create_task(put(front.client))
    await reached.wait()
    assert (await put(front.client)).told == (409, "idempotency_in_progress")
    go.set()
    assert (await first).status == 201
    assert (await put(front.client)).headers["Idempotency-Replayed"] == "true"
    assert await current(front) == 1


@pytest.mark.parametrize("before", [True, False], ids=["before the write", "after the write"])
async def test_a_process_that_dies_leaves_a_key_that_does_nothing_more_in_silence(
    front: Front, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """Its row is all that is left of it, so that is what this test leaves."""

    async def nothing(*_args: Any, **_named: Any) -> None: ...

    monkeypatch.setattr(Idempotency, "keep", nothing)
    await put(front.client)
    if before:
        await front.house.admin.execute("DELETE FROM versions")
        await front.house.admin.execute("DELETE FROM secrets")
    made = len(await front.house.rows("versions"))
    assert (await put(front.client)).told == (409, "idempotency_in_progress")
    await age(front, 601)
    assert (await put(front.client)).told == (409, "idempotency_outcome_unknown")
    assert (await put(front.client, "2")).told == (422, "idempotency_key_reused")
    assert len(await front.house.rows("versions")) == made
    assert (await put(front.client, **{"Idempotency-Key": "k-2"})).status in (200, 201)


async def test_a_store_that_is_lost_in_the_middle_is_told_as_unknown_afterwards(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have committed: here it had."""
    writes = type(front.house.app.writes)
    done = writes.write

    async def lost(self: Any, *args: Any, **named: Any) -> Any:
        await done(self, *args, **named)
        raise StoreUnavailableError("the connection was lost")

    monkeypatch.setattr(writes, "write", lost)
    assert (await put(front.client)).told == (503, "store_unavailable")
    monkeypatch.setattr(writes, "write", done)
    assert (await put(front.client)).told == (409, "idempotency_outcome_unknown")
    assert await current(front) == 1


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_args: Any, **_named: Any) -> None:
        raise StoreUnavailableError("the connection was lost")

    monkeypatch.setattr("svsync.store.idempotency.finish", lost)
    assert (await put(front.client)).status == 201
    assert (await put(front.client)).told == (409, "idempotency_in_progress")
    assert await current(front) == 1


# --- what is kept ---------------------------------------------------------------------


async def test_nothing_of_a_value_is_kept_with_a_key(front: Front) -> None:
    await put(front.client, MARK)
    row = await front.house.row("idempotency")
    assert MARK not in str(row)
    keys = await front.house.app.sealing.for_tenant(TENANT)
    body = json.dumps({"data": {"k": MARK}}).encode()
    said = json.dumps(["PUT", A, "", [[], []]]).encode() + b"\0" + body
    assert row["request"] == keys.digest_of_request(said), "keyed: no plain hash of the body"


async def test_a_key_stands_for_a_day_and_is_removed_then(front: Front) -> None:
    await put(front.client)
    await age(front, 86_399 - 60)
    retention = Retention(front.house.app.db, AT_ONCE, front.house.app.recorder)
    assert (await retention.run(TENANT)).request_keys == 0
    assert (await put(front.client)).headers["Idempotency-Replayed"] == "true"
    await age(front, 61)
    assert (await put(front.client, "2")).body["version"] == 2, "over, though nobody removed it"
    await age(front, 86_400)
    assert (await retention.run(TENANT)).request_keys == 1
    assert not await front.house.rows("idempotency")


async def test_an_answer_with_a_secret_is_not_kept(front: Front) -> None:
    """Any route may be done once; what it shows once is not shown again."""
    done: list[str] = []

    async def handler(_request: web.Request, _caller: Caller) -> web.StreamResponse:
        done.append("done")
        return web.json_response({"secret": MARK}, status=201)

    caller = await front.access.verify(await front.token(Scope.ADMIN))
    ask = asking(front, caller, idempotent(handler, holds_secret=True))
    assert await ask() == 201
    with pytest.raises(KeyTakenError, match="shown once") as told:
        await ask()
    assert told.value.code == "idempotency_answer_not_kept"
    assert done == ["done"]
    assert MARK not in str(await front.house.row("idempotency"))


def asking(front: Front, caller: Caller, handler: CallersHandler) -> Callable[[], Awaitable[int]]:
    """Asks a handler behind `for_scope`, without a server; the status of its answer."""
    app = web.Application()
    app[IDEMPOTENCY] = front.house.app.idempotency

    async def ask() -> int:
        request = make_mocked_request("POST", "/v1/x", headers=KEY, app=app)
        request._read_bytes = b"{}"
        request[CALLER], request[REQUEST_ID], request[ADDRESS] = caller, "req_1", "::1"
        return (await handler(request, caller)).status

    return ask
