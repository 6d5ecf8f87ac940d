"""The state of each federated pair: base, status, and what makes it due again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from svsync.domain.changes import (
    Base,
    BaseKind,
    Local,
    LocalKind,
    Pair,
    PairStatus,
    Tags,
)
from svsync.domain.ids import BackendId, LocalPath, RemotePath, SecretId
from svsync.store.columns import columns, field_columns
from svsync.store.database import Row, Transaction

_TAGS: Final = json.JSONEncoder(sort_keys=True)
_KINDS: Final = {"live": LocalKind.LIVE, "deleted": LocalKind.TOMBSTONE}
"""What a secret's state is to a decision; with any other only its number is kept."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """Under which mapping pairs are written: its hash, and where base speaks of."""

    hash: str
    base_pair: str


@dataclass(frozen=True, slots=True)
class PairRow:
    """One pair after its decision, in the column order of `pairs.upsert`."""

    remote_path: RemotePath
    path: LocalPath
    secret_id: SecretId | None
    rule: int
    status: str
    base_kind: str
    base_fp: bytes | None
    base_fp_key: int | None
    value_token: str | None
    meta_token: str | None
    order: int | None
    tokens_left: str | None
    moved_at: datetime | None
    remote_tags: str | None
    settled_version: int | None
    raw_sealed: bytes | None
    raw_key: int | None
    raw_nonce: bytes | None
    recheck: bool
    reason: str | None


def tags_text(tags: Tags | None) -> str | None:
    """Raw tags as JSON text of ASCII: a character that Postgres has none of stays escaped."""
    if not tags:
        return None if tags is None else "{}"
    return _TAGS.encode(dict(tags))


@dataclass(frozen=True, slots=True)
class SkipRow:
    """A pair that could not be looked at, in the column order of `pairs.skip`."""

    remote_path: RemotePath
    path: LocalPath
    rule: int
    status: str
    failures: int
    retry_s: float | None
    reason: str


async def upsert(
    tx: Transaction, backend: BackendId, mapping: Mapping, rows: Sequence[PairRow]
) -> None:
    if rows:
        data = field_columns(rows, PairRow)
        await tx.execute("pairs.upsert", tx.tenant, backend, mapping.hash, mapping.base_pair, *data)


async def skip(
    tx: Transaction, backend: BackendId, mapping: Mapping, rows: Sequence[SkipRow]
) -> None:
    if rows:
        data = field_columns(rows, SkipRow)
        await tx.execute("pairs.skip", tx.tenant, backend, mapping.hash, mapping.base_pair, *data)


async def load_new(
    tx: Transaction,
    backend: BackendId,
    base_pair: str,
    mapped: Sequence[tuple[RemotePath, LocalPath]],
) -> dict[RemotePath, Row]:
    """What is known of remote paths that no active pair knows, by remote path."""
    data = columns(mapped, 2)
    rows = await tx.fetch("pairs.load_new", tx.tenant, backend, *data, base_pair)
    return {r["remote_path"]: r for r in rows}


async def load(
    tx: Transaction, backend: BackendId, paths: Sequence[RemotePath]
) -> dict[RemotePath, Row]:
    """Active pairs as they stand now, by remote path."""
    rows = await tx.fetch("pairs.load", tx.tenant, backend, list(paths))
    return {r["remote_path"]: r for r in rows}


async def lock_unmoved(tx: Transaction, seen: Sequence[tuple[SecretId, int, int]]) -> set[SecretId]:
    """Lock secrets that still stand at the (version, row_rev) seen; who they are."""
    if not seen:
        return set()
    return {r["secret_id"] for r in await tx.fetch("pairs.lock", tx.tenant, *columns(seen, 3))}


async def forget_unsettled(
    tx: Transaction, backend: BackendId, paths: Sequence[tuple[RemotePath, bool]]
) -> None:
    """Drop pairs that were never settled; each with whether a local secret was seen."""
    if paths:
        await tx.execute("pairs.forget_unsettled", tx.tenant, backend, *columns(paths, 2))


async def active(tx: Transaction, backend: BackendId, after: RemotePath, limit: int) -> list[Row]:
    """Active pairs by remote path, a page at a time."""
    return await tx.fetch("pairs.active", tx.tenant, backend, after, limit)


