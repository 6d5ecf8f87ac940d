"""The life of a backend as people decide it: paused, resumed, removed.

A removal goes in steps, each a transaction or a batch of them, so that it may be killed
anywhere and is gone on with by the same command: no run and no push begins any more
(state `deleting`, a higher fence); unfinished pushes are asked about, or withdrawn where
the backend does not answer; open conflicts are closed with their values kept; pairs are
detached, and the copies kept as ordinary secrets or destroyed; last goes the backend.

What is destroyed is a copy: a secret that a pair with a base brought in, and that says
what the backend said last. Whatever is here alone (a local change, a value that is gone
there) stays, and is counted; so does what whoever removes it may not delete. The mapping
does not tell that: pairs of the one before it stay until a run has let go of them.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from svsync.domain.errors import ConfigError, NotFoundError, SvsyncError, VersionConflictError
from svsync.domain.federation import ManagedBy
from svsync.domain.ids import BackendId, LocalPath, TenantId
from svsync.services.counted_calls import open_counted
from svsync.services.healing import heal
from svsync.services.pushes import Sender
from svsync.services.runs import Backends
from svsync.services.sealing import Sealing
from svsync.services.withdrawal import withdraw
from svsync.services.write_through import WriteThrough
from svsync.store import federation, flips, pairs, queue
from svsync.store.database import Database, Transaction
from svsync.store.federation import StoredBackend

_PAGE: Final = 1_000
MayDelete = Callable[[LocalPath], bool]


def everything(path: LocalPath) -> bool:
    """Whoever works on the store itself may delete it."""
    return True


@dataclass(slots=True)
class Removed:
    """What became of a removed backend's part of the store.

    Attributes:
        kept: secrets that are ordinary local ones now.
        destroyed: copies that were purged.
        conflicts: open conflicts that were closed.
        withdrawn: pushes of which nobody knows whether they were made.
    """

    backend: BackendId
    kept: int = 0
    destroyed: int = 0
    conflicts: int = 0
    withdrawn: int = 0


class Removal:
    """Pauses, resumes and removes backends of every tenant."""

    def __init__(
        self,
        db: Database,
        sealing: Sealing,
        backends: Backends,
        *,
        ids: Callable[[str], str],
        in_file: Collection[tuple[str, BackendId]],
    ) -> None:
        """`in_file`: tenants and ids of the backends that the configuration file names."""
        self._db = db
        self._sealing = sealing
        self._backends = backends
        self._ids = ids
        self._in_file = in_file

    def know_file(self, in_file: Collection[tuple[str, BackendId]]) -> None:
        """Another file is in force; arguments as at the beginning."""
        self._in_file = in_file

    async def pause(self, tenant: TenantId, backend: str) -> BackendId:
        """No run begins any more, and no write goes there; a run under way ends as ever.

        Raises:
            NotFoundError: there is no such backend.
            ConfigError: `backend_removed`: it is being removed.
        """
        async with self._db.transaction(tenant) as tx:
            stored = await federation.get(tx, backend)
            _refuse_half_removed(stored)
            await federation.set_state(tx, stored.spec.id, "paused", ("active",))
        return stored.spec.id

    async def resume(self, tenant: TenantId, backend: str) -> BackendId:
        """Runs begin again, and every pair that is not simply in sync is looked at.

        Raises:
            NotFoundError: there is no such backend.
            ConfigError: `backend_removed`; `managed_by_file`: the file has to name it.
        """
        async with self._db.transaction(tenant) as tx:
            stored = await federation.get(tx, backend)
            _refuse_half_removed(stored)
            if stored.spec.managed_by is ManagedBy.FILE and not self._named(stored):
                raise ConfigError(
                    f"the configuration file does not name {stored.spec.id}, and would pause it"
                    " again: name it there, or remove it",
                    code="managed_by_file",
                )
            await federation.set_state(tx, stored.spec.id, "active", ("paused",))
            await federation.due_now(tx, stored.spec.id)  # what feeds told meanwhile was not kept
        return stored.spec.id

    async def remove(
        self,
        tenant: TenantId,
        backend: str,
        *,
        purge: bool = False,
        may_delete: MayDelete = everything,
        rev: int | None = None,
    ) -> Removed:
        """Remove a backend; with `purge` the copies of its secrets too.

        Args:
            may_delete: is asked of each copy; one where it says no is kept.
            rev: the revision that it must have; None: any. A removal that has begun goes on.

        Raises:
            NotFoundError: there is no such backend (any more).
            VersionConflictError: it is at another revision.
            ConfigError: `managed_by_file`: the file names it, and would make it again.
            SvsyncError: `write_in_progress`: a write to it is on its way; the removal has
                begun, and goes on when it is asked for again.
        """
        doomed = may_delete if purge else _nothing
        stored = await self._begin(tenant, backend, rev)
        removed = Removed(stored.spec.id)
        removed.withdrawn = await self._settle_pushes(tenant, stored)
        removed.conflicts = await self._close_conflicts(tenant, stored)
        await self._detach(tenant, stored, removed, doomed)
        await self._settle_hidden(tenant, stored, removed, doomed)
        async with self._db.transaction(tenant) as tx:
            await queue.lock_lease(tx, stored.spec.id)
            await federation.lock(tx, stored.spec.id)
            await _still(tx, stored)
            if await federation.any_left(tx, stored.spec.id):
                raise _in_progress(stored.spec.id)
            await federation.remove(tx, stored.spec.id)
        return removed

    def _named(self, stored: StoredBackend) -> bool:
        return (stored.spec.tenant, stored.spec.id) in self._in_file

    async def _begin(self, tenant: TenantId, backend: str, rev: int | None) -> StoredBackend:
        async with self._db.transaction(tenant) as tx:
            backend_id = (await federation.get(tx, backend)).spec.id
            await queue.lock_lease(tx, backend_id)
            await federation.lock(tx, backend_id)  # writes that stand by it end first
            stored = await federation.get(tx, backend_id)
            if stored.state == "deleting":
                return stored
            if rev is not None and stored.rev != rev:
                raise VersionConflictError(
                    f"the backend {backend_id} is at revision {stored.rev}, not {rev}"
                )
            if stored.spec.managed_by is ManagedBy.FILE and self._named(stored):
                raise ConfigError(
                    f"the configuration file names {backend_id} and would make it again: take it"
                    " out of the file first",
                    code="managed_by_file",
                )
            await federation.set_state(tx, backend_id, "deleting", ("active", "paused"))
            await queue.raise_fence(tx, backend_id)
            return await federation.get(tx, backend_id)

    async def _settle_pushes(self, tenant: TenantId, stored: StoredBackend) -> int:
        """Ask what became of unfinished pushes; how many had to be withdrawn unasked."""
        backend = stored.spec.id
        async with self._db.transaction(tenant, read_only=True) as tx:
            unfinished = await flips.unfinished(tx, backend)
        if any(one.in_hand for one in unfinished):
            raise _in_progress(backend)
        if unfinished:
            await self._ask(tenant, stored)
        async with self._db.transaction(tenant) as tx:
            left = await flips.unfinished(tx, backend)
            # Those that were asked about in vain are in this removal's own hand.
            if any(one.sending for one in left):
                raise _in_progress(backend)
            return await withdraw(tx, left, "backend_removed")

    async def _ask(self, tenant: TenantId, stored: StoredBackend) -> None:
        keys = await self._sealing.for_tenant(tenant)
        try:
            rules, mapping = self._backends.rules(stored.spec)
            async with open_counted(self._db, self._backends, stored.spec, tenant) as opened:
                sender = Sender(
                    transaction=WriteThrough(self._db, self._backends, self._ids).transactions(
                        tenant
                    ),
                    spec=stored.spec,
                    rules=rules,
                    base_pair=mapping.base_pair,
                    backend=opened.backend,
                    keys=keys,
                    now=lambda: datetime.now(UTC),
                    ids=self._ids,
                    time_left=lambda: math.inf,
                )
                await heal(sender, again=False)
        except SvsyncError:
            return  # it cannot be asked; what is left is withdrawn

    async def _close_conflicts(self, tenant: TenantId, stored: StoredBackend) -> int:
        closed, batch = 0, _PAGE
        while batch == _PAGE:
            async with self._db.transaction(tenant) as tx:
                await _still(tx, stored)
                batch = await federation.close_conflicts(tx, stored.spec.id, _PAGE)
            closed += batch
        return closed

    async def _detach(
        self, tenant: TenantId, stored: StoredBackend, removed: Removed, doomed: MayDelete
    ) -> None:
        """Pairs are let go of a page at a time; their copies are destroyed where they may be."""
        backend, after = removed.backend, ""
        while True:
            async with self._db.transaction(tenant) as tx:
                await _still(tx, stored)
                page = await flips.paired_below(tx, backend, after, "", _PAGE)
                await pairs.lock_secrets(tx, [p.path for p in page])
                alone = {
                    path for path, _ in await flips.unpushed(tx, backend, [p.path for p in page])
                }
                detached = await pairs.detach(tx, backend, [(p.remote_path, None) for p in page])
                gone = [p for p in page if p.remote_path in detached]
                held = {p.path: p.secret for p in gone if p.secret is not None}
                copies = [s for path, s in held.items() if path not in alone and doomed(path)]
                await flips.destroy(tx, backend, copies)
                await federation.forget_nothing_settled(tx, backend, [p.path for p in gone])
            removed.kept += len(held) - len(copies)
            removed.destroyed += len(copies)
            if len(page) < _PAGE:
                return
            after = page[-1].path

    async def _settle_hidden(
        self, tenant: TenantId, stored: StoredBackend, removed: Removed, doomed: MayDelete
    ) -> None:
        """Copies that a flip to proxy hid are secrets again, or go with the others."""
        batch = _PAGE
        while batch == _PAGE:
            async with self._db.transaction(tenant) as tx:
                await _still(tx, stored)
                rows = await flips.hidden(tx, removed.backend, "", _PAGE)
                await flips.lock_secrets(tx, [row["secret_id"] for row in rows])
                copies = [row["secret_id"] for row in rows if doomed(row["path"])]
                kept = [row["secret_id"] for row in rows if not doomed(row["path"])]
                await flips.destroy(tx, removed.backend, copies)
                await flips.show_again(tx, kept)
            removed.destroyed += len(copies)
            removed.kept += len(kept)
            batch = len(rows)


async def _still(tx: Transaction, stored: StoredBackend) -> None:
    """Until the transaction ends it is the backend whose removal began. Where two remove it,
    another one of its id may be there once the first is through.

    Raises NotFoundError.
    """
    if await federation.stand_by(tx, stored.spec.id) != stored.rev:
        raise NotFoundError("there is no such backend any more", code="backend_not_found")


def _nothing(path: LocalPath) -> bool:
    return False


def _in_progress(backend: BackendId) -> SvsyncError:
    return SvsyncError(
        f"a write to {backend} is on its way: remove it again in a minute, and the removal goes on",
        code="write_in_progress",
    )


def _refuse_half_removed(stored: StoredBackend) -> None:
    if stored.state == "deleting":
        raise ConfigError(
            f"the backend {stored.spec.id} is being removed: `svsync backends remove"
            f" {stored.spec.id}` goes on with that",
            code="backend_removed",
        )
