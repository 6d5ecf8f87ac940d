"""What the answers of Key Vault about secrets mean, without asking anybody.

The value token is the second in which the current version was last updated, and its state:
a listing tells no version's id. So two writes within one second look alike. While a second
may still bring another write the token says `young`, in listings and reads alike, and is
another one afterwards: what was read in that second is read once more.

A change of tags alone moves `updated`, and with it the value token. The meta token is a
hash of the tags and the content type.

[About Azure Key Vault secrets, secrets/about-secrets] describes attributes and tags; a
listing tells those of the newest version.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

from svsync.domain.changes import Entry, RemoteGone, RemoteUnknown, RemoteValue
from svsync.domain.errors import UndecodableError
from svsync.domain.ids import RemotePath
from svsync.domain.values import Encoding, Payload, check_limits

PUSH_TAG: Final = "svsync-push"
"""The tag that says which push of ours made a version. Nobody is shown it."""

SEGMENT: Final = r"[0-9A-Za-z-]+"
MAX_NAME: Final = 127
MAX_VALUE: Final = 25 * 1024
MAX_TAGS: Final = 15
MAX_TAG: Final = 512
"""Characters of a tag's name, and of its value."""

YOUNG_S: Final = 2
"""Seconds after an update in which another one might carry the same second."""

DELETED: Final = "deleted"
DISABLED: Final = "disabled"
EXPIRED: Final = "expired"
NOT_YET: Final = "not_yet_valid"
_GONE: Final = (DELETED, DISABLED, EXPIRED)
_YOUNG: Final = "young"
_IN_ONE_SECOND: Final = 1000
_YEAR_10000: Final = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Version:
    """What Key Vault says of one version of a secret, or of its newest one.

    Attributes:
        version: its id; empty where a listing leaves it out.
        created, updated: whole seconds since 1970; 0 where they are not told.
        state: empty while its value may be used.
        raw_tags: all of them.
        managed: it belongs to a certificate, which alone may change it.
        recoverable: a delete can be undone.
    """

    name: RemotePath
    version: str
    created: int
    updated: int
    state: str
    raw_tags: Mapping[str, str]
    content_type: str
    managed: bool
    expires: int | None
    not_before: int | None
    recoverable: bool

    @property
    def tags(self) -> dict[str, str]:
        """Those that are somebody's."""
        return {key: text for key, text in self.raw_tags.items() if key != PUSH_TAG}

    @property
    def meta_token(self) -> str:
        return meta_token(self.tags, self.content_type)

    @property
    def gone(self) -> bool:
        return self.state in _GONE


def version_of(item: Mapping[str, Any], now: datetime, *, deleted: bool = False) -> Version | None:
    """One item of a listing, or one secret. None: it names none.

    Args:
        now: by the vault's clock, which its dates are by.
    """
    parts = str(item.get("id", "")).split("/")
    if len(parts) < 5 or not parts[4]:
        return None
    told = item.get("attributes")
    attributes: Mapping[str, Any] = told if isinstance(told, dict) else {}
    tags = item.get("tags")
    expires, not_before = (_seconds(attributes.get(key)) for key in ("exp", "nbf"))
    if deleted:
        state = DELETED
    elif attributes.get("enabled") is False:
        state = DISABLED
    elif expires is not None and now.timestamp() >= expires:
        state = EXPIRED
    elif not_before is not None and now.timestamp() < not_before:
        state = NOT_YET
    else:
        state = ""
    return Version(
        RemotePath(parts[4]),
        parts[5] if len(parts) > 5 else "",
        _seconds(attributes.get("created")) or 0,
        _seconds(attributes.get("updated")) or 0,
        state,
        {str(key): str(text) for key, text in tags.items()} if isinstance(tags, dict) else {},
        str(item.get("contentType") or ""),
        item.get("managed") is True,
        expires,
        not_before,
        "Recoverable" in str(attributes.get("recoveryLevel", "")),
    )


