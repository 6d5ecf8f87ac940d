"""A tenant that was shredded: nothing of it is left or opens, whatever breaks off meanwhile."""

import asyncio
import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from tests.house import BACKEND, TENANT, House
from tests.postgres import connected
from tests.sealed import seal_everywhere
from tests.shredded import broken_off, done_to, shred, status
from tests.waiting import until

from svsync.daemon.service import _Service
from svsync.domain.access import TenantShreddedError
from svsync.domain.envelope import KeyPurpose, Purpose
from svsync.domain.errors import AnchorError, KeyServiceError, StoreError
from svsync.domain.ids import KeyId, LocalPath, SecretId, TenantId
from svsync.domain.values import Payload
from svsync.services.checkpoints import Checkpoints
from svsync.services.retention import Retention
from svsync.services.sealing import Sealed
from svsync.services.tenants import Shredded
from svsync.services.write_rows import Put
from svsync.store import checkpoints
from svsync.store import tenants as store

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


# --- broken off -------------------------------------------------------------------------


async def test_broken_off_before_the_end_of_its_transaction_nothing_was_done(house: House) -> None:
    await house.write("own/x", {"k": "1"})

    await broken_off(house, at="tell")
    assert await status(house) == "active"
    assert await house.data("own/x") == {"k": "1"}
    assert (await shred(house)).before is False


@pytest.mark.parametrize("dead", ["withdraw_pushes", "clear", "clear_secrets"])
async def test_broken_off_after_it_nothing_opens_and_the_same_again_goes_on(
    house: House, dead: str
) -> None:
    await seal_everywhere(house)

    await broken_off(house, at=dead)
    assert await status(house) == "shredded"
    assert {key["wrapped"] for key in await house.rows("data_keys")} == {None}
    assert await house.rows("versions")
    done = await shred(house)
    assert (done.before, done.secrets, done.keys) == (True, 5, 0)
    assert await house.rows("versions") == []
    assert len(await house.rows("outbox")) == 1


async def test_the_service_clears_away_what_was_left(house: House) -> None:
    await house.write("own/x", {"k": "1"})

    await broken_off(house, at="clear_secrets")
    await house.app.tenants.clear_all()
    assert await house.rows("secrets") == []


async def test_the_service_does_so_also_where_retention_fails(
    house: House, monkeypatch: pytest.MonkeyPatch, log: Callable[[], list[Any]]
) -> None:
    await house.write("own/x", {"k": "1"})

    await broken_off(house, at="clear_secrets")

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


# --- its last checkpoint ----------------------------------------------------------------


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
