"""Writes to KV engines: is the expected state still there, and what the answer means.

KV v2 takes a number as its condition (`cas`). The number alone would not see that
the version was deleted, brought back, or made anew under the same number, so the
whole value token is compared just before. A delete names the version that it means;
afterwards it is looked at, because somebody may have written a newer one meanwhile,
and then what was deleted is brought back. KV v1 has neither condition nor history:
it is written blindly, where the configuration allows it, and deleted never.

Values go out as the exact text that is kept here; they are never parsed on the way.
Tags are sent as changes of single keys (PATCH), so that neither a setting nor a key
of somebody else is touched; where that is denied, the pairs are sent whole (POST),
which leaves every setting but the pairs alone.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from svsync.backends.vault.calls import VaultCalls, is_of_one_path
from svsync.backends.vault.kv import (
    NO_VERSION,
    V1_TOKEN,
    Mount,
    entry_of,
    is_readable,
    landed_v2,
    meta_token,
    parse_time,
    says_absent,
    server_now,
)
from svsync.clients.vault import CAS_MISMATCH, Answer, AnswerTooLargeError
from svsync.domain.changes import Entry, RemoteRead, RemoteUnknown, RemoteValue, Tags
from svsync.domain.decide import PushKind
from svsync.domain.errors import (
    BackendError,
    DeniedError,
    ProtocolError,
    SvsyncError,
    ThrottledError,
)
from svsync.domain.ids import RemotePath
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Payload
from svsync.ports import Operation

_MAX_PAIRS: Final = 64
"""Pairs that custom_metadata may hold; a PATCH of one key is not held to it."""

_NO_SUCH_VERSION: Final = 0
"""Undeleting it does nothing, and is denied where undeleting is."""


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What the metadata of a name says: of its current version, and of all of them."""

    entry: Entry
    versions: Mapping[str, Any]
    answer: Answer


