"""What lies in the database is sealed, each piece for its own place, under keys that wear out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.canary import Canary
from tests.house import TENANT, House, Odd, backend, open_house, settings_for

from svsync.app import App, open_app
from svsync.domain.changes import RemoteUnknown
from svsync.domain.envelope import Purpose
from svsync.domain.errors import KeyServiceError
from svsync.domain.federation import ConflictPolicy, OnRemoteDelete
from svsync.domain.ids import LocalPath, SecretId
from svsync.domain.values import Payload
from svsync.kms.local import LocalKeyService
from svsync.services import data_keys, sealing
from svsync.services.sealing import Sealed
from svsync.testing.memory import MemoryBackend, MemoryStore

# --- no value anywhere ------------------------------------------------------------------


async def test_whole_life_leaves_no_value_in_the_database_log_or_reports(
    canary: Canary, house: House
) -> None:
    """Created, pulled, in conflict, written again with other text, deleted, unreadable."""
    value = canary.value
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    for name in "abcdef":
        house.there.put(f"kv/{name}", {"k": value(name)})
    house.there.put("kv/text", Payload.from_text(value("text")))
    house.there.put("kv/bytes", Payload.from_bytes(value("bytes").encode() + b"\xff"))
    told: list[object] = [(await house.run()).to_json()]
    house.there.put("kv/a", {"k": value("there")})
    await house.write("ext/a", {"k": value("here")})
    house.there.put("kv/b", {"k": value("changed")})
    text = Payload.from_fields({"k": value("c")}).reveal()
    house.there.put("kv/c", Payload.from_json_text(text.replace(b":", b" : ")))
    house.there.delete("kv/d")
    house.there.unreadable["kv/e"] = RemoteUnknown("undecodable", "at offset 7")
    house.there.put("kv/e", {"k": value("e")})
    await house.write("ext/f", {"k": value("diverged")})
    told.append((await house.run(dry=True)).to_json())
    told.append((await house.run()).to_json())
    house.there.put("kv/a", {"k": value("later")})
    await house.configure(
        conflict_resolution=ConflictPolicy.BACKEND_WINS,
        on_remote_delete=OnRemoteDelete.SOFT_DELETE,
    )
    house.there.remove("kv/b")
    told.append((await house.run()).to_json())
    told.append(await house.app.conflicts.list_conflicts(TENANT, house.spec.id, closed=True))
    told.append(await house.app.federation.status(TENANT, house.spec.id))
    assert len(await house.rows("conflicts")) == 2
    assert (await house.row("sync_state", path="ext/c"))["base_raw_sealed"] is not None
    assert canary.found_in(str(await house.data("ext/f")))  # it can be found where it is
    canary.watch("what was told", lambda: repr(told))
    canary.watch("the app", lambda: repr(house.app) + repr(house.app.sealing))


async def test_value_in_a_bug_is_not_told(canary: Canary, house: House) -> None:
    house.there.put("kv/a", {"k": canary.value()})

    async def break_off(operation: str, path: str) -> None:
        if operation == "read":
            raise ValueError(canary.value())

    house.there.before = break_off
    with pytest.raises(ValueError, match="canary"):
        await house.run()
    assert (await house.row("runs"))["state"] == "failed"


# --- each piece for its own place -------------------------------------------------------


async def test_ciphertext_moved_to_another_row_does_not_open(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "2"})
    await house.run()
    house.there.put("kv/a", {"k": "3"})
    await house.run()
    columns = "key_id = v.key_id, nonce = v.nonce, sealed = v.sealed"
    a, b = [(await house.row("secrets", path=f"ext/{name}"))["secret_id"] for name in "ab"]
    for secret, version, target, at in ((a, 1, b, 1), (a, 1, a, 2)):
        await house.admin.execute(
            f"UPDATE versions w SET {columns} FROM versions v"
            " WHERE v.secret_id = $1 AND v.version = $2 AND w.secret_id = $3 AND w.version = $4",
            secret, version, target, at,
        )  # fmt: skip
    for path in ("ext/a", "ext/b"):
        with pytest.raises(KeyServiceError) as refused:
            await house.data(path)
        assert refused.value.code == "value_unreadable"
    assert await house.data("ext/a", version=1) == {"k": "1"}


async def test_secret_moved_to_another_path_does_not_open(house: House) -> None:
    await house.write("ext/a", {"k": "1"})
    await house.admin.execute("UPDATE secrets SET path = 'ext/stolen'")
    with pytest.raises(KeyServiceError):
        await house.data("ext/stolen")


@pytest.mark.parametrize(
    ("side", "purpose"),
    [("local", Purpose.CONFLICT_REMOTE), ("remote", Purpose.CONFLICT_LOCAL),
     ("local", Purpose.VALUE), ("remote", Purpose.RAW)],
)  # fmt: skip
async def test_side_of_a_conflict_opens_as_nothing_else(
    house: House, side: str, purpose: Purpose
) -> None:
    await house.write("ext/a", {"k": "here"})
    house.there.put("kv/a", {"k": "there"})
    await house.run()
    row: Any = await house.row("conflicts")
    keys = await house.app.sealing.for_tenant(TENANT)
    sealed = Sealed(row[f"{side}_key_id"], row[f"{side}_nonce"], row[f"{side}_sealed"])
    with pytest.raises(KeyServiceError):
        await keys.open(
            purpose, SecretId(row["secret_id"]), LocalPath("ext/a"), 0, sealed,
            extra=row["sealed_as"],
        )  # fmt: skip


async def test_equal_values_show_neither_by_ciphertext_nor_by_length(house: House) -> None:
    for name, value in (("a", "12345"), ("b", "12345"), ("c", "1")):
        house.there.put(f"kv/{name}", {"k": value})
    await house.run()
    rows = await house.rows("versions")
    assert len({row["sealed"] for row in rows}) == 3
    assert len({row["nonce"] for row in rows}) == 3
    assert len({len(row["sealed"]) for row in rows}) == 1


# --- keys that wear out -----------------------------------------------------------------


async def test_worn_out_key_is_followed_by_the_next_and_still_opens(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "BLOCK", 8)
    monkeypatch.setattr(data_keys, "LIMIT", 16)
    for n in range(30):
        await house.write(f"ext/{n}", {"k": str(n)})
    rows = await house.admin.fetch(
        "SELECT key_id, state, reserved FROM data_keys WHERE purpose = 'value' ORDER BY key_id"
    )
    assert [row["state"] for row in rows] == ["decrypt_only"] * (len(rows) - 1) + ["active"]
    assert len(rows) >= 2
    used = await house.admin.fetch("SELECT key_id, count(*) AS n FROM versions GROUP BY key_id")
    assert {row["key_id"] for row in used} == {row["key_id"] for row in rows}
    assert all(row["n"] <= 16 for row in used)
    assert all(row["reserved"] <= 16 for row in rows)
    assert [await house.data(f"ext/{n}") for n in range(30)] == [{"k": str(n)} for n in range(30)]


async def test_run_that_needs_more_than_one_block_is_given_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "BLOCK", 8)
    house.there.generate("kv/", 60)
    await house.run()
    assert len(await house.paths()) == 60
    reserved = await house.admin.fetchval(
        "SELECT sum(reserved) FROM data_keys WHERE purpose = 'value'"
    )
    assert reserved >= 60


async def test_old_key_is_followed_by_the_next(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> None:
    await house.write("ext/a", {"k": "1"})
    await house.admin.execute("UPDATE data_keys SET created_at = now() - interval '31 days'")
    async with open_house(database_url, admin_url, state_dir) as later:
        await later.write("ext/b", {"k": "1"})
        assert await later.data("ext/a") == {"k": "1"}
    keys = {row["path"]: row["key_id"] for row in await house.admin.fetch(
        "SELECT path, key_id FROM versions JOIN secrets USING (tenant_id, secret_id)"
    )}  # fmt: skip
    assert keys["ext/a"] != keys["ext/b"]


async def test_fingerprint_key_does_not_wear_out(
    house: House, database_url: str, admin_url: str, state_dir: Path
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.admin.execute("UPDATE data_keys SET created_at = now() - interval '1 year'")
    async with open_house(database_url, admin_url, state_dir) as later:
        later.there.put("kv/a", {"k": "1"})
        await later.run()
        assert len(await later.rows("versions")) == 1


async def test_writes_at_once_never_use_more_than_was_reserved(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "BLOCK", 3)
    await asyncio.gather(*(house.write(f"ext/{n}", {"k": str(n)}) for n in range(20)))
    used = await house.admin.fetchval("SELECT count(*) FROM versions")
    reserved = await house.admin.fetchval(
        "SELECT sum(reserved) FROM data_keys WHERE purpose = 'value'"
    )
    assert used == 20 <= reserved


async def test_no_nonce_serves_twice_under_one_key_whichever_process_seals(
    house: House,
    database_url: str,
    admin_url: str,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sealing, "BLOCK", 7)
    monkeypatch.setattr(data_keys, "LIMIT", 28)
    async with open_house(database_url, admin_url, state_dir) as other:
        both = (house, other)
        # The same text at the same paths, so that nothing but the nonce tells them apart.
        await asyncio.gather(
            *(one.write(f"ext/{n % 3}", {"k": "1"}) for one in both * 15 for n in (0, 1))
        )
    rows = await house.admin.fetch("SELECT key_id, nonce FROM versions")
    assert len({(row["key_id"], row["nonce"]) for row in rows}) == len(rows)
    assert len({row["nonce"] for row in rows}) == len(rows)
    for key in {row["key_id"] for row in rows}:
        used = sum(row["key_id"] == key for row in rows)
        reserved = await house.admin.fetchval(
            "SELECT reserved FROM data_keys WHERE tenant_id = 1 AND key_id = $1", key
        )
        assert used <= reserved <= 28


async def test_nothing_is_sealed_beyond_what_was_reserved(house: House) -> None:
    where = (Purpose.VALUE, SecretId(1), LocalPath("ext/a"), 1, b"x")
    sealer = await (await house.app.sealing.for_tenant(TENANT)).reserve(2)
    assert len({sealer.seal(*where).nonce for _ in range(2)}) == 2
    with pytest.raises(AssertionError, match="not reserved"):
        sealer.seal(*where)


async def test_two_processes_at_first_boot_share_one_key(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    settings = settings_for(database_url, state_dir, backend())

    async def boot() -> None:
        async with _app(settings) as app:
            keys = await app.sealing.for_tenant(TENANT)
            await keys.reserve(1)

    await asyncio.gather(*(boot() for _ in range(3)))
    async with open_house(database_url, admin_url, state_dir) as house:
        assert len(await house.rows("root_keys")) == 1
        assert len(await house.rows("data_keys", state="active")) == 2


# --- the key service --------------------------------------------------------------------


@asynccontextmanager
async def _app(settings: Any) -> AsyncIterator[App]:
    drivers = {"memory": Odd(MemoryStore(), MemoryBackend)}
    async with open_app(settings, environ={}, drivers=drivers, pool=2) as app:
        yield app


async def read(settings: Any) -> bytes:
    async with _app(settings) as app:
        _, data = await app.secrets.get(TENANT, LocalPath("ext/a"))
        return data


@pytest.mark.parametrize("lost", ["missing", "another"])
async def test_key_file_that_does_not_belong_to_the_database_is_refused(
    house: House, database_url: str, state_dir: Path, lost: str
) -> None:
    await house.write("ext/a", {"k": "1"})
    (state_dir / "kms.key").rename(state_dir / "kept.key")
    if lost == "another":
        elsewhere = state_dir / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        LocalKeyService.open(elsewhere / "kms.key", create=True)
        (elsewhere / "kms.key").rename(state_dir / "kms.key")
    with pytest.raises(KeyServiceError, match="key"):
        await read(settings_for(database_url, state_dir, backend()))
    assert (state_dir / "kms.key").exists() is (lost == "another")
    (state_dir / "kept.key").rename(state_dir / "kms.key")
    assert await read(settings_for(database_url, state_dir, backend())) == b'{"k": "1"}'


async def test_secondary_key_opens_when_the_primary_is_lost(
    house: House, database_url: str, state_dir: Path
) -> None:
    await house.write("ext/a", {"k": "1"})
    settings = settings_for(database_url, state_dir, backend())
    settings = replace(settings, kms_key_id_secondary=f"file:{state_dir}/second.key")
    assert await read(settings) == b'{"k": "1"}'  # wraps the root key a second time
    assert (await house.row("root_keys"))["wrapped_2"] is not None
    (state_dir / "kms.key").unlink()
    assert await read(settings) == b'{"k": "1"}'
    assert not (state_dir / "kms.key").exists()


async def test_wrong_secondary_key_is_not_made_anew(
    house: House, database_url: str, state_dir: Path
) -> None:
    await house.write("ext/a", {"k": "1"})
    settings = settings_for(database_url, state_dir, backend())
    settings = replace(settings, kms_key_id_secondary=f"file:{state_dir}/second.key")
    await read(settings)
    (state_dir / "second.key").unlink()
    assert await read(settings) == b'{"k": "1"}'
    assert not (state_dir / "second.key").exists()
