"""Of a tenant that was shredded nothing is read any more, whatever a process remembers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.api import Front
from tests.house import TENANT, House, Pause
from tests.patience import PATIENCE_S
from tests.shredded import shred

from svsync.domain.federation import Mode
from svsync.domain.ids import TenantId
from svsync.services import tenants
from svsync.services.tenants import forget_shredded, keep_forgetting

SECRETS = "/v1/secrets/"


async def test_every_door_says_410_whatever_the_process_remembers(
    front: Front, other: House
) -> None:
    house = front.house
    await house.write("own/x", {"k": "1"})
    for _ in range(3):  # the last goes the short way
        assert (await front.client.get(f"{SECRETS}own/x")).status == 200
    assert (await front.client.get("/v1/secrets")).status == 200
    await shred(other)
    gone = (410, "tenant_shredded")
    for _ in range(2):
        assert (await front.client.get(f"{SECRETS}own/x")).told == gone
    assert (await front.client.get(f"{SECRETS}own/x?version=1")).told == gone
    assert (await front.client.get("/v1/secrets")).told == gone
    assert (await front.client.get("/v1/federation/backends")).told == gone
    put = await front.client.call("PUT", f"{SECRETS}own/y", json={"data": {"k": "2"}})
    assert put.told == gone
    assert (await front.client.get("/v1/auth/whoami")).told == gone
    assert await house.rows("secrets") == []


async def test_a_process_puts_away_what_it_has_of_it(front: Front, other: House) -> None:
    app = front.house.app
    await front.house.write("own/x", {"k": "1"})
    assert (await front.client.get(f"{SECRETS}own/x")).status == 200
    await app.checkpoints.run()
    assert TENANT in app.sealing._tenants
    assert TENANT in app.signing._signers
    assert app.reading._bytes
    await shred(other)
    await forget_shredded(app.db, app.forget)
    assert (app.sealing._tenants, app.signing._signers) == ({}, {})
    assert (list(app.reading._kept), app.reading._bytes) == ([], 0)


async def test_what_is_read_through_is_not_asked_for_any_more(front: Front, other: House) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    for _ in range(3):
        assert (await front.client.get(f"{SECRETS}ext/a")).status == 200
    assert house.app.proxying.open.many == 1
    await shred(other)
    await forget_shredded(house.app.db, house.app.forget)
    assert house.app.proxying.open.many == 0, "nor is its backend signed in to"
    asked = house.there.calls["read"]
    assert (await front.client.get(f"{SECRETS}ext/a")).told == (410, "tenant_shredded")
    assert house.there.calls["read"] == asked


@pytest.mark.parametrize("known", [False, True])
async def test_what_a_backend_says_after_it_is_not_answered(
    front: Front, other: House, known: bool
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    if known:
        for _ in range(3):
            assert (await front.client.get(f"{SECRETS}ext/a")).status == 200
    pause = Pause(house.there, "read")
    reading = asyncio.create_task(front.client.get(f"{SECRETS}ext/a"))
    await pause.reached.wait()
    await shred(other)
    pause.let_go()
    assert (await reading).told == (410, "tenant_shredded")
    assert len(await house.rows("audit", action="secret.read")) == (3 if known else 0)


async def test_no_way_to_a_backend_stays_open_that_was_being_opened_or_configured_anew(
    front: Front, other: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    opened = house.app.proxying.open
    usual = opened._backends.open
    entered, go_on, seen = asyncio.Event(), asyncio.Event(), []

    @asynccontextmanager
    async def slow(*given: Any, **more: Any) -> AsyncIterator[Any]:
        async with usual(*given, **more) as backend:
            entered.set()
            await go_on.wait()
            seen.append("open")
            yield backend
        seen.append("closed")

    monkeypatch.setattr(opened._backends, "open", slow)
    reading = asyncio.create_task(front.client.get(f"{SECRETS}ext/a"))
    await entered.wait()
    await shred(other)
    await forget_shredded(house.app.db, house.app.forget)
    go_on.set()
    assert (await reading).told == (410, "tenant_shredded")
    await forget_shredded(house.app.db, house.app.forget)
    assert (seen, opened.many) == (["open", "closed"], 0)


async def test_what_listens_for_its_backends_is_told_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenants, "LOOK_S", 0.01)
    told = asyncio.Event()

    async def once() -> None:
        told.set()

    async def forget(_: TenantId) -> None:
        looked.set()

    looked = asyncio.Event()
    made = await house.app.tenants.begin("acme")
    await house.app.tenants.shred(made, "acme")
    forgetting = asyncio.create_task(keep_forgetting(house.app.db, forget, once))
    await looked.wait()
    assert not told.is_set(), "that one was known when the process began"
    await shred(house)
    async with asyncio.timeout(PATIENCE_S):
        await told.wait()
    forgetting.cancel()


async def test_one_backend_that_does_not_close_keeps_the_service_from_nothing(
    front: Front, other: House, log: Callable[[], list[Any]]
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    assert (await front.client.get(f"{SECRETS}ext/a")).status == 200
    [held] = house.app.proxying.open._held.values()

    async def breaks() -> None:
        raise OSError("reset while closing")

    held.stack.push_async_callback(breaks)
    await shred(other)
    await forget_shredded(house.app.db, house.app.forget)
    assert house.app.proxying.open.many == 0
    [line] = [line for line in log() if line["event"] == "backend_not_closed"]
    assert "reset while closing" not in json.dumps(line)