class Kv2Writing:
    """Writes below one KV v2 mount; paths are checked before they come here."""

    def __init__(self, calls: VaultCalls, mount: Mount) -> None:
        self._calls = calls
        self._mount = mount

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        """One metadata read. Raises what speaks of the backend as a whole."""
        try:
            found = await self._metadata(order.path)
        except (DeniedError, AnswerTooLargeError) as error:
            denied = isinstance(error, DeniedError)
            return Refused("denied") if denied else Refused("bad_metadata", error.message)
        except BackendError as error:
            if not is_of_one_path(error):
                raise
            return Refused("unreadable", f"status {error.status}")
        if isinstance(found, Refused):
            return found
        entry = found.entry if found is not None else None
        if entry is not None and entry.value_token is None:
            return Refused("bad_metadata", "the metadata does not tell the current version")
        if not _stands(order, entry):
            return Refused(REMOTE_CHANGED)
        if entry is None:
            return Ready(condition=0, tags={})
        return Ready(condition=entry.order, tags=entry.tags or {})

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        """See `ports.Backend.write`."""
        landed: Landed | Refused
        if order.kind is PushKind.METADATA:
            landed = Landed(tags=ready.tags)
        elif order.kind is PushKind.DELETE:
            landed = await self._delete(order, ready)
        else:
            landed = await self._put(order, ready)
        if isinstance(landed, Refused):
            return landed
        if tags is None:
            return replace(landed, tags=None)
        alone = order.kind is PushKind.METADATA
        return await self._describe(order.path, landed, _changes(ready.tags, tags), alone)

    # --- the value ----------------------------------------------------------------

    async def _put(self, order: RemoteWrite, ready: Ready) -> Landed | Refused:
        assert order.payload is not None
        assert isinstance(ready.condition, int)
        text = order.payload.data_text()
        body = b'{"options":{"cas":%d},"data":%b}' % (ready.condition, text)
        answer = await self._send("write", "POST", "data", order.path, body)
        if isinstance(answer, Refused):
            return answer
        landed = landed_v2(answer)
        if landed is None:
            raise ProtocolError(
                "the answer to a write tells no version", operation="write", path=order.path
            )
        return landed

    async def _delete(self, order: RemoteWrite, ready: Ready) -> Landed | Refused:
        number, named = ready.condition, True
        answer = await self._send("delete", "POST", "delete", order.path, {"versions": [number]})
        if isinstance(answer, Refused) and answer.reason == "denied":
            named = False
            answer = await self._delete_current(order)
        if isinstance(answer, Refused):
            return answer
        try:
            found = await self._metadata(order.path)
        except BackendError as error:
            error.sent = True  # not this read, but the delete before it
            raise
        if isinstance(found, Refused):
            raise ProtocolError(
                "the metadata does not tell what a delete did", operation="delete", path=order.path
            )
        if found is None:
            return Refused(REMOTE_CHANGED, "the name was removed meanwhile")
        entry = found.entry
        if entry.gone and entry.value_token and _same_version(entry.value_token, order):
            return Landed(entry.value_token, order=entry.order, tags=entry.tags)
        assert isinstance(number, int)
        if named and _deleted_first(found.versions, number):
            return Landed(order=number)  # and somebody has made it anew since
        return await self._bring_back(order.path, found, number, newer=not named)

    async def find_delete(self, order: RemoteWrite) -> Landed | Refused | None:
        """See `ports.Backend.find_delete`."""
        number = order.expected_order
        try:
            found = await self._metadata(order.path)
        except (DeniedError, AnswerTooLargeError):
            return None
        if number is None or found is None or isinstance(found, Refused):
            return None
        first = _deleted_first(found.versions, number)
        if first is None:
            return None
        if first:
            return Landed(order=number)
        return await self._bring_back(order.path, found, number, newer=False)

    async def _delete_current(self, order: RemoteWrite) -> Answer | Refused:
        """Delete whatever is current, where only that is allowed: only where it could be
        brought back, and only what was expected, as far as a look just before can tell."""
        probe = {"versions": [_NO_SUCH_VERSION]}
        probed = await self._send("write", "POST", "undelete", order.path, probe)
        if isinstance(probed, Refused):
            return Refused("denied", "neither delete/ nor undelete/ may be written")
        stands = await self.check(order)
        if isinstance(stands, Refused):
            return stands
        return await self._send("delete", "DELETE", "data", order.path)

    async def _bring_back(
        self, path: RemotePath, found: _Metadata, number: int, *, newer: bool
    ) -> Refused:
        """Somebody was faster: undelete what this delete met, and nothing else: the version
        that it named or, of one that named none, also those that are `newer`; all of them
        were made since the look before it."""
        now = server_now(found.answer)
        met = [
            int(n)
            for n, version in found.versions.items()
            if (int(n) == number or (newer and int(n) > number))
            and version.get("destroyed") is not True
            and not is_readable(version, now)
        ]
        if not met:
            return Refused(REMOTE_CHANGED)
        try:
            undone = await self._send("write", "POST", "undelete", path, {"versions": met})
        except BackendError as error:
            error.sent = True  # the delete was
            raise
        if isinstance(undone, Refused):
            left = ", ".join(map(str, met))
            return Refused(REMOTE_CHANGED, f"could not bring back version {left}")
        return Refused(REMOTE_CHANGED)

    # --- the pairs ----------------------------------------------------------------

    async def _describe(
        self,
        path: RemotePath,
        landed: Landed,
        changes: Mapping[str, str | None],
        alone: bool,
    ) -> Landed | Refused:
        """Change these keys of custom_metadata; what is refused undoes nothing.

        `landed.tags` are the pairs there now: an answer tells newer ones than the check.
        """
        there = dict(landed.tags or {})
        wanted = {**there, **changes}
        pairs = {key: value for key, value in wanted.items() if value is not None}
        refused: Refused | None = None
        if len(pairs) > _MAX_PAIRS:
            refused = Refused("push_refused", f"a name holds at most {_MAX_PAIRS} pairs")
        elif changes:
            try:
                refused = await self._set_pairs(path, changes, pairs)
            except SvsyncError as error:  # of the credential's source, too
                if alone:
                    raise
                if isinstance(error, BackendError) and error.sent:
                    return replace(landed, tags=None, tags_refused="write_outcome_unknown")
                throttled = isinstance(error, ThrottledError)
                refused = Refused("push_throttled" if throttled else "push_refused")
        if refused is None:
            return replace(landed, meta_token=meta_token(pairs), tags=pairs)
        if alone:
            return refused
        return replace(
            landed, meta_token=meta_token(there), tags=there, tags_refused=refused.reason
        )

    async def _set_pairs(
        self, path: RemotePath, changes: Mapping[str, str | None], pairs: Mapping[str, str]
    ) -> Refused | None:
        body = {"custom_metadata": dict(changes)}
        answer = await self._send("write", "PATCH", "metadata", path, body)
        if isinstance(answer, Refused) and answer.reason == "denied":
            body = {"custom_metadata": dict(pairs)}
            answer = await self._send("write", "POST", "metadata", path, body)
        return answer if isinstance(answer, Refused) else None

    # --- calls --------------------------------------------------------------------

    async def _send(
        self, operation: Operation, method: str, verb: str, path: RemotePath, body: object = None
    ) -> Answer | Refused:
        url = self._mount.url(verb, path)
        return await _send(self._calls, operation, method, url, path, body)

    async def _metadata(self, path: RemotePath) -> _Metadata | Refused | None:
        """What the metadata says; None: there is none."""
        url = self._mount.url("metadata", path)
        answer = await self._calls.request("metadata", "GET", url, path)
        if answer.status == 404:
            missing = Refused("push_refused", "the mount is missing")
            return None if says_absent(answer) else missing
        info = answer.json().get("data")
        versions = info.get("versions") if isinstance(info, dict) else None
        if not isinstance(info, dict) or not isinstance(versions, dict):
            return Refused("bad_metadata", "the metadata does not tell the current version")
        return _Metadata(entry_of(path, info, server_now(answer)), versions, answer)


