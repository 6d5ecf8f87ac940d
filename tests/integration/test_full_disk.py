"""A full disk under the embedded PostgreSQL, which then ends itself."""

from pathlib import Path

import pytest

from svsync.app import open_app
from svsync.config.load import load
from svsync.domain.errors import SetupError, StoreUnavailableError


async def _lose_the_connection(state_dir: Path, logged: str) -> None:
    async with open_app(load(None, {"SVSYNC_STATE_DIR": str(state_dir)})):
        with (state_dir / "postgres" / "postgres.log").open("a") as log:
            log.write(logged + "\n")
        raise StoreUnavailableError("the connection was lost")


async def test_a_lost_connection_is_called_a_full_disk_if_the_server_says_so(
    state_dir: Path,
) -> None:
    logged = "PANIC:  could not write to file: No space left on device"
    with pytest.raises(SetupError, match="is full: free some space"):
        await _lose_the_connection(state_dir, logged)


async def test_a_lost_connection_is_no_full_disk_otherwise(state_dir: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="connection was lost"):
        await _lose_the_connection(state_dir, "LOG:  received fast shutdown request")
