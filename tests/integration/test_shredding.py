"""A tenant that was shredded: nothing of it opens, nothing comes in again, nobody else is hurt."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from tests.api import Front
from tests.house import BACKEND, EVERYTHING, TENANT, House, Pause, backend, open_house
from tests.postgres import connected
from tests.receivers import Hanging, Receiver, webhook_desk
from tests.sealed import seal_everywhere
from tests.waiting import ask, scheduling, somebody_waits_for_a_lock, until

from svsync.config.model import LogFormat, LogLevel
from svsync.daemon.service import _Service
from svsync.domain.access import TenantShreddedError
from svsync.domain.audit import Decision, Entry
from svsync.domain.envelope import KeyPurpose, Purpose
from svsync.domain.errors import (
    AnchorError,
    FenceLostError,
    KeyServiceError,
    NotFoundError,
    StoreError,
    SvsyncError,
)
from svsync.domain.federation import ConflictPolicy, Mode, Writes
from svsync.domain.ids import KeyId, LocalPath, PushId, RemotePath, SecretId, TenantId
from svsync.domain.values import Payload
from svsync.observe.logs import configure
from svsync.services import tenants
from svsync.services import write_through as writing_through
from svsync.services.checkpoints import Checkpoints
from svsync.services.delivering import LANES
from svsync.services.pushes import Made, Sender
from svsync.services.retention import Retention
from svsync.services.sealing import Sealed
from svsync.services.sending import deliver
from svsync.services.tenants import Shredded, forget_shredded, keep_forgetting
from svsync.services.write_rows import Put
from svsync.store import checkpoints
from svsync.store import tenants as store

SECRETS = "/v1/secrets/"
KEPT = frozenset({"audit", "audit_chains", "backends", "backend_health", "runs", "leases"})
"""Tables that still name the tenant's backends, runs and accesses; none holds a value."""


class Late:
    """A place outside that is away for a while."""

    place = "file:/late"

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.away = False

    async def keep(self, lines: Sequence[str]) -> None:
        if self.away:
            raise AnchorError("it is away")
        self.lines += lines


@pytest.fixture
def log() -> Iterator[Callable[[], list[Any]]]:
    """What is logged in the test."""
    stream = StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    configure(LogLevel.INFO, LogFormat.JSON)


