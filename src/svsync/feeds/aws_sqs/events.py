"""A message of the queue into the names of the secrets that it tells a change of.

EventBridge wraps what CloudTrail records (Secrets Manager User Guide, "Match AWS Secrets
Manager events with Amazon EventBridge", and "Log AWS Secrets Manager events with AWS
CloudTrail"). A call names its secret as the caller did: by name, by ARN, or by an ARN
without the six characters that AWS puts behind the name. The answer has the whole ARN,
under `arn` or `aRN`, where it was recorded at all.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem

_SOURCE: Final = "aws.secretsmanager"
_CHANGES: Final = frozenset(
    {
        "CreateSecret",
        "DeleteSecret",
        "EndSecretVersionDelete",
        "PutSecretValue",
        "RestoreSecret",
        "RotationSucceeded",
        "TagResource",
        "UntagResource",
        "UpdateSecret",
        "UpdateSecretVersionStage",
    }
)
"""After these, what svsync carries may be another. A rotation that merely begins, a policy
and a replica are none of them."""
_ARN: Final = re.compile(r"arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):[0-9]{12}:secret:(.+)")
_PUT_BEHIND: Final = re.compile(r"-[A-Za-z0-9]{6}\Z")
_MAX_NAME: Final = 512


def names_of(body: str, region: str) -> tuple[RemotePath, ...]:
    """The names that a message may mean; two where an ARN could be whole or not. None: it
    tells of no change, of a call that failed, or of another region.

    Raises:
        ValueError: it is no event of Secrets Manager, or names nothing that can be a secret.
    """
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        # The error of the parser holds the message.
        raise ValueError("not an event of Secrets Manager") from None
    if not isinstance(event, dict) or event.get("source") != _SOURCE:
        raise ValueError("not an event of Secrets Manager")
    detail = _object(event, "detail")
    if _text(detail, "eventName") not in _CHANGES or detail.get("errorCode"):
        return ()
    if (_text(detail, "awsRegion") or _text(event, "region") or region) != region:
        return ()
    names = dict.fromkeys(_names(detail, region))
    usable = [name for name in names if remote_problem(name, max_bytes=_MAX_NAME) is None]
    if not usable:
        raise ValueError("an event without the name of a secret")
    return tuple(map(RemotePath, usable))


def _names(detail: Mapping[str, Any], region: str) -> Iterator[str]:
    answer = _object(detail, "responseElements")
    for key in ("arn", "aRN", "ARN"):
        if found := _of_arn(_text(answer, key), region):
            yield _PUT_BEHIND.sub("", found)
            return
    asked, more = _object(detail, "requestParameters"), _object(detail, "additionalEventData")
    named = _text(asked, "secretId") or _text(asked, "name") or _text(more, "SecretId")
    if not named.startswith("arn:"):
        yield named
    elif found := _of_arn(named, region):
        yield _PUT_BEHIND.sub("", found)
        yield found


def _of_arn(text: str, region: str) -> str:
    """What an ARN of the region has behind `secret:`; empty: it is none."""
    parts = _ARN.fullmatch(text)
    return parts[2] if parts and parts[1] == region else ""


def _object(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = members.get(name)
    return value if isinstance(value, dict) else {}


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""
