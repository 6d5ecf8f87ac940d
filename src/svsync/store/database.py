"""Connections, transactions, and the statements of `sql/*.sql` by name.

A transaction begins by naming its tenant (row-level security shows nothing
without it) or, for a run, by locking its fence as well: a takeover then waits
for this transaction, or makes it fail before its first write. A plain read of
the fence would let a late writer commit after the takeover.

Session state is never used, so a connection goes back to the pool with nothing
to reset, and a transaction pooler in between does no harm.
"""

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import asyncpg

from svsync.domain.errors import (
    FenceLostError,
    SchemaError,
    SetupError,
    StoreError,
    StoreUnavailableError,
)
from svsync.domain.ids import BackendId, Fence, TenantId

Row = asyncpg.Record

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

    def __init__(self, connection: "Connection", tenant: TenantId) -> None:
        self._connection = connection
        self.tenant = tenant

    async def fetch(self, name: str, *args: object) -> list[Row]:
        return await self._connection.fetch(statements()[name], *args)

    async def fetchrow(self, name: str, *args: object) -> Row | None:
        return await self._connection.fetchrow(statements()[name], *args)

    async def fetchval(self, name: str, *args: object) -> Any:
        return await self._connection.fetchval(statements()[name], *args)

    async def execute(self, name: str, *args: object) -> int:
        """Run a statement; the number of rows it touched."""
        status = await self._connection.execute(statements()[name], *args)
        count = status.rsplit(" ", 1)[-1]
        return int(count) if count.isdigit() else 0

    async def copy(
        self, table: str, columns: Sequence[str], records: Iterable[Sequence[object]]
    ) -> int:
        """COPY records in; the number of rows that arrived."""
        status = await self._connection.copy_records_to_table(
            table, columns=list(columns), records=records
        )
        return int(status.rsplit(" ", 1)[-1])

    async def learn_sizes(self) -> None:
        """Let the planner look at tables that were empty when it last did."""
        if await self.fetchval("database.never_analyzed"):
            await self.execute("database.analyze")


class Database:
    """A pool of connections to one Postgres, as one ordinary role."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(
        self,
        tenant: TenantId,
        *,
        held: Held | None = None,
        lookups: bool = False,
        read_only: bool = False,
    ) -> AsyncIterator[Transaction]:
        """One transaction of `tenant`; with `held`, under that run's fence.

        With `lookups` a run's transaction plans every statement for the tables as they
        are now, not as they were when it was prepared: they grow under a first import.

        Raises:
            FenceLostError: the lease changed hands or the backend was reconfigured.
            StoreUnavailableError: Postgres cannot be reached.
            StoreError: Postgres refused a statement; the code is its SQLSTATE's name.
        """
        with translated():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(readonly=read_only),
            ):
                if held is None:
                    name = "SELECT set_config('svsync.tenants', $1, true)"
                    await connection.execute(name, str(tenant))
                else:
                    enter = "SELECT svsync_enter($1, $2, $3, $4)"
                    alive = await connection.fetchval(
                        enter, held.tenant, held.backend, held.fence, lookups
                    )
                    if not alive:
                        raise FenceLostError(
                            f"the run of {held.backend} was taken over or reconfigured: it stops"
                        )
                yield Transaction(connection, tenant)

    async def fetch_global(self, name: str, *args: object) -> list[Row]:
        """A statement on the few tables that belong to no tenant."""
        with translated():
            return await self._pool.fetch(statements()[name], *args)

    async def close(self) -> None:
        await self._pool.close()


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
                | asyncpg.AdminShutdownError()
                | asyncpg.CrashShutdownError()
                | asyncpg.TooManyConnectionsError()
            ):
                raise StoreUnavailableError(
                    "the connection to the database was lost: start it, or check DATABASE_URL"
                ) from None
            case asyncpg.InterfaceError() if "closed" in str(error) or "closing" in str(error):
                raise StoreUnavailableError(
                    "the connection to the database was lost: start it, or check DATABASE_URL"
                ) from None
            case asyncpg.PostgresError():
                kind = f"{type(error).__name__}, SQLSTATE {error.sqlstate}"
                raise StoreError(f"the database refused a statement ({kind})") from None
            case asyncpg.InterfaceError() | UnicodeError():
                raise StoreError(
                    f"a statement could not be sent ({type(error).__name__})"
                ) from None
            case ConnectionError():
                raise StoreUnavailableError(
                    "the database cannot be reached: start it, or check DATABASE_URL"
                ) from None


async def _no_reset(_connection: object) -> None:
    """State is transaction-local, so there is nothing to reset."""


@asynccontextmanager
async def open_database(dsn: str, *, size: int = 8) -> AsyncIterator[Database]:
    """A pool on `dsn`, refused to a role that row-level security would not bind.

    Raises:
        StoreUnavailableError: no connection, wrong password, no such database.
        SchemaError: the role is superuser or has BYPASSRLS.
    """
    pool = await _connect(dsn, size)
    try:
        await _refuse_powerful_role(pool)
        yield Database(pool)
    finally:
        await pool.close()


async def _connect(dsn: str, size: int) -> "Pool":
    try:
        return await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            reset=_no_reset,
            timeout=10,
            command_timeout=600,
            server_settings={"application_name": "svsync"},
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
