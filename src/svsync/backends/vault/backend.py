"""One Vault or OpenBao server as a backend: point reads, history, listing, writes."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from svsync.backends.vault.calls import VaultCalls, is_of_one_path, run_all
from svsync.backends.vault.connection import ConnectionTest
from svsync.backends.vault.kv import (
    NO_VERSION,
    Mount,
    entry_of,
    is_readable,
    parse_time,
    read_v1,
    read_v2,
    says_absent,
    server_now,
)
from svsync.backends.vault.listing import VaultListing
from svsync.backends.vault.survey import VaultSurvey, deletion
from svsync.backends.vault.writing import Kv1Writing, Kv2Writing, size_there
from svsync.clients.vault import AnswerTooLargeError, nothing_sent
from svsync.domain.changes import (
    Entry,
    Folder,
    HistoricVersion,
    ListingPage,
    RemoteGone,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
    Tags,
)
from svsync.domain.errors import BackendError, DeniedError, ProtocolError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import RemotePath
from svsync.domain.inventory import SurveyPage
from svsync.domain.mapping import RuleSet
from svsync.domain.paths import remote_problem
from svsync.domain.pushes import Landed, Ready, Refused, RemoteWrite
from svsync.domain.readers import Login
from svsync.domain.retirement import Deletion
from svsync.ports import Connection, Features

FEATURES: Final = Features(
    history=True,
    ordered_tokens=True,
    compare_and_set=True,
    json_doubles=True,
    tags=True,
    folders=True,
)


class VaultBackend:
    """See `ports.Backend`. KV v1 and v2 mounts may stand side by side."""

    def __init__(self, spec: BackendSpec, rules: RuleSet, calls: VaultCalls) -> None:
        self._spec = spec
        self._rules = rules
        self._calls = calls

    @property
    def features(self) -> Features:
        return FEATURES

    async def connect(self, prefixes: Sequence[str], *, probe: bool = True) -> Connection:
        return await ConnectionTest(self._spec, self._rules, self._calls).run(prefixes, probe=probe)

    def list_entries(self, prefixes: Sequence[str], *, tokens: bool) -> AsyncGenerator[ListingPage]:
        listing = VaultListing(self._calls, tokens, self._spec.max_secrets)
        return listing.pages(prefixes)

    async def list_folder(self, folder: str) -> Folder:
        return await VaultListing(self._calls, False, self._spec.max_secrets).folder(folder)

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        mount = await self._mount_of(path)
        if isinstance(mount, RemoteUnknown):
            return mount
        if mount.version == 1:
            return await self._read(path)
        try:
            answer = await self._calls.request("metadata", "GET", mount.url("metadata", path), path)
        except DeniedError:
            return RemoteUnknown("denied")
        except AnswerTooLargeError:
            return RemoteUnknown("unreadable", "the metadata is too large")
        except BackendError as error:
            return _of_this_path(error)
        if answer.status == 404:
            if says_absent(answer):
                return RemoteGone(NO_VERSION, order=0)
            return RemoteUnknown("unreadable", "the mount is missing")
        info = answer.json().get("data")
        if not isinstance(info, dict):
            return RemoteUnknown("bad_metadata")
        return entry_of(path, info, server_now(answer))

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        return [await self._read(path) for path in paths]

    async def read_history(
        self, path: RemotePath, *, above: int, below: int, limit: int
    ) -> Sequence[HistoricVersion]:
        mount = await self._mount_of(path)
        if isinstance(mount, RemoteUnknown) or mount.version == 1 or limit < 1:
            return ()
        try:
            answer = await self._calls.request("metadata", "GET", mount.url("metadata", path), path)
        except (DeniedError, AnswerTooLargeError):
            return ()
        except BackendError as error:
            if not is_of_one_path(error):
                raise
            return ()
        info = answer.json().get("data") if answer.status == 200 else None
        versions = info.get("versions") if isinstance(info, dict) else None
        if not isinstance(versions, dict):
            return ()
        now = server_now(answer)
        numbers = sorted(
            number
            for number, version in ((int(n), v) for n, v in versions.items() if n.isdecimal())
            if above < number < below and is_readable(version, now)
        )
        read = await run_all(
            self._read_version(mount, path, number, versions[str(number)]["created_time"])
            for number in numbers[-limit:]
        )
        return [version for version in read if version is not None]

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        largest = min(FEATURES.max_value, self._spec.max_value_bytes)
        if order.payload is not None and size_there(order.payload) > largest:
            return Refused("value_too_large")
        mount = await self._mount_of(order.path)
        if isinstance(mount, RemoteUnknown):
            return Refused(mount.reason, mount.detail)
        if mount.version == 1:
            return await self._kv1(mount).check(order)
        return await Kv2Writing(self._calls, mount).check(order)

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        with nothing_sent():
            mount = await self._mount_of(order.path)
        if isinstance(mount, RemoteUnknown):
            return Refused(mount.reason, mount.detail)
        if mount.version == 1:
            return await self._kv1(mount).write(order)
        return await Kv2Writing(self._calls, mount).write(order, ready, tags)

    async def find_delete(self, order: RemoteWrite) -> Landed | Refused | None:
        mount = await self._mount_of(order.path)
        if isinstance(mount, RemoteUnknown) or mount.version == 1:
            return None
        return await Kv2Writing(self._calls, mount).find_delete(order)

    @property
    def tells_reads(self) -> bool:
        """Only its audit devices do."""
        return False

    def survey(self) -> AsyncGenerator[SurveyPage]:
        return VaultSurvey(self._calls, self._spec).pages()

    async def own_login(self) -> Login | None:
        return await VaultSurvey(self._calls, self._spec).own_login()

    async def deletion(self, path: RemotePath) -> Deletion | None:
        mount = await self._mount_of(path)
        if isinstance(mount, RemoteUnknown):
            return None
        return deletion(self._spec, mount, path)

    async def aclose(self) -> None:
        await self._calls.session.aclose()

    def _kv1(self, mount: Mount) -> Kv1Writing:
        allowed = self._spec.extra.get("allow_blind_push") is True
        return Kv1Writing(self._calls, mount, self._read, allowed=allowed)

    async def _read(self, path: RemotePath) -> RemoteRead:
        mount = await self._mount_of(path)
        if isinstance(mount, RemoteUnknown):
            return mount
        return await self._read_at(path, mount, mount.url("data", path))

    async def _read_version(
        self, mount: Mount, path: RemotePath, number: int, created: object
    ) -> HistoricVersion | None:
        read = await self._read_at(path, mount, f"{mount.url('data', path)}?version={number}")
        if not isinstance(read, RemoteValue):
            return None
        return HistoricVersion(number, read.payload, parse_time(created))

    async def _read_at(self, path: RemotePath, mount: Mount, url: str) -> RemoteRead:
        try:
            answer = await self._calls.request("read", "GET", url, path)
        except DeniedError:
            return RemoteUnknown("denied")
        except AnswerTooLargeError:
            return RemoteUnknown("value_too_large")
        except BackendError as error:
            return _of_this_path(error)
        understand = read_v2 if mount.version == 2 else read_v1
        return understand(answer, self._spec.max_value_bytes)

    async def _mount_of(self, path: RemotePath) -> Mount | RemoteUnknown:
        """The mount, once the path is fit to become part of a URL."""
        if problem := remote_problem(path, max_bytes=FEATURES.max_name):
            return RemoteUnknown(str(problem.code), problem.detail)
        if not self._rules.in_literal_prefix(path):
            return RemoteUnknown("illegal_path", "the path lies outside of every rule")
        try:
            mount = await self._calls.find_mount(path)
        except DeniedError:
            return RemoteUnknown("denied", "the mount is missing, or no policy reaches it")
        except ProtocolError as error:
            if error.status is not None:
                raise
            return RemoteUnknown("unreadable", error.message)
        if not mount.holds(path):
            return RemoteUnknown("illegal_path", f"paths of this mount begin with {mount.root}")
        return mount


def _of_this_path(error: BackendError) -> RemoteUnknown:
    """A status that speaks of one path leaves that path out and stops no other."""
    if not is_of_one_path(error):
        raise error
    return RemoteUnknown("unreadable", f"the backend answers {error.status} for this path")
