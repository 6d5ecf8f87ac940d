"""Retention: what is removed once its time is over, and what never is.

Removed are versions beyond those that are kept, the values of tombstones, then the
tombstones themselves, closed conflicts, ended runs and pushes, pairs that left the
mapping, events that everybody was told of, tokens that count no more, the keys of
requests of more than a day ago, and old data keys that seal nothing any more. Each batch
is a transaction of its own, so it may stop anywhere, and run beside runs, writes and
itself: it locks what it removes, asks once more whether that may go, and waits for nobody.

Never removed is what somebody still needs:

- A version that is current, settled with a backend, pending, a side of an open
  conflict, or named by an unfinished push.
- A tombstone while base is a value. The next run would find the secret in the
  backend, know nothing of its deletion, and bring it back. Its values go all the same.
- The number of a version. Of a tombstone that marks nothing any more the counter
  stays, and whoever creates the path anew goes on from there.
- An earlier side of a conflict, as long as the conflict itself is kept.
- An event that somebody is still to be told of, and the newest of each backend.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from svsync.domain.audit import SVSYNC, Actor, Decision, Entry
from svsync.domain.errors import SvsyncError
from svsync.domain.ids import SecretId, TenantId
from svsync.services.deliveries import prune
from svsync.services.flips import purge_hidden
from svsync.services.idempotency import KEPT_S
from svsync.services.recording import Recorder
from svsync.services.rewrapping import remove_emptied
from svsync.store import federation, idempotency
from svsync.store import retention as store
from svsync.store.database import Database, Row, Transaction
from svsync.store.retention import Kept, Limits

BATCH: Final = 1_000
"""Rows that one transaction removes, or looks at, at most."""
_TOMBSTONES: Final = 100
"""Tombstones of one transaction: each may have a history."""
_RUNS: Final = 100
"""Runs of one transaction: each may have thousands of skipped paths."""


@dataclass(frozen=True, slots=True)
class Ages:
    """For how many seconds what is over is kept, and how much is kept in any case.

    Attributes:
        max_versions: of a secret that neither says so itself nor has a backend.
        trim_grace: of versions, whatever their number; likewise.
        runs_kept: of each backend, however long ago they ended.
        events: and their deliveries, once those ended.
        tokens: since they expired or were revoked.
    """

    max_versions: int
    trim_grace: float
    tombstones: float
    conflicts: float
    runs: float
    runs_kept: int
    pushes: float
    detached: float
    events: float
    tokens: float


@dataclass(slots=True)
class Removed:
    """How much went.

    Attributes:
        versions: beyond those that are kept of a secret.
        tombstone_values: deleted secrets whose values went.
        tombstones: deleted secrets of which nothing is left but the counter.
        hidden_copies: secrets that are read through their backend since a flip to proxy.
        data_keys: old ones under which nothing stands any more.
    """

    versions: int = 0
    tombstone_values: int = 0
    tombstones: int = 0
    conflicts: int = 0
    runs: int = 0
    pushes: int = 0
    detached_pairs: int = 0
    hidden_copies: int = 0
    deliveries: int = 0
    events: int = 0
    tokens: int = 0
    request_keys: int = 0
    data_keys: int = 0


_Page = Callable[[Transaction, Row | None, int], Awaitable[list[Row]]]


class Retention:
    """Removes what is over, tenant by tenant."""

    def __init__(self, db: Database, ages: Ages, recorder: Recorder) -> None:
        self._db = db
        self._ages = ages
        self._recorder = recorder

    async def run(self, tenant: TenantId, *, by: Actor = SVSYNC) -> Removed:
        """Remove all that is due now; how much that was. The audit log tells of it, once it is
        known, where anything went.

        Raises:
            StoreError: what was removed before stays removed, and the rest is due still; or
                it is removed and not recorded.
        """
        removed = Removed()
        try:
            await self._remove(tenant, removed)
        except SvsyncError:
            with suppress(SvsyncError):
                await self._tell(tenant, by, removed)
            raise
        await self._tell(tenant, by, removed)
        return removed

    async def _tell(self, tenant: TenantId, by: Actor, removed: Removed) -> None:
        went = {kind: count for kind, count in asdict(removed).items() if count}
        if went:
            detail = json.dumps({"removed": went})
            await self._recorder.record(
                Entry(tenant, *by, "retention.removed", Decision.ALLOW, detail=detail)
            )

    async def _remove(self, tenant: TenantId, removed: Removed) -> None:
        ages = self._ages
        async with self._db.transaction(tenant) as tx:
            await tx.learn_sizes()
        # A tombstone may wait for its detached pair only, so these go first.
        detached = partial(store.detached, seconds=ages.detached)
        removed.detached_pairs = await self._walk(tenant, detached)
        removed.pushes = await self._walk(tenant, partial(store.pushes, seconds=ages.pushes))
        removed.conflicts = await self._walk(
            tenant, partial(store.conflicts, seconds=ages.conflicts)
        )
        await self._secrets(tenant, removed)
        removed.hidden_copies = await purge_hidden(self._db, tenant)
        async with self._db.transaction(tenant) as tx:
            kept = await store.last_runs(tx, ages.runs_kept)
        runs = partial(store.runs, seconds=ages.runs, kept=kept)
        removed.runs = await self._walk(tenant, runs, _RUNS)
        told = await prune(self._db, tenant, ages.events)
        removed.deliveries, removed.events = told.deliveries, told.events
        removed.tokens = await self._walk(tenant, partial(store.tokens, seconds=ages.tokens))
        removed.request_keys = await self._request_keys(tenant)
        removed.data_keys = len((await remove_emptied(self._db, tenant)).removed)

    async def run_all(self) -> None:
        """Remove what is over of every active tenant.

        Raises: as `run`.
        """
        for tenant in await federation.active(self._db):
            await self.run(tenant)

    async def _walk(self, tenant: TenantId, page: _Page, most: int | None = None) -> int:
        """Page after page, until none of a page's rows is old: their keys begin with the
        moment they were made, where `old` depends on it. How many rows were removed."""
        total, after, size = 0, None, most or BATCH
        while True:
            async with self._db.transaction(tenant) as tx:
                rows = await page(tx, after, size)
            total += sum(bool(row["removed"]) for row in rows)
            if len(rows) < size or not any(row["old"] for row in rows):
                return total
            after = rows[-1]

    async def _request_keys(self, tenant: TenantId) -> int:
        total = 0
        while True:
            async with self._db.transaction(tenant) as tx:
                went = await idempotency.remove(tx, KEPT_S, BATCH)
            total += went
            if went < BATCH:
                return total

    # --- secrets ------------------------------------------------------------------

    async def _secrets(self, tenant: TenantId, removed: Removed) -> None:
        """Every secret is looked at once; what may be due is looked at again, locked."""
        after = 0
        while True:
            async with self._db.transaction(tenant) as tx:
                limits = await self._limits(tx)
                rows = await store.page(tx, after, BATCH, limits, self._ages.tombstones)
            expired = [SecretId(row["secret_id"]) for row in rows if row["expired"]]
            for start in range(0, len(expired), _TOMBSTONES):
                await self._bury(tenant, expired[start : start + _TOMBSTONES], removed)
            crowded = [SecretId(row["secret_id"]) for row in rows if row["crowded"]]
            if crowded:
                removed.versions += await self._trim(tenant, crowded, limits)
            if len(rows) < BATCH:
                return
            after = rows[-1]["secret_id"]

    async def _limits(self, tx: Transaction) -> Limits:
        """What each backend's secrets keep, as it is configured now."""
        ages = self._ages
        kept = [
            Kept(spec.id, spec.max_versions, _seconds(spec.extra.get("trim_grace"), ages))
            for spec in (stored.spec for stored in await federation.list_backends(tx))
        ]
        return Limits(ages.max_versions, ages.trim_grace, kept)

    async def _trim(self, tenant: TenantId, crowded: Sequence[SecretId], limits: Limits) -> int:
        total = 0
        while True:
            async with self._db.transaction(tenant) as tx:
                # A statement of its own: the next one sees what was committed before the lock.
                locked = await store.lock(tx, crowded)
                went = await store.trim(tx, locked, BATCH, limits)
            total += went
            if went < BATCH:
                return total

    async def _bury(
        self, tenant: TenantId, tombstones: Sequence[SecretId], removed: Removed
    ) -> None:
        async with self._db.transaction(tenant) as tx:
            locked = await store.lock(tx, tombstones)
            due = await store.expired(tx, locked, self._ages.tombstones)
            emptied = await store.empty(tx, list(due))
            forgotten = await store.forget(
                tx, [secret for secret, marks in due.items() if not marks]
            )
        removed.tombstone_values += emptied
        removed.tombstones += forgotten


def _seconds(given: object, ages: Ages) -> float:
    return float(given) if isinstance(given, int | float) else ages.trim_grace
