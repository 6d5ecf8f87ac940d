"""Local copies that a backend's mode or its removal takes out of sight, or destroys.

Statements of the noun `federation`; each takes and gives sets of paths or secrets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from svsync.domain.ids import BackendId, LocalPath, PushId, RemotePath, SecretId
from svsync.store.database import Row, Transaction


@dataclass(frozen=True, slots=True)
class Paired:
    """An active pair; `secret` is None where nothing was ever brought in."""

    path: LocalPath
    remote_path: RemotePath
    secret: SecretId | None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An unfinished push, in whose hand it was when this was read (`attempts`).

    `in_hand`: somebody may be sending it or asking about it now; `sending`: the former.
    """

    push: PushId
    attempts: int
    in_hand: bool
    sending: bool


async def alone_below(
    tx: Transaction, backend: BackendId, after: str, prefix: str, limit: int
) -> list[LocalPath]:
    """Live secrets that this backend did not bring in, by path, a page at a time."""
    rows = await tx.fetch("federation.alone_below", tx.tenant, backend, after, prefix, limit)
    return [LocalPath(row["path"]) for row in rows]


async def paired_below(
    tx: Transaction, backend: BackendId, after: str, prefix: str, limit: int
) -> list[Paired]:
    """Active pairs by local path, a page at a time."""
    rows = await tx.fetch("federation.paired_below", tx.tenant, backend, after, prefix, limit)
    return [Paired(r["path"], r["remote_path"], r["secret_id"]) for r in rows]


async def lock_secrets(tx: Transaction, secrets: Sequence[SecretId]) -> None:
    await tx.fetch("federation.lock_secrets", tx.tenant, list(secrets))


async def unpushed(
    tx: Transaction, backend: BackendId, paths: Sequence[LocalPath]
) -> list[tuple[LocalPath, str]]:
    """Paths that have something here which the backend has not, each with what:
    `changed`, `deleted`, `retained`, `conflict` or `push`."""
    rows = await tx.fetch("federation.unpushed", tx.tenant, backend, list(paths))
    return [(LocalPath(row["path"]), row["why"]) for row in rows]


async def unfinished(
    tx: Transaction, backend: BackendId, paths: Sequence[LocalPath] | None = None
) -> list[Unfinished]:
    """Unfinished pushes; of the whole backend, or of some of its paths."""
    named = None if paths is None else list(paths)
    rows = await tx.fetch("federation.unfinished", tx.tenant, backend, named)
    return [
        Unfinished(PushId(r["push_id"]), r["attempts"], r["in_hand"], r["sending"]) for r in rows
    ]


async def hide(tx: Transaction, backend: BackendId, secrets: Sequence[SecretId]) -> int:
    return await tx.execute("federation.hide", tx.tenant, backend, list(secrets))


async def hidden(tx: Transaction, backend: BackendId, after: str, limit: int) -> list[Row]:
    """Hidden copies as (secret_id, path), by path, a page at a time."""
    return await tx.fetch("federation.hidden", tx.tenant, backend, after, limit)


async def count_hidden(tx: Transaction, backend: BackendId) -> int:
    return int(await tx.fetchval("federation.count_hidden", tx.tenant, backend))


async def show_again(tx: Transaction, secrets: Sequence[SecretId]) -> None:
    await tx.execute("federation.show_again", tx.tenant, list(secrets))


async def overdue_hidden(
    tx: Transaction, backend: BackendId, seconds: float, limit: int
) -> list[SecretId]:
    """Copies hidden for so long, locked."""
    rows = await tx.fetch("federation.overdue_hidden", tx.tenant, backend, seconds, limit)
    return [SecretId(row["secret_id"]) for row in rows]


async def destroy(tx: Transaction, backend: BackendId, secrets: Sequence[SecretId]) -> None:
    """Destroy locked secrets for good; their rows keep the counter of versions."""
    await tx.execute("federation.destroy", tx.tenant, backend, list(secrets))


async def destroy_sides(tx: Transaction, backend: BackendId, secrets: Sequence[SecretId]) -> None:
    """Destroy what closed conflicts and pushes keep of locked secrets."""
    await tx.execute("federation.destroy_sides", tx.tenant, backend, list(secrets))
