"""What the KV engines' paths and answers mean, without asking anybody.

A remote path is the API's read path, as people write it: `<mount>/data/<name>`
on KV v2, `<mount>/<name>` on KV v1.

The value token of KV v2 is the current version's number, the moment it was
made, the moment of its deletion, whether it is destroyed, and whether it can be
read: soft delete, undelete and destroy leave the number and `updated_time` as
they were, and a version with a deletion time in the future becomes unreadable
without any write. The meta token is a hash of custom_metadata alone, which a
value read carries too; `updated_time` would move with every write.
KV v1 has neither: its listings tell no token and its reads a constant one, so
the value itself has to be compared.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from svsync.clients.vault import Answer
from svsync.domain.changes import Entry, RemoteGone, RemoteRead, RemoteUnknown, RemoteValue
from svsync.domain.errors import ProtocolError, UndecodableError
from svsync.domain.ids import RemotePath
from svsync.domain.paths import encode_segments
from svsync.domain.pushes import Landed
from svsync.domain.values import (
    Encoding,
    Payload,
    check_limits,
    end_of_plain_object,
    slice_members,
)

NO_VERSION: Final = "0"
"""Value token of a KV v2 name without any version, or without metadata."""

V1_TOKEN: Final = ""
"""Value token of every KV v1 read."""

_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a KV engine is mounted (no slash at either end), and its version."""

    path: str
    version: int

    @property
    def root(self) -> str:
        """What every remote path of this mount begins with."""
        return f"{self.path}/data/" if self.version == 2 else f"{self.path}/"

    def holds(self, path: str) -> bool:
        """Whether a remote path or prefix lies in this mount, in its path form."""
        return path.startswith(self.root)

    def url(self, verb: str, path: str) -> str:
        """The API path, encoded, for a remote path or a prefix; `verb` counts on KV v2.

        Raises ValueError for a path of another mount: it must not go out.
        """
        if not self.holds(path):
            raise ValueError("the path lies outside of its mount")
        name = encode_segments(path[len(self.root) :])
        middle = f"{verb}/" if self.version == 2 else ""
        return f"{encode_segments(self.path)}/{middle}{name}"


def parse_mount(answer: Answer) -> Mount:
    """The mount that `sys/internal/ui/mounts/…` tells of.

    Raises ProtocolError when it is not a KV engine.
    """
    data = _mapping(answer.json().get("data"))
    path = data.get("path")
    kind = data.get("type")
    if not isinstance(path, str) or kind not in ("kv", "generic"):
        raise ProtocolError("the mount is not a KV engine", operation="connect")
    version = _mapping(data.get("options")).get("version")
    return Mount(path.strip("/"), 2 if version == "2" else 1)


def server_now(answer: Answer) -> datetime:
    """The end of the second in which the server answered, by its own clock.

    Its end, because the server tells whole seconds and a version that was
    deleted within this second is deleted.
    """
    return (answer.server_time or datetime.now(UTC)) + _SECOND


