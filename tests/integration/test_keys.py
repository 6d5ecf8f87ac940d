"""Keys are shown and replaced, and every process goes on by those of now."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.house import TENANT, House, failure, open_house, settings_for
from tests.key_services import Home
from tests.patience import PATIENCE_S
from tests.sealed import keys_named, seal_everywhere, texts

from svsync.app import open_app
from svsync.domain.envelope import KeyPurpose
from svsync.domain.errors import KeyServiceAwayError, KeyServiceError, StoreError
from svsync.domain.ids import LocalPath, TenantId
from svsync.kms.local import LocalKeyService
from svsync.ports import KeyServices
from svsync.services.root_keys import Word
from svsync.services.sealing import Sealing

OTHER = TenantId(2)


async def active(house: House) -> dict[str, Any]:
    """The data keys of the tenant that are in use, by purpose."""
    rows = await house.rows("data_keys", tenant_id=1, state="active")
    return {row["purpose"]: row for row in rows}


async def root(house: House) -> Any:
    return await house.row("root_keys", state="active")


@asynccontextmanager
async def other_tenant(house: House) -> AsyncIterator[None]:
    await house.admin.execute("INSERT INTO tenants (tenant_id, slug) VALUES (2, 'other')")
    await (await house.app.sealing.for_tenant(OTHER)).reserve(1)
    yield


# --- status -----------------------------------------------------------------------------


async def test_status_tells_what_stands_under_each_key_and_nothing_secret(house: House) -> None:
    await seal_everywhere(house)
    said = await texts(house)
    old = await active(house)
    await house.admin.execute("UPDATE data_keys SET created_at = now() - interval '3 days'")
    await house.app.keys.rotate(TENANT)
    await house.write("own/new", {"k": "1"})
    status = await house.app.keys.status(TENANT)
    shown = {(key.kind, key.id): key for key in status.keys}
    assert shown["root", 1].sealed is None
    kept = shown["data", old["value"]["key_id"]]
    assert (kept.state, kept.sealed) == ("decrypt_only", len(said) - 1)
    assert 3 * 86_400 <= kept.age_s < 4 * 86_400
    assert shown["data", old["webhook"]["key_id"]].sealed == 1
    now = await active(house)
    assert shown["data", now["value"]["key_id"]].sealed == 1
    assert shown["data", now["fingerprint"]["key_id"]].sealed is None
    [service] = status.services
    assert (service.role, service.word) == ("primary", Word.OPENS)
    wrapped = {row["wrapped"] for row in await house.rows("data_keys")}
    assert not any(repr(one) in repr(status) for one in wrapped)


async def test_status_tells_of_a_key_service_that_does_not_open(
    house: House, database_url: str, state_dir: Path
) -> None:
    await house.write("own/a", {"k": "1"})
    second = state_dir / "second.key"
    both = replace(settings_for(database_url, state_dir), kms_key_id_secondary=f"file:{second}")
    async with open_app(both, environ={}, pool=2) as app:
        status = await app.keys.status(TENANT)
        assert [(s.role, s.word) for s in status.services] == [
            ("primary", Word.OPENS),
            ("secondary", Word.OPENS),
        ]
        assert status.warnings == ()
    second.unlink()
    async with open_app(both, environ={}, pool=2) as app:
        said = (await app.keys.status(TENANT)).warnings
    assert any("second.key" in line for line in said)


# --- data keys --------------------------------------------------------------------------


async def test_what_is_written_from_then_on_has_another_key(house: House) -> None:
    await house.write("own/a", {"k": "1"})
    before = await active(house)
    [made] = await house.app.keys.rotate(TENANT)
    house.app.sealing._tenants.clear()
    await house.write("own/a", {"k": "2"})
    old, new = await house.rows("versions")
    assert (made.purpose, made.old, made.new) == ("value", old["key_id"], new["key_id"])
    assert (await house.row("data_keys", key_id=made.old))["state"] == "decrypt_only"
    assert await house.versions("own/a") == [{"k": "1"}, {"k": "2"}]
    now = await active(house)
    assert now["fingerprint"]["key_id"] == before["fingerprint"]["key_id"]
    assert now["value"]["reserved"] > 0


async def test_a_secret_does_not_look_changed_by_other_keys(house: House) -> None:
    """Fingerprints are compared after data keys and root key were replaced."""
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.app.keys.rotate(TENANT)
    await house.app.keys.rotate_root()
    await house.app.keys.wrap_anew()
    await house.app.keys.rewrap(TENANT)
    house.app.sealing._tenants.clear()
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    assert len(await house.rows("versions")) == 1
    assert await house.status("ext/a") == "in_sync"


async def test_the_key_that_signs_checkpoints_stays(house: House) -> None:
    signer = await house.app.signing.signer(TENANT)
    await house.app.keys.rotate(TENANT)
    await house.app.keys.rotate_root()
    await house.app.keys.wrap_anew()
    house.app.signing._signers.clear()
    assert (await house.app.signing.signer(TENANT)).key_id == signer.key_id
    assert signer.key_id in await house.app.signing.public_keys(TENANT)


async def test_nothing_is_made_where_nothing_was_sealed(house: House) -> None:
    assert await house.app.keys.rotate(TENANT) == []
    assert await house.rows("data_keys", purpose="value") == []


# --- the root key -----------------------------------------------------------------------


async def test_another_root_key_wraps_every_data_key_and_the_old_one_goes(house: House) -> None:
    await seal_everywhere(house)
    said = await texts(house)
    async with other_tenant(house):
        before = await root(house)
        old = {row["wrapped"] for row in await house.rows("data_keys")}
        replaced = await house.app.keys.rotate_root()
        assert replaced == (before["root_id"], (await root(house))["root_id"])
        told: list[tuple[int, int]] = []
        done = await house.app.keys.wrap_anew(lambda *how: told.append(how))
    rows = await house.rows("data_keys")
    assert (done.wrapped, done.closed, done.removed) == (len(rows), (), (before["root_id"],))
    assert told[-1] == (2, 2)
    assert {row["root_id"] for row in rows} == {(await root(house))["root_id"]}
    assert not old & {row["wrapped"] for row in rows}
    assert len(await house.rows("root_keys")) == 1
    house.app.sealing._tenants.clear()
    assert await texts(house) == said


async def test_a_running_process_goes_on_under_a_root_key_that_another_made(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> None:
    await house.write("own/a", {"k": "1"})
    async with open_house(database_url, admin_url, state_dir) as second:
        await second.app.keys.rotate_root()
        await second.app.keys.wrap_anew()
        await second.app.keys.rotate(TENANT)
        await second.write("own/b", {"k": "2"})
    assert await house.data("own/b") == {"k": "2"}, "by a data key that it had not met"
    await house.admin.execute("UPDATE data_keys SET created_at = now() - interval '31 days'")
    house.app.sealing._tenants.clear()
    await house.write("own/c", {"k": "3"})
    made = await active(house)
    assert made["value"]["root_id"] == (await root(house))["root_id"]
    async with other_tenant(house):
        assert (await house.rows("data_keys", tenant_id=2)) != []
    assert await house.app.signing.signer(TENANT)


class Away:
    """A key service that does not answer."""

    reference = "away:key"

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        raise KeyServiceAwayError("it is away")

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        raise KeyServiceAwayError("it is away")


@asynccontextmanager
async def root_key_out_of_reach(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> AsyncIterator[None]:
    """Another process made another root key, and the key service is away since; nobody has
    used the tenant's keys here for a while."""
    sealing = house.app.sealing
    keys = await sealing.for_tenant(TENANT)
    there, sealing._services = sealing._services, KeyServices(Away(), None, ())
    async with open_house(database_url, admin_url, state_dir) as second:
        await second.app.keys.rotate_root()
        await second.app.keys.wrap_anew()
    keys._openers.clear()
    yield
    sealing._services = there


