"""Reading values: one access each, of the version that was made last.

Accesses are plenty (90,000 a minute) and looks at what is there are few (600 a minute,
"Secret Manager quotas and limits"). So several values are accessed side by side, without
their labels, and only what an access does not give is looked at: disabled, destroyed,
never there, and not to be decrypted are four answers.

Only an access by number is strongly consistent, one of `latest` is not ("Resource
consistency"): it may give the version before. Who reads compares the numbers.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from svsync.backends.gcp.calls import PERMISSIONS, GcpCalls, run_all
from svsync.backends.gcp.entries import (
    ENABLED,
    LATEST,
    entry_of,
    gone_of,
    historic,
    number_of,
    pairs_of,
    state_of,
    value_of,
)
from svsync.clients.gcp import GcpRefusedError
from svsync.domain.changes import (
    Entry,
    HistoricVersion,
    RemoteGone,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
)
from svsync.domain.errors import DeniedError
from svsync.domain.ids import RemotePath

_PAGE: Final = 500
_DENIED: Final = RemoteUnknown("denied", f"{PERMISSIONS['access_secret_version']} is not granted")
_CANNOT_DECRYPT: Final = RemoteUnknown(
    "unreadable",
    "its newest version is enabled and gives no value: its key in Cloud KMS may be disabled",
)
_UNTOLD: Final = RemoteUnknown(
    "unreadable",
    "its newest version gives no value, and whether it is disabled is not to be seen without"
    f" {PERMISSIONS['get_secret_version']}",
)
_NOT_YET: Final = RemoteUnknown("lagging", "it is there, and an access does not find it yet")


class GcpReading:
    """Reads of one backend; paths are checked before they come here."""

    def __init__(self, calls: GcpCalls, max_bytes: int) -> None:
        self._calls = calls
        self._max_bytes = max_bytes

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        """What a look at a secret and its newest version tells; with the value, where only
        that is granted."""
        found = await self._look(path)
        if isinstance(found, RemoteUnknown) and found.reason == "denied":
            return await self._access(path)
        return found

    async def read_one(self, path: RemotePath) -> RemoteRead:
        """One value, with its pairs where a look at the secret is granted."""
        both: list[Any] = await run_all([self._access(path), self._secret(path)])
        read: RemoteRead = both[0]
        secret = both[1]
        if not isinstance(read, RemoteValue) or secret is None:
            return read
        return replace(read, tags=pairs_of(secret), meta_token=str(secret.etag))

    async def read_many(self, paths: Sequence[RemotePath]) -> list[RemoteRead]:
        """Several values; their pairs are for a listing to tell."""
        return await run_all(self._access(path) for path in paths)

    async def history(
        self, path: RemotePath, *, above: int, below: int, limit: int
    ) -> list[HistoricVersion]:
        """The newest `limit` of the versions between that can be read, oldest first.

        By number where there are no more than that: it is what is strongly consistent.
        """
        first = max(1, above + 1)
        if limit < 1 or below <= first:
            return []
        if below - first <= limit:
            created: dict[int, object] = dict.fromkeys(range(first, below))
        else:
            created = await self._enabled(path, above, below, limit)
        reads = await run_all(self._numbered(path, number) for number in sorted(created))
        return [
            historic(read, created[read.order or 0])
            for read in reads
            if isinstance(read, RemoteValue)
        ]

    # --- one secret ---------------------------------------------------------------

    async def _access(self, path: RemotePath) -> RemoteRead:
        try:
            answer = await self._calls.access(path, LATEST)
        except DeniedError:
            return _DENIED
        except GcpRefusedError as error:
            return await self._without_value(path, error)
        return value_of(answer, self._max_bytes)

    async def _without_value(self, path: RemotePath, error: GcpRefusedError) -> RemoteRead:
        """What it means that an access is refused. That there is nothing is told only to who
        may access what is there."""
        missing = error.reason == "NOT_FOUND"
        if not missing and error.reason != "FAILED_PRECONDITION":
            return _unreadable(error)
        found = await self._look(path)
        if isinstance(found, RemoteUnknown):
            if found.reason != "denied":
                return found
            return RemoteGone() if missing else _UNTOLD
        if isinstance(found, RemoteGone):
            return found
        if found.gone:
            return gone_of(found)
        return _NOT_YET if missing else _CANNOT_DECRYPT

    async def _look(self, path: RemotePath) -> Entry | RemoteGone | RemoteUnknown:
        try:
            secret, version = await run_all(
                [self._calls.secret(path), self._calls.version(path, LATEST)]
            )
        except DeniedError:
            return RemoteUnknown("denied", f"{PERMISSIONS['get_secret']} is not granted")
        except GcpRefusedError as error:
            return _unreadable(error)
        if secret is None:
            return RemoteGone() if version is None else _NOT_YET
        return entry_of(secret, version)

    async def _secret(self, path: RemotePath) -> Any | None:
        try:
            return await self._calls.secret(path)
        except (DeniedError, GcpRefusedError):
            return None

    # --- versions -----------------------------------------------------------------

    async def _numbered(self, path: RemotePath, number: int) -> RemoteRead | None:
        """A version by its number; None where it cannot be read."""
        try:
            return value_of(await self._calls.access(path, number), self._max_bytes)
        except (DeniedError, GcpRefusedError):
            return None

    async def _enabled(
        self, path: RemotePath, above: int, below: int, limit: int
    ) -> dict[int, object]:
        """When the newest enabled versions between were made; they are listed newest first."""
        found: dict[int, object] = {}
        asked: dict[str, Any] = {"parent": self._calls.name(path), "page_size": _PAGE}
        while True:
            try:
                answer = await self._calls.request(
                    "metadata", "list_secret_versions", path, **asked
                )
            except DeniedError:
                return dict.fromkeys(range(below - limit, below))
            except GcpRefusedError:
                return {}
            for version in answer.versions:
                number = number_of(version.name)
                if number <= above or len(found) == limit:
                    return found
                if number < below and state_of(version) == ENABLED:
                    found[number] = version.create_time
            following = str(answer.next_page_token)
            if not following or following == asked.get("page_token"):
                return found
            asked["page_token"] = following


def _unreadable(error: GcpRefusedError) -> RemoteUnknown:
    return RemoteUnknown("unreadable", f"Google answers {error.reason} for this secret")
