"""The secrets of one project, or of one location of it, as a backend."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from svsync.backends.gcp.calls import GcpCalls
from svsync.backends.gcp.connection import ConnectionTest
from svsync.backends.gcp.entries import (
    MAX_NAME,
    MAX_VALUE,
    SEGMENT,
    creation_parameters,
)
from svsync.backends.gcp.listing import GcpListing
from svsync.backends.gcp.reading import GcpReading
from svsync.backends.gcp.writing import GcpWriting
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
from svsync.domain.published import GCP_SECRET_MANAGER
from svsync.domain.pushes import Landed, Ready, Refused, RemoteWrite
from svsync.ports import Connection, Features

TOGETHER: Final = 16
"""Values that are read side by side, one call each: several need no look at their labels."""

FEATURES: Final = Features(
    batch_read=TOGETHER,
    history=True,
    history_by_default=False,
    ordered_tokens=True,
    tags=True,
    consistency_window_s=600.0,
    segment=SEGMENT,
    separator=None,
    max_name=MAX_NAME,
    max_value=MAX_VALUE,
    terms=GCP_SECRET_MANAGER,
)


class GcpBackend:
    """See `ports.Backend`."""

    def __init__(self, spec: BackendSpec, rules: RuleSet, calls: GcpCalls) -> None:
        self._rules = rules
        self._calls = calls
        labels = texts_of(spec.filters.get("labels"))
        self._listing = GcpListing(calls, labels, spec.max_secrets)
        self._reading = GcpReading(calls, spec.max_value_bytes)
        self._test = ConnectionTest(spec, calls, self._listing)
        self._writing = GcpWriting(
            calls,
            max_bytes=spec.max_value_bytes,
            creation=creation_parameters(spec.config),
            # A new secret is one that the filter lets through.
            labels={**labels, **texts_of(spec.config.get("labels"))},
        )

    @property
    def features(self) -> Features:
        return FEATURES

    async def connect(self, prefixes: Sequence[str], *, probe: bool = True) -> Connection:
        return await self._test.run(prefixes, probe=probe)

    def list_entries(self, prefixes: Sequence[str], *, tokens: bool) -> AsyncGenerator[ListingPage]:
        """Without value tokens: a look at each secret's newest version costs more than an
        access of it."""
        return self._listing.pages(prefixes)

    async def list_folder(self, folder: str) -> Folder:
        return await self._listing.folder(folder)

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        return self._problem(path) or await self._reading.look_up(path)

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        """One value comes with its labels and annotations; of several a listing tells them."""
        refused = {path: problem for path in paths if (problem := self._problem(path))}
        usable = [path for path in paths if path not in refused]
        reads: list[RemoteRead]
        if len(usable) == 1:
            reads = [await self._reading.read_one(usable[0])]
        else:
            reads = await self._reading.read_many(usable)
        found: dict[RemotePath, RemoteRead] = {**refused, **dict(zip(usable, reads, strict=True))}
        return [found[path] for path in paths]

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
        return await self._writing.find_delete(order)

    async def aclose(self) -> None:
        await self._calls.session.aclose()

    def _problem(self, path: RemotePath) -> RemoteUnknown | None:
        """Why this name is not asked for."""
        if problem := remote_problem(path, separator=None, segment=SEGMENT, max_bytes=MAX_NAME):
            return RemoteUnknown(str(problem.code), problem.detail)
        if not self._rules.in_literal_prefix(path):
            return RemoteUnknown("illegal_path", "the path lies outside of every rule")
        return None


def texts_of(given: object) -> dict[str, str]:
    return {str(key): str(text) for key, text in given.items()} if isinstance(given, dict) else {}
