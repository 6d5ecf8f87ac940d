"""What a measurement stands on: a durable PostgreSQL, a filled OpenBao, fresh databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from svsync.embedded.openbao import OpenBaoServer, openbao_server
from svsync.embedded.postgres import EmbeddedPostgres

MOUNT, COPY_MOUNT = "kv", "copy"
FOLDERS = 100
_WRITERS = 64
_POLICY = f"""
path "{MOUNT}/data/*" {{ capabilities = ["read", "list"] }}
path "{MOUNT}/metadata/*" {{ capabilities = ["read", "list"] }}
path "{MOUNT}/detailed-metadata/*" {{ capabilities = ["list"] }}
path "sys/internal/ui/mounts/*" {{ capabilities = ["read"] }}
path "auth/token/lookup-self" {{ capabilities = ["read"] }}
path "auth/token/renew-self" {{ capabilities = ["update"] }}
path "auth/token/revoke-self" {{ capabilities = ["update"] }}
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A filled OpenBao: `token` and the role have the same narrow policy, `default_token` the
    policy `default` besides, as a role's tokens have unless they are told not to."""

    url: str
    token: str
    default_token: str
    root_token: str
    role_id: str
    secret_id: str
    count: int

    def floor_arguments(self) -> dict[str, object]:
        return {"url": self.url, "token": self.token, "mount": MOUNT, "count": self.count}


class AuditedOpenBao(OpenBaoServer):
    """A server on raft that tells what it does to a file, and to whoever listens on `socket`."""

    def __init__(self, folder: Path, socket: Path) -> None:
        super().__init__(folder, "raft", None)
        self._socket = socket

    def _write_config(self) -> Path:
        config = super()._write_config()
        to_file = (
            f'audit "file" "main" {{\n  options {{ file_path = "{self.folder}/audit.log" }}\n}}\n'
        )
        to_svsync = (
            f'audit "socket" "svsync" {{\n  options {{\n    address = "{self._socket}"\n'
            '    socket_type = "unix"\n    write_timeout = "2s"\n    skip_test = "true"\n  }\n}\n'
        )
        config.write_text(config.read_text() + to_file + to_svsync)
        return config


@asynccontextmanager
async def filled_openbao(folder: Path, count: int) -> AsyncIterator[Source]:
    """OpenBao on raft with `count` secrets of 200 bytes in a hundred folders."""
    async with openbao_server(folder, storage="raft") as server:
        yield await _prepared(server, count)


@asynccontextmanager
async def audited_openbao(folder: Path, count: int, socket: Path) -> AsyncIterator[Source]:
    """The same, with the audit devices of docs/change-feeds.md."""
    server = AuditedOpenBao(folder, socket)
    try:
        await server.start()
        await server.initialise()
        yield await _prepared(server, count)
    finally:
        await server.stop()


async def _prepared(server: OpenBaoServer, count: int) -> Source:
    for mount in (MOUNT, COPY_MOUNT):
        options = {"type": "kv", "options": {"version": "2"}}
        await server.request("POST", f"sys/mounts/{mount}", options)
        await _usable(server, mount)
    await _fill(server, count)
    await server.request("PUT", "sys/policies/acl/bench", {"policy": _POLICY})
    await server.request("POST", "sys/auth/approle", {"type": "approle"})
    token, credential = await _signed_in(server, "bench", default=False)
    default_token, _ = await _signed_in(server, "plain", default=True)
    return Source(server.url, token, default_token, server.root_token, count=count, **credential)


async def _signed_in(
    server: OpenBaoServer, role: str, *, default: bool
) -> tuple[str, dict[str, str]]:
    """A token of a new role with the narrow policy, and the role's credential."""
    place = f"auth/approle/role/{role}"
    about = {"token_policies": "bench", "token_no_default_policy": not default, "token_ttl": "4h"}
    await server.request("POST", place, about)
    shown = await server.request("GET", f"{place}/role-id")
    made = await server.request("POST", f"{place}/secret-id", {})
    credential = {"role_id": _field(shown, "role_id"), "secret_id": _field(made, "secret_id")}
    signed = await server.request("POST", "auth/approle/login", dict(credential), token="")
    auth = signed["auth"]
    assert isinstance(auth, dict)
    return str(auth["client_token"]), credential


async def _usable(server: OpenBaoServer, mount: str) -> None:
    """A new KV v2 mount answers 400 until it has upgraded itself."""
    async with aiohttp.ClientSession(headers={"X-Vault-Token": server.root_token}) as http:
        for _ in range(500):
            async with http.get(f"{server.url}/v1/{mount}/config") as response:
                if response.status != 400:
                    return
            await asyncio.sleep(0.02)
    raise AssertionError(f"the mount {mount} did not become usable")


async def _fill(server: OpenBaoServer, count: int) -> None:
    numbers = iter(range(count))

    async def writer(http: aiohttp.ClientSession) -> None:
        for number in numbers:
            place = f"{server.url}/v1/{MOUNT}/data/{name_of(number)}"
            async with http.post(place, json={"data": value_of(number)}) as response:
                assert response.status == 200, response.status

    async with aiohttp.ClientSession(headers={"X-Vault-Token": server.root_token}) as http:
        await asyncio.gather(*[writer(http) for _ in range(_WRITERS)])


def name_of(number: int) -> str:
    """The name of a secret below its mount."""
    return f"apps/a{number % FOLDERS:02d}/s{number:06d}"


def value_of(number: int) -> dict[str, str]:
    """A value of 200 bytes of JSON."""
    return {"username": f"service-{number:06d}", "password": f"{number:06d}-{'x' * 150}"}


def _field(answer: dict[str, object], name: str) -> str:
    data = answer["data"]
    assert isinstance(data, dict)
    return str(data[name])


@asynccontextmanager
async def fresh_database(server: EmbeddedPostgres, name: str) -> AsyncIterator[str]:
    """An empty database of its own, as the ordinary role; dropped afterwards."""
    async with _admin(server) as admin:
        await admin.execute(f"CREATE DATABASE {name} OWNER svsync")
    address, _, query = server.dsn.partition("?")
    try:
        yield f"{address.rpartition('/')[0]}/{name}?{query}"
    finally:
        async with _admin(server) as admin:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def _admin(server: EmbeddedPostgres) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(server.admin_dsn)
    try:
        # What a round left to be written is not the next round's burden.
        await connection.execute("CHECKPOINT")
        yield connection
    finally:
        await connection.close()
