"""Three processes of the service over one store, on servers that can be made to fail.

Everything is real: processes, PostgreSQL, Valkey, an OpenBao that survives its restart,
receivers of webhooks. What goes between them goes through proxies, a process's way to
PostgreSQL through one of its own, so that one may be cut off while the others go on.
Two tenants share all of it.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.fault_evidence import Written
from tests.acceptance.serving import Served, new_token, start_serving
from tests.canary import Canary
from tests.debian import Server
from tests.openbao import Bao, new_mount
from tests.postgres import connected, database_dsn
from tests.program import Program
from tests.receivers import Receiver
from tests.servers import FaultyTcp

from svsync.config.load import load
from svsync.config.model import Settings
from svsync.embedded.openbao import OpenBaoServer, openbao_server
from svsync.embedded.postgres import EmbeddedPostgres
from svsync.embedded.valkey import valkey_server

INTERVAL_S = 30
"""The shortest there is."""
SEND_CLOSING_ONLY = ("federation.sync.completed", "federation.sync.failed")
RECEIVERS = {"all": "default", "closing": "default", "other": "other"}
"""Receivers of webhooks, and whose they are."""
_MANY = 10_000
"""Versions that a secret keeps, on either side: all that are ever made."""


@dataclass(frozen=True)
class Side:
    """A backend as it is configured; its local paths begin with `prefix`."""

    tenant: str
    id: str
    prefix: str
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def written(self) -> bool:
        """Somebody writes here, too."""
        return "writes" in self.settings


def _written_through(policy: str, *, deletes: bool = False) -> dict[str, object]:
    return {
        "writes": "write_through",
        "conflict_resolution": policy,
        "propagate_deletes": deletes,
        # So few names that a few deletes, which wait for an outage to end, are many of them.
        "guard": {"max_delete_ratio": 1, "max_delete_count": 1000},
    }


PULLED = Side("default", "fed_fault0", "pulled")
BY_HAND = Side("default", "fed_fault2", "byhand", _written_through("manual"))
SIDES = (
    PULLED,
    Side("default", "fed_fault1", "herefirst", _written_through("local_wins", deletes=True)),
    BY_HAND,
    Side("other", "fed_fault3", "therefirst", _written_through("backend_wins", deletes=True)),
)


class Store:
    """A PostgreSQL of its own that can be restarted, behind a TCP port.

    It writes what it has committed to the disk, for it crashes, too.
    """

    def __init__(self, folder: Path, made: Server) -> None:
        self._folder = folder
        self._made = made
        self._stack = AsyncExitStack()
        self.server: EmbeddedPostgres | None = None
        self.port = 0

    @property
    def admin(self) -> str:
        assert self.server is not None
        return database_dsn(self.server.admin_dsn, "svsync")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Store"]:
        await self._up()
        door = await asyncio.start_server(self._through, "127.0.0.1", 0)
        self.port = door.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            door.close()
            await self._stack.aclose()

    async def restart(self, *, crash: bool) -> None:
        """In order, or as after a crash: unlogged tables are empty then."""
        if crash:
            pid_file = self._folder / "postgres/data/postmaster.pid"
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
        await self._stack.aclose()
        await self._up()

    async def kill(self) -> None:
        """Kill every process of it (`kill -9`), and start it again."""
        pid = (self._folder / "postgres/data/postmaster.pid").read_text().split()[0]
        for process in (pid, *_children(pid)):
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        await self._stack.aclose()
        await self._up()

    async def _up(self) -> None:
        self.server = await self._stack.enter_async_context(self._made(self._folder))

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to the server's socket."""
        path = str(self._folder / "postgres/run/.s.PGSQL.5432")
        with suppress(OSError):
            up_reader, up_writer = await asyncio.open_unix_connection(path)
            ways = [_pass_on(reader, up_writer), _pass_on(up_reader, writer)]
            await asyncio.gather(*ways)
        writer.close()


