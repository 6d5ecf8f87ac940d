"""The look at what is stored: it finds what lies open, and nothing where all is sealed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from svsync.app import App, open_app
from svsync.config.model import Settings
from svsync.domain.errors import StoreError
from svsync.domain.ids import LocalPath, TenantId
from svsync.domain.values import Payload
from svsync.embedded.at_rest import look_at_rest
from svsync.services.secrets import Put

TENANT = TenantId(1)
PATH = LocalPath("app/db")
VALUE = "correct-horse-battery-staple-0123456789"


@pytest.fixture
async def app(state_dir: Path) -> AsyncIterator[App]:
    async with open_app(Settings(state_dir=str(state_dir)), environ={}) as opened:
        yield opened


async def _write(app: App, tags: tuple[str, ...] = ()) -> None:
    put = Put(Payload.from_fields({"password": VALUE}), tags=tags)
    await app.secrets.put(TENANT, PATH, put, by="test")


async def test_sealed_value_is_found_nowhere(app: App, state_dir: Path) -> None:
    await _write(app)
    looked = await look_at_rest(state_dir, [VALUE.encode()], PATH)
    assert (looked.found, looked.versions, len(looked.sample)) == ((), 1, 12)
    assert looked.rows > 1
    assert looked.files > 100


async def test_value_that_lies_open_is_found_in_row_and_file(app: App, state_dir: Path) -> None:
    await _write(app, tags=(f"note={VALUE}",))
    (state_dir / "careless.log").write_bytes(b"\0" * 5000 + VALUE.encode().hex().encode())
    looked = await look_at_rest(state_dir, [b"something else", VALUE.encode()], PATH)
    assert {"table secrets", "file careless.log"} < set(looked.found)
    assert any("postgres/data" in place for place in looked.found)


async def test_secret_that_is_not_there_is_told(app: App, state_dir: Path) -> None:
    with pytest.raises(StoreError, match="no sealed value of app/db"):
        await look_at_rest(state_dir, [VALUE.encode()], PATH)
