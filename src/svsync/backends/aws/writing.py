"""Writing to AWS Secrets Manager, so that nobody's version is written over unseen.

A put makes a version under a label of our own, which nobody reads, and then moves
AWSCURRENT to it from the version that was expected: AWS refuses that where the label
stands elsewhere, so the second call is the condition. The id of the version is that of
the push, which makes the first call idempotent.

A secret that is scheduled for deletion is restored first, and a delete schedules one.
Neither takes a condition: each is looked at around the call, and undone where it met
somebody else's version.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from svsync.backends.aws.calls import AwsCalls
from svsync.backends.aws.entries import (
    CURRENT,
    MAX_VALUE,
    NO_VALUE,
    PENDING,
    ROTATING,
    entry_of,
    listed_tags,
    meta_token,
    split_token,
    stages_of,
    value_parameters,
    value_token,
)
from svsync.backends.aws.reading import AwsReading
from svsync.backends.aws.tagging import AwsTags
from svsync.clients.aws import AwsRefusedError
from svsync.domain.changes import Entry, RemoteValue, Tags
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, DeniedError
from svsync.domain.ids import RemotePath
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite

RECOVERY_DAYS: Final = 30
_MOVE_DENIED: Final = "secretsmanager:UpdateSecretVersionStage is not granted"
_PROBE: Final = "SVSYNC_PROBE"
"""A label that no version has: taking it away does nothing, and is denied where moving is."""


class AwsWriting:
    """Writes of one backend; paths are checked before they come here.

    Args:
        region: a replica of a secret of another one is written there, not here.
        max_bytes: largest value, below AWS's own limit.
        blind: write also where AWSCURRENT may not be moved, and so without a condition.
        creation: what a new secret is given beside its value.
    """

    def __init__(
        self,
        calls: AwsCalls,
        reading: AwsReading,
        *,
        region: str,
        max_bytes: int,
        blind: bool,
        creation: Mapping[str, Any],
    ) -> None:
        self._calls = calls
        self._reading = reading
        self._region = region
        self._max_bytes = min(MAX_VALUE, max_bytes)
        self._blind = blind
        self._creation = creation

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        """One look at the secret. Raises what speaks of the backend as a whole."""
        if order.payload is not None and _size(order) > self._max_bytes:
            return Refused("value_too_large")
        try:
            info = await self._calls.describe(order.path)
        except DeniedError:
            return Refused("denied", "secretsmanager:DescribeSecret is not granted")
        except AwsRefusedError as error:
            if error.reason != "ResourceNotFoundException":
                return Refused("unreadable", f"status {error.status}")
            stands = order.kind is PushKind.CREATE and order.expected_token is None
            return Ready(tags={}) if stands else Refused(REMOTE_CHANGED)
        entry = entry_of(info)
        if not _stands(order, entry):
            return Refused(REMOTE_CHANGED)
        if info.get("PrimaryRegion", self._region) != self._region:
            return Refused("push_refused", "it is a replica: write to its primary region")
        if order.kind in (PushKind.PUT, PushKind.CREATE) and _is_rotating(info):
            return Refused("rotation_in_progress")
        tags = entry.tags or {}
        if order.kind is PushKind.PUT and self._blind and not await self._may_move(order):
            return await self._ready_blindly(order, tags)
        return Ready(order.expected_token, tags=tags)

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        """See `ports.Backend.write`."""
        landed: Landed | Refused
        if order.kind is PushKind.METADATA:
            landed = Landed(tags=ready.tags)
        elif order.kind is PushKind.DELETE:
            landed = await self._delete(order)
        elif order.expected_token is None:
            return await self._create(order, tags)
        elif not ready.conditional:
            landed = await self._put_blindly(order)
        elif split_token(order.expected_token)[1]:
            landed = await self._put_restored(order)
        else:
            landed = await self._put(order)
        if isinstance(landed, Refused):
            return landed
        if tags is None:
            return replace(landed, tags=None)
        there = dict(ready.tags or {})
        return await AwsTags(self._calls).set_beside(order, landed, there, dict(tags))

    # --- the value ----------------------------------------------------------------

    async def _create(self, order: RemoteWrite, tags: Tags | None) -> Landed | Refused:
        """A new secret, with its tags at once; without them where they alone are denied."""
        assert order.payload is not None
        parameters: dict[str, Any] = {
            "Name": order.path,
            "ClientRequestToken": order.push_id,
            **value_parameters(order.payload),
            **self._creation,
        }
        wanted = dict(tags or {})
        refused: Refused | None = None
        if wanted:
            refused = await self._calls.send(
                "write", "create_secret", order.path, **parameters, Tags=listed_tags(wanted)
            )
        if not wanted or (refused is not None and refused.reason in ("denied", "push_refused")):
            tags_refused, refused = refused, None
            refused = await self._calls.send("write", "create_secret", order.path, **parameters)
            if refused is None and tags_refused is not None:
                return Landed(
                    value_token(order.push_id),
                    meta_token({}),
                    tags={},
                    tags_refused=tags_refused.reason,
                )
        if refused is not None:
            return refused
        landed = Landed(value_token(order.push_id))
        if tags is None:
            return landed
        return replace(landed, meta_token=meta_token(wanted), tags=wanted)

    async def _put(self, order: RemoteWrite) -> Landed | Refused:
        """The new version under our label, and then AWSCURRENT, on its condition."""
        assert order.payload is not None
        assert order.expected_token is not None
        expected, _ = split_token(order.expected_token)
        refused = await self._calls.send(
            "write",
            "put_secret_value",
            order.path,
            SecretId=order.path,
            ClientRequestToken=order.push_id,
            VersionStages=[PENDING],
            **value_parameters(order.payload),
        )
        if refused is not None:
            return refused
        moving: dict[str, Any] = {"VersionStage": CURRENT, "MoveToVersionId": order.push_id}
        if expected != NO_VALUE:
            moving["RemoveFromVersionId"] = expected
        try:
            await self._calls.request(
                "write", "update_secret_version_stage", order.path, SecretId=order.path, **moving
            )
        except DeniedError:
            if expected == NO_VALUE and await self._has_landed(order):
                return Landed(value_token(order.push_id))
            return Refused("denied", _MOVE_DENIED)
        except AwsRefusedError:
            return await self._not_moved(order)
        except BackendError as error:
            error.sent = error.sent or expected == NO_VALUE
            raise
        return Landed(value_token(order.push_id))

    async def _has_landed(self, order: RemoteWrite) -> bool:
        """Is it current, whoever made it so? AWS itself makes the first version of a secret
        its current one (API reference, PutSecretValue)."""
        found = await self._look_after(order)
        return found is not None and found.value_token == value_token(order.push_id)

    async def _not_moved(self, order: RemoteWrite) -> Landed | Refused:
        """Somebody was faster, or an earlier call of this very push was, or AWS itself."""
        if await self._has_landed(order):
            return Landed(value_token(order.push_id))
        with contextlib.suppress(BackendError):  # the value of a refused push is not kept there
            await self._calls.request(
                "write",
                "update_secret_version_stage",
                order.path,
                SecretId=order.path,
                VersionStage=PENDING,
                RemoveFromVersionId=order.push_id,
            )
        return Refused(REMOTE_CHANGED)

    async def _put_restored(self, order: RemoteWrite) -> Landed | Refused:
        """A secret that is scheduled for deletion takes no value: it is restored first."""
        found = await self._look_after(order, sent=False)
        if found is None or found.value_token != order.expected_token:
            return Refused(REMOTE_CHANGED)
        refused = await self._calls.send("write", "restore_secret", order.path, SecretId=order.path)
        if refused is not None:
            return refused
        assert order.expected_token is not None
        version, _ = split_token(order.expected_token)
        try:
            ended = await self._put(replace(order, expected_token=value_token(version)))
        except BackendError as error:
            if not error.sent:  # no value was written, and the secret is not left restored
                error.sent = not await self._is_scheduled_again(order.path)
            raise
        if isinstance(ended, Refused) and ended.reason != REMOTE_CHANGED:
            undone = await self._schedule(order.path)
            if undone is not None:
                return replace(ended, detail="it was restored, and could not be deleted again")
        return ended

    async def _put_blindly(self, order: RemoteWrite) -> Landed | Refused:
        assert order.payload is not None
        refused = await self._calls.send(
            "write",
            "put_secret_value",
            order.path,
            SecretId=order.path,
            ClientRequestToken=order.push_id,
            **value_parameters(order.payload),
        )
        return Landed(value_token(order.push_id)) if refused is None else refused

    async def _ready_blindly(self, order: RemoteWrite, tags: Tags) -> Ready | Refused:
        """With the value that would be overwritten, which is compared and kept."""
        [read] = await self._reading.read_many([order.path])
        if not isinstance(read, RemoteValue) or read.value_token != order.expected_token:
            return Refused(REMOTE_CHANGED)
        return Ready(order.expected_token, conditional=False, tags=tags, before=read)

    async def _may_move(self, order: RemoteWrite) -> bool:
        assert order.expected_token is not None
        version, _ = split_token(order.expected_token)
        try:
            await self._calls.request(
                "metadata",
                "update_secret_version_stage",
                order.path,
                SecretId=order.path,
                VersionStage=_PROBE,
                RemoveFromVersionId=version,
            )
        except DeniedError:
            return False
        except AwsRefusedError:
            return True  # no version has that label
        return True

    # --- deletion -----------------------------------------------------------------

    async def _delete(self, order: RemoteWrite) -> Landed | Refused:
        """Schedule the deletion, and look at what was met."""
        refused = await self._schedule(order.path)
        if refused is not None:
            return refused
        found = await self._look_after(order)
        if found is None:
            return Refused(REMOTE_CHANGED, "the name was removed meanwhile")
        assert order.expected_token is not None
        expected, _ = split_token(order.expected_token)
        if found.value_token == value_token(expected, deleted=True):
            return Landed(found.value_token, tags=found.tags)
        try:
            undone = await self._calls.send(
                "write", "restore_secret", order.path, SecretId=order.path
            )
        except BackendError as error:
            error.sent = True  # the delete was
            raise
        left = "" if undone is None else "it was scheduled for deletion, and could not be restored"
        return Refused(REMOTE_CHANGED, left)

    async def _schedule(self, path: RemotePath) -> Refused | None:
        return await self._calls.send(
            "delete", "delete_secret", path, SecretId=path, RecoveryWindowInDays=RECOVERY_DAYS
        )

    async def _is_scheduled_again(self, path: RemotePath) -> bool:
        try:
            return await self._schedule(path) is None
        except BackendError:
            return False

    async def _look_after(self, order: RemoteWrite, *, sent: bool = True) -> Entry | None:
        """What stands now; None: no such secret. `sent`: a call before this one wrote."""
        try:
            return entry_of(await self._calls.describe(order.path))
        except AwsRefusedError as error:
            if error.reason == "ResourceNotFoundException":
                return None
            error.sent = sent
            raise
        except BackendError as error:
            error.sent = sent
            raise


def _size(order: RemoteWrite) -> int:
    assert order.payload is not None
    [sent] = value_parameters(order.payload).values()
    return len(sent) if isinstance(sent, bytes) else len(sent.encode())


def _stands(order: RemoteWrite, entry: Entry) -> bool:
    """Is the secret still as the order expects it?"""
    if order.kind is PushKind.METADATA:
        return not entry.gone
    same = entry.value_token is not None and entry.value_token == order.expected_token
    return same and entry.gone == (order.kind is PushKind.CREATE)


def _is_rotating(info: Mapping[str, Any]) -> bool:
    """Is a rotation under way, whose next version is not the current one yet?"""
    return any(ROTATING in labels and CURRENT not in labels for labels in stages_of(info).values())
