"""Backends as configured, and what `status` shows of each (one indexed row)."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from svsync.domain.access import TenantShreddedError
from svsync.domain.cycles import QuietCycle
from svsync.domain.errors import ConfigError, NotFoundError
from svsync.domain.federation import BackendSpec, FileChange, from_json, store_of, to_json
from svsync.domain.ids import BackendId, LocalPath, RunId, TenantId
from svsync.domain.tenants import SHREDDED
from svsync.store.database import Database, Row, Transaction
from svsync.store.pairs import Mapping

_AT_A_GO: Final = 200
"""Backends that are made of their rows in one go: nothing else is done meanwhile."""


@dataclass(frozen=True, slots=True)
class StoredBackend:
    """A backend's configuration as the store has it."""

    spec: BackendSpec
    mapping_hash: str
    applied_hash: str | None
    applied_tags: str | None
    identity: str | None
    initial: tuple[str, ...]
    state: str
    rev: int


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What a finished run changes in its backend's health row. None: as it was.

    `next_in_s` counts from its start. With `again_soon` the next cycle comes sooner, the later
    the more runs have failed in a row. `cycle` is what a full run took; `quiet`: nothing changed
    in it.
    """

    run_id: RunId
    started_at: datetime
    full: bool
    succeeded: bool
    status: str | None
    error: str | None
    next_in_s: float
    synced: int | None = None
    diverged: int | None = None
    quarantined: int | None = None
    retained: int | None = None
    conflicts: int | None = None
    skipped: int | None = None
    cycle: QuietCycle | None = None
    quiet: bool = False
    latency_ms: float | None = None
    again_soon: bool = False


async def tenant(db: Database, slug: str) -> TenantId:
    """The tenant's row id.

    Raises NotFoundError, TenantShreddedError, ConfigError when it is shut otherwise."""
    rows = await db.fetch_global("federation.tenant", slug)
    if not rows:
        raise NotFoundError(f"there is no tenant {slug!r}", code="tenant_not_found")
    if rows[0]["status"] == SHREDDED:
        raise TenantShreddedError(f"the tenant {slug!r}")
    if rows[0]["status"] != "active":
        raise ConfigError(f"the tenant {slug!r} is {rows[0]['status']}", code="tenant_shut")
    return TenantId(rows[0]["tenant_id"])


async def active(db: Database) -> list[TenantId]:
    """All active tenants."""
    return [TenantId(row["tenant_id"]) for row in await db.fetch_global("federation.active")]


async def active_slugs(db: Database) -> dict[TenantId, str]:
    """All active tenants by their names."""
    rows = await db.fetch_global("federation.active")
    return {TenantId(row["tenant_id"]): row["slug"] for row in rows}


async def tenants(db: Database) -> list[str]:
    """The slugs of all active tenants."""
    return [row["slug"] for row in await db.fetch_global("federation.tenants")]


async def due(
    tx: Transaction, specs: Iterable[tuple[BackendSpec, str]]
) -> dict[BackendId, FileChange]:
    """What bringing in these, with their mappings' hashes, as all that the file names, changes.
    Nothing is locked: whatever runs on them goes on."""
    rows = {row["backend_id"]: row for row in await tx.fetch("federation.as_stored", tx.tenant)}
    changes, named = {}, set()
    for spec, mapping_hash in specs:
        named.add(spec.id)
        row = rows.get(spec.id)
        if row is None:
            changes[spec.id] = FileChange.MADE
        elif row["state"] != "deleting" and not _is_as(row, to_json(spec), mapping_hash):
            changes[spec.id] = FileChange.CHANGED
    return changes | dict.fromkeys(await made_by_file(tx) - named, FileChange.VANISHED)


def _is_as(row: Row, text: str, mapping_hash: str) -> bool:
    same: bool = row["spec"] == text and row["mapping_hash"] == mapping_hash
    return same and not row["vanished"]


async def apply(tx: Transaction, spec: BackendSpec, mapping_hash: str) -> bool:
    """Store a backend as configured; True where that changed what runs use.

    The caller raises the fence then, in this transaction.
    """
    rows = await tx.fetch("federation.stored", tx.tenant, spec.id)
    text = to_json(spec)
    if not rows:
        await tx.execute(
            "federation.add", tx.tenant, spec.id, spec.name, spec.type, text, mapping_hash,
            str(spec.managed_by), spec.syncs, spec.sync_interval, spec.max_staleness,
        )  # fmt: skip
        await tx.execute("federation.add_health", tx.tenant, spec.id)
        return True
    row = rows[0]
    if row["state"] == "deleting" or _is_as(row, text, mapping_hash):
        return False
    same_store = store_of(from_json(row["spec"])) == store_of(spec)
    await tx.execute(
        "federation.change", tx.tenant, spec.id, spec.name, spec.type, text, mapping_hash,
        "active" if row["vanished"] else row["state"], same_store, spec.syncs,
        spec.sync_interval, spec.max_staleness, str(spec.managed_by),
    )  # fmt: skip
    await due_now(tx, spec.id)
    return True


async def due_now(tx: Transaction, backend: BackendId) -> None:
    """Its next cycle is due at once."""
    await tx.execute("federation.due_now", tx.tenant, backend)


async def lock_file(tx: Transaction) -> None:
    """One process at a time brings its file in; replicas start together with the same one."""
    await tx.fetch("federation.lock_file", tx.tenant)


async def made_by_file(tx: Transaction) -> set[BackendId]:
    """Active backends that the file made."""
    return {BackendId(r["backend_id"]) for r in await tx.fetch("federation.by_file", tx.tenant)}


async def pause_vanished(tx: Transaction, backend: BackendId) -> None:
    """Pause a backend that the file no longer names; `apply` makes it active when it does."""
    await tx.execute("federation.vanish", tx.tenant, backend)


async def get(tx: Transaction, name_or_id: str) -> StoredBackend:
    """A backend by id or name. Raises NotFoundError."""
    row = await tx.fetchrow("federation.get", tx.tenant, name_or_id)
    if row is None:
        raise NotFoundError(
            f"there is no backend {name_or_id!r}: `svsync backends list` shows those there are",
            code="backend_not_found",
        )
    return _stored(row)


async def find(tx: Transaction, backend: BackendId) -> StoredBackend | None:
    """A backend by its id, if there is one."""
    row = await tx.fetchrow("federation.get_by_id", tx.tenant, backend)
    return None if row is None else _stored(row)


async def lock(tx: Transaction, backend: BackendId) -> None:
    """Wait for the writes that stand by this backend's configuration; none begins before
    this transaction ends."""
    await tx.fetch("federation.lock", tx.tenant, backend)


async def stand_by(tx: Transaction, backend: BackendId) -> int | None:
    """Keep a backend's configuration as it is until this transaction ends: its revision,
    None where it was removed. Before any secret is locked."""
    rev: int | None = await tx.fetchval("federation.stand_by", tx.tenant, backend)
    return rev


async def epoch(tx: Transaction) -> int:
    """The number that rises with each change of any backend of the tenant."""
    return int(await tx.fetchval("federation.epoch", tx.tenant))


async def list_backends(tx: Transaction) -> list[StoredBackend]:
    found = []
    for n, row in enumerate(await tx.fetch("federation.list", tx.tenant), 1):
        found.append(_stored(row))
        if n % _AT_A_GO == 0:
            await asyncio.sleep(0)
    return found


def _stored(row: Row) -> StoredBackend:
    return StoredBackend(
        spec=from_json(row["spec"]),
        mapping_hash=row["mapping_hash"],
        applied_hash=row["applied_hash"],
        applied_tags=row["applied_tags"],
        identity=row["identity"],
        initial=tuple(json.loads(row["initial"])),
        state=row["state"],
        rev=row["rev"],
    )


async def set_applied(
    tx: Transaction, backend: BackendId, mapping: Mapping, *, listed_all: bool
) -> None:
    """A full run has brought every pair under this mapping; with `listed_all`, all that there
    is, so that local patterns take writes again (`set_initial`)."""
    await tx.execute("federation.set_applied", tx.tenant, backend, mapping.hash, listed_all)


async def forget_applied(tx: Transaction, backend: BackendId) -> None:
    """Pairs of several mappings may be there until a full run ends well."""
    await tx.execute("federation.forget_applied", tx.tenant, backend)


async def set_transforms(tx: Transaction, backend: BackendId, transforms: str) -> None:
    """The tag strings of every pair are written under these transforms."""
    await tx.execute("federation.set_transforms", tx.tenant, backend, transforms)


async def set_initial(tx: Transaction, backend: BackendId, patterns: Sequence[str]) -> None:
    """Local patterns whose paths take no local write until a full run has passed."""
    await tx.execute("federation.set_initial", tx.tenant, backend, json.dumps(list(patterns)))


async def set_state(tx: Transaction, backend: BackendId, state: str, before: Sequence[str]) -> None:
    """Pause, resume, or begin to remove a backend that is in one of the states `before`."""
    await tx.execute("federation.set_state", tx.tenant, backend, state, list(before))


async def close_conflicts(tx: Transaction, backend: BackendId, limit: int) -> int:
    """Close open conflicts of a backend that goes; how many of them."""
    return await tx.execute("federation.close_conflicts", tx.tenant, backend, limit)


async def forget_nothing_settled(
    tx: Transaction, backend: BackendId, paths: Sequence[LocalPath]
) -> None:
    await tx.execute("federation.forget_nothing_settled", tx.tenant, backend, list(paths))


async def any_left(tx: Transaction, backend: BackendId) -> bool:
    """Has the backend an active pair or an unfinished push?"""
    return bool(await tx.fetchval("federation.any_left", tx.tenant, backend))


async def remove(tx: Transaction, backend: BackendId) -> None:
    """The backend itself; its runs and events stay."""
    await tx.execute("federation.end_queued", tx.tenant, backend)
    await tx.execute("federation.remove", tx.tenant, backend)


async def set_identity(tx: Transaction, backend: BackendId, identity: str) -> None:
    """Remember the store behind the endpoint, once."""
    await tx.execute("federation.set_identity", tx.tenant, backend, identity)


async def health(tx: Transaction, backend: BackendId) -> Row:
    row = await tx.fetchrow("federation.health", tx.tenant, backend)
    assert row is not None
    return row


async def run_ended(tx: Transaction, backend: BackendId, end: RunEnd) -> None:
    calls = None if end.cycle is None else sum(end.cycle.calls.values())
    cycle = None if end.cycle is None else json.dumps(end.cycle.to_json())
    await tx.execute(
        "federation.run_ended", tx.tenant, backend, end.run_id, end.full, end.succeeded,
        end.status, end.error, end.next_in_s, end.synced, end.diverged, end.quarantined,
        end.retained, end.conflicts, end.skipped, calls, end.latency_ms, end.started_at,
        end.again_soon, cycle, end.quiet,
    )  # fmt: skip


async def connection_seen(
    tx: Transaction, backend: BackendId, *, connected: bool, tell_after: int
) -> Row:
    """A run or probe reached the backend, or did not; what there is to tell of it."""
    row = await tx.fetchrow("federation.connection_seen", tx.tenant, backend, connected, tell_after)
    assert row is not None
    return row


async def probe_ended(
    tx: Transaction, backend: BackendId, status: str | None, latency_ms: float | None
) -> None:
    await tx.execute("federation.probe_ended", tx.tenant, backend, status, latency_ms)


async def run_lost(tx: Transaction, backend: BackendId, run: RunId, error: str) -> None:
    """A run's worker died: one more failure, whatever the backend is like."""
    await tx.execute("federation.run_lost", tx.tenant, backend, run, error)
