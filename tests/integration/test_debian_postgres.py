"""Is Debian's PostgreSQL what the tests get where they ask for it?"""

from pathlib import Path

from tests.debian import server_named
from tests.postgres import connected

from svsync.embedded.postgres_install import wheel_programs

_PROGRAMS = "SELECT setting FROM pg_config WHERE name = 'BINDIR'"


async def test_debians_server_stands_where_the_embedded_one_would(state_dir: Path) -> None:
    opened = server_named("debian")
    async with opened(state_dir, durable=False) as server:
        async with connected(server.admin_dsn) as admin:
            programs = Path(str(await admin.fetchval(_PROGRAMS)))
            started = await admin.fetchval("SELECT pg_postmaster_start_time()")
        async with opened(state_dir, durable=False) as same, connected(same.dsn) as other:
            assert await other.fetchval("SELECT pg_postmaster_start_time()") == started
            assert await other.fetchval("SELECT current_user") == "svsync"
    assert programs.is_relative_to("/usr/lib/postgresql")
    assert programs != wheel_programs()
    assert not (state_dir / "postgres/data/postmaster.pid").exists()
