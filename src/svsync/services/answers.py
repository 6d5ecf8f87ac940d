"""A secret as it is answered, put together around the exact text of its value.

Whoever reads it gets the same payload, wherever it came from: nothing of the value is
parsed, and no number changes on the way.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from svsync.services.secrets import time_of

NO_NUMBER: Final = 1
"""The version of what its store does not number."""


class Source(StrEnum):
    """Where a value came from that is not stored here."""

    BACKEND = "backend"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret as it is answered: `before`, the exact text of `data`, `after`.

    Attributes:
        version: its number; None where its store has none.
        in_conflict: a person has to decide about it; this is the local value.
        source: None: it is stored here.
    """

    version: int | None
    before: bytes
    data: bytes = field(repr=False)
    after: bytes
    in_conflict: bool = False
    source: Source | None = None

    @property
    def body(self) -> bytes:
        return self.before + self.data + self.after


@dataclass(frozen=True, slots=True)
class Federated:
    """What an answer says of the backend: `mode` is that of the path's rule."""

    backend: str
    mode: str
    synced_at: datetime | None
    status: str

    @property
    def text(self) -> str:
        synced = time_of(self.synced_at)
        at = "null" if synced is None else f'"{synced}"'
        return (
            f'{{"backend_id":"{self.backend}","mode":"{self.mode}","synced_at":{at}'
            f',"status":"{self.status}"}}'
        )


def described(
    secret_type: str,
    version: int | None,
    created_at: datetime | None,
    metadata: Mapping[str, object],
) -> bytes:
    """What an answer says of a version after its `data`, up to who else has it."""
    created = time_of(created_at)
    at = "null" if created is None else f'"{created}"'
    return (
        f',"secret_type":{json.dumps(secret_type)}'
        f',"version":{NO_NUMBER if version is None else version}'
        f',"created_at":{at},"metadata":{json.dumps(metadata, separators=(",", ":"))}'
        ',"federation":'
    ).encode()


def secret_of(
    path: str,
    data: bytes,
    said: bytes,
    *,
    version: int | None,
    federated: Federated | None,
    in_conflict: bool = False,
    source: Source | None = None,
) -> Secret:
    """The answer. `data`: JSON text; `said`: as `described` made it."""
    after = said + (b"null}" if federated is None else f"{federated.text}}}".encode())
    return Secret(version, f'{{"path":"{path}","data":'.encode(), data, after, in_conflict, source)
