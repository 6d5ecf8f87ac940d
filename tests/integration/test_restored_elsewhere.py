"""A dump, restored on another server and opened there by the second key alone.

pg_dump and pg_restore are those of the server under test; what they are told is what
docs/storage.md says.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests.debian import programs_of, server_named
from tests.house import TENANT, House, backend, failure, settings_for
from tests.postgres import KIND, connected, database_dsn
from tests.sealed import seal_everywhere, texts

from svsync.app import migrate_only, open_app
from svsync.config.model import Settings
from svsync.domain.errors import KeyServiceError
from svsync.embedded.postgres import EmbeddedPostgres
from svsync.kms.local import LocalKeyService
from svsync.services.root_keys import Word
from svsync.store import restore
from svsync.testing.memory import MemoryDriver


async def command(program: str, *words: str) -> tuple[int, str]:
    """A program of the server's own: its exit code, and what it complains of."""
    process = await asyncio.create_subprocess_exec(
        str(programs_of(KIND) / program),
        *words,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )
    _, complaint = await process.communicate()
    assert process.returncode is not None
    return process.returncode, complaint.decode()


@pytest_asyncio.fixture
async def elsewhere(state_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    """Another server, with an empty database of its own."""
    async with server_named(KIND)(state_dir / "elsewhere", durable=False) as server:
        yield server


@pytest_asyncio.fixture
async def dump(
    house: House, database_url: str, admin_url: str, state_dir: Path, tmp_path: Path
) -> Path:
    """Of a store in which something is sealed in each place, by keys that were replaced since;
    two keys wrap its root key."""
    settings = settings_for(database_url, state_dir)
    both = replace(settings, kms_key_id_secondary=f"file:{state_dir}/second.key")
    async with open_app(both, environ={}, pool=2) as app:
        await app.keys.rotate_root()
        await app.keys.wrap_anew()
    await seal_everywhere(house)
    await house.app.keys.rotate(TENANT)
    await house.app.keys.rewrap(TENANT)
    await house.write("own/x", {"k": "later"})
    made = tmp_path / "svsync.dump"
    code, complaint = await command("pg_dump", "-Fc", "-f", str(made), admin_url)
    assert code == 0, complaint
    return made


@pytest_asyncio.fixture
async def restored(elsewhere: EmbeddedPostgres, dump: Path) -> str:
    """The dump's database on the other server, as superuser."""
    url = database_dsn(elsewhere.admin_dsn, "svsync")
    code, complaint = await command(
        "pg_restore", "--exit-on-error", "--single-transaction", "--no-owner", "--role=svsync",
        "-d", url, str(dump),
    )  # fmt: skip
    assert code == 0, complaint
    return url


def settings_there(server: EmbeddedPostgres, folder: Path, key: Path | None) -> Settings:
    """Of the second place: a copy of one key is all that was brought along."""
    folder.mkdir(mode=0o700)
    brought = folder / "brought.key"
    if key is not None:
        shutil.copy(key, brought)
        brought.chmod(0o600)
    return replace(settings_for(server.dsn, folder, backend()), kms_key_id=f"file:{brought}")


@asynccontextmanager
async def opened(settings: Settings, url: str, like: House) -> AsyncIterator[House]:
    """The second place, before the same backend."""
    drivers = {"memory": MemoryDriver(like.there)}
    async with (
        open_app(settings, environ={}, drivers=drivers, pool=4) as app,
        connected(url) as admin,
    ):
        yield House(app, like.there, admin, like.spec)


async def test_a_dump_opens_elsewhere_by_the_second_key_and_goes_on(
    house: House, elsewhere: EmbeddedPostgres, restored: str, state_dir: Path, tmp_path: Path
) -> None:
    said = await texts(house)
    settings = settings_there(elsewhere, tmp_path / "there", state_dir / "second.key")
    applied, done = await migrate_only(settings, restored=True)
    assert (applied, done is not None) == ([], True)
    async with opened(settings, restored, house) as there:
        assert await texts(there) == said
        assert await there.rows("secrets") == await house.rows("secrets")
        [service] = (await there.app.keys.status(TENANT)).services
        assert (service.word, service.reference.endswith("brought.key")) == (Word.OPENS, True)
        assert not await restore.has_moved(there.app.db)
        assert (await there.app.verification.verify(TENANT)).fits
        there.there.put("kv/e", {"k": "since"})
        assert failure(await there.run()) is None
        assert await there.data("ext/e") == {"k": "since"}
        version = await there.write("own/x", {"k": "there"})
        await there.app.keys.rotate(TENANT)
        assert (await there.app.keys.rewrap(TENANT)).left == 0
        assert await there.data("own/x", version) == {"k": "there"}
    assert await house.data("own/x") == {"k": "later"}, "the first place is as it was"


@pytest.mark.parametrize("brought", ["nothing", "another key"])
async def test_without_either_key_it_opens_nowhere(
    house: House, elsewhere: EmbeddedPostgres, restored: str, tmp_path: Path, brought: str
) -> None:
    key = None
    if brought == "another key":
        key = tmp_path / "another.key"
        LocalKeyService.open(key, create=True)
    settings = settings_there(elsewhere, tmp_path / "there", key)
    with pytest.raises(KeyServiceError, match=r"brought\.key"):
        async with opened(settings, restored, house):
            pass
    assert key is not None or not (tmp_path / "there" / "brought.key").exists()


async def test_a_role_under_row_level_security_makes_no_dump(
    house: House, database_url: str, tmp_path: Path
) -> None:
    """It would be one without a single row, so pg_dump refuses; docs say who is to make it."""
    await house.write("own/a", {"k": "1"})
    code, complaint = await command(
        "pg_dump", "-Fc", "-f", str(tmp_path / "none.dump"), database_url
    )
    assert code != 0
    assert "row-level security" in complaint
