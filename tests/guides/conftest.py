"""A service that guides are followed against."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.serving import Served, ask, serving
from tests.program import Program, until


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

    async def synced(self, backend: str, token: str, secrets: int) -> Any:
        """The status of a backend, once a run of it brought so many secrets in."""
        found: dict[str, Any] = {}

        async def brought() -> bool:
            status = await self.get(f"/v1/federation/backends/{backend}/status", token)
            found.update(status)
            return found["last_success_at"] is not None and found["secrets_synced"] == secrets

        await until(brought)
        return found


@pytest.fixture
async def site(database_url: str, state_dir: Path) -> AsyncIterator[Site]:
    environment = {"DATABASE_URL": database_url, "SVSYNC_STATE_DIR": str(state_dir)}
    program = Program(environment, state_dir)
    file = state_dir / "svsync.yaml"
    file.write_text(json.dumps({"allow_loopback": True}))
    async with serving(program, "--config", str(file)) as served:
        yield Site(program, served)
        assert await served.stopped() == 0
