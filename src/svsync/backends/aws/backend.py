"""One region of AWS Secrets Manager as a backend."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from svsync.backends.aws.calls import AwsCalls
from svsync.backends.aws.connection import ConnectionTest
from svsync.backends.aws.entries import MAX_NAME, MAX_VALUE, SEGMENT, creation_parameters
from svsync.backends.aws.listing import AwsListing
from svsync.backends.aws.reading import BATCH, AwsReading
from svsync.backends.aws.survey import deletion, pages
from svsync.backends.aws.writing import AwsWriting
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
from svsync.domain.inventory import SurveyPage
from svsync.domain.mapping import RuleSet
from svsync.domain.paths import remote_problem
from svsync.domain.published import AWS_SECRETS_MANAGER
from svsync.domain.pushes import Landed, Ready, Refused, RemoteWrite
from svsync.domain.readers import Login
from svsync.domain.retirement import Deletion
from svsync.ports import Connection, Features

FEATURES: Final = Features(
    batch_read=BATCH,
    compare_and_set=True,
    tags=True,
    push_interval_s=600.0,
    consistency_window_s=600.0,
    segment=SEGMENT,
    max_name=MAX_NAME,
    max_value=MAX_VALUE,
    terms=AWS_SECRETS_MANAGER,
)


class AwsBackend:
    """See `ports.Backend`."""

    def __init__(self, spec: BackendSpec, rules: RuleSet, calls: AwsCalls) -> None:
        self._spec = spec
        self._rules = rules
        self._calls = calls
        filters = {name: _texts(given) for name, given in spec.filters.items()}
        self._listing = AwsListing(calls, filters, spec.max_secrets)
        self._reading = AwsReading(calls, spec.max_value_bytes)
        self._test = ConnectionTest(spec, calls, self._listing)
        self._writing = AwsWriting(
            calls,
            self._reading,
            region=str(spec.config["region"]),
            max_bytes=spec.max_value_bytes,
            blind=spec.extra.get("allow_blind_push") is True,
            creation=creation_parameters(spec.config),
        )

    @property
    def features(self) -> Features:
        return FEATURES

    async def connect(self, prefixes: Sequence[str], *, probe: bool = True) -> Connection:
        return await self._test.run(prefixes, probe=probe)

    def list_entries(self, prefixes: Sequence[str], *, tokens: bool) -> AsyncGenerator[ListingPage]:
        """With tokens, which cost no call of their own."""
        return self._listing.pages(prefixes)

    async def list_folder(self, folder: str) -> Folder:
        return await self._listing.folder(folder)

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        return self._problem(path) or await self._reading.look_up(path)

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        """One value comes with its tags; of several a listing tells them."""
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
        """None: versions have no numbers here, and those without a label may vanish."""
        return ()

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        if problem := self._problem(order.path):
            return Refused(problem.reason, problem.detail)
        return await self._writing.check(order)

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        if problem := self._problem(order.path):
            return Refused(problem.reason, problem.detail)
        return await self._writing.write(order, ready, tags)

    async def find_delete(self, order: RemoteWrite) -> Landed | Refused | None:
        """None: a deletion that was cancelled leaves no trace."""
        return None

    @property
    def tells_reads(self) -> bool:
        return True

    def survey(self) -> AsyncGenerator[SurveyPage]:
        return pages(self._calls, self._spec)

    async def own_login(self) -> Login | None:
        """AWS tells of no reader by name here."""
        return None

    async def deletion(self, path: RemotePath) -> Deletion | None:
        return None if self._problem(path) else deletion(self._spec, path)

    async def aclose(self) -> None:
        await self._calls.session.aclose()

    def _problem(self, path: RemotePath) -> RemoteUnknown | None:
        """Why this name is not asked for."""
        if problem := remote_problem(path, segment=SEGMENT, max_bytes=MAX_NAME):
            return RemoteUnknown(str(problem.code), problem.detail)
        if not self._rules.in_literal_prefix(path):
            return RemoteUnknown("illegal_path", "the path lies outside of every rule")
        return None


def _texts(given: object) -> list[str]:
    return [str(text) for text in given] if isinstance(given, list | tuple) else []
