"""Connections, transactions, and the statements of `sql/*.sql` by name.

A transaction begins by naming its tenant (row-level security shows nothing
without it) or, for a run, by locking its fence as well: a takeover then waits
for this transaction, or makes it fail before its first write. A plain read of
the fence would let a late writer commit after the takeover.

Session state is never used but for prepared statements, so a connection goes back to the
pool with nothing to reset. A pooler in between has to know prepared statements.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import asyncpg

from svsync.domain.access import TenantShreddedError
from svsync.domain.errors import (
    FenceLostError,
    SchemaError,
    SetupError,
    StoreError,
    StoreUnavailableError,
)
from svsync.domain.ids import BackendId, Fence, TenantId

Row = asyncpg.Record
T = TypeVar("T")
NO_TENANT = TenantId(0)
"""Under which stand the leases of tasks that only one process does at a time."""
_BEGIN = "BEGIN {mode}; SELECT set_config('svsync.tenants', '{tenants}', true), {idle}"
_IDLE = "set_config('idle_in_transaction_session_timeout', '10s', true)"
"""A process that is stopped in the middle keeps nobody waiting for longer than that."""
_ENTER = "BEGIN; SELECT svsync_enter({tenant}, '{backend}', {fence}, {lookups}, {scratch})"
"""In one message with BEGIN: a run has many short transactions, and each message costs more
than what most of them do."""
_FENCE_LOST = "SV001"
"""What `svsync_enter` raises."""
_SHREDDED = "SV002"
"""What is raised where something is written for a tenant that was shredded."""
LOOK_S = 15.0
"""Seconds in which a database that is there answers what looks after all tenants, or after
a lease. One that hangs, without a reset, is known by that alone."""
ANSWER_S = 60.0
"""The same for any other transaction but those of a run, which its lease bounds."""
ACCESSES = 3
"""Connections of the read path: one for each batch under way, and one to spare."""
ROLLBACK_S = 5.0
"""Seconds that an undo, or the end of a connection, may take before it is cut."""

if TYPE_CHECKING:  # generic in its stubs only
    Connection = asyncpg.pool.PoolConnectionProxy[Row]
    Pool = asyncpg.Pool[Row]


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that this process holds: what a run's transactions begin with."""

    tenant: TenantId
    backend: BackendId
    fence: Fence


@cache
def statements() -> dict[str, str]:
    """Every statement by `file.name`, from `-- name: x` blocks in `sql/*.sql`."""
    found: dict[str, str] = {}
    for file in resources.files("svsync.store").joinpath("sql").iterdir():
        if not file.name.endswith(".sql"):
            continue
        noun = file.name.removesuffix(".sql")
        blocks = re.split(r"^-- name: (\w+)\s*$", file.read_text("utf-8"), flags=re.MULTILINE)
        for name, body in zip(blocks[1::2], blocks[2::2], strict=True):
            found[f"{noun}.{name}"] = body.strip().rstrip(";")
    return found


class Transaction:
    """Statements by name, inside one transaction of one tenant."""

    def __init__(
        self, connection: "Connection", tenant: TenantId, seconds: float | None = None
    ) -> None:
        self._connection = connection
        self._seconds = seconds
        self.tenant = tenant

    async def fetch(self, name: str, *args: object) -> list[Row]:
        with translated():
            return await self._connection.fetch(statements()[name], *args, timeout=self._seconds)

    async def fetchrow(self, name: str, *args: object) -> Row | None:
        with translated():
            return await self._connection.fetchrow(statements()[name], *args, timeout=self._seconds)

    async def fetchval(self, name: str, *args: object) -> Any:
        with translated():
            return await self._connection.fetchval(statements()[name], *args, timeout=self._seconds)

    async def execute(self, name: str, *args: object) -> int:
        """Run a statement; the number of rows it touched."""
        with translated():
            status = await self._connection.execute(
                statements()[name], *args, timeout=self._seconds
            )
        count = status.rsplit(" ", 1)[-1]
        return int(count) if count.isdigit() else 0

    async def copy(
        self, table: str, columns: Sequence[str], records: Iterable[Sequence[object]]
    ) -> int:
        """COPY records in; the number of rows that arrived."""
        with translated():
            status = await self._connection.copy_records_to_table(
                table, columns=list(columns), records=records, timeout=self._seconds
            )
        return int(status.rsplit(" ", 1)[-1])

    @asynccontextmanager
    async def keeping_plans(self) -> AsyncIterator[None]:
        """For many new rows with foreign keys in a transaction with `lookups`: how the rows
        that they name are found is planned once, not once a row."""
        await self.execute("database.drop_plans")
        await self.execute("database.keep_plans")
        yield
        await self.execute("database.plan_anew")

    async def learn_sizes(self) -> None:
        """Let the planner look at tables that were empty when it last did."""
        if await self.fetchval("database.never_analyzed"):
            await self.execute("database.analyze")


