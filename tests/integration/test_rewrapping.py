"""All that is sealed is brought under the key of now, whoever works beside it and dies in it."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.api import Front
from tests.house import TENANT, House, open_house
from tests.integration.test_die_everywhere import Death, Killed
from tests.integration.test_retention import AT_ONCE
from tests.patience import PATIENCE_S
from tests.postgres import connected
from tests.sealed import keys_named, seal_everywhere, texts

from svsync.app import App
from svsync.domain.errors import StoreError
from svsync.domain.federation import ConflictPolicy
from svsync.domain.ids import KeyId, TenantId
from svsync.kms.local import LocalKeyService
from svsync.ports import KeyServices
from svsync.services import rewrapping, sealing
from svsync.services.retention import Retention
from svsync.services.rewrapping import Rewrapped, Rewrapping, remove_emptied
from svsync.services.sealing import Sealing
from svsync.store import rewrapping as store
from svsync.store.database import Transaction
from svsync.store.rewrapping import PLACES, Anew, Place

CIPHERTEXT = {(p.table, name) for p in PLACES for name in (p.nonce, p.sealed)}
OTHER_BYTES = {
    "a hash, keyed or of what is no secret": {
        ("versions", "fp"), ("sync_state", "base_fp"), ("pushes", "target_fp"),
        ("conflicts", "base_fp"), ("conflicts", "remote_fp"), ("tokens", "hash"),
        ("feed_secrets", "hash"), ("idempotency", "request"), ("audit", "hash"),
        ("audit_chains", "ended_hash"), ("audit_chains", "trimmed_hash"),
        ("audit_checkpoints", "root"), ("audit_checkpoints", "prev_hash"),
        ("audit_checkpoints", "hash"),
    },
    "a signature": {("audit_checkpoints", "signature")},
    "a wrapped key": {
        ("root_keys", "wrapped"), ("root_keys", "wrapped_2"), ("data_keys", "wrapped"),
    },
}  # fmt: skip
NO_SEALING = {("audit_checkpoints", "key_id")}
"""Names of keys that sign, which are kept."""


async def rotated(house: House) -> None:
    assert await house.app.keys.rotate(TENANT)


async def rewrap(house: House) -> Rewrapped:
    return await house.app.keys.rewrap(TENANT)


async def state(house: House, key: int) -> Any:
    rows = await house.rows("data_keys", tenant_id=1, key_id=key)
    return rows[0] if rows else None


async def active(house: House, purpose: str = "value") -> int:
    row = await house.row("data_keys", tenant_id=1, purpose=purpose, state="active")
    number: int = row["key_id"]
    return number


# --- the list of places -----------------------------------------------------------------


async def test_the_list_of_places_is_that_of_the_schema(house: House) -> None:
    """A new column of bytes has to be told of here: is it sealed, so that it is on the list?"""
    rows = await house.admin.fetch(
        "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
        " AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped"
        " AND a.atttypid IN ('bytea'::regtype, 'bytea[]'::regtype)"
    )
    assert {tuple(row) for row in rows} == CIPHERTEXT.union(*OTHER_BYTES.values())


async def test_whatever_is_sealed_names_its_key_by_a_foreign_key(house: House) -> None:
    rows = await house.admin.fetch(
        "SELECT c.conrelid::regclass::text, a.attname FROM pg_constraint c JOIN pg_attribute a"
        " ON a.attrelid = c.conrelid AND a.attnum = c.conkey[2]"
        " WHERE c.contype = 'f' AND c.confrelid = 'data_keys'::regclass"
    )
    assert {tuple(row) for row in rows} == {(p.table, p.key) for p in PLACES} | NO_SEALING


# --- what is sealed anew ----------------------------------------------------------------


async def test_everything_is_sealed_anew_and_says_what_it_said(house: House) -> None:
    await seal_everywhere(house)
    said = await texts(house)
    assert {where.partition(":")[0] for where in said} == {
        "versions", "sync_state", "pushes", "conflicts, local", "conflicts, remote", "endpoints",
    }  # fmt: skip
    before = await rest(house)
    old = await keys_named(house)
    await rotated(house)
    told: list[tuple[int, int]] = []
    done = await house.app.keys.rewrap(TENANT, lambda *how: told.append(how))
    assert (done.sealed, done.left, done.unreadable) == (len(said) + 1, 0, 0)
    assert await texts(house) == said
    now = await keys_named(house)
    assert now == {await active(house), await active(house, "webhook")}
    assert not now & old
    assert await rest(house) == before, "and nothing else was touched"
    assert told[0] == (0, done.sealed)
    assert told[-1] == (done.sealed, done.sealed)
    again = await rewrap(house)
    assert again.sealed == 0
    assert await house.run()
    assert await house.data("ext/d") is not None


async def rest(house: House) -> dict[str, list[str]]:
    """Every row that holds something sealed, without the ciphertext and its key."""
    found = {}
    for table in {place.table for place in PLACES}:
        gone = {n for p in PLACES if p.table == table for n in (p.key, p.nonce, p.sealed)}
        rows = await house.rows(table)
        found[table] = sorted(
            repr({name: value for name, value in row.items() if name not in gone}) for row in rows
        )
    return found


async def test_no_nonce_is_used_again(house: House) -> None:
    await seal_everywhere(house)
    before = {row["nonce"] for row in await house.rows("versions")}
    await rotated(house)
    await rewrap(house)
    after = [row["nonce"] for row in await house.rows("versions") if row["nonce"]]
    assert len(set(after)) == len(after)
    assert not before & set(after)
    used = await house.admin.fetchval("SELECT count(*) FROM versions WHERE nonce IS NOT NULL")
    key = await state(house, await active(house))
    assert used <= key["reserved"], "each sealing was counted beforehand"


async def test_another_tenant_is_left_alone(house: House) -> None:
    await house.admin.execute("INSERT INTO tenants (tenant_id, slug) VALUES (2, 'other')")
    other = TenantId(2)
    await house.app.sealing.for_tenant(other)
    await house.write("own/a", {"k": "1"})
    await house.app.keys.rotate(other)
    await rotated(house)
    before = await house.admin.fetch("SELECT * FROM data_keys WHERE tenant_id = 2")
    await rewrap(house)
    assert await house.admin.fetch("SELECT * FROM data_keys WHERE tenant_id = 2") == before


async def test_pages_end_by_rows_and_by_bytes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrapping, "ROWS", 5)
    monkeypatch.setattr(rewrapping, "SIZE", 3_000)
    pages: list[list[int]] = []
    put = store.put

    async def counted(tx: Transaction, place: Place, key: KeyId, anew: Sequence[Anew]) -> int:
        pages.append([len(one.sealed or b"") for one in anew])
        return await put(tx, place, key, anew)

    monkeypatch.setattr(store, "put", counted)
    for n in range(12):
        await house.write(f"own/{n}", {"k": "x" * (2_000 if n < 6 else 10)})
    await rotated(house)
    assert (await rewrap(house)).sealed == 12
    assert [len(page) for page in pages] == [2, 2, 2, 5, 1]
    assert all(sum(page[:-1]) < 3_000 for page in pages)
    assert len(await keys_named(house)) == 1


async def test_what_does_not_open_is_left_named_and_keeps_its_key(house: House) -> None:
    for name in "abc":
        await house.write(f"own/{name}", {"k": name})
    old = await active(house)
    broken = (await house.row("secrets", path="own/b"))["secret_id"]
    await house.admin.execute(
        "UPDATE versions SET sealed = set_byte(sealed, 0, 255 - get_byte(sealed, 0))"
        " WHERE secret_id = $1",
        broken,
    )
    kept = await house.row("versions", secret_id=broken)
    await rotated(house)
    done = await rewrap(house)
    assert (done.sealed, done.left, done.unreadable) == (2, 1, 1)
    assert done.places == [f"versions {broken} 1"]
    assert await house.row("versions", secret_id=broken) == kept
    assert (await remove_emptied(house.app.db, TENANT, 0)).removed == []
    assert await state(house, old) is not None
    assert await house.data("own/a") == {"k": "a"}


# --- a key goes -------------------------------------------------------------------------


async def test_an_old_key_goes_once_nothing_has_named_it_for_a_while(house: House) -> None:
    await house.write("own/a", {"k": "1"})
    old = await active(house)
    await rotated(house)
    assert (await rewrap(house)).emptied.waiting == [old]
    assert (await rewrap(house)).emptied.removed == []
    await house.admin.execute("UPDATE data_keys SET emptied_at = emptied_at - interval '1 hour'")
    assert (await Retention(house.app.db, AT_ONCE, house.app.recorder).run(TENANT)).data_keys == 1
    assert await state(house, old) is None
    assert await house.data("own/a") == {"k": "1"}
    assert (await Retention(house.app.db, AT_ONCE, house.app.recorder).run(TENANT)).data_keys == 0


async def test_reads_go_on_when_the_key_of_what_they_remember_is_gone(front: Front) -> None:
    """The read path keeps ciphertexts; those of before are told from those of now."""
    house = front.house
    await house.write("app/a", {"k": "1"})
    assert (await front.client.get("/v1/secrets/app/a")).body["data"] == {"k": "1"}
    await rotated(house)
    await rewrap(house)
    await remove_emptied(house.app.db, TENANT, 0)
    house.app.sealing._tenants.clear()
    answer = await front.client.get("/v1/secrets/app/a")
    assert (answer.status, answer.body["data"], answer.headers["ETag"]) == (200, {"k": "1"}, '"v1"')
    assert len(await house.rows("data_keys", purpose="value")) == 1


async def test_a_key_that_is_named_again_stays(house: House) -> None:
    """By somebody who reserved before it was replaced, and stores after all were sealed anew."""
    await house.write("own/a", {"k": "1"})
    old = await active(house)
    async with another(house) as late:
        keys = await late.for_tenant(TENANT)
        await keys.reserve(1)
        await rotated(house)
        await rewrap(house)
        assert (await state(house, old))["emptied_at"] is not None
        app_keys = house.app.sealing._tenants
        app_keys[TENANT] = keys
        await house.write("own/b", {"k": "2"})
    assert old in await keys_named(house)
    emptied = await remove_emptied(house.app.db, TENANT, 0)
    assert (emptied.removed, emptied.waiting) == ([], [])
    assert (await state(house, old))["emptied_at"] is None
    assert (await rewrap(house)).sealed == 1
    assert (await remove_emptied(house.app.db, TENANT, 0)).removed == [old]
    assert await house.data("own/b") == {"k": "2"}


async def test_whoever_seals_under_a_key_that_is_gone_stores_nothing(house: House) -> None:
    await house.write("own/a", {"k": "1"})
    async with another(house) as late:
        keys = await late.for_tenant(TENANT)
        await keys.reserve(1)
        await rotated(house)
        await rewrap(house)
        await remove_emptied(house.app.db, TENANT, 0)
        house.app.sealing._tenants[TENANT] = keys
        with pytest.raises(StoreError):
            await house.write("own/a", {"k": "2"})
    assert await house.versions("own/a") == [{"k": "1"}]
    house.app.sealing._tenants.clear()
    assert await house.write("own/a", {"k": "2"}) == 2


class _Other:
    """Keys in a process of its own, as it were, with a clock that stands still."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.now = time.monotonic()

    async def __aenter__(self) -> Sealing:
        state_dir = Path(self._house.app.settings.state_dir)
        service = LocalKeyService.open(state_dir / "kms.key", create=False)
        db = self._house.app.db
        made = Sealing(db, KeyServices(service, None), os.urandom, clock=lambda: self.now)
        await made.open_root()
        return made

    async def __aexit__(self, *_: object) -> None:
        return None


