"""One Azure Key Vault as a backend."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from svsync.backends.azure.calls import AzureCalls
from svsync.backends.azure.connection import ConnectionTest
from svsync.backends.azure.entries import MAX_NAME, MAX_VALUE, SEGMENT
from svsync.backends.azure.listing import AzureListing
from svsync.backends.azure.reading import AzureReading
from svsync.backends.azure.writing import AzureWriting
from svsync.domain.changes import (
    Entry,
    Folder,
    HistoricVersion,
    ListingPage,
    RemoteRead,
    RemoteUnknown,
    Tags,
)
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import RemotePath
from svsync.domain.mapping import RuleSet
from svsync.domain.paths import remote_problem
from svsync.domain.published import AZURE_KEY_VAULT
from svsync.domain.pushes import Landed, Ready, Refused, RemoteWrite
from svsync.ports import Connection, Features

FEATURES: Final = Features(
    history=True,
    history_by_default=False,
    ordered_tokens=True,
    tags=True,
    tags_apart=False,
    segment=SEGMENT,
    separator=None,
    max_name=MAX_NAME,
    max_value=MAX_VALUE,
    case_sensitive=False,
    terms=AZURE_KEY_VAULT,
)


class AzureBackend:
    """See `ports.Backend`."""

    def __init__(self, spec: BackendSpec, rules: RuleSet, calls: AzureCalls) -> None:
        self._rules = rules
        self._calls = calls
        told = spec.filters.get("tags")
        tags = {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}
        self._listing = AzureListing(calls, tags, spec.max_secrets)
        self._reading = AzureReading(calls, spec.max_value_bytes)
        self._test = ConnectionTest(spec, calls, self._listing)
        self._writing = AzureWriting(
            calls,
            self._reading,
            max_bytes=spec.max_value_bytes,
            content_type=str(spec.config.get("content_type", "")),
        )

    @property
    def features(self) -> Features:
        return FEATURES

    async def connect(self, prefixes: Sequence[str], *, probe: bool = True) -> Connection:
        return await self._test.run(probe=probe)

    def list_entries(self, prefixes: Sequence[str], *, tokens: bool) -> AsyncGenerator[ListingPage]:
        """With tokens, which cost no call of their own."""
        return self._listing.pages(prefixes)

    async def list_folder(self, folder: str) -> Folder:
        return await self._listing.folder(folder)

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        return self._problem(path) or await self._reading.look_up(path)

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        return [self._problem(path) or await self._reading.read(path) for path in paths]

    async def read_history(
        self, path: RemotePath, *, above: int, below: int, limit: int
    ) -> Sequence[HistoricVersion]:
        if self._problem(path):
            return ()
        return await self._reading.history(path, above=above, below=below, limit=limit)

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        if problem := self._problem(order.path):
            return Refused(problem.reason, problem.detail)
        return await self._writing.check(order)

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        if problem := self._problem(order.path):
            return Refused(problem.reason, problem.detail)
        return await self._writing.write(order, ready, tags)

    async def find_delete(self, order: RemoteWrite) -> Landed | Refused | None:
        """None: a deletion that was recovered leaves no trace."""
        return None

    async def aclose(self) -> None:
        await self._calls.session.aclose()

    def _problem(self, path: RemotePath) -> RemoteUnknown | None:
        """Why this name is not asked for."""
        if problem := remote_problem(path, separator=None, segment=SEGMENT, max_bytes=MAX_NAME):
            return RemoteUnknown(str(problem.code), problem.detail)
        if not self._rules.in_literal_prefix(path):
            return RemoteUnknown("illegal_path", "the path lies outside of every rule")
        return None
