"""Reads that pass through: decided before, asked of the backend, recorded, answered.

Nothing of what is read is kept: no row, no cache, no line of a log. Whoever asks for a
path while somebody else's call for it is under way shares its answer, after a check and
with an audit row of their own (`proxied_flights`).

A backend that cannot be reached is not judged here. A probe is asked for, whose run
decides and tells; meanwhile what stands by for it is read, where there is such a one. Of
that only a value counts: that it lacks a name says nothing of the backend it stands by for.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Final

from svsync.domain.access import Call, shut
from svsync.domain.audit import Decision, Entry
from svsync.domain.changes import (
    PairStatus,
    RemoteGone,
    RemoteValue,
    shown_version,
)
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    DeniedError,
    LoginError,
    StoreUnavailableError,
    SvsyncError,
    ThrottledError,
)
from svsync.domain.ids import BackendId, LocalPath, RunId, TenantId
from svsync.domain.policies import Permissions
from svsync.observe.logs import get_logger
from svsync.services.answers import Federated, Secret, Source, described, secret_of
from svsync.services.call_budgets import CallBudgets
from svsync.services.open_backends import OpenBackends
from svsync.services.proxied_answers import (
    NotThereError,
    denied,
    held_back,
    metadata,
    not_there,
    taken,
    unreachable,
    unreadable,
)
from svsync.services.proxied_flights import Heard, ProxiedFlights
from svsync.services.proxied_folders import (
    PROXIED,
    ProxiedFolder,
    ProxiedFolders,
    Whole,
    through_roots,
)
from svsync.services.proxied_paths import Owners, ProxiedPaths, Through
from svsync.services.proxied_walk import ProxiedWalk
from svsync.services.recording import Access, Recorder
from svsync.services.runs import Backends
from svsync.store import schedule
from svsync.store.database import Database, Row

READ: Final = "secret.read"
PATIENCE_S: Final = 10.0
"""Seconds that a caller waits for a backend. Its call goes on: how it ends tells the call
guard how the backend is."""
AWAY_S: Final = 5.0
"""Seconds after a failed connection in which what stands by is asked first, and within
which no second probe is asked for."""
SWEEP_S: Final = 30.0
"""Seconds between two looks at backends that nobody uses any more."""


class _Passing(Access):
    """A read that was decided on before a backend was asked, which may have taken long."""

    __slots__ = ("_entry",)

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.tenant)
        self._entry = entry

    def settle(self, row: Row) -> Entry:
        if row["tenant_status"] != "active":
            raise shut(row["tenant_status"])
        return self._entry


class Proxying:
    """Proxied reads, of every tenant. Made by `open_proxying`."""

    def __init__(
        self,
        db: Database,
        recorder: Recorder,
        backends: Backends,
        *,
        ids: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE_S,
    ) -> None:
        """`ids` draws an id with a prefix; `clock` gives monotonic seconds, `patience` is
        how many of them a caller waits for a backend."""
        self._db = db
        self._recorder = recorder
        self._ids = ids
        self._clock = clock
        self.patience = patience
        self._paths = ProxiedPaths(db, backends)
        self.open = OpenBackends(backends, CallBudgets(db), clock=clock)
        self.flights = ProxiedFlights(self._call, patience=patience)
        self._away: dict[tuple[TenantId, BackendId], float] = {}
        self.folders = ProxiedFolders(self.open, self._tell_away, patience=patience)

    async def owners(self, tenant: TenantId, epoch: int | None = None) -> Owners:
        """Who answers for paths that are not here; see `ProxiedPaths.owners`."""
        return await self._paths.owners(tenant, epoch)

    async def forget(self, tenant: TenantId) -> None:
        """Let go of the backends of a tenant that was shredded."""
        self._paths.forget(tenant)
        await self.open.close_of(tenant)

    def at_hand(self, tenant: TenantId, path: LocalPath) -> tuple[Through, int] | None:
        """The way that a read goes through by what is remembered, and the epoch of its owners;
        None: there is none, or a read by it may take more than one call. Good for an answer
        only where that epoch stands as it is recorded."""
        owners = self._paths.at_hand(tenant)
        through = None if owners is None else owners.through(path)
        if owners is None or through is None:
            return None
        if through.initial or through.standbys or through.stored.state != "active":
            return None
        return through, owners.epoch

    def learn(self, tenant: TenantId, epoch: int) -> None:
        """What a read saw of the owners' epoch; see `ProxiedPaths.learn`."""
        self._paths.learn(tenant, epoch)

    async def read(
        self,
        call: Call,
        path: LocalPath,
        version: int | None,
        through: Through,
        epoch: int,
        heard: Heard | None = None,
    ) -> Secret:
        """The secret as its backend has it now. The caller may read the path, and that was
        decided; `epoch` is that of the owners who gave `through`. `heard`: what a backend said
        of this path since the request came.

        Raises:
            NotThereError: `secret_not_found`: the backend says that it is not there;
                `version_not_found`: an earlier version was asked for.
            BackendTimeoutError, BackendUnreachableError: no answer in time, none at all.
            BackendError: `backend_denied`, `remote_unreadable`, `throttled`,
                `call_budget_spent`, `backend_unusable`.
            ConfigError: `backend_paused`.
            StoreUnavailableError: it could not be recorded, or svsync is stopping.
            TenantShreddedError, ForbiddenError: its tenant was shut meanwhile.
        """
        try:
            if version is not None:
                raise NotThereError(
                    f"{path} is read through {through.backend}, and of that only the current"
                    " version can be read: leave `version` out",
                    code="version_not_found",
                )
            found, way = await self._ask(call.tenant, path, through, epoch, heard)
        except SvsyncError as failed:
            await self._record(call, path, through, None, failed.code)
            raise
        except Exception:
            await self._record(call, path, through, None, "internal")
            raise
        if isinstance(found, RemoteGone):
            await self._record(call, path, way, None, None)
            raise not_there(path)
        await self._record(call, path, way, shown_version(found.order), None)
        return passed(path, found, through, way)

    async def walk(
        self, tenant: TenantId, permissions: Permissions, given: Sequence[str], after: str
    ) -> ProxiedWalk:
        """What is read through and begins with one of these, behind `after`, in the order of
        paths; see `ProxiedWalk`. Who asks was recorded before.

        Raises StoreUnavailableError: the owners cannot be looked up.
        """
        owners = await self._paths.owners(tenant)
        known: dict[BackendId, Whole] = {}

        async def look(folder: str, unasked: Collection[BackendId]) -> ProxiedFolder:
            return await self.folders.look(
                tenant, owners, permissions, folder, given=given, unasked=unasked, known=known
            )

        return ProxiedWalk(
            look, through_roots(owners, given), after, epoch=owners.epoch, clock=self._clock
        )

    async def _record(
        self, call: Call, path: LocalPath, way: Through, version: int | None, failed: str | None
    ) -> None:
        detail = None if failed is None else json.dumps({"failed": failed})
        await self._recorder.submit(_Passing(passing(call, path, way, version, detail)))

    # --- one backend, or what stands by for it --------------------------------------

    async def _ask(
        self,
        tenant: TenantId,
        path: LocalPath,
        through: Through,
        epoch: int,
        heard: Heard | None,
    ) -> tuple[RemoteValue | RemoteGone, Through]:
        if through.stored.state != "active":
            raise ConfigError(
                f"{path} is read through {through.backend}, which is paused: resume it first",
                code="backend_paused",
            )
        if through.standbys and self._is_away(tenant, through.backend):
            failed = unreachable(path, through)
        else:
            try:
                if heard is not None and heard.is_of(through, epoch):
                    return heard.given(), through
                return await self.flights.share(tenant, path, through, epoch), through
            except BackendUnreachableError as error:
                failed = error
            await self._tell_away(tenant, through.backend)
        for standby in through.standbys:
            try:
                found = await self.flights.share(tenant, path, standby, epoch)
            except BackendError:
                continue
            if isinstance(found, RemoteValue):
                return found, standby
        raise failed

    def _is_away(self, tenant: TenantId, backend: BackendId) -> bool:
        return self._away.get((tenant, backend), self._clock()) > self._clock()

    async def _tell_away(self, tenant: TenantId, backend: BackendId) -> None:
        """Ask for a probe, unless one was asked for a moment ago."""
        if self._is_away(tenant, backend):
            return
        self._away[tenant, backend] = self._clock() + AWAY_S
        try:
            async with self._db.transaction(tenant) as tx:
                await schedule.ask_for_probe(tx, backend, RunId(self._ids("run")))
        except SvsyncError as problem:  # the schedule looks after it anyway, in a while
            get_logger().warning("probe_not_asked_for", error_code=problem.code, backend_id=backend)

    # --- one call --------------------------------------------------------------------

    async def _call(
        self, tenant: TenantId, path: LocalPath, way: Through
    ) -> RemoteValue | RemoteGone:
        """Ask the backend, and say in our own words what it does not give.

        No text of an error that comes from opening or calling it is passed on: it may name
        what opens the backend.
        """
        try:
            async with self.open.use(tenant, way.stored) as backend:
                [read] = await backend.read([way.remote])
        except BackendUnreachableError:
            raise unreachable(path, way) from None
        except ThrottledError as error:
            raise held_back(path, way, error) from None
        except (DeniedError, LoginError):
            raise denied(path, way) from None
        except BackendError as error:
            raise unreadable(path, way, error.code) from None
        except StoreUnavailableError:
            raise
        except SvsyncError as error:
            raise BackendError(
                f"{path} is read through {way.backend}, which cannot be used here"
                f" ({error.code}): `svsync backends test {way.backend}` says why",
                operation="connect",
                code="backend_unusable",
                sent=False,
            ) from None
        return taken(path, way, read)

    # --- for as long as the process lives ----------------------------------------------

    async def tend(self) -> None:
        """Close what nobody uses any more, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._clock()
            self._away = {key: until for key, until in self._away.items() if until > now}
            await self.open.close_unused()

    async def close(self) -> None:
        """End the calls under way, and close the backends."""
        await self.flights.close()
        await self.open.close()


def passed(path: LocalPath, found: RemoteValue, through: Through, way: Through) -> Secret:
    """The answer; `way` is what was asked, `through` or what stands by for it."""
    version = shown_version(found.order)
    return secret_of(
        path,
        found.payload.data_text(),
        described(
            str(found.payload.encoding), version, found.created_at, metadata(found, way.tags)
        ),
        version=version,
        federated=Federated(
            way.backend,
            str(through.mode),
            None,
            str(PairStatus.INITIAL) if through.initial else PROXIED,
        ),
        source=Source.BACKEND if way is through else Source.STANDBY,
    )


def passing(
    call: Call, path: LocalPath, way: Through, version: int | None, detail: str | None = None
) -> Entry:
    """What is recorded of a read that passes through."""
    return call.entry(
        READ, Decision.ALLOW, path=path, version=version, backend=way.backend, detail=detail
    )


@asynccontextmanager
async def open_proxying(
    db: Database,
    recorder: Recorder,
    backends: Backends,
    *,
    ids: Callable[[str], str],
    patience: float = PATIENCE_S,
) -> AsyncIterator[Proxying]:
    """Proxied reads for as long as the block lasts; arguments as of `Proxying`."""
    proxying = Proxying(db, recorder, backends, ids=ids, patience=patience)
    tending = asyncio.create_task(proxying.tend(), name="proxied backends")
    try:
        yield proxying
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
        await proxying.close()
