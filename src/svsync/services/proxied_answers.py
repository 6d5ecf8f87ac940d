"""What a backend said of one path, in our own words: none of its text is passed on."""

from svsync.domain.changes import RemoteGone, RemoteRead, RemoteUnknown, RemoteValue
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    NotFoundError,
    ThrottledError,
)
from svsync.domain.federation import TagTransform
from svsync.domain.ids import LocalPath
from svsync.domain.runs import SkipReason
from svsync.domain.tags import flatten, merge_fields, tag_problem
from svsync.domain.values import check_limits
from svsync.services.authorizing import absent
from svsync.services.proxied_paths import Through

THROTTLED_S = 1.0
"""Seconds after which to come again, where a throttled backend names none."""
SPENT_S = 60.0
"""The same where a budget of calls is spent."""


class NotThereError(NotFoundError):
    """A backend was asked for a secret, or for a version of it, that it does not give."""


def taken(path: LocalPath, way: Through, read: RemoteRead) -> RemoteValue | RemoteGone:
    """What was read, if a pull would take it as well."""
    if isinstance(read, RemoteUnknown):
        if read.reason == SkipReason.DENIED:
            raise denied(path, way)
        raise unreadable(path, way, read.reason)
    if isinstance(read, RemoteValue):
        reason = check_limits(read.payload.reveal(), way.stored.spec.max_value_bytes)
        if reason is None and read.tags and tag_problem(read.tags) is not None:
            reason = SkipReason.BAD_METADATA
        if reason is not None:
            raise unreadable(path, way, reason)
    return read


def metadata(value: RemoteValue, transform: TagTransform) -> dict[str, object]:
    """What a pull of a new secret would set."""
    tags = value.tags or {}
    custom = merge_fields({}, {}, tags, local_wins=False)
    return {
        "tags": list(flatten(tags, transform)),
        "owner": None,
        "description": None,
        "custom": dict(sorted(custom.items())),
    }


def unreachable(path: LocalPath, way: Through) -> BackendUnreachableError:
    return BackendUnreachableError(
        f"{path} is read through {way.backend}, which cannot be reached: try again",
        operation="read",
    )


def denied(path: LocalPath, way: Through) -> DeniedError:
    return DeniedError(
        f"{path} is read through {way.backend}, which denies it to svsync:"
        f" `svsync backends test {way.backend}` says what is missing",
        operation="read",
    )


def unreadable(path: LocalPath, way: Through, reason: str) -> BackendError:
    return BackendError(
        f"{path} is read through {way.backend}, and what that holds cannot be read ({reason}):"
        " correct it there",
        operation="read",
        code="remote_unreadable",
    )


def not_there(path: LocalPath) -> NotThereError:
    told = absent(path)
    return NotThereError(told.message, code=told.code)


def held_back(path: LocalPath, way: Through, error: ThrottledError) -> BackendError:
    if error.code == "call_budget_spent":
        return BackendError(
            f"{path} is read through {way.backend}, whose call_budget.per_day is spent: raise it,"
            " or wait",
            operation="read",
            retry_after=SPENT_S,
            code=error.code,
            sent=False,
        )
    return BackendError(
        f"{path} is read through {way.backend}, which asks for fewer calls: try again",
        operation="read",
        retry_after=error.retry_after or THROTTLED_S,
        code="throttled",
    )
