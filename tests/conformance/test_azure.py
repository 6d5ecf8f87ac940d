"""Azure Key Vault passes the suite, on a fake below the real SDK: by deletions, and by
versions that are disabled."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import pytest
from tests.azure import open_azure
from tests.azure_fake import AzureFake
from tests.azure_vault import Vault

from svsync.ports import Backend
from svsync.testing.conformance import Ability, BackendConformance, CountingGuard, Scene
from svsync.testing.conformance_writes import WriteConformance

MAX_VALUE: Final = 2000
CAN: Final[frozenset[Ability]] = frozenset(
    {"tokens", "tags", "soft_delete", "deletes_whole", "outage"}
)
"""Of deletions; what is disabled is one version."""


@dataclass
class AzureScene:
    """A vault of its own."""

    fake: AzureFake
    vault: Vault
    backend: Backend
    guard: CountingGuard
    disables: bool = False
    max_value: int = MAX_VALUE
    prefix: str = ""

    @property
    def can(self) -> frozenset[Ability]:
        return CAN - {"deletes_whole"} if self.disables else CAN

    async def put(self, name: str, fields: Mapping[str, str]) -> None:
        self.vault.put(name, json.dumps(dict(fields)))

    async def remove(self, name: str) -> None:
        self.vault.remove(name)

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        self.vault.touch(name, tags=dict(tags))

    async def delete(self, name: str) -> None:
        if self.disables:
            self.vault.touch(name, enabled=False)
        else:
            self.vault.delete(name)

    async def undelete(self, name: str) -> None:
        if name in self.vault.deleted:
            self.vault.restore(name)
        else:
            self.vault.touch(name, enabled=True)

    async def break_down(self) -> None:
        self.fake.refuse_as("", 500, "InternalServerError")

    async def destroy(self, name: str) -> None:
        raise NotImplementedError

    async def hide(self, name: str) -> None:
        raise NotImplementedError

    async def deny(self, folder: str) -> None:
        raise NotImplementedError

    async def deny_writes(self, folder: str) -> None:
        raise NotImplementedError


@asynccontextmanager
async def opened(
    fake: AzureFake, vault: Vault, *, disables: bool = False
) -> AsyncIterator[AzureScene]:
    vault.lag = 2
    async with open_azure(fake, vault, max_value_bytes=MAX_VALUE) as made:
        yield AzureScene(fake, vault, made.backend, made.guard, disables)


class TestAzure(BackendConformance):
    @pytest.fixture
    async def scene(self, azure_fake: AzureFake, vault: Vault) -> AsyncIterator[Scene]:
        async with opened(azure_fake, vault) as scene:
            yield scene


class TestAzureDisabled(BackendConformance):
    @pytest.fixture
    async def scene(self, azure_fake: AzureFake, vault: Vault) -> AsyncIterator[Scene]:
        async with opened(azure_fake, vault, disables=True) as scene:
            yield scene


class TestAzureWrites(WriteConformance):
    @pytest.fixture
    async def scene(self, azure_fake: AzureFake, vault: Vault) -> AsyncIterator[Scene]:
        async with opened(azure_fake, vault) as scene:
            yield scene


class TestAzureDisabledWrites(WriteConformance):
    @pytest.fixture
    async def scene(self, azure_fake: AzureFake, vault: Vault) -> AsyncIterator[Scene]:
        async with opened(azure_fake, vault, disables=True) as scene:
            yield scene