def another(house: House) -> _Other:
    return _Other(house)


async def test_a_process_learns_of_the_new_key_while_it_runs(house: House) -> None:
    other = another(house)
    async with other as late:
        keys = await late.for_tenant(TENANT)
        first = (await keys.reserve(1))._key_id
        await rotated(house)
        assert (await keys.reserve(1))._key_id == first, "it is not asked with each sealing"
        other.now += sealing.LOOK_S
        second = (await keys.reserve(1))._key_id
        assert second == await active(house) != first
        other.now += sealing.LOOK_S
        assert (await keys.reserve(1))._key_id == second


# --- beside others ----------------------------------------------------------------------


async def test_a_row_in_somebodys_hand_is_left_and_nobody_is_waited_for(
    house: House, admin_url: str
) -> None:
    for name in "ab":
        await house.write(f"own/{name}", {"k": name})
    await rotated(house)
    held = (await house.row("secrets", path="own/a"))["secret_id"]
    async with connected(admin_url) as somebody, somebody.transaction():
        await somebody.execute("SELECT FROM versions WHERE secret_id = $1 FOR UPDATE", held)
        async with asyncio.timeout(PATIENCE_S):
            done = await rewrap(house)
        assert (done.sealed, done.left, done.unreadable) == (1, 1, 0)
    assert (await rewrap(house)).sealed == 1


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM versions",
        "UPDATE versions SET state = 'destroyed', sealed = NULL, nonce = NULL",
        "UPDATE versions SET nonce = '\\x000000000000000000000000'",
    ],
    ids=["trimmed", "destroyed", "sealed-by-another"],
)
async def test_a_row_that_moved_since_it_was_found_stays_as_it_is(
    house: House, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    await house.write("own/a", {"k": "1"})
    await rotated(house)
    put = store.put
    rows: list[Any] = []

    async def late(tx: Transaction, place: Place, key: KeyId, anew: Sequence[Anew]) -> int:
        if not rows:
            await house.admin.execute(change)
            rows.append(await house.rows("versions"))
        return await put(tx, place, key, anew)

    monkeypatch.setattr(rewrapping, "ROUNDS", 1)
    monkeypatch.setattr(store, "put", late)
    assert (await rewrap(house)).sealed == 0
    assert [await house.rows("versions")] == rows


async def test_runs_writes_retention_and_rotations_beside_it_lose_and_double_nothing(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    admin_url: str,
    state_dir: Path,
) -> None:
    monkeypatch.setattr(rewrapping, "ROWS", 20)
    monkeypatch.setattr(sealing, "LOOK_S", 0.0)
    await house.configure(conflict_resolution=ConflictPolicy.BACKEND_WINS)
    ages = replace(AT_ONCE, max_versions=50)
    written: dict[str, list[str]] = {f"own/{n}": [] for n in range(4)}
    going = True

    async def write(path: str) -> None:
        n = 0
        while going:
            value = f"{path} {n}"
            version = await house.write(path, {"k": value})
            written[path].append(value)
            assert version == len(written[path])
            n += 1

    async def run() -> None:
        n = 0
        while going:
            house.there.put(f"kv/{n % 5}", {"k": f"there {n}"})
            await house.run()
            n += 1

    async def keep() -> None:
        while going:
            await Retention(house.app.db, ages, house.app.recorder).run(TENANT)
            await asyncio.sleep(0)

    async def move_on(app: App) -> None:
        nonlocal going
        for _ in range(4):
            await app.keys.rotate(TENANT)
            await asyncio.gather(app.keys.rewrap(TENANT), house.app.keys.rewrap(TENANT))
        going = False

    async with (
        open_house(database_url, admin_url, state_dir) as second,
        asyncio.TaskGroup() as group,
    ):
        for path in written:
            group.create_task(write(path))
        group.create_task(run())
        group.create_task(keep())
        group.create_task(move_on(second.app))
    done = await rewrap(house)
    assert (done.left, done.unreadable) == (0, 0)
    assert await keys_named(house) == {await active(house)}
    await texts(house)
    for path, values in written.items():
        last = len(values)
        assert await house.data(path) == {"k": values[-1]}
        row = await house.row("secrets", path=path)
        kept = sorted(
            r["version"] for r in await house.rows("versions", secret_id=row["secret_id"])
        )
        assert kept == list(range(max(1, last - 49), last + 1))
        for version in kept:
            assert await house.data(path, version) == {"k": values[version - 1]}


# --- death ------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
async def test_death_anywhere_leaves_what_the_next_one_completes(
    house: House, monkeypatch: pytest.MonkeyPatch, moment: Any
) -> None:
    monkeypatch.setattr(rewrapping, "ROWS", 2)
    await seal_everywhere(house)
    said, before = await texts(house), await rest(house)

    async def die() -> None:
        raise Killed

    for at in range(1, 200):
        await rotated(house)
        death = Death(house.app.db, at, moment, die)
        dying = Rewrapping(cast("Any", death), house.app.sealing)
        with suppress(Killed):
            await dying.run(TENANT)
        assert await texts(house) == said, at
        assert (await rewrap(house)).left == 0
        assert await texts(house) == said, at
        assert await keys_named(house) == {await active(house), await active(house, "webhook")}
        assert await rest(house) == before, at
        await remove_emptied(house.app.db, TENANT, 0)
        assert len(await house.rows("data_keys")) == 3, "the two that seal, and the fingerprint key"
        if not death.was_met:
            break
    else:
        pytest.fail("it has more transactions than that")
    assert at > 20