async def test_no_side_of_a_conflict_is_left_out_while_the_root_key_is_out_of_reach(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.write("ext/a", {"k": "ours"})
    house.there.put("kv/a", {"k": "theirs"})
    async with root_key_out_of_reach(house, database_url, admin_url, state_dir):
        assert failure(await house.run()) == "root_key_unavailable"
        assert await house.rows("conflicts") == []
    assert failure(await house.run()) is None
    assert (await house.row("conflicts"))["local_sealed"] is not None


async def test_no_signature_is_taken_for_somebody_elses_while_the_root_key_is_out_of_reach(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> None:
    signer = await house.app.signing.signer(TENANT)
    async with root_key_out_of_reach(house, database_url, admin_url, state_dir):
        with pytest.raises(KeyServiceError) as unknown:
            await house.app.signing.public_keys(TENANT)
        assert unknown.value.code == "root_key_unavailable"
    assert signer.key_id in await house.app.signing.public_keys(TENANT)


async def test_nobody_queues_before_a_key_service_that_hangs(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> None:
    class Hangs(Away):
        asked = 0
        go_on = asyncio.Event()

        async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
            Hangs.asked += 1
            await self.go_on.wait()
            return await super().unwrap(wrapped, context)

    sealing = house.app.sealing
    async with root_key_out_of_reach(house, database_url, admin_url, state_dir):
        sealing._services = KeyServices(Hangs(), None, ())
        asking = [asyncio.create_task(sealing.learn()) for _ in range(5)]
        async with asyncio.timeout(PATIENCE_S):
            while not Hangs.asked:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
        Hangs.go_on.set()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(end) for end in ends] == [KeyServiceAwayError] + [KeyServiceError] * 4
        assert {end.code for end in ends if isinstance(end, KeyServiceError)} == {
            "root_key_unavailable"
        }
        assert Hangs.asked == 1
    await sealing.learn()
    await house.write("own/a", {"k": "1"})


async def test_a_process_that_makes_a_data_key_first_asks_for_the_new_root_key(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> None:
    """The old root key may go at any moment: nothing is wrapped by it any more."""
    await house.write("own/a", {"k": "1"})
    async with open_house(database_url, admin_url, state_dir) as second:
        _, new = await second.app.keys.rotate_root()
    assert new not in house.app.sealing._roots
    [made] = await house.app.keys.rotate(TENANT)
    assert (await house.row("data_keys", key_id=made.new))["root_id"] == new


async def test_a_rotation_that_died_is_completed(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> None:
    await seal_everywhere(house)
    said = await texts(house)
    old, _ = await house.app.keys.rotate_root()
    assert await house.app.keys.has_old_roots()
    async with open_house(database_url, admin_url, state_dir) as later:
        assert await texts(house, later.app) == said, "both root keys are there"
        done = await later.app.keys.wrap_anew()
        assert (done.removed, done.closed) == ((old,), ())
        assert not await later.app.keys.has_old_roots()
        assert (await later.app.keys.wrap_anew()).wrapped == 0


async def test_a_data_key_that_does_not_open_keeps_its_root_key(house: House) -> None:
    await house.write("own/a", {"k": "1"})
    key = (await active(house))["value"]["key_id"]
    await house.admin.execute(
        "UPDATE data_keys SET wrapped = set_byte(wrapped, 20, 255 - get_byte(wrapped, 20))"
        " WHERE key_id = $1",
        key,
    )
    before = await house.row("data_keys", key_id=key)
    old, _ = await house.app.keys.rotate_root()
    done = await house.app.keys.wrap_anew()
    assert (done.closed, done.removed) == (((TENANT, key),), ())
    assert await house.row("data_keys", key_id=key) == before
    assert await house.rows("root_keys", root_id=old)


async def test_a_destroyed_data_key_does_not_keep_a_root_key(house: House) -> None:
    await house.write("own/a", {"k": "1"})
    await house.admin.execute(
        "UPDATE data_keys SET state = 'destroyed', wrapped = NULL WHERE purpose = 'value'"
    )
    old, new = await house.app.keys.rotate_root()
    assert (await house.app.keys.wrap_anew()).removed == (old,)
    row = await house.row("data_keys", purpose="value")
    assert (row["state"], row["wrapped"], row["root_id"]) == ("destroyed", None, new)


class _Forgetful(LocalKeyService):
    """Gives back another key than it wrapped."""

    async def unwrap(self, wrapped: bytes, context: Any) -> bytes:
        await super().unwrap(wrapped, context)
        return bytes(32)


class _Closed(LocalKeyService):
    async def wrap(self, plaintext: bytes, context: Any) -> bytes:
        raise KeyServiceError("no")


@pytest.mark.parametrize("second", [_Forgetful, _Closed])
async def test_no_root_key_is_replaced_by_one_that_a_key_service_does_not_open(
    house: House, state_dir: Path, second: type[LocalKeyService]
) -> None:
    await house.write("own/a", {"k": "1"})
    first = LocalKeyService.open(state_dir / "kms.key", create=False)
    services = KeyServices(first, second.open(state_dir / "second.key", create=True))
    sealing = Sealing(house.app.db, services, os.urandom)
    await sealing.open_root(take_over=False)
    before = await house.rows("root_keys")
    with pytest.raises(KeyServiceError):
        await sealing.replace_root()
    assert await house.rows("root_keys") == before


async def test_no_root_key_is_replaced_while_a_key_service_is_missing(
    house: House, state_dir: Path
) -> None:
    first = LocalKeyService.open(state_dir / "kms.key", create=False)
    services = KeyServices(first, None, ("The key file /second.key is missing.",))
    sealing = Sealing(house.app.db, services, os.urandom)
    await sealing.open_root(take_over=False)
    before = await house.rows("root_keys")
    with pytest.raises(KeyServiceError, match=r"second\.key"):
        await sealing.replace_root()
    assert await house.rows("root_keys") == before


async def test_another_root_key_is_wrapped_by_two_of_different_kinds(
    house: House, database_url: str, state_dir: Path, vault_home: Home
) -> None:
    """Either opens it alone; while one of them is away, none is made."""
    await house.write("own/a", {"k": "1"})
    plain = settings_for(database_url, state_dir)
    both = replace(
        plain,
        kms_key_id_secondary=f"{vault_home.provider}:{vault_home.key}",
        kms_access_secondary=vault_home.access,
    )
    transit = replace(
        plain,
        kms_provider=vault_home.provider,
        kms_key_id=vault_home.key,
        kms_access=vault_home.access,
    )
    environ = vault_home.environ
    async with open_app(both, environ=environ, pool=2) as app:
        old, _ = await app.keys.rotate_root()
        assert (await app.keys.wrap_anew()).removed == (old,)
        services = (await app.keys.status(TENANT)).services
        assert [s.word for s in services] == [Word.OPENS, Word.OPENS]
    for alone in (plain, transit):
        async with open_app(alone, environ=environ, pool=2) as app:
            assert (await app.secrets.get(TENANT, LocalPath("own/a")))[1] == b'{"k": "1"}'
    before = await root(house)
    without = replace(both, kms_access_secondary=vault_home.away)
    async with open_app(without, environ=environ, pool=2) as app:
        with pytest.raises(KeyServiceError, match="each configured key service"):
            await app.keys.rotate_root()
    assert await root(house) == before


async def test_of_two_that_replace_the_root_key_at_once_one_is_told(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> None:
    async with open_house(database_url, admin_url, state_dir) as second:
        first = LocalKeyService.open(state_dir / "kms.key", create=False)

        class Slow(LocalKeyService):
            async def wrap(self, plaintext: bytes, context: Any) -> bytes:
                await second.app.keys.rotate_root()
                return await first.wrap(plaintext, context)

        slow = Slow.open(state_dir / "kms.key", create=False)
        sealing = Sealing(house.app.db, KeyServices(slow, None), os.urandom)
        await sealing.open_root()
        with pytest.raises(KeyServiceError, match="another process"):
            await sealing.replace_root()
    assert len(await house.rows("root_keys", state="active")) == 1
    assert len(await house.rows("root_keys")) == 2


async def test_a_root_key_that_wraps_anything_cannot_be_removed(house: House) -> None:
    await house.write("own/a", {"k": "1"})
    await house.app.keys.rotate_root()
    with pytest.raises(StoreError):
        async with house.app.db.transaction_of([]) as tx:  # sees no tenant's keys
            await tx.fetch("keys.remove_roots")
    assert len(await house.rows("root_keys")) == 2


async def test_keys_that_were_shut_away_are_not_learnt_anew(house: House) -> None:
    await house.write("own/a", {"k": "1"})
    house.app.sealing.shut("the key service is away")
    for step in (
        house.app.sealing.learn(),
        house.app.sealing.data_key(TENANT, KeyPurpose.VALUE, 1),
        house.app.keys.rotate_root(),
        house.app.keys.wrap_anew(),
    ):
        with pytest.raises(KeyServiceError, match="away"):
            await step
    await house.app.sealing.open_root()
    assert await house.data("own/a") == {"k": "1"}
    assert await keys_named(house)
