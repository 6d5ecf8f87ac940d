"""Do errors on the way to Postgres come out as ours, whatever raised them?"""

import socket
from pathlib import Path

import asyncpg
import pytest

from svsync.domain.errors import StoreError, StoreUnavailableError
from svsync.domain.ids import TenantId
from svsync.store.database import Database, translated


@pytest.mark.parametrize(
    "raised",
    [
        TimeoutError("hunter2"),
        socket.gaierror(-2, "hunter2"),
        ConnectionRefusedError("hunter2"),
        ConnectionResetError("hunter2"),
        FileNotFoundError("hunter2"),
        asyncpg.InterfaceError("hunter2"),
        asyncpg.ConnectionDoesNotExistError("hunter2"),
        asyncpg.AdminShutdownError("hunter2"),
        asyncpg.TooManyConnectionsError("hunter2"),
        asyncpg.IdleInTransactionSessionTimeoutError("hunter2"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_lost_connection_is_an_unavailable_store(raised: Exception) -> None:
    with pytest.raises(StoreUnavailableError) as told, translated():
        raise raised
    assert "hunter2" not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__


@pytest.mark.parametrize(
    "raised",
    [
        asyncpg.UniqueViolationError("hunter2"),
        asyncpg.DataError("hunter2"),
        UnicodeError("hunter2"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_refused_statement_is_no_lost_connection(raised: Exception) -> None:
    with pytest.raises(StoreError) as told, translated():
        raise raised
    assert not isinstance(told.value, StoreUnavailableError)
    assert "hunter2" not in str(told.value)


def test_what_is_no_matter_of_the_store_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), translated():
        raise ZeroDivisionError


async def test_server_that_is_not_there_is_an_unavailable_store(tmp_path: Path) -> None:
    dsn = f"postgresql://someone@/somewhere?host={tmp_path}"
    async with asyncpg.create_pool(dsn, min_size=0) as pool:
        for renewal in (False, True):
            with pytest.raises(StoreUnavailableError):
                async with Database(pool, pool, pool).transaction(TenantId(1), renewal=renewal):
                    pass