def parse_time(text: object) -> datetime | None:
    """An RFC 3339 moment of the server; its nanoseconds are cut to microseconds."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def entry_of(path: str, info: Mapping[str, Any], now: datetime) -> Entry:
    """What a secret's metadata says of it. `now` is the server's."""
    tags = _tags(info)
    current = info.get("current_version")
    if not isinstance(current, int) or current == 0:
        return Entry(
            RemotePath(path),
            NO_VERSION if current == 0 else None,
            meta_token(tags),
            order=0 if current == 0 else None,
            gone=current == 0,
            tags=tags,
        )
    version = _mapping(info.get("versions")).get(str(current))
    if not isinstance(version, dict):
        return Entry(RemotePath(path), None, meta_token(tags), order=current, tags=tags)
    gone = not is_readable(version, now)
    token = value_token(current, version, gone=gone)
    return Entry(RemotePath(path), token, meta_token(tags), order=current, gone=gone, tags=tags)


def is_readable(version: Mapping[str, Any], now: datetime) -> bool:
    """Whether a version, as metadata tells of it, can be read at `now`."""
    if version.get("destroyed") is True:
        return False
    if not version.get("deletion_time"):
        return True
    deleted = parse_time(version["deletion_time"])
    return deleted is not None and deleted > now


def value_token(number: object, version: Mapping[str, Any], *, gone: bool) -> str:
    created, deleted = version.get("created_time", ""), version.get("deletion_time", "")
    destroyed = "x" if version.get("destroyed") is True else ""
    return f"{number}|{created}|{deleted}|{destroyed}|{'gone' if gone else ''}"


def meta_token(tags: Mapping[str, str]) -> str:
    if not tags:
        return _NO_TAGS
    text = json.dumps(dict(tags), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


_NO_TAGS: Final = hashlib.sha256(b"{}").hexdigest()[:32]


def read_v2(answer: Answer, max_bytes: int) -> RemoteRead:
    """The answer to a KV v2 data read. A 404 is three answers, told apart here."""
    if answer.status == 404:
        return _absent_v2(answer)
    try:
        payload, metadata = _cut_v2(answer.text, max_bytes)
    except UndecodableError as error:
        return RemoteUnknown(error.code)
    except (KeyError, ValueError, RecursionError):
        return RemoteUnknown("undecodable", "the answer is not that of a KV v2 read")
    if isinstance(payload, RemoteUnknown):
        return payload
    if not isinstance(metadata, dict):
        return RemoteUnknown("bad_metadata")
    tags = _tags(metadata)
    number = metadata.get("version")
    return RemoteValue(
        payload,
        value_token(number, metadata, gone=False),
        meta_token(tags),
        order=number if isinstance(number, int) else None,
        tags=tags,
        created_at=parse_time(metadata.get("created_time")),
    )


# How Vault and OpenBao write the answer to a read: up to the value, and after its metadata.
_BEFORE: Final = re.compile(
    r'\{"request_id":"[\w-]*","lease_id":"","renewable":false,"lease_duration":0,'
    r'"data":\{"data":(?=\{)'
).match
_BETWEEN: Final = ',"metadata":'
_AFTER: Final = re.compile(
    r'\},"wrap_info":null,"warnings":null,"auth":null(,"mount_type":"\w*")?\}\n?'
).fullmatch
# NaN and its like, which are not JSON, are not taken for a number.
_decode_at: Final = json.JSONDecoder(parse_constant=int).raw_decode


def _cut_v2(text: str, max_bytes: int) -> tuple[Payload | RemoteUnknown, object]:
    """The value and its metadata.

    Raises KeyError, ValueError, RecursionError or UndecodableError where they cannot be told.
    """
    if usual := _cut_usual_v2(text, max_bytes):
        return usual
    top = slice_members(text)
    inner = slice_members(text, *top["data"])
    start, end = inner["metadata"]
    metadata = json.loads(text[start:end])
    start, end = inner["data"]
    return _payload(text[start:end], max_bytes), metadata


def _cut_usual_v2(text: str, max_bytes: int) -> tuple[Payload | RemoteUnknown, object] | None:
    """The same, decoded once, of an answer in the usual form with a plain value; None of
    any other, which may have warnings, equal keys, or a value that is text."""
    if not (before := _BEFORE(text)):
        return None
    start = before.end()
    end = end_of_plain_object(text, start)
    if end is None or not text.startswith(_BETWEEN, end):
        return None
    try:
        metadata, after = _decode_at(text, end + len(_BETWEEN))
        raw = text[start:end].encode()
    except (ValueError, RecursionError):
        return None
    if not _AFTER(text, after):
        return None
    reason = check_limits(raw, max_bytes)
    return RemoteUnknown(reason) if reason else Payload(Encoding.JSON, raw), metadata


def read_v1(answer: Answer, max_bytes: int) -> RemoteRead:
    """The answer to a KV v1 read."""
    if answer.status == 404:
        if says_absent(answer):
            return RemoteGone(V1_TOKEN)
        return RemoteUnknown("unreadable", "the mount is missing")
    try:
        start, end = slice_members(answer.text)["data"]
        payload = _payload(answer.text[start:end], max_bytes)
    except UndecodableError as error:
        return RemoteUnknown(error.code)
    except (KeyError, ValueError):
        return RemoteUnknown("undecodable", "the answer is not that of a KV v1 read")
    return payload if isinstance(payload, RemoteUnknown) else RemoteValue(payload, V1_TOKEN)


def landed_v2(answer: Answer) -> Landed | None:
    """The answer to a KV v2 write; None where it is not one. Its tags are those that
    the name had in that moment."""
    made = _mapping(answer.json().get("data"))
    number, now = made.get("version"), server_now(answer)
    if not isinstance(number, int):
        return None
    token = value_token(number, made, gone=not is_readable(made, now))
    return Landed(token, order=number, tags=_tags(made))


def says_absent(answer: Answer) -> bool:
    """404 with an empty list of errors: the mount is there, this name is not."""
    return answer.status == 404 and answer.json().get("errors") == []


def _absent_v2(answer: Answer) -> RemoteRead:
    metadata = _mapping(answer.json().get("data")).get("metadata")
    if isinstance(metadata, dict):
        number = metadata.get("version")
        return RemoteGone(
            value_token(number, metadata, gone=True),
            meta_token(_tags(metadata)),
            order=number if isinstance(number, int) else None,
            reason="destroyed" if metadata.get("destroyed") is True else "deleted",
        )
    if says_absent(answer):
        return RemoteGone(NO_VERSION, order=0)
    return RemoteUnknown("unreadable", "the mount is missing")


def _payload(text: str, max_bytes: int) -> Payload | RemoteUnknown:
    raw = text.encode("utf-8", "surrogatepass")
    if reason := check_limits(raw, max_bytes):
        return RemoteUnknown(reason)
    if not text.startswith("{"):
        return RemoteUnknown("undecodable", "the version holds no data")
    return Payload.from_json_text(raw)


def _tags(info: Mapping[str, Any]) -> dict[str, str]:
    """custom_metadata; the server takes strings only."""
    return {str(key): str(value) for key, value in _mapping(info.get("custom_metadata")).items()}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
