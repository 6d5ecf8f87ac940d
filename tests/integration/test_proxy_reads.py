"""Reads that pass through: who is asked, who shares the answer, what is recorded and told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.api import ROBOT, Answer, Front, front, open_front
from tests.canary import Canary
from tests.house import BACKEND, TENANT, House, Pause, backend, house
from tests.waiting import queued, try_once, until

from svsync.app import new_id
from svsync.domain.access import Call, Caller, Scope
from svsync.domain.changes import RemoteUnknown
from svsync.domain.errors import (
    BackendTimeoutError,
    BackendUnreachableError,
    NotFoundError,
    StoreUnavailableError,
    SvsyncError,
    ThrottledError,
)
from svsync.domain.federation import Mode, Overrides, RuleSpec, TagTransform
from svsync.domain.ids import BackendId, LocalPath, TenantId
from svsync.domain.policies import ADMIN, Permissions
from svsync.domain.values import Payload
from svsync.observe.meter import Meter
from svsync.services.answers import Secret, Source
from svsync.services.authority import Rights
from svsync.services.call_budgets import CallBudgets
from svsync.services.open_backends import OpenBackends
from svsync.services.proxying import open_proxying
from svsync.services.reading import Reading
from svsync.store import audit
from svsync.store import federation as stored_backends

__all__ = ["front", "house"]

PATH = LocalPath("ext/a")
URL = "/v1/secrets/ext/a"
NOBODY = Permissions([])
STANDBY = BackendId("fed_second")


@pytest.fixture(autouse=True)
def _tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    try_once(monkeypatch)


@pytest.fixture
async def proxied(house: House) -> House:
    """A house that reads `kv/**` through, with one secret there."""
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    return house


@asynccontextmanager
async def reads_of(house: House, **settings: Any) -> AsyncIterator[Reading]:
    """The read path once more, with settings of `open_proxying`."""
    app = house.app
    async with open_proxying(
        app.db, app.recorder, app.registry, ids=new_id, **settings
    ) as proxying:
        yield Reading(app.db, app.recorder, app.sealing, proxying)


async def read(
    house: House,
    path: str = PATH,
    *,
    permissions: Permissions = ADMIN,
    version: int | None = None,
    reading: Reading | None = None,
    tenant: TenantId = TENANT,
) -> Secret:
    caller = Caller(tenant, "default", ROBOT, "tok_1", frozenset(Scope))
    rights = Rights(caller, permissions, until=0)
    call = Call(caller, new_id("req"), "127.0.0.1")
    used = reading or house.app.reading
    return await used.read(call, rights, LocalPath(path), version, fresh=True)


async def code_of(house: House, path: str = PATH, **options: Any) -> str:
    with pytest.raises(SvsyncError) as refused:
        await read(house, path, **options)
    return refused.value.code


async def recorded(house: House) -> list[tuple[str, str, str | None, int | None]]:
    rows = await house.admin.fetch("SELECT * FROM audit ORDER BY chain_id, seq")
    return [(r["secret_path"], r["decision"], r["backend_id"], r["version"]) for r in rows]


async def calls_end(house: House) -> None:
    """Until no call of a backend is under way."""

    async def ended() -> bool:
        return not house.app.proxying.flights.under_way

    await until(ended)


async def wait_for_callers(house: House, many: int) -> None:
    """Until so many wait for a call of a backend."""

    async def waiting() -> bool:
        return house.app.proxying.flights.waiting == many

    await until(waiting)


# --- what is answered -----------------------------------------------------------------


async def test_secret_is_read_through_recorded_and_stored_nowhere(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    for number in "12":
        house.there.put("kv/a", {"k": number})
    house.there.tag("kv/a", {"team": "billing", "svsync-managed": "yes"})
    before = await house.dump()
    answer: Answer = await front.client.get(URL)
    assert answer.status == 200
    assert answer.body == {
        "path": "ext/a",
        "data": {"k": "2"},
        "secret_type": "json",
        "version": 2,
        "created_at": answer.body["created_at"],
        "metadata": {
            "tags": ["team=billing"],
            "owner": None,
            "description": None,
            "custom": {"team": "billing"},
        },
        "federation": {
            "backend_id": BACKEND,
            "mode": "proxy",
            "synced_at": None,
            "status": "proxied",
        },
    }
    assert answer.headers["X-SVSync-Source"] == "backend"
    assert answer.headers["ETag"] == '"v2"'
    assert await recorded(house) == [("ext/a", "allow", BACKEND, 2)]
    assert house.there.calls["read"] == 1
    after = await house.dump()
    assert {name for name in after if after[name] != before[name]} <= {
        "audit_chains", "tokens", *(name for name in after if name.startswith("audit_20"))
    }  # fmt: skip


async def test_answer_is_what_a_pull_would_store(house: House) -> None:
    rules = (
        RuleSpec("ext/**", "kv/**", tags=TagTransform("{key}:{value}", rename={"team": "group"})),
    )
    await house.configure(mode=Mode.PROXY, rules=rules)
    house.there.put("kv/a", Payload.from_json_text(b'{"n": 1.10, "big": 12345678901234567890}'))
    house.there.put("kv/b", Payload.from_text("plain \x00 text"))
    house.there.put("kv/c", Payload.from_bytes(b"\xff\x00"))
    house.there.tag("kv/a", {"team": "a", "b": "c"})
    names = "abc"
    through = [await read(house, f"ext/{name}") for name in names]
    await house.configure(mode=Mode.SYNC)
    await house.run()
    here = [await read(house, f"ext/{name}") for name in names]
    assert through[0].data == b'{"n": 1.10, "big": 12345678901234567890}'
    for one, other in zip(through, here, strict=True):
        assert one.source is Source.BACKEND
        assert other.source is None
        assert (one.data, one.version) == (other.data, other.version)
        assert (
            one.after.partition(b',"federation"')[0] == other.after.partition(b',"federation"')[0]
        )


async def test_earlier_version_is_not_asked_for(proxied: House) -> None:
    assert await code_of(proxied, version=1) == "version_not_found"
    assert not proxied.there.calls["read"]
    assert await recorded(proxied) == [("ext/a", "allow", BACKEND, None)]


async def test_path_of_no_rule_costs_no_call(proxied: House) -> None:
    assert await code_of(proxied, "other/a") == "secret_not_found"
    assert not proxied.there.calls
    assert await recorded(proxied) == [("other/a", "allow", None, None)]


async def test_local_secret_beside_a_proxied_rule_is_served_here(proxied: House) -> None:
    await proxied.write("app/a", {"k": "here"})
    found = await read(proxied, "app/a")
    assert (found.data, found.source) == (b'{"k": "here"}', None)
    assert not proxied.there.calls


# --- what is not answered -------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [
        ("removed", 404, "secret_not_found"),
        ("deleted", 404, "secret_not_found"),
        ("denied", 502, "backend_denied"),
        ("undecodable", 502, "remote_unreadable"),
        ("too large", 502, "remote_unreadable"),
        ("bad tags", 502, "remote_unreadable"),
        ("unreachable", 502, "backend_unreachable"),
        ("paused", 409, "backend_paused"),
        ("broken", 500, "internal"),
    ],
)
async def test_what_the_backend_does_not_give_is_told_and_recorded(
    front: Front, what: str, status: int, code: str
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    there = house.there
    there.put("kv/a", {"k": "1"})
    match what:
        case "removed":
            there.remove("kv/a")
        case "deleted":
            there.delete("kv/a")
        case "denied":
            there.denied.add("kv/")
        case "undecodable":
            there.unreadable["kv/a"] = RemoteUnknown("undecodable", "at offset 7")
        case "too large":
            await house.configure(max_value_bytes=4)
        case "bad tags":
            there.tag("kv/a", {"team": "a\x00b"})
        case "unreachable":
            there.fail("read", BackendUnreachableError("inner text", operation="read"))
        case "paused":
            await house.app.removal.pause(TENANT, BACKEND)
        case "broken":
            there.fail("read", ValueError("inner text"))
    answer = await front.client.get(URL)
    assert answer.told == (status, code)
    assert "inner" not in str(answer.body)
    assert await recorded(house) == [("ext/a", "allow", BACKEND, None)]


async def test_credential_that_is_missing_does_not_look_like_a_missing_secret(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)

    def open_nothing(*_: object, **__: object) -> object:
        raise NotFoundError("there is no secret at infra/vault", code="secret_not_found")

    monkeypatch.setattr(house.app.registry, "open", open_nothing)
    answer = await front.client.get(URL)
    assert answer.told == (502, "backend_unusable")
    assert "infra" not in str(answer.body)


async def test_what_cannot_be_recorded_is_not_answered(
    proxied: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(audit, "record", away)
    assert await code_of(proxied) == "audit_unavailable"
    assert proxied.there.calls["read"] == 1


async def test_failed_connection_asks_for_one_probe_and_judges_nothing(proxied: House) -> None:
    away = BackendUnreachableError("away", operation="read", sent=False)
    proxied.there.fail("read", away, away)
    assert await queued(proxied) == []
    for _ in range(2):
        assert await code_of(proxied) == "backend_unreachable"
    assert await queued(proxied) == [("probe", "probe")]
    health = await proxied.row("backend_health")
    assert (health["connection_failures"], health["status"]) == (0, "healthy")


async def test_probe_that_waits_for_its_time_is_not_hurried(proxied: House) -> None:
    await proxied.admin.execute(
        "INSERT INTO runs (tenant_id, run_id, backend_id, kind, trigger, not_before)"
        " VALUES ($1, 'run_1', $2, 'probe', 'probe', now() + interval '1 minute')",
        TENANT, BACKEND,
    )  # fmt: skip
    proxied.there.fail("read", BackendUnreachableError("away", operation="read"))
    assert await code_of(proxied) == "backend_unreachable"
    [run] = await proxied.rows("runs", state="queued")
    assert run["not_before"] > run["queued_at"]


@pytest.mark.parametrize(("asked", "told"), [(None, "1"), (0.2, "1"), (6.5, "7")])
async def test_backend_that_asks_for_fewer_calls_is_told_with_when_to_come_again(
    front: Front, asked: float | None, told: str
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.fail("read", ThrottledError("inner text", operation="read", retry_after=asked))
    answer = await front.client.get(URL)
    assert (answer.told, answer.headers["Retry-After"]) == ((502, "throttled"), told)


class Heard(Meter):
    """Takes down what reads are told as."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, str, str]] = []

    def read_served(self, tenant: str, mode: str, status: str, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.reads.append((tenant, mode, status))


async def test_each_read_of_a_value_is_counted_by_what_came_of_it(house: House) -> None:
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    await house.write("own/a", {"k": "1"})
    heard = Heard()
    async with open_front(house, meter=heard) as front:
        nobody = front.client.with_token(await front.token(Scope.SECRETS_READ))
        secrets = "/v1/secrets"
        for path in ("own/a", "own/none", "ext/a", "ext/none", "ext/a?version=1"):
            await front.client.get(f"{secrets}/{path}")
        await nobody.get(f"{secrets}/own/a")
        writer = front.client.with_token(await front.token(Scope.SECRETS_WRITE))
        await writer.get(f"{secrets}/own/a")
        house.there.fail("read", BackendUnreachableError("away", operation="read"))
        await front.client.get(URL)
        house.there.denied.add("kv/")
        await front.client.get(URL)
        house.there.fail("read", ValueError("a bug"))
        await front.client.get(URL)
        await house.app.removal.pause(TENANT, BACKEND)
        await front.client.get(URL)
        await front.client.get(f"{secrets}/own/a?versions=true")
        await front.client.get(secrets)
    assert heard.reads == [
        ("default", mode, status)
        for mode, status in (
            ("local", "ok"), ("local", "not_found"),
            ("proxy", "ok"), ("proxy", "not_found"), ("proxy", "not_found"),
            ("local", "not_found"), ("local", "denied"),
            ("proxy", "unreachable"), ("proxy", "error"), ("local", "error"), ("proxy", "error"),
        )
    ]  # fmt: skip


# --- policy before anything -----------------------------------------------------------


async def test_denied_caller_reaches_no_backend_and_learns_nothing(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    client = front.client.with_token(await front.token(Scope.SECRETS_READ))
    there, missing = await client.get(URL), await client.get("/v1/secrets/ext/none")
    assert there.told == missing.told == (404, "secret_not_found")
    assert not house.there.calls
    assert [row[1:] for row in await recorded(house)] == [("deny", None, None)] * 2


async def test_caller_who_may_not_shares_no_call(proxied: House) -> None:
    pause = Pause(proxied.there, "read")
    allowed = asyncio.create_task(read(proxied))
    await pause.reached.wait()
    assert await code_of(proxied, permissions=NOBODY) == "secret_not_found"
    pause.let_go()
    assert (await allowed).data == b'{"k": "1"}'
    assert sorted(row[1] for row in await recorded(proxied)) == ["allow", "deny"]


async def test_other_tenants_path_is_not_this_ones(front: Front) -> None:
    await front.house.configure(mode=Mode.PROXY)
    front.house.there.put("kv/a", {"k": "1"})
    other = front.client.with_token(await front.other_tenant())
    assert (await front.client.get(URL)).status == 200
    assert (await other.get(URL)).told == (404, "secret_not_found")
    assert front.house.there.calls["read"] == 1


# --- one call for all who wait --------------------------------------------------------


async def test_callers_at_once_share_a_call_each_with_a_row(proxied: House) -> None:
    pause = Pause(proxied.there, "read")
    reading = [asyncio.create_task(read(proxied)) for _ in range(10)]
    await pause.reached.wait()
    await wait_for_callers(proxied, 10)
    pause.let_go()
    assert {secret.data for secret in await asyncio.gather(*reading)} == {b'{"k": "1"}'}
    assert proxied.there.calls["read"] == 1
    assert await recorded(proxied) == [("ext/a", "allow", BACKEND, 1)] * 10


async def test_next_read_makes_a_call_of_its_own(proxied: House) -> None:
    await read(proxied)
    proxied.there.put("kv/a", {"k": "2"})
    assert (await read(proxied)).data == b'{"k": "2"}'
    assert proxied.there.calls["read"] == 2


async def test_caller_who_goes_takes_nobodys_call_away(proxied: House) -> None:
    pause = Pause(proxied.there, "read")
    first = asyncio.create_task(read(proxied))
    await pause.reached.wait()
    second = asyncio.create_task(read(proxied))
    await wait_for_callers(proxied, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    pause.let_go()
    assert (await second).data == b'{"k": "1"}'
    assert proxied.there.calls["read"] == 1


async def test_call_that_nobody_waits_for_ends(proxied: House) -> None:
    pause = Pause(proxied.there, "read")
    alone = asyncio.create_task(read(proxied))
    await pause.reached.wait()
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    await calls_end(proxied)  # though nobody let it go
    assert (await read(proxied)).data == b'{"k": "1"}'


async def test_error_is_shared_too(proxied: House) -> None:
    proxied.there.fail("read", BackendUnreachableError("away", operation="read"))
    pause = Pause(proxied.there, "read")
    reading = [asyncio.create_task(code_of(proxied)) for _ in range(3)]
    await pause.reached.wait()
    await wait_for_callers(proxied, 3)
    pause.let_go()
    assert await asyncio.gather(*reading) == ["backend_unreachable"] * 3


async def test_backend_that_does_not_answer_in_time(proxied: House) -> None:
    Pause(proxied.there, "read")
    async with reads_of(proxied, patience=0.0) as reading:
        with pytest.raises(BackendTimeoutError) as late:
            await read(proxied, reading=reading)
    assert late.value.code == "backend_unreachable"
    assert await recorded(proxied) == [("ext/a", "allow", BACKEND, None)]
    assert await queued(proxied) == [("probe", "probe")]


async def test_reads_under_way_are_told_that_the_process_stops(proxied: House) -> None:
    pause = Pause(proxied.there, "read")
    async with reads_of(proxied) as reading:
        late = asyncio.create_task(code_of(proxied, reading=reading))
        await pause.reached.wait()
    assert await late == "stopping"


# --- flips ----------------------------------------------------------------------------


async def test_flip_to_proxy_counts_for_the_next_read(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    assert (await read(house)).data == b'{"k": "1"}'
    await house.configure(mode=Mode.PROXY)
    found = await read(house)
    assert (found.data, found.source) == (b'{"k": "2"}', Source.BACKEND)


async def test_flip_to_sync_falls_through_until_its_first_complete_pass(front: Front) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    await front.client.get(URL)
    await house.configure(mode=Mode.SYNC)
    answer = await front.client.get(URL)
    assert answer.headers["X-SVSync-Source"] == "backend"
    assert answer.body["federation"]["mode"] == "sync"
    assert answer.body["federation"]["status"] == "initial"
    await house.run("ext/a")
    house.there.put("kv/b", {"k": "1"})
    here = await front.client.get(URL)
    assert "X-SVSync-Source" not in here.headers
    assert here.body["federation"]["status"] == "in_sync"
    assert (await front.client.get("/v1/secrets/ext/b")).headers["X-SVSync-Source"] == "backend"
    await house.run()
    calls = house.there.calls.copy()
    assert (await front.client.get("/v1/secrets/ext/none")).told == (404, "secret_not_found")
    assert house.there.calls == calls, "a local miss is the answer now"


async def test_path_that_was_deleted_here_does_not_fall_through(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.delete("kv/a")
    await house.bury("ext/a")
    await house.run()
    await house.configure(mode=Mode.PROXY)
    house.there.undelete("kv/a")
    assert (await read(house)).source is Source.BACKEND
    await house.configure(mode=Mode.SYNC)
    assert await code_of(house) == "secret_not_found"


async def test_each_rule_has_its_mode(house: House) -> None:
    rules = (
        RuleSpec("ext/app/**", "kv/app/**", overrides=Overrides(mode=Mode.PROXY)),
        RuleSpec("ext/private/**", "kv/private/**", exclude=True),
        RuleSpec("ext/**", "kv/**"),
    )
    await house.configure(rules=rules)
    for name in ("app/a", "b", "private/c"):
        house.there.put(f"kv/{name}", {"k": "1"})
    assert (await read(house, "ext/app/a")).source is Source.BACKEND
    for path in ("ext/b", "ext/private/c"):
        assert await code_of(house, path) == "secret_not_found"
    assert house.there.calls["read"] == 1


@pytest.mark.parametrize("change", ["mapping", "pause", "removal"])
async def test_change_of_a_backend_counts_for_the_next_read(proxied: House, change: str) -> None:
    assert (await read(proxied)).data == b'{"k": "1"}'
    if change == "mapping":
        await proxied.configure(rules=(RuleSpec("ext/**", "elsewhere/**"),))
        assert await code_of(proxied) == "secret_not_found"
        proxied.there.put("elsewhere/a", {"k": "other"})
        assert (await read(proxied)).data == b'{"k": "other"}'
    elif change == "pause":
        await proxied.app.removal.pause(TENANT, BACKEND)
        assert await code_of(proxied) == "backend_paused"
        await proxied.app.removal.resume(TENANT, BACKEND)
        assert (await read(proxied)).data == b'{"k": "1"}'
    else:
        await proxied.app.federation.apply([])
        proxied.app.removal.know_file(set())
        await proxied.app.removal.remove(TENANT, BACKEND)
        assert await code_of(proxied) == "secret_not_found"
        assert proxied.there.calls["read"] == 1


async def test_call_of_before_a_change_is_not_shared_after_it(proxied: House) -> None:
    pause = Pause(proxied.there, "read")
    before = asyncio.create_task(read(proxied))
    await pause.reached.wait()
    await proxied.configure(rules=(RuleSpec("ext/**", "elsewhere/**"),))
    proxied.there.put("elsewhere/a", {"k": "other"})
    assert (await read(proxied)).data == b'{"k": "other"}'
    pause.let_go()
    assert (await before).data == b'{"k": "1"}'


async def test_reads_through_flips_always_find_the_secret(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.configure(mode=Mode.PROXY)
    flipping = True
    found: list[Secret] = []

    async def keep_reading() -> None:
        while flipping:
            found.append(await read(house))

    reading = [asyncio.create_task(keep_reading()) for _ in range(4)]
    for _ in range(4):
        await house.configure(mode=Mode.SYNC)
        await house.run()
        found.append(await read(house))
        await house.configure(mode=Mode.PROXY)
        found.append(await read(house))
    flipping = False
    await asyncio.gather(*reading)
    assert {secret.data for secret in found} == {b'{"k": "1"}'}
    assert {secret.source for secret in found} == {None, Source.BACKEND}


async def test_copy_that_comes_to_be_seen_while_owners_are_looked_up_is_found(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.configure(mode=Mode.PROXY)
    usual = house.app.proxying.owners

    async def late(*args: Any) -> Any:
        monkeypatch.undo()
        await house.configure(mode=Mode.SYNC)
        await house.run()
        return await usual(*args)

    monkeypatch.setattr(house.app.proxying, "owners", late)
    found = await read(house)
    assert (found.data, found.source) == (b'{"k": "1"}', None)


async def test_epoch_rises_with_what_changes_reads_and_with_nothing_else(house: House) -> None:
    async def epoch() -> int:
        async with house.app.db.transaction(TENANT) as tx:
            return await stored_backends.epoch(tx)

    first = await epoch()
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.app.federation.apply([house.spec])
    assert await epoch() == first
    await house.configure(mode=Mode.PROXY)
    second = await epoch()
    assert second > first
    await house.configure(mode=Mode.SYNC)
    third = await epoch()
    await house.run()
    assert await epoch() > third > second, "the initial sync is over"


# --- standby --------------------------------------------------------------------------


async def with_standby(house: House) -> None:
    house.spec = replace(house.spec, mode=Mode.PROXY)
    second = backend(
        (RuleSpec("ext/**", "second/**"),),
        STANDBY, mode=Mode.PROXY, extra={"standby_for": BACKEND},
    )  # fmt: skip
    await house.app.federation.apply([house.spec, second])
    house.there.put("kv/a", {"k": "owner"})
    house.there.put("second/a", {"k": "standby"})


def take_away(house: House, *prefixes: str) -> None:
    async def lost(operation: str, path: str) -> None:
        if path.startswith(prefixes):
            raise BackendUnreachableError("away", operation="read", sent=False)

    house.there.before = lost


async def test_standby_is_read_while_the_owner_cannot_be_reached(front: Front) -> None:
    await with_standby(front.house)
    take_away(front.house, "kv/")
    for _ in range(2):
        answer = await front.client.get(URL)
        assert answer.headers["X-SVSync-Source"] == "standby"
        assert answer.body["data"] == {"k": "standby"}
        assert answer.body["federation"]["backend_id"] == STANDBY
    assert [row[2] for row in await recorded(front.house)] == [STANDBY] * 2
    assert front.house.there.calls["read"] == 3, "the owner is left alone for a moment"


@pytest.mark.parametrize("owner", ["gone", "denied"])
async def test_standby_is_not_asked_where_the_owner_answers(house: House, owner: str) -> None:
    await with_standby(house)
    if owner == "gone":
        house.there.remove("kv/a")
        assert await code_of(house) == "secret_not_found"
    else:
        house.there.denied.add("kv/")
        assert await code_of(house) == "backend_denied"
    assert house.there.calls["read"] == 1


@pytest.mark.parametrize("standby", ["away", "gone"])
async def test_standby_without_a_value_says_nothing_of_the_owner(
    house: House, standby: str
) -> None:
    await with_standby(house)
    if standby == "gone":
        house.there.remove("second/a")
    take_away(house, *(("kv/", "second/") if standby == "away" else ("kv/",)))
    for _ in range(2):
        assert await code_of(house) == "backend_unreachable"


async def test_standby_of_a_paused_backend_is_not_asked(house: House) -> None:
    await with_standby(house)
    await house.app.removal.pause(TENANT, BACKEND)
    assert await code_of(house) == "backend_paused"
    assert not house.there.calls["read"]


# --- backends that stay open ----------------------------------------------------------


async def test_backend_stays_open_and_is_opened_anew_when_it_was_configured_anew(
    proxied: House,
) -> None:
    opened = proxied.app.proxying.open
    for name in "ab":
        proxied.there.put(f"kv/{name}", {"k": "1"})
        await read(proxied, f"ext/{name}")
    assert opened.many == 1
    await proxied.configure(max_value_bytes=1000)
    await read(proxied)
    assert opened.many == 2
    await opened.close_unused()
    assert opened.many == 1, "the one of before"


async def test_idle_backend_is_closed_and_one_in_hand_is_not(proxied: House) -> None:
    now = [0.0]
    budgets = CallBudgets(proxied.app.db)
    opened = OpenBackends(proxied.app.registry, budgets, clock=lambda: now[0], idle_s=10)
    async with proxied.app.db.transaction(TENANT) as tx:
        stored = await stored_backends.get(tx, BACKEND)
    async with opened.use(TENANT, stored) as first:
        now[0] = 100.0
        await opened.close_unused()
        await first.read([proxied_path()])
    now[0] = 109.0
    await opened.close_unused()
    assert opened.many == 1
    now[0] = 110.0
    await opened.close_unused()
    assert opened.many == 0
    with pytest.raises(BackendUnreachableError):
        await first.read([proxied_path()])


def proxied_path() -> Any:
    return "kv/a"


async def test_backend_that_could_not_be_opened_is_tried_again(
    proxied: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = proxied.app.registry
    usual = registry.open
    failing = [True]

    def once(*args: Any, **options: Any) -> Any:
        if failing.pop():
            failing.append(False)
            raise SvsyncError("no", code="credential_unavailable")
        failing.append(False)
        return usual(*args, **options)

    monkeypatch.setattr(registry, "open", once)
    assert await code_of(proxied) == "backend_unusable"
    assert (await read(proxied)).data == b'{"k": "1"}'


# --- nothing at rest ------------------------------------------------------------------


async def test_value_that_was_read_through_is_nowhere_afterwards(
    canary: Canary, front: Front, state_dir: Any
) -> None:
    house = front.house
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": canary.value("a")})
    house.there.put("kv/large", Payload.from_text(canary.value("large")))
    assert canary.marker in (await front.client.get(URL)).body["data"]["k"]
    await house.configure(max_value_bytes=10)
    told = [await front.client.get("/v1/secrets/ext/large")]
    house.there.fail("read", ValueError(canary.value("in a bug")))
    told.append(await front.client.get(URL))
    house.there.denied.add("kv/")
    told.append(await front.client.get(URL))
    assert [answer.status for answer in told] == [502, 500, 502]
    canary.watch("what was told", lambda: repr(told))
    canary.watch("the process", lambda: repr(house.app.proxying) + repr(vars(house.app.proxying)))
    canary.watch_folder(state_dir)
