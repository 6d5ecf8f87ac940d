"""A whole svsync in a test: its own database, a backend in memory, and eyes on both.

A test puts secrets into the store `there`, lets the house run, and looks at what
is here. Tables are read as superuser, so that nothing a test asserts about went
through the code that it asserts about.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest_asyncio
from tests.postgres import connected

from svsync.app import App, open_app
from svsync.config.model import Settings
from svsync.domain.audit import Entry
from svsync.domain.federation import BackendSpec, Mode, RuleSpec
from svsync.domain.globs import Glob
from svsync.domain.guards import Allow
from svsync.domain.ids import BackendId, LocalPath, TenantId
from svsync.domain.values import Payload, SecretValue
from svsync.observe.tracer import UNTRACED, Tracer
from svsync.ports import Backend, BackendDriver, CallGuard, CredentialSource
from svsync.services.recording import _Slot
from svsync.services.run_ends import Ended
from svsync.services.runs import Request
from svsync.services.write_rows import Put
from svsync.testing.memory import MemoryBackend, MemoryDriver, MemoryStore

if TYPE_CHECKING:  # generic in its stubs only
    Admin = asyncpg.Connection[asyncpg.Record]

TENANT = TenantId(1)
BACKEND = BackendId("fed_house")
EVERYTHING = (RuleSpec("ext/**", "kv/**"),)
ALLOW_ALL = Allow(mass_delete=True, mass_overwrite=True, regression=True)
WORK = frozenset({"stage", "todo", "stage_scopes"})
"""Tables that hold nothing but the work of one run."""
ENDINGS = frozenset({"runs", "run_skips", "leases", "outbox", "backend_health"})
"""Tables that the end of any run writes."""


def backend(
    rules: Iterable[RuleSpec] = EVERYTHING, id: BackendId = BACKEND, **settings: Any
) -> BackendSpec:
    """A synced backend in memory; `settings` as `BackendSpec` names them."""
    given: dict[str, Any] = {"name": id, "type": "memory", "mode": Mode.SYNC} | settings
    return BackendSpec(id=id, rules=tuple(rules), **given)


def settings_for(database_url: str, state_dir: Path, *specs: BackendSpec) -> Settings:
    return Settings(
        database_url=SecretValue(database_url),
        state_dir=str(state_dir),
        backends=specs,
        allow_loopback=True,
        allowed_plugins=("memory",),
    )


@dataclass
class House:
    """One open app with one backend, and the store behind it.

    Attributes:
        there: the remote store; change it as a person would.
        admin: a connection that sees every tenant's rows.
    """

    app: App
    there: MemoryStore
    admin: "Admin"
    spec: BackendSpec

    # --- what people do -----------------------------------------------------------

    async def run(
        self,
        *paths: str,
        dry: bool = False,
        allow: Allow = ALLOW_ALL,
        backend: BackendId = BACKEND,
    ) -> Ended:
        """A full run, or a targeted one of `paths`. Guards are off unless the test says so."""
        globs = tuple(map(Glob, paths)) or None
        request = Request(backend, paths=globs, dry=dry, allow=allow)
        return await self.app.runs.run(TENANT, request, lambda stage, done, total: None)

    async def write(self, path: str, value: Payload | dict[str, str], **put: Any) -> int:
        """A local write; the version it made."""
        payload = value if isinstance(value, Payload) else Payload.from_fields(value)
        answer = await self.app.writes.put(
            TENANT, LocalPath(path), Put(payload, **put), by="sa:test"
        )
        version = answer["version"]
        assert isinstance(version, int)
        return version

    async def bury(self, path: str) -> None:
        """A local delete, as its rows will be: a tombstone that the next run looks at."""
        await self.admin.execute(
            "UPDATE secrets SET state = 'deleted', deleted_at = now(), written_at = now(),"
            " row_rev = row_rev + 1 WHERE path = $1",
            path,
        )
        await self.admin.execute("UPDATE sync_state SET recheck = true WHERE path = $1", path)

    async def configure(self, **changes: Any) -> None:
        """Another configuration of the backend, as the file would bring it."""
        self.spec = replace(self.spec, **changes)
        await self.app.federation.apply([self.spec])

    # --- what is to be seen -------------------------------------------------------

    async def data(self, path: str, version: int | None = None) -> Any:
        """The value, parsed."""
        _, text = await self.app.secrets.get(TENANT, LocalPath(path), version)
        return json.loads(text)

    async def versions(self, path: str) -> list[Any]:
        """All values of a secret, oldest first."""
        row = await self.row("secrets", path=path)
        return [await self.data(path, n + 1) for n in range(row["current_version"])]

    async def row(self, table: str, **where: object) -> Any:
        """The one row with these column values."""
        [row] = await self.rows(table, **where)
        return row

    async def append(self, slot: _Slot, entries: Sequence[Entry], at: datetime) -> None:
        """Rows of the audit log by one of its writers, at a moment."""
        async with self.app.db.line(2.0) as line:
            await slot.append(line, entries, at)

    async def rows(self, table: str, **where: object) -> Sequence[Any]:
        terms = " AND ".join(f"{name} = ${n}" for n, name in enumerate(where, 1)) or "true"
        return await self.admin.fetch(f"SELECT * FROM {table} WHERE {terms}", *where.values())

    async def status(self, path: str) -> str:
        """What is said of the active pair at a local path."""
        word: str = await self.admin.fetchval(
            "SELECT status FROM sync_state WHERE path = $1 AND status NOT IN ('detached')", path
        )
        return word

    async def paths(self) -> list[str]:
        """Live local secrets."""
        rows = await self.admin.fetch("SELECT path FROM secrets WHERE state = 'live' ORDER BY path")
        return [row["path"] for row in rows]

    async def events(self) -> list[str]:
        rows = await self.admin.fetch("SELECT type FROM outbox ORDER BY sequence")
        return [row["type"] for row in rows]

    async def dump(self, *, without: Iterable[str] = WORK) -> dict[str, list[str]]:
        """Every row of every table but those left out, as text."""
        tables = await self.admin.fetch(
            "SELECT relname FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        names = sorted({row["relname"] for row in tables} - set(without))
        return {
            name: sorted(
                row["line"]
                for row in await self.admin.fetch(f"SELECT t::text AS line FROM {name} t")
            )
            for name in names
        }


class Pause:
    """Holds up the first call of one operation, until it is let go."""

    def __init__(self, store: MemoryStore, operation: str, path: str | None = None) -> None:
        self.reached = asyncio.Event()
        self._go = asyncio.Event()
        self._store = store
        self._at = (operation, path)
        store.before = self._wait

    async def _wait(self, operation: str, path: str) -> None:
        if operation == self._at[0] and self._at[1] in (None, path):
            self._store.before = None
            self.reached.set()
            await self._go.wait()

    def let_go(self) -> None:
        self._go.set()


class Odd(MemoryDriver):
    """Opens backends of a class that behaves oddly onto the same store."""

    def __init__(self, store: MemoryStore, made: type[MemoryBackend]) -> None:
        super().__init__(store)
        self.made = made

    def open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AbstractAsyncContextManager[Backend]:
        return aclosing(self.made(self.store, spec, guard))


def counts(ended: Ended) -> dict[str, int]:
    """What a run counted, without the zeros."""
    return {str(name): n for name, n in ended.report.numbers.items() if n}


def skips(ended: Ended) -> dict[str, str]:
    """Reason by remote path."""
    return {skip.remote_path: str(skip.reason) for skip in ended.report.skipped}


def failure(ended: Ended) -> str | None:
    """The code with which a run failed."""
    return None if ended.record.error is None else ended.record.error.code


@asynccontextmanager
async def open_house(
    database_url: str,
    admin_url: str,
    state_dir: Path,
    spec: BackendSpec | None = None,
    *,
    made: type[MemoryBackend] | None = None,
    environ: Mapping[str, str] | None = None,
    tracer: Tracer = UNTRACED,
    drivers: Mapping[str, BackendDriver] | None = None,
) -> AsyncIterator[House]:
    """A house on a database of the test's own; its backends are `made`, if that is given.
    `drivers` of other types are a test's own too."""
    there = MemoryStore()
    spec = spec or backend()
    settings = settings_for(database_url, state_dir, spec)
    all_drivers = {"memory": Odd(there, made or MemoryBackend), **(drivers or {})}
    async with (
        open_app(
            settings, environ=environ or {}, drivers=all_drivers, pool=4, tracer=tracer
        ) as app,
        connected(admin_url) as admin,
    ):
        yield House(app, there, admin, spec)


@pytest_asyncio.fixture
async def house(database_url: str, admin_url: str, state_dir: Path) -> AsyncIterator[House]:
    """A house with one backend that syncs `kv/**` to `ext/**` and is otherwise as it comes."""
    async with open_house(database_url, admin_url, state_dir) as opened:
        yield opened
