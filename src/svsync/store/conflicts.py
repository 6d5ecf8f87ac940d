"""Conflicts: both sides sealed, one row for each pair of sides that disagreed."""

from collections.abc import Sequence
from dataclasses import dataclass

from svsync.domain.changes import Base, PairStatus
from svsync.domain.ids import BackendId, ConflictId, LocalPath, RemotePath, RunId, SecretId
from svsync.store.columns import field_columns
from svsync.store.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """One disagreement, in the column order of `conflicts.record`. The sealed
    values are bound to `conflict_id` and to their side."""

    conflict_id: ConflictId
    secret_id: SecretId
    path: LocalPath
    remote_path: RemotePath
    kind: str
    state: str
    local_version: int
    local_state: str
    local_encoding: str | None
    local_key: int | None
    local_nonce: bytes | None
    local_sealed: bytes | None
    base_fp: bytes | None
    remote_token: str
    remote_order: int | None
    remote_gone: bool
    remote_fp: bytes | None
    remote_fp_key: int | None
    remote_encoding: str | None
    remote_key: int | None
    remote_nonce: bytes | None
    remote_sealed: bytes | None


async def record(
    tx: Transaction, backend: BackendId, run: RunId | None, rows: Sequence[ConflictRow]
) -> list[Row]:
    """Record disagreements; those that are new or open again, as (id, path, kind, state)."""
    if not rows:
        return []
    data = field_columns(rows, ConflictRow)
    return await tx.fetch("conflicts.record", tx.tenant, backend, run, *data)


async def open_by_path(
    tx: Transaction, backend: BackendId, paths: Sequence[LocalPath]
) -> list[Row]:
    """Open conflicts of some paths, locked."""
    return await tx.fetch("conflicts.get_open", tx.tenant, backend, list(paths)) if paths else []


async def move_on(
    tx: Transaction, conflict: ConflictId, kept_as: ConflictId, now: ConflictRow
) -> None:
    """An open conflict's sides moved: keep what they were, and hold what they are."""
    await tx.execute(
        "conflicts.keep_sides", tx.tenant, conflict, kept_as, now.local_version, now.remote_token
    )
    await tx.execute(
        "conflicts.move_on", tx.tenant, conflict, now.local_version, now.local_state,
        now.local_encoding, now.local_key, now.local_nonce, now.local_sealed, now.remote_token,
        now.remote_order, now.remote_gone, now.remote_fp, now.remote_fp_key, now.remote_encoding,
        now.remote_key, now.remote_nonce, now.remote_sealed, now.conflict_id,
    )  # fmt: skip


async def converge(tx: Transaction, conflicts: Sequence[ConflictId]) -> list[Row]:
    """Close open conflicts whose sides agree again."""
    return await tx.fetch("conflicts.converge", tx.tenant, list(conflicts)) if conflicts else []


async def list_conflicts(
    tx: Transaction, backend: BackendId, *, closed: bool, after: str, limit: int
) -> list[Row]:
    """Open conflicts (all of them with `closed`) after this id, without any value."""
    return await tx.fetch("conflicts.list", tx.tenant, backend, closed, after, limit)


async def count_open(tx: Transaction, backend: BackendId) -> int:
    return int(await tx.fetchval("conflicts.count_open", tx.tenant, backend))


async def get(
    tx: Transaction, backend: BackendId, path: LocalPath, conflict: ConflictId | None
) -> Row | None:
    """A conflict of a path with both sides sealed: this one, or the open or latest one."""
    return await tx.fetchrow("conflicts.get", tx.tenant, backend, path, conflict)


async def earlier(
    tx: Transaction, backend: BackendId, path: LocalPath
) -> tuple[int, list[ConflictId]]:
    """How many earlier sides of a path's conflicts are kept, and the latest hundred."""
    rows = await tx.fetch("conflicts.earlier", tx.tenant, backend, path)
    return (rows[0]["many"] if rows else 0), [ConflictId(r["conflict_id"]) for r in rows]


async def lock_pair(tx: Transaction, backend: BackendId, remote: RemotePath) -> None:
    """Lock an active pair, after its secret and before its conflict."""
    await tx.fetch("conflicts.lock_pair", tx.tenant, backend, remote)


async def settle_pair(
    tx: Transaction,
    backend: BackendId,
    remote: RemotePath,
    base: Base,
    status: PairStatus,
    *,
    raw: bytes | None,
    raw_key: int | None,
    raw_nonce: bytes | None,
) -> None:
    """Set the base of a locked pair, with its exact text, sealed, where that is kept."""
    await tx.execute(
        "conflicts.settle_pair", tx.tenant, backend, remote, str(base.kind), base.fingerprint,
        base.fingerprint_key, base.value_token, base.order, list(base.tokens_left), base.moved_at,
        base.settled_version, raw, raw_key, raw_nonce, str(status),
    )  # fmt: skip


async def resolve(tx: Transaction, conflict: ConflictId, by: str) -> None:
    await tx.execute("conflicts.resolve", tx.tenant, conflict, by)