class Kv1Writing:
    """Writes below one KV v1 mount, blindly and only where that is allowed.

    Args:
        read: gives the value that is there now, by which the caller compares it: a
            token of KV v1 tells nothing.
    """

    def __init__(
        self,
        calls: VaultCalls,
        mount: Mount,
        read: Callable[[RemotePath], Awaitable[RemoteRead]],
        *,
        allowed: bool,
    ) -> None:
        self._calls = calls
        self._mount = mount
        self._read = read
        self._allowed = allowed

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        if order.kind is PushKind.DELETE:
            return Refused("delete_not_recoverable")
        if order.kind is PushKind.METADATA:
            return Refused("bad_metadata", "KV v1 holds no pairs beside a value")
        if not self._allowed:
            return Refused("blind_push", "allow_blind_push allows writes to KV v1")
        found = await self._read(order.path)
        if isinstance(found, RemoteUnknown):
            return Refused(found.reason, found.detail)
        before = found if isinstance(found, RemoteValue) else None
        if (before is None) != (order.kind is PushKind.CREATE):
            return Refused(REMOTE_CHANGED)
        return Ready(conditional=False, before=before)

    async def write(self, order: RemoteWrite) -> Landed | Refused:
        """See `ports.Backend.write`; there are no pairs to be set."""
        assert order.payload is not None
        url = self._mount.url("", order.path)
        body = order.payload.data_text()
        answer = await _send(self._calls, "write", "POST", url, order.path, body)
        return answer if isinstance(answer, Refused) else Landed(V1_TOKEN)


def size_there(payload: Payload) -> int:
    """Bytes of the value as the server keeps it and gives it back, at most: some
    characters are escaped there."""
    text = payload.data_text()
    grown = sum(text.count(one) for one in (b"<", b">", b"&")) * 5
    return len(text) + grown + 3 * sum(text.count(c.encode()) for c in "\u2028\u2029")


async def _send(
    calls: VaultCalls,
    operation: Operation,
    method: str,
    url: str,
    path: RemotePath,
    body: object,
) -> Answer | Refused:
    """One call that writes. Refused: the server says that it wrote nothing.

    Raises what leaves that open, or speaks of the backend as a whole.
    """
    try:
        answer = await calls.request(operation, method, url, path, body)
    except DeniedError:
        return Refused("denied")
    except BackendError as error:
        if error.code == CAS_MISMATCH:
            return Refused(REMOTE_CHANGED)
        if not is_of_one_path(error) or error.sent:
            raise
        if error.code == "value_too_large":
            return Refused("value_too_large")
        if method == "PATCH" and error.status in (405, 415):
            return Refused("denied", "this server knows no PATCH")
        return Refused("push_refused", f"status {error.status}")
    if answer.status == 404:
        return Refused("push_refused", "the name or its mount is missing")
    return answer


def _stands(order: RemoteWrite, entry: Entry | None) -> bool:
    """Is the name still as the order expects it?"""
    if order.kind is PushKind.METADATA:
        return entry is not None
    token = None if entry is None else entry.value_token
    readable = entry is not None and not entry.gone
    same = (token or NO_VERSION) == (order.expected_token or NO_VERSION)
    return same and readable == (order.kind is not PushKind.CREATE)


def _deleted_first(versions: Mapping[str, Any], number: int) -> bool | None:
    """Was this version deleted before the next one was made, so that the name was gone in
    between? None where the two do not tell."""
    version, after = versions.get(str(number)), versions.get(str(number + 1))
    if not isinstance(version, dict) or not isinstance(after, dict):
        return None
    if not version.get("deletion_time"):
        return None if version.get("destroyed") is True else False
    deleted, made = parse_time(version["deletion_time"]), parse_time(after.get("created_time"))
    return None if deleted is None or made is None else deleted <= made


def _same_version(token: str, order: RemoteWrite) -> bool:
    """Is it the version that was expected, by its number and the moment it was made?"""
    return token.split("|")[:2] == (order.expected_token or "").split("|")[:2]


def _changes(old: Tags | None, new: Tags) -> dict[str, str | None]:
    before = old or {}
    return {key: new.get(key) for key in {**before, **new} if before.get(key) != new.get(key)}
