"""What the answers of AWS Secrets Manager mean, without asking anybody.

The value token is the id of the version that is labelled AWSCURRENT, and whether the
secret is scheduled for deletion. The date of that is left out: a listing and a look at
one secret need not tell the same one. The meta token is a hash of the tags alone;
LastChangedDate moves with each value too, and neither a value nor the answer to a write
tells it.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from svsync.domain.changes import Entry, RemoteGone, RemoteUnknown, RemoteValue
from svsync.domain.errors import UndecodableError
from svsync.domain.ids import RemotePath
from svsync.domain.values import Encoding, Payload, check_limits

CURRENT: Final = "AWSCURRENT"
PREVIOUS: Final = "AWSPREVIOUS"
PENDING: Final = "SVSYNC_PENDING"
"""Our own label, under which a version waits until it may become the current one."""
ROTATING: Final = "AWSPENDING"
NO_VALUE: Final = "-"
"""Stands for the version of a secret without a current one."""

SEGMENT: Final = r"[A-Za-z0-9_+=.@-]+"
MAX_NAME: Final = 512
MAX_VALUE: Final = 64 * 1024
MAX_TAGS: Final = 50
_DELETED: Final = "deleted"


def value_token(version: str, *, deleted: bool = False) -> str:
    return f"{version}|{_DELETED if deleted else ''}"


def split_token(token: str) -> tuple[str, bool]:
    """The version of a value token, and whether it was scheduled for deletion."""
    version, _, state = token.partition("|")
    return version, state == _DELETED


def entry_of(info: Mapping[str, Any]) -> Entry:
    """What a listing, or a look at one secret, says of it."""
    stages = stages_of(info)
    current = [version for version, labels in stages.items() if CURRENT in labels]
    deleted = info.get("DeletedDate") is not None
    tags = tags_of(info)
    token = None  # two versions cannot both be current: a read will tell
    if len(current) <= 1:
        token = value_token(current[0] if current else NO_VALUE, deleted=deleted)
    return Entry(
        RemotePath(str(info["Name"])),
        token,
        meta_token(tags),
        gone=deleted or not current,
        tags=tags,
    )


def stages_of(info: Mapping[str, Any]) -> Mapping[str, list[str]]:
    """The labels of each version that has any; a listing calls them by another name."""
    return info.get("VersionIdsToStages") or info.get("SecretVersionsToStages") or {}


def made_before(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The version that was current before this one."""
    return tuple(version for version, labels in stages_of(info).items() if PREVIOUS in labels)


def tags_of(info: Mapping[str, Any]) -> dict[str, str]:
    return {str(tag.get("Key")): str(tag.get("Value", "")) for tag in info.get("Tags") or ()}


def meta_token(tags: Mapping[str, str]) -> str:
    text = json.dumps(dict(tags), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def gone_of(entry: Entry) -> RemoteGone:
    _, deleted = split_token(entry.value_token or "")
    reason = _DELETED if deleted else "no_value"
    return RemoteGone(entry.value_token, entry.meta_token, reason=reason)


def value_of(answer: Mapping[str, Any], max_bytes: int) -> RemoteValue | RemoteUnknown:
    """The value of an answer to a read."""
    text, raw = answer.get("SecretString"), answer.get("SecretBinary")
    try:
        if isinstance(text, str):
            payload = Payload.from_json_text(text)
        elif isinstance(raw, bytes):
            payload = Payload.from_bytes(raw)
        else:
            return RemoteUnknown("undecodable", "the version holds neither text nor bytes")
    except UndecodableError as error:
        return RemoteUnknown(error.code)
    if reason := check_limits(payload.reveal(), max_bytes):
        return RemoteUnknown(reason)
    created = answer.get("CreatedDate")
    version = str(answer.get("VersionId"))
    return RemoteValue(
        payload,
        value_token(version),
        made_by=(version,),
        created_at=created.astimezone(UTC) if isinstance(created, datetime) else None,
    )


def value_parameters(payload: Payload) -> dict[str, str | bytes]:
    """How a value goes out, byte for byte. AWS takes no empty one, so that goes as the
    object that it is served as."""
    if payload.size == 0:
        return {"SecretString": payload.data_text().decode()}
    if payload.encoding is Encoding.BINARY:
        return {"SecretBinary": payload.reveal()}
    return {"SecretString": payload.reveal().decode()}


def creation_parameters(config: Mapping[str, object]) -> dict[str, Any]:
    """What the configuration says of secrets that are made; those that are there keep theirs."""
    made: dict[str, Any] = {}
    if key := config.get("kms_key_id"):
        made["KmsKeyId"] = key
    regions = config.get("replica_regions")
    if isinstance(regions, list | tuple) and regions:
        made["AddReplicaRegions"] = [{"Region": region} for region in regions]
    return made


def account_of(info: Mapping[str, Any]) -> str:
    """The account in the ARN of a secret; empty where there is none."""
    parts = str(info.get("ARN", "")).split(":")
    return parts[4] if len(parts) > 5 else ""


def listed_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
