"""An examination of the whole: what works, what will not for long, and what to do.

It looks and changes nothing: no migration is applied, no key made, no backend brought in
from the file. Each part is looked at by itself, so that all that is wrong is told at once;
what needs a part that is missing is left out. Backends of the file are tested as the file
has them, also before the first start.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from svsync.config.model import Settings
from svsync.domain.errors import ConfigError, SvsyncError
from svsync.domain.federation import BackendSpec, from_json
from svsync.domain.ids import BackendId, TenantId
from svsync.ports import Signals
from svsync.services import store_findings
from svsync.services.backend_findings import look_at_backend
from svsync.services.backend_status import status_json
from svsync.services.checkpoints import LATE_S
from svsync.services.findings import Finding, ok, warning, wrong
from svsync.services.key_findings import OpenRoot, look_at_keys
from svsync.services.machine import look_at_certificates, look_at_files
from svsync.services.overview import RESUME
from svsync.services.replica_findings import look_at_replica
from svsync.services.runs import Backends
from svsync.services.scheduling import OVERDUE_S
from svsync.services.webhook_findings import look_at_receivers
from svsync.store import checkpoints, doctor, federation, overview
from svsync.store.database import Database, Row
from svsync.store.replica import Replica

AT_ONCE: Final = 8
"""Backends that are tested side by side."""
WAITS_S: Final = 900.0
"""Seconds for which a run may wait until somebody should ask why."""
_NO_TENANT: Final = TenantId(0)


@dataclass(frozen=True, slots=True)
class Store:
    """The configured store as it is. `schema`: why this program cannot work on it; `replica`:
    the one that lists are read from, if one is configured."""

    db: Database
    embedded: bool
    schema: SvsyncError | None
    replica: Replica | None = None


class OpenStore(Protocol):
    def __call__(self) -> AbstractAsyncContextManager[Store]:
        """Raises SvsyncError: it cannot be reached, or not by this role."""
        ...


class Doctor:
    """Examines one installation."""

    def __init__(
        self,
        settings: Settings,
        backends: Backends,
        *,
        open_store: OpenStore,
        open_root: OpenRoot,
        open_hints: Callable[[], AbstractAsyncContextManager[Signals]],
        now: Callable[[], datetime],
        places: Sequence[str] = (),
    ) -> None:
        """`open_root` opens the root key, None where there is none yet; `now` is the time;
        `places` are those outside that keep checkpoints of the audit log."""
        self._settings = settings
        self._backends = backends
        self._open_store = open_store
        self._open_root = open_root
        self._open_hints = open_hints
        self._now = now
        self._places = places

    async def examine(self) -> AsyncIterator[Finding]:
        """Each finding, in order, as soon as it is there."""
        for finding in look_at_files(self._settings):
            yield finding
        for finding in look_at_certificates(self._settings, self._now()):
            yield finding
        specs = [(spec, _NO_TENANT) for spec in self._settings.backends]
        try:
            async with self._open_store() as store:
                async for finding in self._look_at_store(store):
                    yield finding
                if store.schema is None:
                    tenants = await federation.active_slugs(store.db)
                    specs = await self._to_test(store.db, tenants)
                    for finding in await self._look_at_work(store.db, tenants):
                        yield finding
                    yield await self._look_at_audit(store.db, list(tenants))
                    for finding in await look_at_receivers(store.db, tenants):
                        yield finding
                # Within the block: a credential may be kept in the store.
                counting = store.db if store.schema is None else None
                async for finding in self._look_at_backends(specs, counting):
                    yield finding
        except SvsyncError as problem:
            check = "role" if problem.code == "role_too_powerful" else "database"
            yield wrong(check, problem.message)
            async for finding in self._look_at_backends(specs, None):
                yield finding
        yield await self._look_at_signals()

    # --- the store ------------------------------------------------------------------

    async def _look_at_store(self, store: Store) -> AsyncIterator[Finding]:
        before = self._now()
        server = await doctor.server(store.db)
        after = self._now()
        where = "the embedded PostgreSQL" if store.embedded else "PostgreSQL"
        yield store_findings.version(server, where)
        yield ok("role", f"{server['role']} is held by row-level security")
        yield self._schema(store.schema)
        yield store_findings.parameters(server)
        yield store_findings.clock(server, before, after)
        if store.replica is not None:
            yield await look_at_replica(store.replica, self._settings.max_replica_lag)
        if store.schema is None:
            yield await store_findings.look_at_home(store.db)
            for finding in await look_at_keys(self._settings, store.db, self._open_root):
                yield finding

    def _schema(self, problem: SvsyncError | None) -> Finding:
        if problem is None:
            return ok("migrations", "the schema is that of this program")
        if problem.code == "migrations_pending" and self._settings.migrate_on_start:
            return warning("migrations", "some are not applied", "the next start applies them")
        return wrong("migrations", problem.message)

    # --- backends -------------------------------------------------------------------

    async def _to_test(
        self, db: Database, tenants: dict[TenantId, str]
    ) -> list[tuple[BackendSpec, TenantId]]:
        """Backends that are in use, those of the file as it has them now."""
        found: dict[tuple[str, BackendId], tuple[BackendSpec, TenantId]] = {}
        for tenant, slug in tenants.items():
            async with db.transaction(tenant, read_only=True) as tx:
                stored = await federation.list_backends(tx)
            found |= {(slug, b.spec.id): (b.spec, tenant) for b in stored if b.state == "active"}
            at_rest = {b.spec.id for b in stored if b.state != "active"}
            found |= {
                (slug, spec.id): (spec, tenant)
                for spec in self._settings.backends
                if spec.tenant == slug and spec.id not in at_rest
            }
        return list(found.values())

    async def _look_at_backends(
        self, specs: Sequence[tuple[BackendSpec, TenantId]], db: Database | None
    ) -> AsyncIterator[Finding]:
        room = asyncio.Semaphore(AT_ONCE)

        async def look(spec: BackendSpec, tenant: TenantId) -> list[Finding]:
            async with room:
                return await look_at_backend(db, self._backends, spec, tenant)

        looks = [asyncio.ensure_future(look(spec, tenant)) for spec, tenant in specs]
        try:
            for found in looks:
                for finding in await found:
                    yield finding
        finally:
            for found in looks:
                found.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    # --- what is under way ------------------------------------------------------------

    async def _look_at_work(self, db: Database, tenants: dict[TenantId, str]) -> list[Finding]:
        """The processes that are up, and what they leave undone."""
        processes = await overview.processes(db)
        _, stopped = await overview.now(db)
        found = [self._processes(processes)]
        if stopped is not None:
            found.append(
                warning("runs", f"all were stopped, by {stopped.by}", f"{RESUME} ends that")
            )
        async with db.transaction_of(list(tenants), read_only=True) as tx:
            neglected = await doctor.neglected(tx, OVERDUE_S)
        work = any("worker" in row["roles"] for row in processes)
        left = [f for row in neglected for f in _neglected(row, stopped=stopped is not None)]
        left += await self._standing(db, tenants)
        left += [
            wrong(f"backend {spec.id}", f"there is no tenant {spec.tenant!r}: nothing runs it")
            for spec in self._settings.backends
            if spec.tenant not in tenants.values()
        ]
        if left and not work and stopped is None:
            left.append(
                warning("runs", "no worker is up", "start `svsync serve`, or run `svsync run-once`")
            )
        return [*found, *(left or [ok("runs", "nothing is left undone")])]

    def _processes(self, up: Sequence[Row]) -> Finding:
        if not up:
            return ok("processes", "none is up: nothing runs but what `run-once` does")
        versions = sorted({row["version"] for row in up})
        names = ", ".join(f"{row['instance_id']} ({'/'.join(row['roles'])})" for row in up)
        if len(versions) > 1:
            return warning(
                "processes",
                f"of several versions, {', '.join(versions)}: {names}",
                "bring all to the newest, one after another",
            )
        if len(up) > 1 and self._settings.redis_url is None:
            return warning(
                "processes",
                f"{len(up)} are up, and each keeps its signals to itself: {names}",
                "set REDIS_URL for all: wake-ups are quicker, and rate limits are shared",
            )
        return ok("processes", f"{versions[0]}: {names}")

    async def _standing(self, db: Database, tenants: dict[TenantId, str]) -> list[Finding]:
        """What the status of each backend says that somebody should look after."""
        found = []
        for tenant in tenants:
            async with db.transaction(tenant, read_only=True) as tx:
                rows = await overview.backends(tx)
            for row in rows:
                spec = from_json(row["spec"])
                terms = self._backends.terms(spec)
                found += _of_status(row, status_json(spec, terms, row["state"], row))
        return found

    # --- the audit log ----------------------------------------------------------------

    async def _look_at_audit(self, db: Database, tenants: Sequence[TenantId]) -> Finding:
        if not self._places:
            return warning(
                "audit log",
                "nothing outside the database keeps its checkpoints: whoever owns the database"
                " and the root key could make the log anew",
                "set audit_anchors",
            )
        async with db.transaction_of(tenants, read_only=True) as tx:
            late = await checkpoints.late(tx, tenants, self._places, LATE_S)
        if late:
            named = ", ".join(
                f"{row['place']} (since {row['since']:%Y-%m-%d %H:%M})" for row in late
            )
            return wrong(
                "audit log",
                f"checkpoints are not kept outside: {named}",
                "the log line `audit_anchor_failed` says why",
            )
        return ok("audit log", f"its checkpoints are kept by {', '.join(self._places)}")

    # --- signals ----------------------------------------------------------------------

    async def _look_at_signals(self) -> Finding:
        if self._settings.redis_url is None:
            return ok("signals", "no Redis is configured: they stay within each process")
        try:
            async with self._open_hints() as signals:
                with signals.listen("doctor") as waker:
                    # Whoever joins is woken.
                    if signals.shared or (await waker.wait(4.0) and signals.shared):
                        return ok("signals", "Redis answers, and is heard")
        except ConfigError as problem:
            return wrong("signals", problem.message)
        return wrong(
            "signals",
            "Redis does not answer: wake-ups take up to a second, rate limits are divided",
            "check REDIS_URL; the log line `signals_lost` says why",
        )


def _of_status(row: Row, status: Mapping[str, Any]) -> list[Finding]:
    check = f"backend {status['id']}"
    found = []
    if row["stale"]:
        found.append(
            warning(
                check,
                "its last success is older than max_staleness, or than three intervals",
                "`svsync runs list` says how its last runs ended",
            )
        )
    if short := status["interval_unreachable"]:
        says, _, advice = short["message"].partition("; ")
        found.append(warning(check, f"its sync_interval cannot be kept: {says}", advice))
    if put_off := status["put_off"]:
        found.append(
            warning(
                check,
                f"its run is put off until {put_off['until']}: {put_off['reason']}",
                "raise call_budget.per_day, or lengthen sync_interval",
            )
        )
    return found


def _neglected(row: Row, *, stopped: bool) -> list[Finding]:
    check = f"backend {row['backend_id']}"
    found = []
    if row["lost_run"]:
        found.append(
            warning(check, "the worker of its run is gone", "the next run ends it and goes on")
        )
    if row["pushes"]:
        found.append(
            warning(
                check,
                f"writes to it whose outcome nobody knows: {row['pushes']:,}",
                "the next run asks the backend what became of them",
            )
        )
    if not stopped and row["waits_s"] is not None and row["waits_s"] > WAITS_S:
        found.append(
            warning(
                check,
                f"a run has waited for {row['waits_s'] / 60:,.0f} minutes",
                "start more workers, or look what keeps those that are up busy",
            )
        )
    return found
