"""Whom policies are bound to: service accounts, users, and groups of them.

A group's id is its name, as a token's claim or the directory gives it. Where a group stands
beside the others it is written `group:NAME`, and the word before the colon is taken off.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from svsync.domain.access import Identity
from svsync.domain.errors import UsageError

MAX_GROUP: Final = 256
"""Characters of a group's name."""
_GROUP: Final = "group:"


class BoundType(StrEnum):
    SERVICE_ACCOUNT = "service_account"
    USER = "user"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Bound:
    """Whom a policy is bound to."""

    type: BoundType
    id: str

    @classmethod
    def of(cls, kind: BoundType, text: str) -> "Bound":
        """By its type and id. Raises UsageError for an id that is none of that type."""
        if kind is BoundType.GROUP:
            return cls(kind, group_name(text))
        identity = Identity.parse(text)
        if str(identity.type) != kind:
            raise UsageError(f"an identity of the type {kind} begins with {_BEGINS[kind]}")
        return cls(kind, identity.id)

    @classmethod
    def parse(cls, text: str) -> "Bound":
        """By one word: sa:NAME, user:NAME or group:NAME. Raises UsageError."""
        if text.startswith(_GROUP):
            return cls(BoundType.GROUP, group_name(text))
        identity = Identity.parse(text)
        return cls(BoundType(str(identity.type)), identity.id)

    def __str__(self) -> str:
        return f"{_GROUP}{self.id}" if self.type is BoundType.GROUP else self.id


_BEGINS: Final = {BoundType.SERVICE_ACCOUNT: "sa:", BoundType.USER: "user:"}


def group_name(text: str) -> str:
    """A group's name, with or without `group:` before it. Raises UsageError."""
    name = text.removeprefix(_GROUP)
    if not name or name != name.strip() or len(name) > MAX_GROUP or not name.isprintable():
        raise UsageError(
            f"a group is named by 1 to {MAX_GROUP} printable characters without spaces around them"
        )
    return name