def _children(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


@dataclass
class Place:
    """Where one process of the service runs; a new one starts when it ends.

    Attributes:
        store: its own way to PostgreSQL.
        told: its process was ended, or is about to be, by us.
    """

    name: str
    program: Program
    store: FaultyTcp
    args: tuple[str, ...]
    served: Served | None = None
    told: bool = False
    all: list[Served] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def up(self) -> bool:
        return self.served is not None and bool(self.served.told("serving"))

    async def keep(self) -> None:
        """As a service manager does. One that could not start tries again."""
        while True:
            self.told = False
            self.served = await start_serving(self.program, *self.args)
            self.all.append(self.served)
            code = await self.served.process.wait()
            await self.served.aclose()
            if not self.told and (self.up or code != 1):
                self.said.append(f"{self.name} ended by itself with {code}")
            if not self.up:
                await asyncio.sleep(0.5)

    async def aclose(self) -> None:
        """No process is left, whatever became of it."""
        for served in self.all:
            await served.aclose()

    def end(self, number: signal.Signals) -> None:
        """End the process; the next one starts."""
        if self.served is not None:
            self.told = True
            with suppress(ProcessLookupError):
                self.served.tell(number)


@dataclass
class Estate:
    """All that there is, and what was answered to those who use it.

    Attributes:
        mounts: by the id of their backend.
        tokens: by tenant.
        wrote_here, wrote_there: what was answered as done, each with its local path.
        refused: values that were refused here, with their paths.
    """

    folder: Path
    canary: Canary
    store: Store
    bao: OpenBaoServer
    mounts: dict[str, Bao]
    receivers: dict[str, Receiver]
    proxies: dict[str, FaultyTcp]
    places: list[Place]
    file: Path
    tokens: dict[str, str]
    environment: dict[str, str]
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    wrote_here: list[Written] = field(default_factory=list)
    wrote_there: list[Written] = field(default_factory=list)
    refused: list[tuple[str, object]] = field(default_factory=list)

    async def query(self, text: str, *args: object) -> list[Any]:
        async with connected(self.store.admin) as admin:
            return await admin.fetch(text, *args)

    @property
    def settings(self) -> Settings:
        """Those of a process that nothing stands before."""
        return load(str(self.file), self.environment)


@asynccontextmanager
async def open_estate(folder: Path, made: Server) -> AsyncIterator[Estate]:
    """Servers, the store as `made`, receivers and three processes of the service; all end
    with the block."""
    canary = Canary()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        store = await enter(Store(folder, made).running())
        bao = await enter(openbao_server(folder / "bao", storage="raft"))
        valkey = await enter(valkey_server(folder / "valkey", tcp=True))
        receivers = {name: await enter(Receiver()) for name in RECEIVERS}
        targets = {
            "bao": ("127.0.0.1", bao.port),
            "redis": ("127.0.0.1", valkey.port),
            **{name: _address(receiver.url) for name, receiver in receivers.items()},
        }
        proxies = {name: await enter(FaultyTcp(target)) for name, target in targets.items()}
        mounts = {side.id: await _new_mount(bao) for side in SIDES}
        file = folder / "svsync.yaml"
        file.write_text(json.dumps(_configuration(mounts, proxies["bao"].url)))
        assert store.server is not None
        environment = {
            "DATABASE_URL": store.server.dsn,
            "SVSYNC_STATE_DIR": str(folder / "state"),
            "BAO_TOKEN": bao.root_token,
        }
        at = ("--config", str(file))
        operator = Program(environment, folder, canary)
        tokens = {"default": await new_token(operator, *at)}
        await _make_tenant(store)
        tokens["other"] = await new_token(operator, *at, "--tenant", "other")
        urls = {name: f"{proxies[name].url}/hook" for name in receivers}
        await asyncio.gather(*(_add_webhook(operator, n, url, *at) for n, url in urls.items()))
        places = []
        redis = f"redis://:{valkey.password.reveal()}@127.0.0.1:{proxies['redis'].port}"
        for n in range(3):
            way = await enter(FaultyTcp(("127.0.0.1", store.port)))
            own = {
                "DATABASE_URL": f"postgresql://svsync@127.0.0.1:{way.port}/svsync?sslmode=disable"
            }
            program = Program({**environment, **own, "REDIS_URL": redis}, folder, canary)
            place = Place(f"process {n}", program, way, at)
            stack.push_async_callback(place.aclose)
            places.append(place)
        yield Estate(
            folder=folder,
            canary=canary,
            store=store,
            bao=bao,
            mounts=mounts,
            receivers=receivers,
            proxies=proxies,
            places=places,
            file=file,
            tokens=tokens,
            environment=environment,
        )


async def _new_mount(bao: OpenBaoServer) -> Bao:
    mount = await new_mount(bao)
    await mount.request("POST", f"{mount.mount}/config", {"max_versions": _MANY})
    return mount


async def _make_tenant(store: Store) -> None:
    """The second one; the first is there from the beginning."""
    async with connected(store.admin) as admin:
        await admin.execute("INSERT INTO tenants (slug) VALUES ('other')")


async def _add_webhook(operator: Program, name: str, url: str, *at: str) -> None:
    only = SEND_CLOSING_ONLY if name == "closing" else ()
    types = [word for kind in only for word in ("--type", kind)]
    of = ("--tenant", RECEIVERS[name], *at, "--json")
    added = await operator("webhooks", "add", url, *types, *of)
    assert added.code == 0, added.err


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition("/")[0].rpartition(":")
    return host, int(port)


def _configuration(mounts: dict[str, Bao], endpoint: str) -> dict[str, object]:
    return {
        "allow_loopback": True,
        "allow_private_targets": True,
        "unreachable_after": 2,
        "shutdown_grace": "8s",
        "backends": [
            {
                "id": side.id,
                "tenant": side.tenant,
                "name": side.id,
                "type": "hashicorp-vault",
                "mode": "sync",
                "sync_interval": f"{INTERVAL_S}s",
                "max_versions": _MANY,
                "config": {
                    "endpoint": endpoint,
                    "auth_method": "token",
                    "auth_config_path": "env:BAO_TOKEN",
                },
                "path_mapping": [
                    {
                        "local": f"{side.prefix}/**",
                        "remote": f"{mounts[side.id].mount}/data/**",
                    }
                ],
                **side.settings,
            }
            for side in SIDES
        ],
    }
