"""How a secret lies in Redis, and what its fields mean, without asking anybody.

A secret is one hash; its key is the remote path. So one command tells all of a moment,
and one WATCH guards it:

    version    number of the current version, from 1
    id         whatever its writer called this version; another one for each
    made       seconds since 1970
    value      the current value: JSON text, other text, or bytes
    deleted    there while the current version is deleted
    tags       JSON object of strings
    value:N, id:N, made:N, deleted:N    the same of an earlier version

The value token is `number|id|state`. The number alone would not do: a name that is
removed and written again begins at 1, and a delete leaves the number as it is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from svsync.domain.changes import Entry, RemoteGone, RemoteUnknown, RemoteValue
from svsync.domain.errors import UndecodableError
from svsync.domain.ids import RemotePath
from svsync.domain.values import Payload, check_limits

STORE_KEY: Final = "svsync:store"
"""Holds the name that the operator gave to this store; copies of it keep the name."""
KEPT: Final = 10
"""Versions of a secret that a write leaves there, the current one included."""

STATE: Final = ("version", "id", "deleted", "tags")
WHOLE: Final = (*STATE, "made", "value")

State = Literal["current", "deleted", "destroyed"]


@dataclass(frozen=True, slots=True)
class Secret:
    """What one hash holds, but for the value."""

    version: int
    id: str
    state: State
    tags: Mapping[str, str]

    @property
    def value_token(self) -> str:
        return f"{self.version}|{self.id}|{self.state}"

    @property
    def gone(self) -> bool:
        return self.state != "current"


def look(key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Asks what a secret is, without its value; `secret_of` takes the two answers."""
    return ("HMGET", key, *STATE), ("HEXISTS", key, "value")


def secret_of(fields: Sequence[bytes | None], has_value: int) -> Secret | None:
    """Of the fields of STATE. None: there is no secret of this name.

    Raises ValueError for a hash of another make, or one that somebody spoiled.
    """
    version, made_by, deleted, tags = fields
    if version is None:
        if any(field is not None for field in fields) or has_value:
            raise ValueError("a hash without a version")
        return None
    if not version.isdigit() or not 0 < int(version[:19]) < 10**18 or made_by is None:
        raise ValueError("a hash without a number and an id of its version")
    state: State = "current" if has_value else "destroyed"
    if deleted is not None and has_value:
        state = "deleted"
    try:
        return Secret(int(version), made_by.decode(), state, tags_of(tags))
    except ValueError:
        # What the parsers say quotes what they were given.
        raise ValueError("an id that is no text, or tags that are no object of texts") from None


def tags_of(text: bytes | None) -> dict[str, str]:
    """Raises ValueError for what is no object of strings."""
    told = json.loads(text) if text else {}
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise ValueError("tags that are none")
    return {str(key): value for key, value in told.items()}


def tags_text(tags: Mapping[str, str]) -> str:
    return json.dumps(dict(tags), sort_keys=True, ensure_ascii=False)


def meta_token(tags: Mapping[str, str]) -> str:
    """Of the tags alone, so that a new value does not look like new tags."""
    return hashlib.sha256(tags_text(tags).encode()).hexdigest()[:32]


def entry_of(path: RemotePath, secret: Secret) -> Entry:
    return Entry(
        path,
        secret.value_token,
        meta_token(secret.tags),
        secret.version,
        gone=secret.gone,
        tags=secret.tags,
    )


def gone_of(secret: Secret) -> RemoteGone:
    return RemoteGone(
        secret.value_token, meta_token(secret.tags), secret.version, reason=secret.state
    )


def value_of(
    secret: Secret, made: bytes | None, value: bytes, max_bytes: int
) -> RemoteValue | RemoteUnknown:
    payload = payload_of(value, max_bytes)
    if isinstance(payload, RemoteUnknown):
        return payload
    return RemoteValue(
        payload,
        secret.value_token,
        meta_token(secret.tags),
        secret.version,
        secret.tags,
        moment_of(made),
        made_by=(secret.id,),
    )


def payload_of(value: bytes, max_bytes: int) -> Payload | RemoteUnknown:
    """The value byte for byte; size and depth are looked at before it is parsed."""
    if reason := check_limits(value, max_bytes):
        return RemoteUnknown(reason)
    try:
        return Payload.from_json_text(value)
    except UndecodableError as error:
        return RemoteUnknown(error.code)


def moment_of(made: bytes | None) -> datetime | None:
    try:
        return None if made is None else datetime.fromtimestamp(float(made), UTC)
    except (ValueError, OverflowError, OSError):
        return None