class ReadElsewhere(Protocol):
    """A replica; see `store.replica`."""

    async def read(
        self, tenant: TenantId, work: Callable[[Transaction], Awaitable[T]]
    ) -> tuple[T] | None: ...


class Line:
    """See `Database.line`."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    async def call(self, name: str, *args: object, seconds: float) -> list[Row]:
        """As `Database.call`."""
        with translated():
            return await self._connection.fetch(statements()[name], *args, timeout=seconds)


class Database:
    """Connections to one Postgres, as one ordinary role.

    Renewals of leases have connections of their own: a run that uses up the pool must
    not keep itself, or another run, from renewing. So has the read path: no run delays a
    read.

    Attributes:
        replica: what may be a moment old is read there; None: there is none.
    """

    replica: ReadElsewhere | None = None

    def __init__(self, pool: "Pool", renewals: "Pool", accesses: "Pool") -> None:
        self._pool = pool
        self._renewals = renewals
        self._accesses = accesses

    @asynccontextmanager
    async def transaction(
        self,
        tenant: TenantId,
        *,
        held: Held | None = None,
        lookups: bool = False,
        scratch: bool = False,
        read_only: bool = False,
        renewal: bool = False,
    ) -> AsyncIterator[Transaction]:
        """One transaction of `tenant`; with `held`, under that run's fence.

        With `lookups` a run's transaction plans every statement for the tables as they
        are now, not as they were when it was prepared: they grow under a first import.
        With `scratch` its commit does not wait for the disk: it holds nothing but the
        run's own work rows and place.

        Raises:
            FenceLostError: the lease changed hands or the backend was reconfigured.
            TenantShreddedError: the tenant was shredded, and something of it was to be sealed, or
                a backend of it to be used.
            StoreUnavailableError: Postgres cannot be reached.
            StoreError: Postgres refused a statement, or to commit.
        """
        pool, seconds = (self._renewals, LOOK_S) if renewal else (self._pool, ANSWER_S)
        bound = seconds if held is None else None
        begin = _begin([tenant], read_only) if held is None else _enter(held, lookups, scratch)
        async with _transaction(pool, begin, bound) as connection:
            yield Transaction(connection, tenant, bound)

    async def read(self, tenant: TenantId, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """What `work` finds, which may be a moment old: from a replica, where there is one that
        is near enough, and has it. Nothing may be decided by it.

        `work` changes nothing, and may be called twice.

        Raises: as `transaction`, and what `work` raises.
        """
        if self.replica is not None:
            found = await self.replica.read(tenant, work)
            if found is not None:
                return found[0]
        async with self.transaction(tenant, read_only=True) as tx:
            return await work(tx)

    @asynccontextmanager
    async def transaction_of(
        self, tenants: Sequence[TenantId], *, read_only: bool = False
    ) -> AsyncIterator[Transaction]:
        """One transaction that sees the rows of several tenants, for what looks after all of
        them. Its statements say which; it has no tenant of its own.

        Raises: as `transaction`.
        """
        async with _transaction(self._pool, _begin(tenants, read_only), LOOK_S) as connection:
            yield Transaction(connection, NO_TENANT, LOOK_S)

    async def call(self, name: str, *args: object, seconds: float) -> list[Row]:
        """A statement of the read path, which names its tenants and commits by itself.

        Raises: as `transaction`; after StoreUnavailableError it may have been done.
        """
        async with self.line(seconds) as line:
            return await line.call(name, *args, seconds=seconds)

    @asynccontextmanager
    async def line(self, seconds: float) -> AsyncIterator["Line"]:
        """A connection for statements of the read path that follow each other. Whoever has it
        asks for no other one.

        Raises: as `transaction`.
        """
        async with _borrowed(self._accesses, seconds) as connection:
            yield Line(connection)

    async def fetch_global(self, name: str, *args: object) -> list[Row]:
        """A statement on the few tables that belong to no tenant.

        Raises: as `transaction`.
        """
        async with _borrowed(self._pool, LOOK_S) as connection:
            with translated():
                return await connection.fetch(statements()[name], *args, timeout=LOOK_S)


@asynccontextmanager
async def _borrowed(pool: "Pool", seconds: float | None) -> AsyncIterator["Connection"]:
    """A connection of the pool; one that does not come back to rest soon is cut."""
    with translated():
        connection = await pool.acquire(timeout=seconds)
    try:
        yield connection
    finally:
        with suppress(TimeoutError, asyncpg.InterfaceError):
            await pool.release(connection, timeout=ROLLBACK_S)


def _begin(tenants: Sequence[TenantId], read_only: bool) -> str:
    """Begins a transaction that sees the rows of these tenants."""
    return _BEGIN.format(
        mode="READ ONLY" if read_only else "",
        tenants=",".join(str(int(tenant)) for tenant in tenants),
        idle=_IDLE,
    )


def _enter(held: Held, lookups: bool, scratch: bool) -> str:
    """Begins a transaction under a run's fence, which it locks."""
    return _ENTER.format(
        tenant=int(held.tenant),
        backend=_plain(held.backend),
        fence=int(held.fence),
        lookups=lookups,
        scratch=scratch,
    )


