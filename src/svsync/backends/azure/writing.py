"""Writing to Key Vault, which takes no condition: a look before, and what was met after.

The look compares the value token. Where that could stand for two values (both of one
second), the value itself is given to be compared. A set makes a new version, which carries
over what svsync does not set (tags, content type, dates), and the id of the push in a tag.
Versions that somebody made meanwhile stay below ours, where they are found afterwards.

What is deleted is recovered before it is set; a delete can be recovered, and is, where it
met another version than was expected. Nothing is ever purged.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Self

from svsync.backends.azure.calls import AzureCalls
from svsync.backends.azure.entries import (
    DELETED,
    MAX_TAG,
    MAX_TAGS,
    MAX_VALUE,
    PUSH_TAG,
    Version,
    content_type_of,
    is_young,
    order_of,
    same_second,
    text_of,
    value_token,
    version_of,
)
from svsync.backends.azure.reading import AzureReading
from svsync.clients.azure import Answer
from svsync.clients.azure.refusals import no_answer
from svsync.domain.changes import RemoteGone, RemoteUnknown, RemoteValue, Tags
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, BackendUnreachableError, DeniedError
from svsync.domain.ids import RemotePath
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite

SET: Final = "secrets/set"
DELETE: Final = "secrets/delete"
RECOVER: Final = "secrets/recover"
_BEING_RECOVERED: Final = "ObjectIsBeingRecovered"
_HIDDEN: Final = "ObjectIsDeletedButRecoverable"
_TRIES: Final = 8
_AGAIN_S: Final = 0.5
"""Of what is refused while a deletion or a recovery is under way, so that nothing was done."""


@dataclass(frozen=True, slots=True)
class _Before:
    """What a write meets and carries over; travels as `Ready.condition`."""

    version: str = ""
    content_type: str = ""
    expires: int | None = None
    not_before: int | None = None
    push: str | None = None

    @classmethod
    def of(cls, version: Version) -> Self:
        """Dates of a value that may not be used any more are not those of a new one."""
        expires, not_before = (
            (None, None) if version.gone else (version.expires, version.not_before)
        )
        push = version.raw_tags.get(PUSH_TAG)
        return cls(version.version, version.content_type, expires, not_before, push)

    @classmethod
    def read(cls, condition: int | str | None) -> Self:
        return cls(*json.loads(condition)) if isinstance(condition, str) else cls()

    def __str__(self) -> str:
        return json.dumps(
            [self.version, self.content_type, self.expires, self.not_before, self.push]
        )


class AzureWriting:
    """Writes of one backend; paths are checked before they come here.

    Args:
        max_bytes: largest value, below Key Vault's own limit.
        content_type: of secrets that are made; empty: by their values.
    """

    def __init__(
        self, calls: AzureCalls, reading: AzureReading, *, max_bytes: int, content_type: str
    ) -> None:
        self._calls = calls
        self._reading = reading
        self._max_bytes = min(MAX_VALUE, max_bytes)
        self._content_type = content_type

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        """A look at the versions. Raises what speaks of the backend as a whole."""
        if order.payload is not None and len(text_of(order.payload).encode()) > self._max_bytes:
            return Refused("value_too_large")
        try:
            found = await self._reading.standing(order.path)
        except DeniedError as error:
            return Refused("denied", f"secrets/list: {error.message}")
        if isinstance(found, RemoteUnknown):
            return Refused(found.reason, found.detail)
        if isinstance(found, RemoteGone):
            stands = order.kind is PushKind.CREATE and order.expected_token == found.value_token
            return Ready(conditional=False, tags={}) if stands else Refused(REMOTE_CHANGED)
        newest = found.newest
        if not _stands(order, newest, found.now):
            return Refused(REMOTE_CHANGED)
        if newest.managed:
            return Refused("push_refused", "it belongs to a certificate of the vault")
        if order.kind is PushKind.DELETE and not newest.recoverable:
            return Refused("delete_not_recoverable", "the vault has no soft delete")
        ready = Ready(str(_Before.of(newest)), conditional=False, tags=newest.tags)
        if order.kind in (PushKind.PUT, PushKind.DELETE) and is_young(order.expected_token or ""):
            return await self._ready_to_compare(order, ready)
        return ready

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        """See `ports.Backend.write`."""
        before = _Before.read(ready.condition)
        if order.kind is PushKind.METADATA:
            return await self._set_tags(order.path, before, ready.tags or {}, tags)
        if order.kind is PushKind.DELETE:
            return await self._delete(order, before)
        if order.kind is PushKind.CREATE and f"|{DELETED}|" in (order.expected_token or ""):
            return await self._set_recovered(order, tags)
        return await self._set(order, before, ready.tags or {}, tags)

    async def _ready_to_compare(self, order: RemoteWrite, ready: Ready) -> Ready | Refused:
        """With the value that stands, since its token could stand for another one."""
        read = await self._reading.read(order.path)
        if not isinstance(read, RemoteValue):
            return Refused(REMOTE_CHANGED)
        if not same_second(read.value_token, order.expected_token or ""):
            return Refused(REMOTE_CHANGED)
        return replace(ready, before=read)

    # --- the value ----------------------------------------------------------------

    async def _set(
        self, order: RemoteWrite, before: _Before, there: Tags, tags: Tags | None
    ) -> Landed | Refused:
        """A new version, with all the tags it is to have."""
        assert order.payload is not None
        wanted = dict(there if tags is None else tags)
        refused_tags = "" if _fits(wanted) else "push_refused"
        kept = dict(there) if refused_tags else wanted
        body: dict[str, Any] = {
            "value": text_of(order.payload),
            "contentType": before.content_type
            or self._content_type
            or content_type_of(order.payload),
            "tags": kept if len(kept) >= MAX_TAGS else {**kept, PUSH_TAG: order.push_id},
        }
        dates = {"exp": before.expires, "nbf": before.not_before}
        if told := {name: second for name, second in dates.items() if second is not None}:
            body["attributes"] = told
        path = f"/secrets/{order.path}"
        answer = await self._calls.send("write", "PUT", path, order.path, needs=SET, body=body)
        if isinstance(answer, Refused):
            if answer.detail == _HIDDEN:
                return Refused(
                    "retired_remotely",
                    "a deleted secret has this name, and svsync may not see it: grant"
                    " secrets/get and secrets/list, or recover it",
                )
            return answer
        version = _version_of(answer, order.path)
        landed = Landed(
            value_token(version, answer.moment),
            version.meta_token,
            order_of(version),
            version.tags,
            refused_tags,
        )
        return replace(landed, meta_token=None, tags=None) if tags is None else landed

    async def _set_recovered(self, order: RemoteWrite, tags: Tags | None) -> Landed | Refused:
        """A deleted secret takes no value: it is recovered first, which takes a moment."""
        found = await self._reading.standing(order.path)
        if not isinstance(found, RemoteGone) or found.value_token != order.expected_token:
            return Refused(REMOTE_CHANGED)
        recovered = await self._recover(order.path)
        if isinstance(recovered, Refused):
            return recovered
        with _sent():
            standing = await self._reading.standing(order.path)
            if isinstance(standing, RemoteGone | RemoteUnknown):
                return Refused(REMOTE_CHANGED)
            there = standing.newest.tags
            before = replace(_Before.of(standing.newest), expires=None, not_before=None)
            every = None if tags is None else {**there, **tags}
            ended = await self._set(order, before, there, every)
            for _ in range(_TRIES):
                if not isinstance(ended, Refused) or ended.detail != _BEING_RECOVERED:
                    break
                await self._calls.sleep(_AGAIN_S)
                ended = await self._set(order, before, there, every)
            if isinstance(ended, Refused) and ended.detail == _BEING_RECOVERED:
                return replace(ended, detail="it was recovered, and takes no value yet")
            if isinstance(ended, Refused) and ended.reason != REMOTE_CHANGED:
                path = f"/secrets/{order.path}"
                undone = await self._calls.send("delete", "DELETE", path, order.path, needs=DELETE)
                if isinstance(undone, Refused):
                    left = "it was recovered, and could not be deleted again"
                    return replace(ended, detail=left)
        return ended

    async def _recover(self, path: RemotePath) -> Refused | None:
        """Recover, and wait until it is there. None: it is."""
        where = f"/deletedsecrets/{path}/recover"
        answer = await self._calls.send("write", "POST", where, path, needs=RECOVER)
        for _ in range(_TRIES):  # it may be being deleted still
            if not isinstance(answer, Refused) or answer.reason != REMOTE_CHANGED:
                break
            await self._calls.sleep(_AGAIN_S)
            answer = await self._calls.send("write", "POST", where, path, needs=RECOVER)
        if isinstance(answer, Refused):
            return answer
        with _sent():
            if await self._calls.wait_for(f"/secrets/{path}/versions", path) is None:
                raise BackendUnreachableError(
                    "Key Vault recovers a secret, and is not done yet", operation="write", path=path
                )
        return None

    # --- deletion -----------------------------------------------------------------

    async def _delete(self, order: RemoteWrite, before: _Before) -> Landed | Refused:
        """Delete the secret, and look at which version was its newest one."""
        path = order.path
        answer = await self._calls.send("delete", "DELETE", f"/secrets/{path}", path, needs=DELETE)
        if isinstance(answer, Refused):
            return answer
        with _sent():
            met = _version_of(answer, path, deleted=True)
            try:
                shown = await self._calls.wait_for(f"/deletedsecrets/{path}", path)
            except DeniedError:
                shown = None
            if shown is not None:
                met = _version_of(shown, path, deleted=True)
            expected, _, _ = (order.expected_token or "").partition("|")
            same = met.version == before.version if met.version else str(met.updated) == expected
            if same:
                return Landed(value_token(met, answer.moment), tags=met.tags)
            left = await self._recover(path)
        return Refused(REMOTE_CHANGED, "it was deleted, and could not be recovered" if left else "")

    # --- tags ---------------------------------------------------------------------

    async def _set_tags(
        self, path: RemotePath, before: _Before, there: Tags, tags: Tags | None
    ) -> Landed | Refused:
        """All tags of the newest version at once; a new version is not made for them."""
        if tags is None or dict(tags) == dict(there):
            return Landed(tags=None if tags is None else there)
        if not _fits(tags):
            return Refused("push_refused", _TOO_MANY)
        sent = dict(tags)
        if before.push is not None and len(sent) < MAX_TAGS:
            sent[PUSH_TAG] = before.push
        where = f"/secrets/{path}/{before.version}"
        answer = await self._calls.send(
            "write", "PATCH", where, path, needs=SET, body={"tags": sent}
        )
        if isinstance(answer, Refused):
            return answer
        version = _version_of(answer, path)
        return Landed(meta_token=version.meta_token, tags=version.tags)


_TOO_MANY: Final = f"a secret holds at most {MAX_TAGS} tags of {MAX_TAG} characters"


@contextmanager
def _sent() -> Iterator[None]:
    """An error in here leaves open what was done: a call before it wrote."""
    try:
        yield
    except BackendError as error:
        error.sent = True
        raise


def _version_of(answer: Answer, path: RemotePath, *, deleted: bool = False) -> Version:
    version = version_of(answer.body, answer.moment, deleted=deleted)
    if version is None:
        raise no_answer("write", path)
    return version


def _stands(order: RemoteWrite, newest: Version, now: datetime) -> bool:
    """Is the secret still as the order expects it, as far as its token tells?"""
    if order.kind is PushKind.METADATA:
        return not newest.gone
    expected = order.expected_token
    same = expected is not None and same_second(value_token(newest, now), expected)
    return same and newest.gone == (order.kind is PushKind.CREATE)


def _fits(tags: Mapping[str, str]) -> bool:
    return len(tags) <= MAX_TAGS and all(
        len(text) <= MAX_TAG for pair in tags.items() for text in pair
    )
