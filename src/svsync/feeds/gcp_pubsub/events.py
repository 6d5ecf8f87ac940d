"""A message of the subscription into the name of the secret that it tells a change of.

All of it is in the attributes of a message (Secret Manager documentation, "Set up
notifications on a secret", docs/event-notifications): `eventType`, and in `secretId` the
secret with the number of its project, `projects/N/secrets/x`, or
`projects/N/locations/L/secrets/x` of a regional one. The body repeats the resource, and is
not looked at.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem

_KINDS: Final = re.compile(r"SECRET_[A-Z_]+|TOPIC_CONFIGURED")
_NO_CHANGE: Final = frozenset({"SECRET_ROTATE", "TOPIC_CONFIGURED"})
"""A reminder that a secret is due, and a test of the topic."""
_SECRET: Final = re.compile(
    r"projects/(?P<project>[^/]+)(?:/locations/(?P<location>[^/]+))?/secrets/(?P<name>[^/]+)"
)
_MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Place:
    """Whose secrets a backend has: a project, by its id or number, and a location; empty:
    those that have none."""

    project: str
    location: str = ""

    def holds(self, project: str, location: str) -> bool:
        """Whether a secret may be of here. An id and a number cannot be told apart from two
        projects, so that counts for yes: a notice is a hint."""
        same = project == self.project or project.isdigit() != self.project.isdigit()
        return same and location == self.location


def name_of(attributes: Mapping[str, str], place: Place) -> RemotePath | None:
    """The secret that a message names; None: nothing of it changed, or it is not of there.

    Raises:
        ValueError: it is no notice of Secret Manager, or names nothing that can be a secret.
    """
    kind = attributes.get("eventType", "")
    if not _KINDS.fullmatch(kind):
        raise ValueError("not a notice of Secret Manager")
    if kind in _NO_CHANGE:
        return None
    named = _SECRET.fullmatch(attributes.get("secretId", ""))
    if named is None or remote_problem(named["name"], max_bytes=_MAX_NAME) is not None:
        raise ValueError("a notice without the name of a secret")
    if not place.holds(named["project"], named["location"] or ""):
        return None
    return RemotePath(named["name"])