def _plain(backend: BackendId) -> str:
    """An id as it may stand between quotes: the rules for ids leave it nothing else."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", backend):
        raise StoreError("an id of a backend is letters, digits, `_` and `-`")
    return backend


@asynccontextmanager
async def _transaction(
    pool: "Pool", begin: str, seconds: float | None
) -> AsyncIterator["Connection"]:
    """A transaction that `begin` begins; each of its waits is bounded."""
    async with _borrowed(pool, seconds) as connection:
        try:
            with translated():
                await connection.execute(begin, timeout=seconds)
            yield connection
            with translated():
                ended = await connection.execute("COMMIT", timeout=seconds)
            if ended != "COMMIT":  # what Postgres answers where a statement had failed
                raise StoreError("the database undid a transaction instead of committing it")
        except BaseException:
            await _roll_back(connection)
            raise


async def _roll_back(connection: "Connection") -> None:
    """Undo; a connection that does not answer is cut, which undoes as well. So is one that
    failed to begin or to commit: the pool would wait for it, for ever on a dead peer."""
    try:
        await connection.execute("ROLLBACK", timeout=ROLLBACK_S)
    except BaseException as failed:
        with suppress(asyncpg.InterfaceError):  # closed already, and back in the pool
            connection.terminate()
        if not isinstance(failed, Exception):
            raise


class translated:
    """Postgres's errors as ours: a code and our own words, never its text.

    The server's message and asyncpg's own may quote a parameter, so neither is
    passed on, and the cause is cut off.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case None | StoreError():
                return
            case asyncpg.DiskFullError():
                raise SetupError(
                    "the database's disk is full: free some space and run again; nothing was lost",
                    code="disk_full",
                ) from None
            case asyncpg.ReadOnlySQLTransactionError():
                raise StoreUnavailableError(
                    "the database accepts no writes: it is a standby or set read-only"
                ) from None
            case (
                asyncpg.PostgresConnectionError()
                | asyncpg.CannotConnectNowError()
                | asyncpg.OperatorInterventionError()
                | asyncpg.IdleInTransactionSessionTimeoutError()
                | asyncpg.InsufficientResourcesError()
            ):
                raise StoreUnavailableError(_LOST) from None
            case asyncpg.InvalidCachedStatementError():
                # Once a connection: a migration changed what the statement gives.
                raise StoreUnavailableError(
                    "the database's schema was changed meanwhile: try again"
                ) from None
            case asyncpg.PostgresError(sqlstate=code) if code == _FENCE_LOST:
                raise FenceLostError(
                    "the run was taken over, or its backend was reconfigured: it stops"
                ) from None
            case asyncpg.PostgresError(sqlstate=code) if code == _SHREDDED:
                raise TenantShreddedError from None
            case asyncpg.PostgresError():
                kind = f"{type(error).__name__}, SQLSTATE {error.sqlstate}"
                raise StoreError(f"the database refused a statement ({kind})") from None
            case asyncpg.DataError() | UnicodeError():
                raise StoreError("a record could not be sent to the database") from None
            case asyncpg.InterfaceError() | asyncpg.InternalClientError() | OSError():
                # InternalClientError: a connection that was cut while it lay idle. OSError:
                # TimeoutError, refused, reset, no such socket, no such host.
                raise StoreUnavailableError(_LOST) from None


