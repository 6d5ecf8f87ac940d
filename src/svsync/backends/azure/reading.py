"""Reading values, one by one, and what stands at a name without its value.

A read of a name gives its newest version. Key Vault reads versions that have expired, or
are not valid yet, as well: the first counts as gone, the second as nothing that can be
told yet. What is disabled it does not read, and what is deleted it does not find; then
the versions, or what is deleted, are looked at.

Names are the same in any case. A name that stands in another case than it was asked for
is not taken for it: its other spelling is another path here, and whoever may read the one
need not be allowed the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from svsync.backends.azure.calls import IN_TRANSIT, NOT_FOUND, AzureCalls
from svsync.backends.azure.entries import (
    DISABLED,
    NOT_YET,
    Version,
    entry_of,
    gone_of,
    numbered,
    payload_of,
    value_of,
    version_of,
)
from svsync.clients.azure import Answer, AzureRefusedError
from svsync.domain.changes import (
    Entry,
    HistoricVersion,
    RemoteGone,
    RemoteRead,
    RemoteUnknown,
)
from svsync.domain.errors import DeniedError
from svsync.domain.ids import RemotePath
from svsync.domain.values import Payload

OTHER_CASE: Final = RemoteUnknown("collision", "it stands there in another case")
_NOT_YET: Final = RemoteUnknown("unreadable", "its newest version is not valid yet")
_MOVING: Final = RemoteUnknown("lagging", "it is being deleted or recovered")


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands at a name: all versions that are told, the newest one, and when."""

    newest: Version
    versions: tuple[Version, ...]
    now: datetime


class AzureReading:
    """Reads of one backend; paths are checked before they come here."""

    def __init__(self, calls: AzureCalls, max_bytes: int) -> None:
        self._calls = calls
        self._max_bytes = max_bytes

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        """What stands there, without its value where that may be seen."""
        try:
            standing = await self.standing(path)
        except DeniedError:
            return await self.read(path)
        if isinstance(standing, Standing):
            return entry_of(standing.newest, standing.now)
        return standing

    async def read(self, path: RemotePath) -> RemoteRead:
        answer = await self._read(path)
        if isinstance(answer, RemoteGone):
            return await self._of_disabled(path) if answer.reason == DISABLED else answer
        if isinstance(answer, RemoteUnknown):
            return answer
        version = version_of(answer.body, answer.moment)
        if version is None:
            return RemoteUnknown("bad_metadata")
        if version.name != path:
            return OTHER_CASE
        if version.gone:
            return gone_of(version, answer.moment)
        if version.state == NOT_YET:
            return _NOT_YET
        return value_of(answer.body, version, answer.moment, self._max_bytes)

    async def standing(self, path: RemotePath) -> Standing | RemoteGone | RemoteUnknown:
        """The versions of a name. Raises DeniedError, too, where they may not be listed."""
        found: list[Version] = []
        now: datetime | None = None
        try:
            async for page in self._calls.pages("metadata", f"/secrets/{path}/versions", path):
                now = now or page.moment
                items = page.body["value"] or ()
                found.extend(v for item in items if (v := version_of(item, now)) is not None)
        except AzureRefusedError as error:
            if error.reason in IN_TRANSIT:
                return _MOVING
            if error.reason != NOT_FOUND:
                return _unreadable(error)
        if not found or now is None:
            return await self._of_deleted(path)
        if found[0].name != path:
            return OTHER_CASE
        return Standing(await self._newest(path, found), tuple(found), now)

    async def history(
        self, path: RemotePath, *, above: int, below: int, limit: int
    ) -> Sequence[HistoricVersion]:
        """Versions that can be read with a number between, oldest first."""
        try:
            standing = await self.standing(path)
        except DeniedError:
            return ()
        if not isinstance(standing, Standing) or limit < 1:
            return ()
        wanted = [
            (number, version)
            for number, version in numbered(standing.versions, standing.newest.version)
            if above < number < below and version.state == ""
        ]
        read = [await self._version(path, number, version) for number, version in wanted[-limit:]]
        return [version for version in read if version is not None]

    # --- one call each ------------------------------------------------------------

    async def _read(self, path: RemotePath) -> Answer | RemoteGone | RemoteUnknown:
        try:
            return await self._calls.request("read", "GET", f"/secrets/{path}/", path, told="id")
        except DeniedError as error:
            return RemoteUnknown("denied", error.message)
        except AzureRefusedError as error:
            if error.reason == "SecretDisabled":
                return RemoteGone(reason=DISABLED)
            if error.reason in IN_TRANSIT:
                return _MOVING
            if error.reason != NOT_FOUND:
                return _unreadable(error)
        return await self._of_deleted(path)

    async def _of_disabled(self, path: RemotePath) -> RemoteGone | RemoteUnknown:
        """A read of what is disabled tells nothing else."""
        try:
            standing = await self.standing(path)
        except DeniedError:
            return RemoteGone(reason=DISABLED)
        if not isinstance(standing, Standing):
            return standing
        if not standing.newest.gone:
            return _MOVING  # enabled meanwhile
        return gone_of(standing.newest, standing.now)

    async def _of_deleted(self, path: RemotePath) -> RemoteGone | RemoteUnknown:
        """It is not there; is it among what is deleted and can be recovered?"""
        try:
            answer = await self._calls.request("metadata", "GET", f"/deletedsecrets/{path}", path)
        except DeniedError:
            return RemoteGone()
        except AzureRefusedError as error:
            return _MOVING if error.reason in IN_TRANSIT else RemoteGone()
        version = version_of(answer.body, answer.moment, deleted=True)
        if version is None:
            return RemoteGone()
        return OTHER_CASE if version.name != path else gone_of(version, answer.moment)

    async def _newest(self, path: RemotePath, found: Sequence[Version]) -> Version:
        """Where two were made within one second, a read tells which is the newer one."""
        latest = max(version.created for version in found)
        newest = [version for version in found if version.created == latest]
        if len(newest) > 1:
            answer = await self._read(path)
            if isinstance(answer, Answer):
                told = version_of(answer.body, answer.moment)
                newest = [v for v in newest if told and v.version == told.version] or newest
        return max(newest, key=lambda one: (one.updated, one.version))

    async def _version(
        self, path: RemotePath, number: int, version: Version
    ) -> HistoricVersion | None:
        try:
            answer = await self._calls.request(
                "read", "GET", f"/secrets/{path}/{version.version}", path, told="id"
            )
        except (DeniedError, AzureRefusedError):
            return None
        payload = payload_of(answer.body, self._max_bytes)
        if not isinstance(payload, Payload):
            return None
        made = datetime.fromtimestamp(version.created, answer.moment.tzinfo)
        return HistoricVersion(number, payload, made)


def _unreadable(error: AzureRefusedError) -> RemoteUnknown:
    return RemoteUnknown("unreadable", f"Key Vault answers {error.status} for this secret")
