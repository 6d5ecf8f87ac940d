"""The audit log as hash chains: what a row says, and how each row names the one before.

    genesis(tenant, chain, writer) ──► row 1 ──► row 2 ──► …        one writer each
                                          │
    checkpoint n names the heads of all chains of a tenant, and checkpoint n-1, and is signed

A row's hash covers every field of it, its place, and the hash of the row before, so a row
that was changed, removed, added or moved does not fit. Whoever may write the table could
make a chain anew; a checkpoint that was signed, and kept elsewhere, cannot be made anew.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from json.encoder import encode_basestring
from typing import Final, NamedTuple

from svsync.domain.ids import TenantId

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


class Decision(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


TRIM: Final = "audit.trim"
"""The row that says what retention is about to remove: everything `before` a moment."""
TRIMMER: Final = "svsync"
"""Its identity."""


class Actor(NamedTuple):
    """Who did something that no request asked for, as the log names them."""

    type: str
    id: str


SVSYNC: Final = Actor("system", TRIMMER)
"""The service by itself."""


LOOK: Final = "svsync-look."
"""Begins the request ids of our own commands that read values to copy or compare them over the
API: such a read is a person's look, and no application's."""


class Entry(NamedTuple):
    """One access, allowed or denied. No field ever holds a value or a token.

    A tuple, as one is made for each of thousands of reads a second.

    Attributes:
        action: what was asked for, as `secret.read`.
        detail: JSON text with what the other fields have no place for; None: nothing.
    """

    tenant: TenantId
    identity_type: str
    identity_id: str
    action: str
    decision: str
    secret_path: str | None = None
    version: int | None = None
    backend_id: str | None = None
    request_id: str | None = None
    source_ip: str | None = None
    detail: str | None = None


def genesis(tenant: int, chain: int, writer: str) -> bytes:
    """What the first row of a chain names as the hash before it."""
    return _hash(b"svsync-audit-chain-1", _text([tenant, chain, writer]))


def link(before: bytes, chain: int, seq: int, at: datetime, entry: Entry) -> bytes:
    """The hash of a row: of its fields, its place, and the hash of the row before it.

    The fields are hashed as a JSON array, which is put together here: one is made for each of
    thousands of reads a second.
    """
    tenant, kind, identity, action, decision, path, version, backend, request, ip, detail = entry
    text = (
        f"[{tenant},{chain},{seq},{microseconds(at)},{_quoted(kind)},{_quoted(identity)}"
        f",{_quoted(action)},{_quoted(path)},{_quoted(decision)}"
        f",{'null' if version is None else version},{_quoted(backend)},{_quoted(request)}"
        f",{_quoted(ip)},{_quoted(detail)}]"
    )
    return _hash(before, text.encode())


def _quoted(text: str | None) -> str:
    return "null" if text is None else encode_basestring(text)


def microseconds(at: datetime) -> int:
    """A moment as a whole number, as Postgres keeps it."""
    return (at - EPOCH) // MICROSECOND


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain goes: the number and the hash of its last row."""

    chain: int
    seq: int
    hash: bytes


def heads_text(heads: Sequence[Head]) -> str:
    """The heads of a checkpoint, as it stores and hashes them."""
    ordered = sorted(heads, key=lambda head: head.chain)
    return _text([[head.chain, head.seq, head.hash.hex()] for head in ordered]).decode()


def heads_of(text: str) -> list[Head]:
    """The heads again. Raises ValueError for a text that holds none."""
    return [Head(int(chain), int(seq), bytes.fromhex(digest)) for chain, seq, digest in _list(text)]


def _list(text: str) -> list[list[str]]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(x, list) and len(x) == 3 for x in found):
        raise ValueError("no heads")
    return found


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is signed: the chains of a tenant at one moment, tied to the checkpoint before."""

    tenant: int
    n: int
    at: datetime
    root: bytes
    prev_hash: bytes

    def signed_text(self) -> bytes:
        """The exact bytes that the signature covers; their hash is the checkpoint's own."""
        return _text(
            [
                "svsync-audit-checkpoint-1",
                self.tenant,
                self.n,
                microseconds(self.at),
                self.root.hex(),
                self.prev_hash.hex(),
            ]
        )

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.signed_text()).digest()


FIRST: Final = bytes(32)
"""What the first checkpoint of a tenant names as the one before it."""


def root_of(heads: str) -> bytes:
    """The hash of a checkpoint's heads as text."""
    return hashlib.sha256(heads.encode()).digest()


_MARK: Final = '{"svsync_audit_checkpoint":'


def anchor_text(made: Checkpoint, tenant: str, key_id: int, signature: bytes) -> str:
    """A checkpoint as it is kept outside: one line of JSON, from which alone, with the public
    key, the signature can be checked. `tenant` is the name for people."""
    return json.dumps(
        {
            "svsync_audit_checkpoint": 1,
            "tenant": tenant,
            "tenant_id": made.tenant,
            "n": made.n,
            "at": microseconds(made.at),
            "root": made.root.hex(),
            "prev_hash": made.prev_hash.hex(),
            "key_id": key_id,
            "signature": signature.hex(),
        },
        separators=(",", ":"),
    )


@dataclass(frozen=True, slots=True)
class Anchored:
    """A checkpoint as a place outside has it."""

    checkpoint: Checkpoint
    key_id: int
    signature: bytes


def anchored_of(line: str) -> Anchored | None:
    """The checkpoint in a line, whatever a log wrote before it; None: there is none in it.

    Raises ValueError for one that cannot be read.
    """
    begin = line.find(_MARK)
    if begin < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(line, begin)
        at = EPOCH + int(found["at"]) * MICROSECOND
        parts = [bytes.fromhex(found[name]) for name in ("root", "prev_hash", "signature")]
        numbers = [int(found[name]) for name in ("tenant_id", "n", "key_id")]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise ValueError("a line that holds no whole checkpoint") from None
    made = Checkpoint(numbers[0], numbers[1], at, parts[0], parts[1])
    return Anchored(made, numbers[2], parts[2])


def _text(fields: Sequence[object]) -> bytes:
    # Surrogates cannot stand in Postgres, so what was stored can be encoded.
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()