_LOST = "the connection to the database was lost: start it, or check DATABASE_URL"


async def _no_reset(_connection: object) -> None:
    """State is transaction-local, so there is nothing to reset."""


@asynccontextmanager
async def open_database(dsn: str, *, size: int = 8) -> AsyncIterator[Database]:
    """A pool on `dsn`, refused to a role that row-level security would not bind.

    Raises:
        StoreUnavailableError: no connection, wrong password, no such database.
        SchemaError: the role is superuser or has BYPASSRLS.
    """
    async with (
        _pool(dsn, 1, size) as pool,
        _pool(dsn, 0, 2) as renewals,
        _pool(dsn, 0, ACCESSES) as accesses,
    ):
        await _refuse_powerful_role(pool)
        yield Database(pool, renewals, accesses)


@asynccontextmanager
async def open_spare(dsn: str, *, size: int) -> AsyncIterator[Database]:
    """Connections to another server of the same database, made when they are first needed, for
    looks that need not succeed.

    Raises StoreUnavailableError: the address is none.
    """
    async with _pool(dsn, 0, size) as pool:
        yield Database(pool, pool, pool)


@asynccontextmanager
async def _pool(dsn: str, least: int, most: int) -> AsyncIterator["Pool"]:
    """A pool whose end does not wait for a database that does not answer."""
    pool = await _connect(dsn, least, most)
    try:
        yield pool
    finally:
        with suppress(TimeoutError):  # by then its connections were cut
            await asyncio.wait_for(pool.close(), ROLLBACK_S)


async def _connect(dsn: str, least: int, most: int) -> "Pool":
    try:
        return await asyncpg.create_pool(
            dsn,
            min_size=least,
            max_size=most,
            reset=_no_reset,
            timeout=10,
            command_timeout=600,
            server_settings={
                "application_name": "svsync",
                # A peer that vanished is noticed within half a minute.
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
            },
        )
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        raise StoreUnavailableError(
            "the database refused the user or password in DATABASE_URL"
        ) from None
    except asyncpg.InvalidCatalogNameError:
        raise StoreUnavailableError(
            "the database named in DATABASE_URL does not exist: create it first"
        ) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise StoreUnavailableError(
            f"the database cannot be reached ({type(error).__name__}): start it, or check"
            " DATABASE_URL"
        ) from None
    except ValueError:
        raise StoreUnavailableError(
            "DATABASE_URL is not an address of the form postgresql://user:password@host:5432/name"
        ) from None


async def _refuse_powerful_role(pool: "Pool") -> None:
    row = await pool.fetchrow(statements()["database.own_role"])
    assert row is not None
    if row["powerful"]:
        raise SchemaError(
            f"the database role {row['name']!r} is superuser or has BYPASSRLS and could read"
            " across tenants: use an ordinary role that owns the database",
            code="role_too_powerful",
        )
