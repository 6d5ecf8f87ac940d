"""Reading values: twenty a call where that is allowed, else one by one.

A batch is believed where it gives the current version. What it leaves out, gives under
another label or cannot read is asked for alone, and what a read then does not find is
looked at: scheduled for deletion, without a value, and never there are three answers.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from svsync.backends.aws.calls import AwsCalls, run_all
from svsync.backends.aws.entries import (
    CURRENT,
    entry_of,
    gone_of,
    made_before,
    meta_token,
    tags_of,
    value_of,
)
from svsync.clients.aws import AwsRefusedError
from svsync.domain.changes import Entry, RemoteGone, RemoteRead, RemoteUnknown, RemoteValue
from svsync.domain.errors import DeniedError
from svsync.domain.ids import RemotePath

BATCH: Final = 20
_NOT_THERE: Final = ("ResourceNotFoundException", "InvalidRequestException")
_CANNOT_DECRYPT: Final = RemoteUnknown(
    "unreadable", "its key in KMS does not decrypt it: it may be disabled, or pending deletion"
)


class AwsReading:
    """Reads of one backend; paths are checked before they come here."""

    def __init__(self, calls: AwsCalls, max_bytes: int) -> None:
        self._calls = calls
        self._max_bytes = max_bytes
        self._may_batch = True

    async def look_up(self, path: RemotePath) -> Entry | RemoteGone | RemoteUnknown:
        """What a look at one secret tells, without its value."""
        try:
            return entry_of(await self._calls.describe(path))
        except DeniedError:
            return RemoteUnknown("denied", "secretsmanager:DescribeSecret is not granted")
        except AwsRefusedError as error:
            if error.reason == "ResourceNotFoundException":
                return RemoteGone()
            return _unreadable(error)

    async def read_one(self, path: RemotePath) -> RemoteRead:
        """One value, with its tags where a look at the secret is granted."""
        read, described = await run_all([self._read(path), self._describe(path)])
        assert not isinstance(read, dict)
        if not isinstance(read, RemoteValue) or not isinstance(described, dict):
            return read
        tags = tags_of(described)
        made_by = (*read.made_by, *made_before(described))
        return replace(read, tags=tags, meta_token=meta_token(tags), made_by=made_by)

    async def read_many(self, paths: Sequence[RemotePath]) -> list[RemoteRead]:
        """Several values in one call, as far as that goes; their tags are for a listing to
        tell."""
        found: dict[str, RemoteRead] = {}
        if self._may_batch and len(paths) > 1:
            found = await self._read_batch(paths)
        left = [path for path in paths if path not in found]
        alone = await run_all([self._read(path) for path in left])
        found.update(zip(left, alone, strict=True))
        return [found[path] for path in paths]

    async def _read_batch(self, paths: Sequence[RemotePath]) -> dict[str, RemoteRead]:
        found: dict[str, RemoteRead] = {}
        asked: dict[str, Any] = {"SecretIdList": list(paths)}
        for _ in paths:  # an answer may have pages; none is needed for more than its value
            try:
                answer = await self._calls.request("read", "batch_get_secret_value", **asked)
            except DeniedError:
                self._may_batch = False
                return found
            except AwsRefusedError:
                return found  # one of them spoils the whole: which, tells itself
            for value in answer.get("SecretValues") or ():
                if CURRENT in (value.get("VersionStages") or ()):
                    found[str(value.get("Name"))] = value_of(value, self._max_bytes)
            for error in answer.get("Errors") or ():
                match error.get("ErrorCode"):
                    case "AccessDeniedException":
                        found[str(error.get("SecretId"))] = RemoteUnknown("denied")
                    case "DecryptionFailure":
                        found[str(error.get("SecretId"))] = _CANNOT_DECRYPT
            if not answer.get("NextToken"):
                break
            asked["NextToken"] = answer["NextToken"]
        return found

    async def _read(self, path: RemotePath) -> RemoteRead:
        try:
            answer = await self._calls.request(
                "read", "get_secret_value", path, SecretId=path, VersionStage=CURRENT
            )
        except DeniedError:
            return RemoteUnknown("denied")
        except AwsRefusedError as error:
            if error.reason == "DecryptionFailure":
                return _CANNOT_DECRYPT
            if error.reason not in _NOT_THERE:
                return _unreadable(error)
        else:
            return value_of(answer, self._max_bytes)
        looked_up = await self.look_up(path)
        if not isinstance(looked_up, Entry):
            return looked_up
        if looked_up.gone:
            return gone_of(looked_up)
        return RemoteUnknown("unreadable", "it is there, and a read does not find its value")

    async def _describe(self, path: RemotePath) -> dict[str, Any] | RemoteRead:
        try:
            return await self._calls.describe(path)
        except (DeniedError, AwsRefusedError):
            return RemoteUnknown("unreadable")


def _unreadable(error: AwsRefusedError) -> RemoteUnknown:
    return RemoteUnknown("unreadable", f"AWS answers {error.status} for this secret")
