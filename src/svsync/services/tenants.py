"""Tenants: made, listed, and shredded.

Shredding is one transaction and what is cleared away after it. The transaction destroys the
wrapped form of every key of the tenant, so that nothing that was sealed opens again; and, so
that nothing comes in again, it pauses its backends, raises their fences, withdraws the runs
that wait, shuts its webhooks and marks the tenant for good. It takes the locks in the order of
everybody: leases, backends, endpoints, keys, the tenant. What was under way is committed before
it, or refused after it: a run by its fence, a write by its keys, for the rows that it seals name
them.

After it come pushes that are given up; the table of keys, which is written anew so that its
file loses what they were; and the rows, a page at a time: ciphertexts that nothing opens, and
the names, tags and settings beside them. Whoever dies there leaves nothing that svsync opens;
the same command goes on, and the service does so once an hour.

Keys that a process has in memory are refused at every use, by the state of the tenant that
each read and write looks at, and are put away within some seconds (`keep_forgetting`).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from svsync.domain.envelope import KeyPurpose
from svsync.domain.errors import StoreError, StoreUnavailableError, SvsyncError
from svsync.domain.ids import TenantId
from svsync.domain.tenants import SHREDDED, SHREDDED_EVENT
from svsync.observe.logs import get_logger
from svsync.services.sealing import Sealing
from svsync.services.secrets import time_of
from svsync.store import federation, keys, queue
from svsync.store import tenants as store
from svsync.store.database import Database

PAGE: Final = 2_000
"""Rows that one transaction clears away."""
SECRETS: Final = 500
"""The same of secrets, each with its versions."""
LOOK_S: Final = 5.0
"""Seconds between two looks for tenants that were shredded."""
_TRIES: Final = 3

Tell = Callable[[int, int], None]
"""Is told how many secrets are gone, and of how many."""
Forget = Callable[[TenantId], Awaitable[None]]


class TenantExistsError(SvsyncError):
    """The slug is taken, for good: that of a tenant that was shredded too."""

    code = "tenant_exists"

    def __init__(self, slug: str, status: str) -> None:
        super().__init__(f"there is a tenant {slug!r} already, it is {status}: choose another slug")


@dataclass(slots=True)
class Shredded:
    """What came of it. Where it was shredded before, all is 0 but what was left to clear.

    Attributes:
        keys: that were destroyed.
        backends: that are paused now, and were not.
        runs: that waited, and are withdrawn.
        pushes: writes to backends that were given up.
        secrets: that are gone, with all their versions.
        rows: of anything else.
        keys_erased: the files of the database do not hold them, wrapped, any more.
    """

    before: bool
    keys: int = 0
    backends: int = 0
    runs: int = 0
    pushes: int = 0
    secrets: int = 0
    rows: int = 0
    keys_erased: bool = False


class _MadeMeanwhileError(Exception):
    """A backend, or an endpoint of webhooks, was made while the others were shut."""


class Tenants:
    """All tenants."""

    def __init__(self, db: Database, sealing: Sealing, *, ids: Callable[[str], str]) -> None:
        """`ids` draws an id with a prefix."""
        self._db = db
        self._sealing = sealing
        self._ids = ids

    async def list_all(self) -> list[dict[str, Any]]:
        """Every tenant by its slug, whatever its state; nothing of what is in it."""
        rows = await store.list_all(self._db, await keys.every_tenant(self._db))
        return [
            {
                "slug": row["slug"],
                "status": row["status"],
                "created_at": time_of(row["created_at"]),
                "backends": row["backends"],
            }
            for row in rows
        ]

    async def find(self, slug: str) -> tuple[TenantId, str]:
        """A tenant with its status, whatever that is.

        Raises NotFoundError."""
        return await store.find(self._db, slug)

    async def begin(self, slug: str) -> TenantId:
        """A new tenant, or one whose making was broken off, that nobody can use before `open`.

        Raises TenantExistsError.
        """
        made = await store.begin(self._db, slug)
        if made is not None:
            return made
        tenant, status = await store.find(self._db, slug)
        async with self._db.transaction(tenant, read_only=True) as tx:
            had = {row["purpose"] for row in await keys.data_keys(tx)}
            if status != "suspended" or had - {KeyPurpose.AUDIT_SIGN}:
                raise TenantExistsError(slug, status)
        return tenant

    async def open(self, tenant: TenantId, slug: str) -> None:
        """Let a tenant that was begun be used, and make its first keys.

        Raises:
            TenantExistsError: somebody else has opened it meanwhile.
            KeyServiceError: it is open, and its keys are made when they are first needed.
        """
        async with self._db.transaction(tenant) as tx:
            if not await store.open_begun(tx):
                raise TenantExistsError(slug, await store.status(tx))
        await self._sealing.for_tenant(tenant)
        await self._sealing.data_key(tenant, KeyPurpose.VALUE, 0)

    # --- the end ----------------------------------------------------------------------

    async def shred(
        self, tenant: TenantId, slug: str, tell: Tell = lambda done, total: None
    ) -> Shredded:
        """Destroy the keys of a tenant, for good, and clear away what they sealed. Of one that
        was shredded before, what is left is cleared away.

        Raises StoreError: nothing was done; or the keys are destroyed, and what they sealed is
            still to be cleared away: the same again does it.
        """
        done = await self._destroy(tenant, slug)
        self._sealing.forget(tenant)
        async with self._db.transaction(tenant) as tx:
            done.pushes = await store.withdraw_pushes(tx)
        done.keys_erased = await self._erase(tenant)
        await self._clear(tenant, done, tell)
        return done

    async def clear_all(self) -> None:
        """Clear away what is left of every tenant that was shredded.

        Raises StoreError.
        """
        gone = await store.shredded(self._db)
        for tenant in list(gone)[:1]:  # it erases those of all
            await self._erase(tenant)
        for tenant in gone:
            await self._clear(tenant, Shredded(before=True), lambda done, total: None)

    async def _destroy(self, tenant: TenantId, slug: str) -> Shredded:
        for left in reversed(range(_TRIES)):
            try:
                return await self._destroy_once(tenant, slug)
            except _MadeMeanwhileError:
                continue
            except StoreUnavailableError:
                raise
            except StoreError:  # whoever locked in another order was preferred
                if not left:
                    raise
        raise StoreError("backends or webhooks are being made all the time: run it again")

    async def _destroy_once(self, tenant: TenantId, slug: str) -> Shredded:
        done = Shredded(before=False)
        async with self._db.transaction(tenant) as tx:
            await federation.lock_file(tx)
            if await store.status(tx) == SHREDDED:
                return Shredded(before=True)
            await store.lock_leases(tx)
            for backend in await store.lock_backends(tx):
                await queue.raise_fence(tx, backend)
                done.runs += await store.end_queued(tx, backend)
            done.backends = await store.pause_backends(tx)
            await store.disable_endpoints(tx)
            await keys.lock_tenant(tx)
            done.keys = await store.destroy_keys(tx)
            await store.shred(tx)
            # One that was made meanwhile is seen behind the lock on the tenant, which its own
            # transaction takes last.
            if await store.anything_active(tx):
                raise _MadeMeanwhileError
            payload = json.dumps({"tenant": slug, "sequence": 1})
            await store.tell(tx, self._ids("evt"), SHREDDED_EVENT, payload)
        return done

    async def _erase(self, tenant: TenantId) -> bool:
        """Have the database's files lose what the keys were. False: they have it still."""
        if not await store.keys_left(self._db):
            return True
        try:
            async with self._db.transaction(tenant) as tx:
                await store.erase_keys(tx)
        except StoreUnavailableError:
            raise
        except StoreError as problem:
            get_logger().warning("shredded_keys_not_erased", error_code=problem.code)
            return False
        return True

    async def _clear(self, tenant: TenantId, done: Shredded, tell: Tell) -> None:
        async with self._db.transaction(tenant, read_only=True) as tx:
            if await store.status(tx) != SHREDDED:
                raise StoreError("the tenant was not shredded, so nothing of it is cleared away")
            total = await store.count_secrets(tx)
        for table in store.CLEARED:
            went = PAGE
            while went == PAGE:
                async with self._db.transaction(tenant) as tx:
                    went = await store.clear(tx, table, PAGE)
                done.rows += went
        went = SECRETS
        while went == SECRETS:
            async with self._db.transaction(tenant) as tx:
                went = await store.clear_secrets(tx, SECRETS)
            done.secrets += went
            tell(done.secrets, total)


async def keep_forgetting(
    db: Database, forget: Forget, once: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Have what this process knows of tenants that were shredded put away, until cancelled. It
    is told once of each that was shredded since, and `once` is called then."""
    known: set[TenantId] | None = None
    while True:
        with suppress(SvsyncError):  # the database is away: nothing can be read either
            gone = await forget_shredded(db, forget)
            new = gone.keys() - (gone.keys() if known is None else known)
            if new and once is not None:
                await once()
            for tenant in new:
                get_logger().info("shredded_tenant_put_away", tenant=gone[tenant])
            known = set(gone)
        await asyncio.sleep(LOOK_S)


async def forget_shredded(db: Database, forget: Forget) -> dict[TenantId, str]:
    """The same once; the tenants, by their names. Raises StoreError."""
    gone = await store.shredded(db)
    for tenant in gone:  # each time: what was under way may have brought something back
        await forget(tenant)
    return gone
