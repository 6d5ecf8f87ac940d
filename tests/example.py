"""The example of a third party's backend, as if its wheel were installed, and a server."""

import itertools
import json
import secrets
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from tests.servers import FaultyTcp
from tests.vaults import source_of

from svsync.config.model import Settings
from svsync.domain.federation import BackendSpec, RuleSpec
from svsync.domain.ids import BackendId, TenantId
from svsync.domain.values import Credential
from svsync.embedded.valkey import ValkeyServer
from svsync.ports import Backend
from svsync.registry import Registry
from svsync.testing.conformance import Ability, CountingGuard

PACKAGE: Final = Path(__file__).parents[1] / "examples/svsync-redis"
KIND: Final = "redis-hash"
RIGHTS: Final = (
    *("+scan", "+get", "+hmget", "+hexists", "+hkeys", "+select"),
    *("+hset", "+hdel", "+watch", "+unwatch", "+multi", "+exec"),
)
STORE: Final = "the store of the tests"
MAX_VALUE: Final = 2000
CAN: Final[frozenset[Ability]] = frozenset(
    {"tokens", "tags", "soft_delete", "destroy", "deny_writes", "outage"}
)
_NUMBERS = itertools.count(1)


def install(folder: Path) -> list[str]:
    """Places for `sys.path` that hold the package and what its wheel says of itself."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text("utf-8"))["project"]
    name = project["name"].replace("-", "_")
    info = folder / f"{name}-{project['version']}.dist-info"
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(about)
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {target}" for key, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return [str(folder), str(PACKAGE / "src")]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The example is installed while the test runs; where it lies."""
    folder = tmp_path / "site"
    folder.mkdir()
    places = install(folder)
    monkeypatch.setattr(sys, "path", [*places, *sys.path])
    return places


def registry(
    fields: Mapping[str, str] | str = "", *plugins: str, allow_loopback: bool = True
) -> Registry:
    """One that may load these plugins, and whose backends sign in with these fields."""

    async def read(spec: BackendSpec, tenant: TenantId) -> Credential:
        given: Credential = await source_of(fields)()
        return given

    settings = Settings(state_dir=".", allow_loopback=allow_loopback, allowed_plugins=plugins)
    return Registry(settings, read)


def spec_of(endpoint: str, prefix: str, **changes: Any) -> BackendSpec:
    return BackendSpec(
        BackendId("fed_redis"),
        "redis",
        KIND,
        (RuleSpec("external/**", f"{prefix}**"),),
        config={"endpoint": endpoint, "auth_config_path": "env:REDIS_LOGIN"},
        max_value_bytes=MAX_VALUE,
        **changes,
    )


@dataclass
class Corner:
    """What a person does in one corner of the server, with a client of their own.

    `user` may do there what the README of the example says, and nothing elsewhere.
    """

    server: ValkeyServer
    hands: Any
    prefix: str
    user: str
    password: str

    @property
    def login(self) -> dict[str, str]:
        return {"username": self.user, "password": self.password}

    async def grant(self, *patterns: str) -> None:
        keys = ("resetkeys", *patterns, "%R~svsync:store")
        words = ("on", f">{self.password}", "-@all", *RIGHTS)
        await self.hands.execute_command("ACL", "SETUSER", self.user, *words, *keys)

    async def put(self, name: str, fields: Mapping[str, str]) -> None:
        key = self.prefix + name
        before = await self.hands.hgetall(key)
        number = int(before.get(b"version", b"0"))
        kept = {
            f"{field}:{number}": before[field.encode()]
            for field in ("value", "id", "made", "deleted")
            if field.encode() in before
        }
        new = {"version": number + 1, "id": secrets.token_hex(8), "made": "1.5", **kept}
        await self.hands.hset(key, mapping={**new, "value": json.dumps(dict(fields))})
        await self.hands.hdel(key, "deleted")

    async def remove(self, name: str) -> None:
        await self.hands.delete(self.prefix + name)

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        await self.hands.hset(self.prefix + name, "tags", json.dumps(dict(tags)))

    async def delete(self, name: str) -> None:
        await self.hands.hset(self.prefix + name, "deleted", "1")

    async def undelete(self, name: str) -> None:
        await self.hands.hdel(self.prefix + name, "deleted")

    async def destroy(self, name: str) -> None:
        await self.hands.hdel(self.prefix + name, "value")


@asynccontextmanager
async def corner_of(server: ValkeyServer) -> AsyncIterator[Corner]:
    async with Redis(port=server.port, password=server.password.reveal()) as hands:
        await hands.set("svsync:store", STORE)
        number = next(_NUMBERS)
        corner = Corner(
            server, hands, f"corner{number}/", f"svsync{number}", secrets.token_urlsafe(16)
        )
        await corner.grant(f"~{corner.prefix}*")
        yield corner


@dataclass
class RedisScene:
    """See `svsync.testing.conformance.Scene`."""

    corner: Corner
    proxy: FaultyTcp
    backend: Backend
    guard: CountingGuard
    can: frozenset[Ability] = CAN
    max_value: int = MAX_VALUE

    @property
    def prefix(self) -> str:
        return self.corner.prefix

    async def put(self, name: str, fields: Mapping[str, str]) -> None:
        await self.corner.put(name, fields)

    async def remove(self, name: str) -> None:
        await self.corner.remove(name)

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        await self.corner.tag(name, tags)

    async def delete(self, name: str) -> None:
        await self.corner.delete(name)

    async def undelete(self, name: str) -> None:
        await self.corner.undelete(name)

    async def destroy(self, name: str) -> None:
        await self.corner.destroy(name)

    async def hide(self, name: str) -> None:
        raise NotImplementedError("SCAN shows every key")

    async def deny(self, folder: str) -> None:
        raise NotImplementedError("SCAN shows every key, so no folder can be denied")

    async def deny_writes(self, folder: str) -> None:
        await self.corner.grant(f"%R~{self.prefix}*")

    async def break_down(self) -> None:
        """The connection breaks at each question, and at a write only once it is on its way."""
        for block in ("HMGET.*HEXISTS", "HMGET.*made.*value", "SCAN", "MULTI"):
            start = rf"(?s)\*\d+\r\n\$\d\r\n{block}"
            self.proxy.strike(start, "reset", times=float("inf"))


@asynccontextmanager
async def scene_on(server: ValkeyServer) -> AsyncIterator[RedisScene]:
    async with corner_of(server) as corner, FaultyTcp(("127.0.0.1", server.port)) as proxy:
        guard = CountingGuard()
        spec = spec_of(f"redis://127.0.0.1:{proxy.port}", corner.prefix)
        driver = registry("", KIND).driver(KIND)
        async with driver.open(spec, source_of(corner.login), guard) as backend:
            yield RedisScene(corner, proxy, backend, guard)