def _seconds(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _YEAR_10000 else None


# --- tokens -----------------------------------------------------------------------


def value_token(version: Version, now: datetime) -> str:
    young = not version.gone and int(now.timestamp()) - version.updated <= YOUNG_S
    return f"{version.updated}|{version.state}|{_YOUNG if young else ''}"


def is_young(token: str) -> bool:
    """May another value look like the one that was read?"""
    return token.endswith(_YOUNG)


def same_second(one: str, other: str) -> bool:
    """Do they differ in age alone?"""
    return one.rpartition("|")[0] == other.rpartition("|")[0]


def meta_token(tags: Mapping[str, str], content_type: str) -> str:
    text = json.dumps([dict(tags), content_type], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def order_of(version: Version) -> int:
    """The number of a version that is the only one, or the newest, of its second."""
    return number_of(version.created)


def number_of(created: int, before_last: int = 0) -> int:
    """Versions have ids; a number that rises is made of the second of each, and within
    one of whatever is below the last."""
    return created * _IN_ONE_SECOND + _IN_ONE_SECOND - 1 - before_last


def numbered(versions: Iterable[Version], current: str) -> list[tuple[int, Version]]:
    """Oldest first. Of one second the `current` version is the last; the others' order
    nothing tells, so that they have one by their ids, always the same."""
    found = []
    ordered = sorted(versions, key=lambda one: (one.created, one.version == current, one.version))
    for created, group in groupby(ordered, key=lambda one: one.created):
        together = list(group)
        for index, version in enumerate(together):
            found.append((number_of(created, len(together) - 1 - index), version))
    return found


# --- records ----------------------------------------------------------------------


def entry_of(version: Version, now: datetime) -> Entry:
    return Entry(
        version.name,
        value_token(version, now),
        version.meta_token,
        order_of(version),
        gone=version.gone,
        tags=version.tags,
    )


def gone_of(version: Version, now: datetime) -> RemoteGone:
    return RemoteGone(
        value_token(version, now), version.meta_token, order_of(version), reason=version.state
    )


def value_of(
    item: Mapping[str, Any], version: Version, now: datetime, max_bytes: int
) -> RemoteValue | RemoteUnknown:
    """The value of an answer to a read of a version that may be used."""
    payload = payload_of(item, max_bytes)
    if isinstance(payload, RemoteUnknown):
        return payload
    push = version.raw_tags.get(PUSH_TAG)
    return RemoteValue(
        payload,
        value_token(version, now),
        version.meta_token,
        order_of(version),
        tags=version.tags,
        created_at=datetime.fromtimestamp(version.created, UTC) if version.created else None,
        dropped_fields=_dropped(version),
        made_by=(push,) if push else (),
    )


def payload_of(item: Mapping[str, Any], max_bytes: int) -> Payload | RemoteUnknown:
    text = item.get("value")
    if not isinstance(text, str):
        return RemoteUnknown("undecodable", "the version holds no text")
    try:
        payload = Payload.from_json_text(text)
    except UndecodableError as error:
        return RemoteUnknown(error.code)
    if reason := check_limits(payload.reveal(), max_bytes):
        return RemoteUnknown(reason)
    return payload


def _dropped(version: Version) -> tuple[str, ...]:
    """What there is and does not travel."""
    there = {
        "contentType": bool(version.content_type),
        "exp": version.expires is not None,
        "nbf": version.not_before is not None,
    }
    return tuple(name for name, told in there.items() if told)


def text_of(payload: Payload) -> str:
    """How a value goes out. Key Vault holds texts; bytes, and what is empty, go as the
    object that they are served as."""
    if payload.encoding is Encoding.BINARY or payload.size == 0:
        return payload.data_text().decode()
    return payload.reveal().decode()


def content_type_of(payload: Payload) -> str:
    """What a new secret is said to hold where nobody configured it."""
    as_object = payload.encoding is not Encoding.TEXT or payload.size == 0
    return "application/json" if as_object else "text/plain"
