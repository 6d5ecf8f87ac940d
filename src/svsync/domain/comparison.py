"""Two values side by side without showing either: what is equal, and how large it is.

Values are compared member by member of their top-level object, equal as fingerprints
are: numbers as doubles, whatever the spelling; or exactly, where both sides keep the text.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from svsync.domain.json_text import canonical_json, same_json, slice_members


class Verdict(StrEnum):
    """How one member stands on both sides; unknown where a side cannot be read."""

    SAME = "same"
    DIFFERENT = "different"
    ONLY_LOCAL = "only_local"
    ONLY_REMOTE = "only_remote"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Shape:
    """Type of a member's value, and its size in bytes: a string's own, anything else's
    JSON text."""

    type: str
    size: int


@dataclass(frozen=True, slots=True)
class Compared:
    name: str
    verdict: Verdict
    local: Shape | None
    remote: Shape | None


_TYPES: Final = {
    '"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null",
}  # fmt: skip


def compare(
    local: bytes | None, remote: bytes | None, *, readable: bool = True, exact: bool = False
) -> list[Compared]:
    """The members of two `data` objects, those of the local side first.

    Args:
        local, remote: exact JSON text; None where the side is gone or cannot be read.
        readable: neither side is one that cannot be read, so what one of them has
            alone it has alone.
        exact: numbers that only doubles make one are different.
    """
    ours, theirs = _members(local), _members(remote)
    return [
        Compared(
            name,
            _verdict(ours.get(name), theirs.get(name), readable=readable, exact=exact),
            _shape(ours.get(name)),
            _shape(theirs.get(name)),
        )
        for name in {**ours, **theirs}
    ]


def _members(data: bytes | None) -> dict[str, str]:
    if data is None:
        return {}
    text = data.decode()
    return {name: text[start:end] for name, (start, end) in slice_members(text).items()}


def _verdict(local: str | None, remote: str | None, *, readable: bool, exact: bool) -> Verdict:
    if local is not None and remote is not None:
        one, other = f'{{"v":{local}}}', f'{{"v":{remote}}}'
        same = same_json(one, other) if exact else canonical_json(one) == canonical_json(other)
        return Verdict.SAME if same else Verdict.DIFFERENT
    if not readable:
        return Verdict.UNKNOWN
    return Verdict.ONLY_REMOTE if local is None else Verdict.ONLY_LOCAL


def _shape(text: str | None) -> Shape | None:
    if text is None:
        return None
    kind = _TYPES.get(text[0], "number")
    measured = json.loads(text) if kind == "string" else text
    return Shape(kind, len(measured.encode()))