async def tagged(tx: Transaction, backend: BackendId, after: RemotePath, limit: int) -> list[Row]:
    """Active pairs with raw tags, each with its secret's tag strings, locked."""
    return await tx.fetch("pairs.tagged", tx.tenant, backend, after, limit)


async def active_below(
    tx: Transaction, backend: BackendId, after: LocalPath, prefix: str, limit: int
) -> list[Row]:
    """Active pairs whose local path begins with `prefix`, a page at a time."""
    return await tx.fetch("pairs.active_below", tx.tenant, backend, after, prefix, limit)


async def unjoined(tx: Transaction, after: LocalPath, prefix: str, limit: int) -> list[Row]:
    """Live secrets below a prefix that no pair joins, a page at a time."""
    return await tx.fetch("pairs.unjoined", tx.tenant, after, prefix, limit)


async def lock_secrets(tx: Transaction, paths: Sequence[LocalPath]) -> None:
    """Lock the secrets at some paths, before their pairs, as every write does."""
    if paths:
        await tx.fetch("pairs.lock_secrets", tx.tenant, list(paths))


async def detach(
    tx: Transaction, backend: BackendId, moves: Sequence[tuple[RemotePath, LocalPath | None]]
) -> set[RemotePath]:
    """Detach pairs, each with the local path it moved to; those that could be."""
    rows = await tx.fetch("pairs.detach", tx.tenant, backend, *columns(moves, 2))
    return {RemotePath(r["remote_path"]) for r in rows}


async def renumber(
    tx: Transaction, backend: BackendId, mapping: Mapping, rules: Sequence[tuple[RemotePath, int]]
) -> None:
    """Keep pairs under a changed mapping, each with its rule's new number."""
    if rules:
        await tx.execute("pairs.retag", tx.tenant, backend, mapping.hash, *columns(rules, 2))


async def recheck_all(tx: Transaction, backend: BackendId) -> int:
    return await tx.execute("pairs.recheck_all", tx.tenant, backend)


async def any_settled(tx: Transaction, backend: BackendId) -> bool:
    return bool(await tx.fetchval("pairs.any_settled", tx.tenant, backend))


async def counts(tx: Transaction, backend: BackendId) -> Row:
    row = await tx.fetchrow("pairs.counts", tx.tenant, backend)
    assert row is not None
    return row


def local_of(row: Row) -> Local:
    """The local side of a row of `staging.page` or `pairs.load_new`."""
    if row["secret_id"] is None:
        return Local()
    return Local(
        kind=_KINDS.get(row["local_state"], LocalKind.NO_ROW),
        secret_id=row["secret_id"],
        version=row["current_version"],
        last_version=row["last_version"],
        fingerprint=row["local_fp"],
        fingerprint_key=row["local_fp_key"],
        row_rev=row["row_rev"],
        written_after_claim=row["written_after_claim"],
        propagate=row["propagate"],
        tags=tuple(row["local_tags"]),
        custom=row["local_custom"],
    )


def base_of(row: Row) -> Base:
    """The base of a row of `staging.page` or `pairs.load_new`."""
    if row["base_kind"] is None:
        return Base()
    moved: datetime | None = row["base_moved_at"]
    return Base(
        kind=BaseKind(row["base_kind"]),
        fingerprint=row["base_fp"],
        fingerprint_key=row["base_fp_key"],
        value_token=row["base_value_token"],
        meta_token=row["base_meta_token"],
        order=row["base_order"],
        tags=tags_of(row["remote_tags"]),
        settled_version=row["settled_version"],
        tokens_left=tuple(row["base_tokens_left"] or ()),
        moved_at=moved,
    )


def pair_of(row: Row) -> Pair:
    """The pair of a row of `staging.page` whose remote path is known."""
    return Pair(
        remote_path=row["remote_path"],
        local_path=row["path"],
        rule=row["rule_ord"],
        base=base_of(row),
        local=local_of(row),
        status=PairStatus(row["status"]),
        failures=row["failures"],
        recheck=row["recheck"],
        conflict_open=row["conflict_id"] is not None,
        push_unfinished=row["push_unfinished"],
    )


def tags_of(text: str | None) -> Tags | None:
    if text == "{}":  # most secrets have none
        return {}
    return None if text is None else json.loads(text)
