"""Whole houses on the servers that stand in for Azure."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.azure import KEYS, azure_spec, driver
from tests.azure_fake import AzureFake
from tests.azure_vault import Vault
from tests.house import BACKEND, House, open_house

from svsync.domain.federation import Mode


@asynccontextmanager
async def house_of(
    fake: AzureFake,
    vault: Vault,
    database: tuple[str, str, Path],
    *,
    environ: Mapping[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[House]:
    """A house that syncs a vault to `ext/*`; `database` as the fixture of that name gives it,
    `environ` is read at each login."""
    given = {"mode": Mode.SYNC, **settings}
    spec = azure_spec(fake, vault, id=BACKEND, name=str(BACKEND), **given)
    async with open_house(
        *database,
        spec,
        environ=environ or {"AZURE_KEYS": KEYS},
        drivers={"azure-key-vault": driver(fake)},
    ) as house:
        yield house
