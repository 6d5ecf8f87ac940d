"""One line of an audit device, and the secrets that it says were changed.

Looked at are `type`, `error`, and of `request` the operation, the path, the type and
place of the mount, and the namespace. All else is dropped: with `log_raw` it holds
values, so a line never gets into a message, a log or an exception.

The entry does not tell KV v2 from v1. `kv/metadata/x` is a change of the secret `x`
of a v2 mount, or of the secret `metadata/x` of a v1 mount; both names are told, and
the rules of the backends know which of the two they have.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem
from svsync.ports import Notice

MAX_PATH: Final = 4096  # bytes, as of a name from a listing

CHANGES: Final = frozenset({"create", "update", "patch", "delete"})
KV: Final = frozenset({"kv", "generic"})
_VERBS_OF_V2: Final = frozenset({"metadata", "delete", "undelete", "destroy"})
# Reads are most of what a server does: they are told without parsing. Within a text
# of JSON the quotes would be escaped, so this only finds members of that name.
_may_change = re.compile(rb'"operation"\s*:\s*"(?:create|update|patch|delete)"').search


def notices_of(line: bytes) -> tuple[Notice, ...]:
    """The secrets that this entry tells a change of; none for most entries.

    Raises:
        ValueError: not an entry as audit devices write them with `format = "json"`.
    """
    if not (line.startswith(b"{") and line.rstrip().endswith(b"}")):
        raise ValueError("not an audit entry")
    if not _may_change(line):
        return ()
    entry = parsed(line)
    request = entry.get("request")
    if not isinstance(request, dict):
        raise ValueError("not an audit entry")
    # A request is told twice, before and after; only the second says that it was done.
    if entry.get("type") != "response" or entry.get("error"):
        return ()
    if request.get("operation") not in CHANGES or request.get("mount_type") not in KV:
        return ()
    namespace = request.get("namespace")
    place = namespace.get("path", "") if isinstance(namespace, dict) else ""
    match place, request.get("mount_point"), request.get("path"):
        case str(), str() as mount, str() as path:
            return tuple(names_of(place, mount, path))
    raise ValueError("not an audit entry")


def parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None  # the error of the parser holds the line
    if not isinstance(entry, dict):
        raise ValueError("not an audit entry")
    return entry


def names_of(place: str, mount: str, path: str) -> Iterator[Notice]:
    """The secrets that a change at a path may be of, in the namespace of the request."""
    # The path is relative to the namespace; OpenBao's mount point is not.
    relative = mount.removeprefix(place)
    if not relative or not path.startswith(relative):
        relative = mount
    if not path.startswith(relative):
        return
    verb, slash, name = path[len(relative) :].partition("/")
    candidates = [path]
    if slash and verb in _VERBS_OF_V2:
        candidates.append(f"{relative}data/{name}")
    for candidate in candidates:
        if remote_problem(candidate, max_bytes=MAX_PATH) is None:
            yield Notice(place.strip("/"), RemotePath(candidate))
