"""Pushes: what is being written to a backend, and how each ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from svsync.domain.ids import BackendId, KeyId, LocalPath, PushId, RemotePath, SecretId
from svsync.store.columns import columns, field_columns
from svsync.store.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class PushRow:
    """A push to be made, in the column order of `pushes.plan`.

    `metadata` is that of a pending version, as JSON text; `target_fp` is None for a
    delete and for tags alone.
    """

    push_id: PushId
    path: LocalPath
    remote_path: RemotePath
    kind: str
    secret_id: SecretId
    version: int
    pending: bool
    metadata: str | None
    expected_token: str | None
    expected_order: int | None
    target_fp: bytes | None
    target_fp_key: KeyId | None


@dataclass(frozen=True, slots=True)
class EndRow:
    """How a push ended, in the column order of `pushes.end`."""

    push_id: PushId
    attempts: int
    state: str
    reason: str | None
    token: str | None


@dataclass(frozen=True, slots=True)
class SettledPair:
    """A pair once its push has landed, in the column order of `pushes.settle_pairs`."""

    remote_path: RemotePath
    base_kind: str
    base_fp: bytes | None
    base_fp_key: int | None
    value_token: str | None
    meta_token: str | None
    order: int | None
    tokens_left: str | None
    moved_at: datetime | None
    remote_tags: str | None
    settled: int | None
    status: str
    recheck: bool


async def plan(
    tx: Transaction,
    backend: BackendId,
    rows: Sequence[PushRow],
    *,
    fence: int | None,
    run: str | None,
    by: str,
    seconds: float,
) -> None:
    """Write pushes down; nobody else touches them for so many seconds."""
    if rows:
        data = field_columns(rows, PushRow)
        await tx.execute("pushes.plan", tx.tenant, backend, *data, fence, run, by, seconds)


async def send(tx: Transaction, ids: Sequence[PushId], seconds: float) -> dict[PushId, int]:
    """Take planned pushes in hand for so many seconds; their number of attempts, by id."""
    rows = await tx.fetch("pushes.send", tx.tenant, list(ids), seconds)
    return {r["push_id"]: r["attempts"] for r in rows}


async def load(tx: Transaction, ids: Sequence[PushId]) -> list[Row]:
    return await tx.fetch("pushes.load", tx.tenant, list(ids)) if ids else []


async def take_over(
    tx: Transaction, backend: BackendId, seconds: float, limit: int
) -> list[PushId]:
    """Take in hand pushes whose deadline has passed."""
    rows = await tx.fetch("pushes.take_over", tx.tenant, backend, seconds, limit)
    return [PushId(r["push_id"]) for r in rows]


async def lock_secrets(tx: Transaction, ids: Sequence[PushId]) -> dict[SecretId, Row]:
    rows = await tx.fetch("pushes.lock_secrets", tx.tenant, list(ids))
    return {SecretId(r["secret_id"]): r for r in rows}


async def end(tx: Transaction, rows: Sequence[EndRow]) -> set[PushId]:
    """Write how pushes ended; those that were still in the caller's hand."""
    if not rows:
        return set()
    data = field_columns(rows, EndRow)
    return {PushId(r["push_id"]) for r in await tx.fetch("pushes.end", tx.tenant, *data)}


async def again(tx: Transaction, ids: Sequence[PushId]) -> None:
    await tx.execute("pushes.again", tx.tenant, list(ids))


async def settle_pairs(tx: Transaction, backend: BackendId, rows: Sequence[SettledPair]) -> None:
    if rows:
        data = field_columns(rows, SettledPair)
        await tx.execute("pushes.settle_pairs", tx.tenant, backend, *data)


async def make_current(tx: Transaction, rows: Sequence[tuple[SecretId, int]]) -> None:
    if rows:
        await tx.execute("pushes.make_current", tx.tenant, *columns(rows, 2))


async def bury_pending(tx: Transaction, ids: Sequence[SecretId]) -> None:
    if ids:
        await tx.execute("pushes.bury_pending", tx.tenant, list(ids))


async def destroy_pending(tx: Transaction, rows: Sequence[tuple[SecretId, int]]) -> None:
    if rows:
        await tx.execute("pushes.destroy_pending", tx.tenant, *columns(rows, 2))


async def raise_revs(tx: Transaction, ids: Sequence[SecretId]) -> None:
    if ids:
        await tx.execute("pushes.raise_revs", tx.tenant, list(ids))


async def describe(tx: Transaction, secret: SecretId, metadata: Mapping[str, Any]) -> None:
    """The metadata that came with a pending version is the secret's from here on."""
    await tx.execute(
        "pushes.describe", tx.tenant, secret, metadata["secret_type"], metadata["tags"],
        metadata["owner"], metadata["description"], metadata["custom"], metadata["max_versions"],
    )  # fmt: skip


async def set_metadata(tx: Transaction, rows: Sequence[tuple[SecretId, str, str]]) -> None:
    """Set tags and custom metadata (JSON text) of locked secrets."""
    if rows:
        await tx.execute("pushes.set_metadata", tx.tenant, *columns(rows, 3))


async def look_again(tx: Transaction, backend: BackendId, paths: Sequence[RemotePath]) -> None:
    if paths:
        await tx.execute("pushes.look_again", tx.tenant, backend, list(paths))


async def keep_before(
    tx: Transaction, push: PushId, key: KeyId, nonce: bytes, sealed: bytes
) -> None:
    await tx.execute("pushes.keep_before", tx.tenant, push, key, nonce, sealed)


async def unfinished_at(tx: Transaction, path: LocalPath) -> Row | None:
    """The unfinished push of a local path, if there is one."""
    return await tx.fetchrow("pushes.unfinished_at", tx.tenant, path)


async def count_unfinished(tx: Transaction, backend: BackendId) -> int:
    return int(await tx.fetchval("pushes.count_unfinished", tx.tenant, backend))


async def recent(
    tx: Transaction, backend: BackendId, paths: Sequence[LocalPath], seconds: float
) -> set[LocalPath]:
    """Paths with a push that landed within so many seconds."""
    rows = await tx.fetch("pushes.recent", tx.tenant, backend, list(paths), seconds)
    return {LocalPath(r["path"]) for r in rows}


@dataclass(frozen=True, slots=True)
class LateCall:
    """What a push that was given up may yet bring: a value, under a number where the store
    numbers its versions."""

    push_id: PushId
    fingerprint: bytes
    order: int | None


async def late(
    tx: Transaction, backend: BackendId, paths: Sequence[LocalPath]
) -> dict[LocalPath, list[LateCall]]:
    """What late calls of ours may yet bring, by path."""
    found: dict[LocalPath, list[LateCall]] = {}
    for row in await tx.fetch("pushes.late", tx.tenant, backend, list(paths)):
        expected = row["expected_order"]
        order = None if expected is None else expected + 1
        call = LateCall(PushId(row["push_id"]), row["target_fp"], order)
        found.setdefault(LocalPath(row["path"]), []).append(call)
    return found
