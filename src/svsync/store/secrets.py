"""Secrets and their versions: ciphertext in, ciphertext out, set by set."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from svsync.domain.ids import BackendId, LocalPath, RemotePath, RunId, SecretId
from svsync.store.columns import columns, field_columns
from svsync.store.database import Row, Transaction
from svsync.store.pairs import Mapping


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One sealed version, in the column order of `secrets.add_versions`."""

    secret_id: SecretId
    version: int
    encoding: str
    key_id: int
    nonce: bytes
    sealed: bytes
    fingerprint: bytes
    fingerprint_key: int
    origin: str
    remote_version: str | None
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret to be created, in the column order of `secrets.create`. Tags and
    custom metadata are JSON text."""

    secret_id: SecretId
    path: LocalPath
    version: int
    secret_type: str
    tags: str
    custom: str


@dataclass(frozen=True, slots=True)
class Advance:
    """A new current version, in the column order of `secrets.advance`. None for
    tags or custom metadata leaves them as they are."""

    secret_id: SecretId
    version: int
    tags: str | None
    custom: str | None


@dataclass(frozen=True, slots=True)
class Metadata:
    """Everything about a secret but its value."""

    secret_type: str = "json"
    tags: tuple[str, ...] = ()
    owner: str | None = None
    description: str | None = None
    custom: str = "{}"
    max_versions: int | None = None


async def next_ids(tx: Transaction, count: int) -> list[SecretId]:
    if count == 0:
        return []
    return [SecretId(r["secret_id"]) for r in await tx.fetch("secrets.next_ids", count)]


async def create(tx: Transaction, rows: Sequence[NewSecret]) -> set[SecretId]:
    """Create secrets in a transaction with `lookups`; those whose path was free."""
    if not rows:
        return set()
    data = field_columns(rows, NewSecret)
    async with tx.keeping_plans():
        made = await tx.fetch("secrets.create", tx.tenant, *data)
    return {r["secret_id"] for r in made}


async def advance(tx: Transaction, rows: Sequence[Advance]) -> None:
    if rows:
        data = field_columns(rows, Advance)
        await tx.execute("secrets.advance", tx.tenant, *data)


async def describe(tx: Transaction, rows: Sequence[tuple[SecretId, str, str]]) -> None:
    """Set tags and custom metadata (JSON text) of locked secrets; no new version."""
    if rows:
        await tx.execute("secrets.describe", tx.tenant, *columns(rows, 3))


async def bury(tx: Transaction, ids: Sequence[SecretId]) -> None:
    if ids:
        await tx.execute("secrets.bury", tx.tenant, list(ids))


async def add_versions(
    tx: Transaction, rows: Sequence[VersionRow], *, created_by: str, run: RunId | None
) -> None:
    if rows:
        data = field_columns(rows, VersionRow)
        await tx.execute("secrets.add_versions", tx.tenant, created_by, run, *data)


async def sealed_current(tx: Transaction, ids: Sequence[SecretId]) -> dict[SecretId, Row]:
    """The sealed current versions of live and buried secrets, by secret."""
    if not ids:
        return {}
    rows = await tx.fetch("secrets.sealed_current", tx.tenant, list(ids))
    return {r["secret_id"]: r for r in rows}


async def get(tx: Transaction, path: LocalPath, version: int | None) -> Row | None:
    return await tx.fetchrow("secrets.get", tx.tenant, path, version)


async def list_live(tx: Transaction, prefix: str, after: str, limit: int) -> list[Row]:
    return await tx.fetch("secrets.list", tx.tenant, prefix, after, limit)


async def in_ranges(tx: Transaction, ranges: Sequence[tuple[str, str]], limit: int) -> list[Row]:
    """The first secrets, of every state, whose paths lie in these ranges (from, inclusive,
    and to, exclusive), which are in order and do not overlap."""
    if not ranges:
        return []
    return await tx.fetch("secrets.in_ranges", tx.tenant, *columns(ranges, 2), limit)


async def history(tx: Transaction, path: LocalPath, before: int, limit: int) -> list[Row]:
    """Versions below `before`, newest first."""
    return await tx.fetch("secrets.history", tx.tenant, path, before, limit)


async def for_write(tx: Transaction, path: LocalPath) -> Row | None:
    """The secret at a path, locked for a local write; None where there is none."""
    return await tx.fetchrow("secrets.for_write", tx.tenant, path)


def _columns(metadata: Metadata) -> tuple[object, ...]:
    return (
        metadata.secret_type, list(metadata.tags), metadata.owner, metadata.description,
        metadata.custom, metadata.max_versions,
    )  # fmt: skip


async def write_new(
    tx: Transaction, secret: SecretId, path: LocalPath, metadata: Metadata, *, pending: bool = False
) -> bool:
    """Make the secret's row, for version 1; False where somebody else made it meanwhile."""
    made = await tx.fetchrow(
        "secrets.write_new", tx.tenant, secret, path, *_columns(metadata), pending
    )
    return made is not None


async def write_next(tx: Transaction, secret: SecretId, version: int, metadata: Metadata) -> None:
    await tx.execute("secrets.write_next", tx.tenant, secret, version, *_columns(metadata))


async def reserve_next(tx: Transaction, secret: SecretId, version: int) -> None:
    """Give out the number of a version that is not current before it lands."""
    await tx.execute("secrets.reserve_next", tx.tenant, secret, version)


async def mark_pending(tx: Transaction, secret: SecretId, version: int) -> None:
    await tx.execute("secrets.mark_pending", tx.tenant, secret, version)


async def redescribe(tx: Transaction, secret: SecretId, metadata: Metadata) -> None:
    """Set the metadata of a locked secret; no new version."""
    await tx.execute("secrets.redescribe", tx.tenant, secret, *_columns(metadata))


async def bury_written(tx: Transaction, secret: SecretId, *, propagate: bool) -> None:
    await tx.execute("secrets.bury_written", tx.tenant, secret, propagate)


async def sealed_version(tx: Transaction, secret: SecretId, version: int) -> Row | None:
    """One version that can still be read, sealed."""
    return await tx.fetchrow("secrets.sealed_version", tx.tenant, secret, version)


async def mark_written(
    tx: Transaction, path: LocalPath, status: str | None = None, fingerprint: bytes | None = None
) -> bool:
    """Make the next run look at the pair of a path that was written locally, and say what
    it is until then (None: what it was); False where there is none. What was written is
    in sync where its fingerprint is base's."""
    return await tx.execute("secrets.mark_written", tx.tenant, path, status, fingerprint) > 0


async def claim_written(
    tx: Transaction,
    backend: BackendId,
    mapping: Mapping,
    remote: RemotePath,
    path: LocalPath,
    secret: SecretId,
    rule: int,
    status: str,
) -> None:
    """Give a path that is written through a pair, where none owns it yet."""
    await tx.execute(
        "secrets.claim_written", tx.tenant, backend, remote, path, secret, rule, mapping.hash,
        mapping.base_pair, status,
    )  # fmt: skip
