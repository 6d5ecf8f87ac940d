"""What the answers of GCP Secret Manager mean, without asking anybody.

A value belongs to a version, and versions are numbered from 1; `latest` is the one that
was made last, whatever its state. The value token is that number and that state. The
listing tells of a secret its labels, its annotations and its etag, which is the meta
token, and nothing of its versions.

Raw pairs are the annotations and the labels together; where both have a key, the label
counts. What may be a label is one when it is new; anything else is an annotation.
"""

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from re import compile as pattern
from typing import Any, Final

import google_crc32c

from svsync.domain.changes import Entry, HistoricVersion, RemoteGone, RemoteUnknown, RemoteValue
from svsync.domain.errors import UndecodableError
from svsync.domain.ids import RemotePath
from svsync.domain.values import Payload, check_limits

SEGMENT: Final = r"[A-Za-z0-9_-]+"
MAX_NAME: Final = 255
MAX_VALUE: Final = 64 * 1024
LATEST: Final = "latest"

ENABLED: Final = "enabled"
NO_VERSION: Final = "none"
"""Stands for the state of a secret that never had a version."""

_MAX_LABELS: Final = 64
_IN_LABELS: Final = ("Ll", "Lo", "Nd", "Nl", "No")
_MAX_ANNOTATIONS: Final = 16 * 1024
_ANNOTATION: Final = pattern(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def value_token(number: int, state: str) -> str:
    return f"{number}|{state}"


def split_token(token: str) -> tuple[int, str]:
    """The number and the state of a value token."""
    number, _, state = token.partition("|")
    return int(number), state


def id_of(name: str) -> str:
    """The last part of a resource name: a secret's id, or a version's number."""
    return name.rpartition("/")[2]


def number_of(name: str) -> int:
    """The number in a version's resource name; 0 where there is none."""
    number = id_of(name)
    return int(number) if number.isascii() and number.isdigit() else 0


def project_of(name: str) -> str:
    """The project's number, by which resources name themselves; empty where they do not."""
    parts = name.split("/")
    return parts[1] if len(parts) > 1 and parts[0] == "projects" and parts[1].isdigit() else ""


def state_of(version: Any) -> str:
    """enabled, disabled, destroyed; any other word is one that svsync does not know."""
    return str(version.state.name).lower()


def pairs_of(secret: Any) -> dict[str, str]:
    return {**secret.annotations, **secret.labels}


def listed_entry(secret: Any) -> Entry:
    """What a listing says."""
    return Entry(RemotePath(id_of(secret.name)), meta_token=str(secret.etag), tags=pairs_of(secret))


def entry_of(secret: Any, version: Any | None) -> Entry | RemoteGone:
    """What a look at a secret and at its newest version says. One that never had any holds
    no trace of a value, though its name is taken."""
    etag = str(secret.etag)
    if version is None:
        return RemoteGone(value_token(0, NO_VERSION), etag)
    state, number = state_of(version), number_of(version.name)
    return Entry(
        RemotePath(id_of(secret.name)),
        value_token(number, state),
        etag,
        order=number,
        gone=state != ENABLED,
        tags=pairs_of(secret),
    )


def gone_of(entry: Entry) -> RemoteGone:
    _, state = split_token(entry.value_token or f"0|{NO_VERSION}")
    return RemoteGone(entry.value_token, entry.meta_token, entry.order, reason=state)


# --- values -----------------------------------------------------------------------


def value_of(answer: Any, max_bytes: int) -> RemoteValue | RemoteUnknown:
    """The value of an answer to an access, if it is whole ("Data integrity assurance")."""
    data = bytes(answer.payload.data)
    if "data_crc32c" in answer.payload and answer.payload.data_crc32c != checksum(data):
        return RemoteUnknown(
            "unreadable", "its checksum does not fit its value: it was altered on the way"
        )
    if reason := check_limits(data, max_bytes):
        return RemoteUnknown(reason)
    try:
        payload = Payload.from_json_text(data)
    except UndecodableError as error:
        return RemoteUnknown(error.code)
    number = number_of(answer.name)
    return RemoteValue(payload, value_token(number, ENABLED), order=number)


def historic(read: RemoteValue, created: object) -> HistoricVersion:
    """A version as history; `created`, where it was told."""
    moment = created.astimezone(UTC) if isinstance(created, datetime) else None
    return HistoricVersion(read.order or 0, read.payload, moment)


def checksum(data: bytes) -> int:
    return int(google_crc32c.value(data))


def bytes_of(payload: Payload) -> bytes:
    """How a value goes out, byte for byte. Google takes no empty one, so that goes as the
    object that it is served as; and so do bytes that would come back as a text."""
    raw = payload.reveal()
    try:
        back = Payload.from_json_text(raw).encoding if raw else None
    except UndecodableError:
        back = None
    return raw if back is payload.encoding else payload.data_text()


def sent_payload(payload: Payload) -> dict[str, Any]:
    data = bytes_of(payload)
    return {"data": data, "data_crc32c": checksum(data)}


# --- labels and annotations -------------------------------------------------------


def split_pairs(
    wanted: Mapping[str, str], labels: Mapping[str, str], annotations: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]] | None:
    """These pairs as labels and as annotations, each where it stands already; None where
    Google takes one of them neither way, or takes not so many."""
    as_labels: dict[str, str] = {}
    as_annotations: dict[str, str] = {}
    for key, text in wanted.items():
        if key in labels and key in annotations:
            as_annotations[key] = annotations[key]  # the label hides it, and it stays
        if is_label(key, text) and (key in labels or key not in annotations):
            as_labels[key] = text
        elif _ANNOTATION.fullmatch(key):
            as_annotations[key] = text
        else:
            return None
    held = sum(len(key.encode()) + len(text.encode()) for key, text in as_annotations.items())
    if len(as_labels) > _MAX_LABELS or held >= _MAX_ANNOTATIONS:
        return None
    return as_labels, as_annotations


def is_label(key: str, text: str) -> bool:
    """May this pair be a label (`Secret.labels` in the API's reference)?"""
    return (
        0 < len(key) <= 63
        and _kind(key[0]) in ("Ll", "Lo")
        and all(len(part) <= 63 and len(part.encode()) <= 128 for part in (key, text))
        and all(one in "_-" or _kind(one) in _IN_LABELS for one in key + text)
    )


def _kind(one: str) -> str:
    return unicodedata.category(one)


def creation_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the configuration says of secrets that are made; those that are there keep
    theirs. One in a location has no replication ("Create a regional secret")."""
    key = config.get("kms_key_id")
    if config.get("location"):
        return {"customer_managed_encryption": _key(key)} if key else {}
    places = config.get("replica_locations")
    if not places:
        return {"replication": {"automatic": _encrypted(key)}}
    replicas = [
        {"location": place, **_encrypted(key.replace("{location}", place) if key else None)}
        for place in places
    ]
    return {"replication": {"user_managed": {"replicas": replicas}}}


def _encrypted(key: str | None) -> dict[str, Any]:
    return {"customer_managed_encryption": _key(key)} if key else {}


def _key(key: str) -> dict[str, str]:
    return {"kms_key_name": key}
