"""What may be said of an exception: never the text of somebody else's.

The text of a library's exception may quote what it choked on: a row, a request,
a response with a token. Only our own exceptions are composed from codes and
names; of all others the class is told, and where it was raised.
"""

import re
import traceback
from collections.abc import Mapping

from svsync.domain.errors import SvsyncError

_MOST_FRAMES = 12
_MOST_MEMBERS = 5
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_OWN_FIELDS = ("operation", "path", "status", "retry_after", "where")

Described = Mapping[str, object]


def describe(error: BaseException) -> Described:
    """An exception as log fields: class, code, and text or place.

    Fields: `error_class` always; `error_code`, `error` and the fields of its
    class for our own; `error_code` (the SQLSTATE) and `stack` (module:line
    function, innermost last) for others; `causes` and `members` by class.
    """
    found: dict[str, object] = {"error_class": class_name(error)}
    if isinstance(error, SvsyncError):
        found |= {"error_code": error.code, "error": error.message}
        for name in _OWN_FIELDS:
            value = getattr(error, name, None)
            if value not in (None, ""):
                found[name] = value
        return found
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str) and _SQLSTATE.fullmatch(sqlstate):
        found["error_code"] = sqlstate
    if causes := [class_name(cause) for cause in _causes(error)]:
        found["causes"] = causes
    if isinstance(error, BaseExceptionGroup):
        found["members"] = [_member(member) for member in error.exceptions[:_MOST_MEMBERS]]
    if stack := _stack(error):
        found["stack"] = stack
    return found


def class_name(error: BaseException) -> str:
    kind = type(error)
    if kind.__module__ in ("builtins", "svsync.domain.errors"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _member(error: BaseException) -> str:
    """One exception of a group, in a line."""
    if isinstance(error, SvsyncError):
        return f"{class_name(error)}: {error.code}: {error.message}"
    return class_name(error)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None and cause not in found and len(found) < _MOST_MEMBERS:
        found.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return found


def _stack(error: BaseException) -> list[str]:
    """Where it was raised: no local variables, no source text."""
    frames = [
        f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_qualname}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return frames[-_MOST_FRAMES:]
