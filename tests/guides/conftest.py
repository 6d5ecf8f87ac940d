"""One service for whoever follows a guide, from its beginning to its end."""

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from tests.acceptance.serving import Served, ask, serving
from tests.postgres import connected, database_dsn
from tests.program import Program, until

from svsync.embedded.postgres import EmbeddedPostgres


@dataclass
class Site:
    """`svsync serve`, whose operator allows what is on loopback, and its operator's hands."""

    program: Program
    served: Served

    @property
    def url(self) -> str:
        return self.served.url

    async def token(self, identity: str, *scopes: str) -> str:
        made = await self.program(
            "tokens", "create", "--identity", identity, "--scope", *scopes, "--json"
        )
        return str(made.json["token"])

    async def get(self, path: str, token: str) -> Any:
        """The answer to a GET, which must be 200."""
        answer = await ask(self.url, path, token=token)
        assert answer.status == 200, answer
        return answer.json

    async def synced(self, backend: str, token: str, names: int) -> Any:
        """The status of a backend, once a run of it brought so many names in."""
        found: dict[str, Any] = {}

        async def brought() -> bool:
            status = await self.get(f"/v1/federation/backends/{backend}/status", token)
            found.update(status)
            return found["last_success_at"] is not None and found["secrets_synced"] == names

        await until(brought)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    name = f"guide_{secrets.token_hex(8)}"
    folder = tmp_path_factory.mktemp("site")
    file = folder / "svsync.yaml"
    file.write_text(json.dumps({"allow_loopback": True}))
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"CREATE DATABASE {name} OWNER svsync")
    environment = {
        "DATABASE_URL": database_dsn(postgres.dsn, name),
        "SVSYNC_STATE_DIR": str(folder / "state"),
    }
    program = Program(environment, folder)
    async with serving(program, "--config", str(file)) as served:
        yield Site(program, served)
        assert await served.stopped() == 0
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
