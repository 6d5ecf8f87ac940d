"""One database, one OpenBao mount and one program for a whole module of commands; and a service
for those that ask one."""

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.acceptance.serving import Served, new_token, serving
from tests.openbao import Bao, new_mount
from tests.postgres import connected, database_dsn
from tests.program import Program, Said

from svsync.embedded.openbao import OpenBaoServer
from svsync.embedded.postgres import EmbeddedPostgres


@dataclass
class Desk:
    """Where one person works: a program, its files, a database, a mount.

    Each backend that a test configures has an id of its own, since all tests of a
    module work on one database.
    """

    program: Program
    folder: Path
    bao: Bao
    database: str
    backends: int = 0

    @property
    def token(self) -> str:
        return self.bao.root_token

    def backend(self, **changes: Any) -> tuple[str, Path]:
        """A file with one backend over the mount; its id, and the file.

        `config` is merged into the backend's own, everything else replaces a key.
        """
        self.backends += 1
        name = f"fed_cli{self.backends}"
        config = {
            "endpoint": self.bao.url,
            "auth_method": "token",
            "auth_config_path": "env:BAO_TOKEN",
            **changes.pop("config", {}),
        }
        spec = {
            "id": name,
            "name": f"vault-{self.backends}",
            "type": "hashicorp-vault",
            "mode": "sync",
            "config": config,
            "path_mapping": [{"local": f"{name}/**", "remote": f"{self.bao.mount}/data/**"}],
            **changes,
        }
        # JSON is YAML.
        return name, self.file({"allow_loopback": True, "backends": [spec]})

    def file(self, document: object) -> Path:
        path = self.folder / f"svsync-{secrets.token_hex(4)}.yaml"
        path.write_text(json.dumps(document, indent=1))
        return path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def desk(
    postgres: EmbeddedPostgres, openbao: OpenBaoServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Desk]:
    async with open_desk(postgres, openbao, tmp_path_factory.mktemp("desk")) as made:
        yield made


@asynccontextmanager
async def open_desk(
    postgres: EmbeddedPostgres, openbao: OpenBaoServer, folder: Path
) -> AsyncIterator[Desk]:
    name = f"cli_{secrets.token_hex(8)}"
    bao = await new_mount(openbao)
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"CREATE DATABASE {name} OWNER svsync")
    environment = {
        "DATABASE_URL": database_dsn(postgres.dsn, name),
        "SVSYNC_STATE_DIR": str(folder / "state"),
        "BAO_TOKEN": openbao.root_token,
    }
    yield Desk(
        program=Program(environment, folder),
        folder=folder,
        bao=bao,
        database=database_dsn(postgres.admin_dsn, name),
    )
    async with connected(postgres.admin_dsn) as admin:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Far:
    """A service that runs for a whole module, and somebody who has nothing but its address.

    Attributes:
        here: the same commands on the store itself.
        asking: `svsync` with the address and an admin's token in its environment.
    """

    here: Program
    asking: Program
    served: Served
    file: Path
    backend: str
    token: str

    async def __call__(self, *args: str, **options: Any) -> Said:
        return await self.asking(*args, **options)

    async def on_the_store(self, *args: str, **options: Any) -> Said:
        return await self.here(*args, "--config", str(self.file), **options)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def far(desk: Desk) -> AsyncIterator[Far]:
    backend, file = desk.backend(sync_interval="1d", conflict_resolution="manual")
    await desk.bao.put("a", {"k": "1"})
    token = await new_token(desk.program, "--config", str(file))
    async with serving(desk.program, "--config", str(file)) as served:
        environment = {"SVSYNC_URL": served.url, "SVSYNC_TOKEN": token}
        asking = Program(environment, desk.folder, desk.program.canary)
        yield Far(desk.program, asking, served, file, backend, token)
        assert await served.stopped() == 0