@pytest.fixture
async def other(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> AsyncIterator[House]:
    """A second process on the same store: the one of the command."""
    async with open_house(database_url, admin_url, state_dir, house.spec) as second:
        second.there._secrets = house.there._secrets
        yield second


async def shred(house: House) -> Shredded:
    return await house.app.tenants.shred(TENANT, "default")


def done_to(tenant: TenantId, action: str) -> Entry:
    """What a command records."""
    return Entry(tenant, "operator", "cli:a", action, Decision.ALLOW)


async def status(house: House) -> str:
    word: str = await house.admin.fetchval("SELECT status FROM tenants WHERE tenant_id = 1")
    return word


# --- what is gone -----------------------------------------------------------------------


async def test_nothing_that_was_sealed_is_left_and_no_key_that_opened_it(house: House) -> None:
    await seal_everywhere(house)
    await house.admin.execute(
        "INSERT INTO feed_secrets (tenant_id, secret_id, backend_id, feed, hash, created_by)"
        " VALUES (1, 'fds', $1, 'http', '', 'sa:a')",
        BACKEND,
    )
    await house.admin.execute(
        "INSERT INTO idempotency (tenant_id, identity_id, key, attempt, request)"
        " VALUES (1, 'sa:a', 'k', 'a', '')"
    )
    await house.admin.execute(
        "INSERT INTO stage (run_no, remote_path, gone) SELECT run_no, 'kv/named', false FROM runs"
    )
    done = await shred(house)
    assert (done.before, done.backends, done.secrets) == (False, 1, 5)
    for table in (*store.CLEARED, "secrets", "versions"):
        if table not in ("runs", "outbox"):
            assert await house.rows(table) == [], table
    keys = await house.rows("data_keys")
    assert {key["purpose"] for key in keys} >= {"value", "fingerprint", "webhook"}
    assert {(key["state"], key["wrapped"]) for key in keys} == {("destroyed", None)}
    dump = await house.dump(without=KEPT)
    assert not [
        line for lines in dump.values() for line in lines if "ext/" in line or "kv/" in line
    ]


async def wrapped_in_file(house: House, wrapped: Sequence[bytes]) -> bool:
    await house.admin.execute("CHECKPOINT")
    file = await house.admin.fetchval(
        "SELECT pg_read_binary_file(pg_relation_filepath('data_keys'))"
    )
    return any(key in file for key in wrapped)


async def test_the_file_of_the_table_of_keys_does_not_hold_them_any_more(
    house: House, admin_url: str
) -> None:
    """Nor does it where somebody still looks at the rows of before."""
    await house.write("own/x", {"k": "1"})
    await house.admin.execute("ANALYZE")
    wrapped = [key["wrapped"] for key in await house.rows("data_keys")]
    assert await wrapped_in_file(house, wrapped)
    async with connected(admin_url) as reader, reader.transaction(isolation="repeatable_read"):
        await reader.fetch("SELECT 1 FROM secrets")
        assert (await shred(house)).keys_erased
        assert not await wrapped_in_file(house, wrapped)
    sampled = "SELECT count(*) FROM pg_stats WHERE (tablename, attname) = ('data_keys', 'wrapped')"
    assert await house.admin.fetchval(sampled) == 0


async def test_where_that_may_not_be_done_it_is_said_and_tried_again(
    house: House, log: Callable[[], list[Any]]
) -> None:
    await house.write("own/x", {"k": "1"})
    wrapped = [key["wrapped"] for key in await house.rows("data_keys")]
    owner = await house.admin.fetchval(
        "SELECT tableowner FROM pg_tables WHERE tablename = 'data_keys'"
    )
    await house.admin.execute("ALTER TABLE data_keys OWNER TO CURRENT_USER")
    await house.admin.execute(f"GRANT ALL ON data_keys TO {owner}")
    done = await shred(house)
    assert (done.keys_erased, done.secrets) == (False, 1)
    assert "shredded_keys_not_erased" in [line["event"] for line in log()]
    assert await wrapped_in_file(house, wrapped)
    await house.admin.execute(f"ALTER TABLE data_keys OWNER TO {owner}")
    await house.app.tenants.clear_all()
    assert not await wrapped_in_file(house, wrapped)
    assert (await shred(house)).keys_erased


async def test_its_own_event_is_the_one_that_stays(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await shred(house)
    row = await house.row("outbox")
    assert (row["type"], row["pending"]) == ("tenant.shredded", False)
    assert row["payload"] == '{"tenant": "default", "sequence": 1}'


async def test_a_copy_of_a_ciphertext_does_not_open_by_what_a_process_still_has(
    house: House,
) -> None:
    """As from a backup of one table, while a process that read it lately is up."""
    await house.write("own/x", {"k": "mine"})
    row = await house.row("versions")
    secret = SecretId(row["secret_id"])
    held = await house.app.sealing.for_tenant(TENANT)
    sealed = Sealed(KeyId(row["key_id"]), row["nonce"], row["sealed"])
    opened = Purpose.VALUE, secret, LocalPath("own/x"), 1, sealed
    assert await held.open(*opened)
    await shred(house)
    with pytest.raises(KeyServiceError) as refused:
        await held.open(*opened)
    assert refused.value.code == "key_destroyed"
    with pytest.raises(TenantShreddedError):
        held.fingerprint(Payload.from_fields({"k": "mine"}))
    with pytest.raises(TenantShreddedError):
        await house.app.sealing.for_tenant(TENANT)


async def test_no_key_is_made_for_it_again(house: House) -> None:
    await house.write("own/x", {"k": "1"})
    await shred(house)
    for purpose in KeyPurpose:
        with pytest.raises(TenantShreddedError):
            await house.app.sealing.data_key(TENANT, purpose, 1)
    assert await house.app.sealing.replace_data_key(TENANT, KeyPurpose.VALUE) is None
    assert await house.app.keys.wrap_anew() is not None
    assert {key["wrapped"] for key in await house.rows("data_keys")} == {None}


async def test_other_tenants_are_as_they_were(house: House) -> None:
    made = await house.app.tenants.begin("acme")
    await house.app.tenants.open(made, "acme")
    keys = await house.rows("data_keys", tenant_id=made)
    assert {(key["purpose"], key["state"]) for key in keys} == {
        ("fingerprint", "active"), ("value", "active")
    }  # fmt: skip
    await house.write("own/x", {"k": "1"})
    put = Put(Payload.from_fields({"k": "theirs"}))
    await house.app.writes.put(made, LocalPath("own/x"), put, by="sa:test")
    await shred(house)
    _, text = await house.app.secrets.get(made, LocalPath("own/x"))
    assert json.loads(text) == {"k": "theirs"}
    now = await house.rows("data_keys", tenant_id=made)
    assert [key["wrapped"] for key in now] == [key["wrapped"] for key in keys]


# --- reads ------------------------------------------------------------------------------


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
    async with asyncio.timeout(20):
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


# --- what was under way -----------------------------------------------------------------


async def test_a_run_under_way_writes_nothing_more(house: House, other: House) -> None:
    house.there.generate("kv/", 700)
    pause = Pause(house.there, "read", "kv/0000/0000600")
    running = asyncio.create_task(house.run())
    await pause.reached.wait()
    done = await shred(other)
    pause.let_go()
    with pytest.raises(FenceLostError):
        await running
    assert done.backends == 1
    assert await house.rows("secrets") == []
    [run] = await house.rows("runs")
    assert run["state"] == "superseded"


async def test_a_write_with_keys_at_hand_is_refused(house: House, other: House) -> None:
    await house.write("own/x", {"k": "1"})
    await shred(other)
    with pytest.raises(TenantShreddedError):
        await house.write("own/x", {"k": "2"})
    with pytest.raises(TenantShreddedError):
        await house.write("own/y", {"k": "2"})
    assert await house.rows("secrets") == []


async def test_a_write_that_met_it_halfway_is_refused(house: House, other: House) -> None:
    """Its rows wait for their key, which is destroyed before they get it."""
    await house.write("own/x", {"k": "1"})
    async with house.admin.transaction():
        # Who shreds has the keys, and waits for the tenant.
        await house.admin.execute("SELECT FROM tenants FOR NO KEY UPDATE")
        shredding = asyncio.create_task(shred(other))
        await until(lambda: somebody_waits_for_a_lock(house))
        writing = asyncio.create_task(house.write("own/y", {"k": "2"}))
        await until(lambda: two_wait(house))
    assert (await shredding).before is False
    with pytest.raises(TenantShreddedError):
        await writing
    assert await house.rows("secrets") == []


async def two_wait(house: House) -> bool:
    waiting: int = await house.admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return waiting >= 2


async def test_a_write_that_was_first_is_waited_for(house: House) -> None:
    await house.write("own/x", {"k": "1"})
    async with house.admin.transaction():
        await house.admin.execute("SELECT FROM data_keys FOR KEY SHARE")
        shredding = asyncio.create_task(shred(house))
        await until(lambda: somebody_waits_for_a_lock(house))
        assert await status(house) == "active"
    assert (await shredding).secrets == 1


async def write_through(house: House) -> None:
    await house.configure(
        writes=Writes.WRITE_THROUGH, conflict_resolution=ConflictPolicy.BACKEND_WINS
    )
    house.there.put("kv/a", {"k": "1"})
    await house.run()


async def test_a_push_that_is_planned_is_not_sent(
    house: House, other: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_through(house)
    given_up = []

    async def met(sender: Sender, ids: Sequence[PushId]) -> list[Made]:
        given_up.append((await shred(other)).pushes)
        return await deliver(sender, ids)

    monkeypatch.setattr(writing_through, "deliver", met)
    with pytest.raises(SvsyncError):
        await house.write("ext/a", {"k": "2"})
    assert (given_up, house.there.calls["write"]) == ([1], 0)


async def test_nor_where_the_command_died_before_pushes_were_withdrawn(
    house: House, other: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_through(house)
    await house.data("ext/a")

    async def dies(*_: object) -> None:
        raise RuntimeError

    async def met(sender: Sender, ids: Sequence[PushId]) -> list[Made]:
        with monkeypatch.context() as patched:
            patched.setattr(store, "withdraw_pushes", dies)
            with pytest.raises(RuntimeError):
                await shred(other)
        return await deliver(sender, ids)

    monkeypatch.setattr(writing_through, "deliver", met)
    with suppress(SvsyncError):  # one that stood here before it was to be pushed is answered
        await house.write("ext/a", {"k": "2"})
    assert await status(house) == "shredded"
    assert {push["state"] for push in await house.rows("pushes")} == {"planned"}
    assert house.there.calls["write"] == 0


async def test_a_push_under_way_is_given_up(house: House, other: House) -> None:
    await write_through(house)
    pause = Pause(house.there, "write")
    writing = asyncio.create_task(house.write("ext/a", {"k": "2"}))
    await pause.reached.wait()
    done = await shred(other)
    pause.let_go()
    assert done.pushes == 1
    with pytest.raises(SvsyncError):
        await writing
    assert (await house.rows("pushes"), await house.rows("secrets")) == ([], [])


async def test_no_webhook_is_sent_that_its_secret_would_sign(
    house: House, other: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the command died before it cleared endpoints and events away."""

    async def dies(*_: object) -> None:
        raise RuntimeError

    async with webhook_desk(house) as desk, Receiver(hanging := Hanging()) as receiver:
        await desk.endpoint(receiver.url)
        await house.admin.execute(
            "INSERT INTO outbox (tenant_id, event_id, backend_id, sequence, type, payload, pending)"
            " SELECT 1, 'evt_' || n, 'fed_' || n, 1, 'federation.sync.completed',"
            """ '{"sequence": 1, "backend_id": "b"}', true FROM generate_series(1, $1) n""",
            LANES + 1,
        )
        delivering = asyncio.create_task(desk.deliveries.deliver_due())
        await receiver.received(LANES)
        with monkeypatch.context() as patched:
            patched.setattr(store, "withdraw_pushes", dies)
            with pytest.raises(RuntimeError):
                await shred(other)
        hanging.let_go()
        await delivering
        assert len(receiver.got) == LANES
        with pytest.raises(asyncpg.PostgresError, match="shredded"):  # by whoever was let in before
            async with house.app.db.transaction(TENANT) as tx:
                await tx._connection.execute("UPDATE endpoints SET state = 'active'")


# --- nothing comes in again -------------------------------------------------------------


async def test_nothing_is_pulled_again(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await ask(house)
    asked = dict(house.there.calls)
    done = await shred(house)
    assert done.runs == 1
    assert (await house.row("backends"))["state"] == "paused"
    with pytest.raises(TenantShreddedError):
        await house.run()
    await house.admin.execute("UPDATE backend_health SET next_due_at = now()")
    await scheduling(house).tick()
    assert await house.rows("runs", state="queued") == []
    await house.configure(sync_interval=61)
    assert (await house.row("backends"))["state"] == "paused"
    assert dict(house.there.calls) == asked
    assert await house.rows("secrets") == []


async def test_what_a_feed_tells_of_it_is_not_written_down(house: House) -> None:
    await shred(house)
    await scheduling(house).notice(TENANT, BACKEND, [RemotePath("kv/named")], "vault-events")
    assert await house.rows("dirty_paths") == []


async def test_its_backends_are_never_active_again(house: House) -> None:
    await shred(house)
    with pytest.raises(TenantShreddedError):
        await house.app.removal.resume(TENANT, BACKEND)
    with pytest.raises(asyncpg.PostgresError, match="shredded"):
        await house.admin.execute("UPDATE backends SET state = 'active'")
    assert (await house.row("backends"))["state"] == "paused"


async def test_a_backend_that_is_made_meanwhile_does_not_escape(house: House) -> None:
    made = (
        "INSERT INTO backends (tenant_id, backend_id, name, type, spec, mapping_hash, managed_by,"
        " syncs, interval_s) VALUES (1, 'fed_late', 'late', 'memory', '{}', '', 'api', true, 60)"
    )
    making = house.admin.transaction()
    await making.start()
    await house.admin.execute(made)
    await shred(house)
    with pytest.raises(asyncpg.PostgresError, match="shredded"):
        await making.commit()
    assert [row["backend_id"] for row in await house.rows("backends")] == [BACKEND]


async def test_one_that_was_committed_just_before_is_paused_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = store.pause_backends

    async def late(tx: Any) -> int:
        paused = await usual(tx)
        monkeypatch.setattr(store, "pause_backends", usual)
        await house.admin.execute(
            "INSERT INTO backends (tenant_id, backend_id, name, type, spec, mapping_hash,"
            " managed_by, syncs, interval_s)"
            " VALUES (1, 'fed_late', 'late', 'memory', '{}', '', 'api', true, 60)"
        )
        return paused

    monkeypatch.setattr(store, "pause_backends", late)
    assert (await shred(house)).backends == 2
    assert {row["state"] for row in await house.rows("backends")} == {"paused"}


# --- broken off -------------------------------------------------------------------------


async def test_broken_off_before_the_end_of_its_transaction_nothing_was_done(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.write("own/x", {"k": "1"})

    async def dies(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(store, "tell", dies)
        with pytest.raises(RuntimeError):
            await shred(house)
    assert await status(house) == "active"
    assert await house.data("own/x") == {"k": "1"}
    assert (await shred(house)).before is False


@pytest.mark.parametrize("dead", ["withdraw_pushes", "clear", "clear_secrets"])
async def test_broken_off_after_it_nothing_opens_and_the_same_again_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    await seal_everywhere(house)

    async def dies(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(store, dead, dies)
        with pytest.raises(RuntimeError):
            await shred(house)
    assert await status(house) == "shredded"
    assert {key["wrapped"] for key in await house.rows("data_keys")} == {None}
    assert await house.rows("versions")
    done = await shred(house)
    assert (done.before, done.secrets, done.keys) == (True, 5, 0)
    assert await house.rows("versions") == []
    assert len(await house.rows("outbox")) == 1


async def test_the_service_clears_away_what_was_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.write("own/x", {"k": "1"})

    async def dies(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(store, "clear_secrets", dies)
        with pytest.raises(RuntimeError):
            await shred(house)
    await house.app.tenants.clear_all()
    assert await house.rows("secrets") == []


async def test_the_service_does_so_also_where_retention_fails(
    house: House, monkeypatch: pytest.MonkeyPatch, log: Callable[[], list[Any]]
) -> None:
    await house.write("own/x", {"k": "1"})

    async def dies(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(store, "clear_secrets", dies)
        with pytest.raises(RuntimeError):
            await shred(house)

    async def fails(*_: object) -> None:
        raise StoreError("there is no room")

    monkeypatch.setattr(Retention, "run_all", fails)
    service: Any = SimpleNamespace(_app=house.app, _name="a")
    tidying = asyncio.create_task(_Service._keep_tidy(service))

    async def cleared() -> bool:
        return await house.rows("secrets") == []

    await until(cleared)
    tidying.cancel()
    assert ("tidying_waits", "retention") in [(line["event"], line.get("detail")) for line in log()]


async def test_only_a_shredded_tenant_is_cleared(house: House) -> None:
    await house.write("own/x", {"k": "1"})
    await house.app.tenants.clear_all()
    with pytest.raises(StoreError, match="not shredded"):
        await house.app.tenants._clear(TENANT, Shredded(before=True), lambda done, total: None)
    assert await house.data("own/x") == {"k": "1"}


# --- making -----------------------------------------------------------------------------


async def test_a_tenant_whose_making_was_broken_off_is_gone_on_with(house: House) -> None:
    made = await house.app.tenants.begin("acme")
    assert await house.app.tenants.begin("acme") == made
    await house.app.tenants.open(made, "acme")
    with pytest.raises(SvsyncError) as taken:
        await house.app.tenants.begin("acme")
    assert taken.value.code == "tenant_exists"
    with pytest.raises(SvsyncError) as taken:
        await house.app.tenants.open(made, "acme")
    assert taken.value.code == "tenant_exists"


async def test_a_checkpoint_that_came_between_does_not_take_its_slug(house: House) -> None:
    """It signs that the tenant is being made, with the tenant's first key."""
    made = await house.app.tenants.begin("acme")
    await house.app.recorder.record(done_to(made, "tenant.create"))
    await house.app.checkpoints.run()
    [key] = await house.rows("data_keys", tenant_id=made)
    assert key["purpose"] == "audit_sign"
    assert await house.app.tenants.begin("acme") == made
    await house.app.tenants.open(made, "acme")
    assert (await house.row("tenants", slug="acme"))["status"] == "active"


async def test_the_slug_of_a_shredded_tenant_is_taken_for_good(house: House) -> None:
    await shred(house)
    with pytest.raises(SvsyncError) as taken:
        await house.app.tenants.begin("default")
    assert (taken.value.code, "shredded" in taken.value.message) == ("tenant_exists", True)
    with pytest.raises(NotFoundError):
        await house.app.tenants.find("nobody")
    assert TenantId(1) in await store.shredded(house.app.db)


async def test_a_file_that_names_it_is_told_so(house: House, log: Callable[[], list[Any]]) -> None:
    await shred(house)
    await house.app.federation.apply([backend(EVERYTHING)])
    [line] = [line for line in log() if line["event"] == "backend_passed_over"]
    assert line["detail"] == "its tenant was shredded: take it out of the file"


async def test_of_two_at_once_each_is_signed_that_still_has_a_key(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for slug in ("bbb", "ccc"):
        tenant = await house.app.tenants.begin(slug)
        await house.app.tenants.open(tenant, slug)
        await house.app.recorder.record(done_to(tenant, "tenant.shred"))
        made.append(tenant)
    usual = checkpoints.went_on

    async def late(tx: Any, tenants: Sequence[TenantId]) -> Any:
        due = await usual(tx, tenants)
        await house.app.tenants.shred(made[0], "bbb")
        return due

    monkeypatch.setattr(checkpoints, "went_on", late)
    assert await house.app.checkpoints.run() == 1
    assert [row["tenant_id"] for row in await house.rows("audit_checkpoints")] == [made[1]]


async def test_its_last_checkpoint_is_anchored_where_a_place_was_away_meanwhile(
    house: House,
) -> None:
    place = Late()
    points = Checkpoints(house.app.db, house.app.signing, [place])
    for action in ("tenant.look", "tenant.shred"):
        await house.app.recorder.record(done_to(TENANT, action))
        await points.run()
        place.away = True
    await shred(house)
    assert len(place.lines) == 1
    place.away = False
    await points.run()
    assert len(place.lines) == len(await house.rows("audit_checkpoints")) == 2


async def test_beside_runs_and_writes_it_loses_to_nobody(house: House, other: House) -> None:
    """Whatever is under way ends before it or is refused by it, and no row outlives it."""
    house.there.generate("kv/", 700)
    await house.write("own/0/0", {"k": "0"})

    async def write_on(desk: House, name: int) -> BaseException:
        for n in range(10_000):
            try:
                await desk.write(f"own/{name}/{n}", {"k": str(n)})
            except SvsyncError as refused:
                return refused
        raise AssertionError("it was never refused")

    async def run_on() -> BaseException:
        while True:
            try:
                await house.run()
            except SvsyncError as refused:
                return refused

    working = [asyncio.create_task(write_on(house, n)) for n in range(1, 4)]
    working.append(asyncio.create_task(run_on()))

    async def some_are_there() -> bool:
        return len(await house.rows("secrets")) > 100

    await until(some_are_there)
    done = await shred(other)
    refused = await asyncio.gather(*working)
    assert not done.before
    assert {type(one) for one in refused} <= {TenantShreddedError, FenceLostError}
    assert (await house.rows("secrets"), await house.rows("versions")) == ([], [])
    await other.app.tenants.clear_all()
    for table in store.CLEARED:
        if table not in ("runs", "outbox"):
            assert await house.rows(table) == [], table
