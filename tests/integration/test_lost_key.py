"""Either of two keys opens the database, and the loss of one is said before the other goes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.house import TENANT, House, settings_for

from svsync.app import App, open_app
from svsync.config.model import Settings
from svsync.domain.errors import KeyServiceError
from svsync.domain.ids import LocalPath
from svsync.kms.local import LocalKeyService


@pytest.fixture
async def settings(house: House, database_url: str, state_dir: Path) -> Settings:
    """Of a database whose root key was wrapped once, and which has a second key since."""
    await house.write("ext/a", {"k": "1"})
    assert (await house.row("root_keys"))["wrapped_2"] is None
    second = f"file:{state_dir}/second.key"
    return replace(settings_for(database_url, state_dir), kms_key_id_secondary=second)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[App]:
    async with open_app(settings, environ={}, pool=2) as app:
        yield app


async def warnings_of(settings: Settings) -> list[str]:
    """What people are told at the start; the secret opens all the same."""
    async with opened(settings) as app:
        _, data = await app.secrets.get(TENANT, LocalPath("ext/a"))
        assert data == b'{"k": "1"}'
        return list(app.sealing.warnings)


async def test_second_key_wraps_the_root_key_when_it_is_configured(
    house: House, settings: Settings, state_dir: Path
) -> None:
    assert await warnings_of(settings) == []
    row = await house.row("root_keys")
    assert row["wrapped_2"] not in (None, row["wrapped"])
    assert row["kms_ref_2"].endswith("second.key")
    assert await warnings_of(settings) == []
    assert (await house.row("root_keys"))["wrapped_2"] == row["wrapped_2"]


@pytest.mark.parametrize("lost", ["kms.key", "second.key"])
async def test_lost_key_is_warned_of_and_not_made_anew(
    settings: Settings, state_dir: Path, lost: str
) -> None:
    await warnings_of(settings)
    (state_dir / lost).unlink()
    for _ in range(2):
        said = await warnings_of(settings)
        assert any(lost in line for line in said)
        assert not (state_dir / lost).exists()


@pytest.mark.parametrize("lost", ["kms.key", "second.key"])
async def test_key_that_was_replaced_by_another_is_warned_of(
    settings: Settings, state_dir: Path, lost: str
) -> None:
    await warnings_of(settings)
    elsewhere = state_dir / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    LocalKeyService.open(elsewhere / "kms.key", create=True)
    (elsewhere / "kms.key").rename(state_dir / lost)
    assert any(lost in line for line in await warnings_of(settings))


async def test_loss_of_both_keys_is_refused_in_one_sentence(
    settings: Settings, state_dir: Path
) -> None:
    await warnings_of(settings)
    for name in ("kms.key", "second.key"):
        (state_dir / name).unlink()
    with pytest.raises(KeyServiceError, match=r"kms\.key"):
        await warnings_of(settings)
    assert not any((state_dir / name).exists() for name in ("kms.key", "second.key"))
