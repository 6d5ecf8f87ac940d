"""The company's side of the demo: what its people do in their OpenBao.

All of it goes through OpenBao's HTTP API with an administrator's token, as any
other team would do it. svsync has its own, smaller login.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from svsync.cli import demo_secrets
from svsync.cli.demo_secrets import Data, DemoSecret
from svsync.domain.errors import SetupError
from svsync.embedded.openbao import OpenBaoServer

_ROLE: Final = "svsync"
_AT_ONCE: Final = 16
_UPGRADE_TRIES: Final = 500
_POLL_SECONDS: Final = 0.02

POLICY: Final = """\
# What the migration guide asks for, for each mount.
path "platform/data/*"     { capabilities = ["read", "list"] }
path "platform/metadata/*" { capabilities = ["read", "list"] }
path "payments/data/*"     { capabilities = ["read", "list"] }
path "payments/metadata/*" { capabilities = ["read", "list"] }
path "legacy/*"            { capabilities = ["read", "list"] }

# Optional: OpenBao then tells versions and tags with each page of a listing.
path "platform/detailed-metadata/*" { capabilities = ["list"] }
path "payments/detailed-metadata/*" { capabilities = ["list"] }

# Where writes go through, and in one mount deletes too, recoverably.
path "shared/data/*"       { capabilities = ["read", "create", "update"] }
path "shared/metadata/*"   { capabilities = ["read", "list", "patch"] }
path "shared/delete/*"     { capabilities = ["update"] }
path "shared/undelete/*"   { capabilities = ["update"] }
path "handover/data/*"     { capabilities = ["read", "create", "update"] }
path "handover/metadata/*" { capabilities = ["read", "list", "patch"] }
path "backup/data/*"       { capabilities = ["read", "create", "update"] }
path "backup/metadata/*"   { capabilities = ["read", "list", "patch"] }

# One folder is nobody's business.
path "platform/data/security/breakglass/*"              { capabilities = ["deny"] }
path "platform/metadata/security/breakglass/*"          { capabilities = ["deny"] }
path "platform/detailed-metadata/security/breakglass/*" { capabilities = ["deny"] }

# The login looks after itself.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self"  { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
"""


@dataclass
class Mount:
    """One KV mount with what was put in it. `remote`: the current version by path;
    `local`: the prefix below which svsync serves it."""

    name: str
    version: int
    secrets: list[DemoSecret]
    local: str
    remote: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    @classmethod
    def external(cls, name: str, secrets: list[DemoSecret], *, version: int = 2) -> "Mount":
        return cls(name, version, secrets, f"external/{name}")

    @property
    def carried(self) -> list[DemoSecret]:
        return [secret for secret in self.secrets if secret.carried]


@dataclass(frozen=True, slots=True)
class Held:
    """What OpenBao holds at a path: the newest version, whose value is None where it is
    deleted, and the pairs of its custom metadata."""

    version: int
    value: Data | None
    tags: Mapping[str, str]


class Estate:
    """The company's mounts, and the hands that work in them.

    svsync reads from `mounts`, and both reads and writes the other three.
    """

    def __init__(self, server: OpenBaoServer, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.platform = Mount.external("platform", demo_secrets.platform())
        self.payments = Mount.external("payments", demo_secrets.payments())
        self.legacy = Mount.external("legacy", demo_secrets.legacy(), version=1)
        self.shared = Mount.external("shared", demo_secrets.shared())
        self.handover = Mount.external("handover", [])
        self.backup = Mount("backup", 2, [], "primary")
        self._http = http

    @property
    def mounts(self) -> tuple[Mount, Mount, Mount]:
        return self.platform, self.payments, self.legacy

    async def furnish(self) -> None:
        """Make the mounts and put their secrets in."""
        every = (*self.mounts, self.shared, self.handover, self.backup)
        for mount in every:
            body = {"type": "kv", "options": {"version": str(mount.version)}}
            await self._call("POST", f"sys/mounts/{mount.name}", body)
        for mount in every:
            await self._usable(mount)
            await self.add(mount, mount.secrets)

    async def add(self, mount: Mount, secrets: Iterable[DemoSecret]) -> None:
        """Write secrets with their versions and tags, several at a time."""

        async def add_one(secret: DemoSecret) -> None:
            for data in secret.versions:
                await self.put(mount, secret.path, data)
            if secret.tags and mount.version == 2:
                await self.tag(mount, secret.path, secret.tags)

        await _all(add_one(secret) for secret in secrets)

    async def make_login(self) -> str:
        """An AppRole with the least policy: its credential as JSON text."""
        await self._call("PUT", "sys/policies/acl/svsync", {"policy": POLICY})
        await self._call("POST", "sys/auth/approle", {"type": "approle"})
        role = {
            "token_policies": "svsync",
            "token_no_default_policy": True,
            "token_ttl": "1h",
        }
        await self._call("POST", f"auth/approle/role/{_ROLE}", role)
        shown = await self._call("GET", f"auth/approle/role/{_ROLE}/role-id")
        made = await self._call("POST", f"auth/approle/role/{_ROLE}/secret-id", {})
        login = {"role_id": shown["data"]["role_id"], "secret_id": made["data"]["secret_id"]}
        return json.dumps(login)

    # --- what people do -----------------------------------------------------------

    async def put(self, mount: Mount, path: str, data: Data) -> None:
        if mount.version == 1:
            await self._call("POST", _url(mount, "", path), data)
            return
        made = await self._call("POST", _url(mount, "data", path), {"data": data})
        mount.remote[path] = made["data"]["version"]

    async def tag(self, mount: Mount, path: str, tags: Mapping[str, str]) -> None:
        body = {"custom_metadata": dict(tags)}
        await self._call("POST", _url(mount, "metadata", path), body)

    async def delete(self, mount: Mount, paths: Sequence[str]) -> None:
        """Delete as `bao kv delete` does: recoverably."""
        mount.gone.update(paths)
        await _all(self._call("DELETE", _url(mount, "data", path)) for path in paths)

    async def undelete(self, mount: Mount, paths: Sequence[str]) -> None:
        mount.gone.difference_update(paths)
        await _all(
            self._call("POST", _url(mount, "undelete", path), {"versions": [mount.remote[path]]})
            for path in paths
        )

    async def held(self, mount: Mount, path: str) -> Held:
        """What is there now; of a KV version 2 mount."""
        told = (await self._call("GET", _url(mount, "metadata", path)))["data"]
        version, value = told["current_version"], None
        if not told["versions"][str(version)]["deletion_time"]:
            shown = await self._call("GET", _url(mount, "data", path))
            version, value = shown["data"]["metadata"]["version"], shown["data"]["data"]
        return Held(version, value, told["custom_metadata"] or {})

    # --- one call -----------------------------------------------------------------

    async def _usable(self, mount: Mount) -> None:
        """Wait until a new KV version 2 mount has upgraded itself: it tells that by 400."""
        for _ in range(_UPGRADE_TRIES):
            url = f"{self.server.url}/v1/{mount.name}/config"
            async with self._http.get(url) as answer:
                if mount.version == 1 or answer.status != 400:
                    return
            await asyncio.sleep(_POLL_SECONDS)
        raise SetupError(f"OpenBao's mount {mount.name} does not become usable")

    async def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        url = f"{self.server.url}/v1/{path}"
        try:
            async with self._http.request(method, url, json=body) as answer:
                if answer.status >= 300:
                    raise SetupError(f"OpenBao answers {answer.status} to {method} {path}")
                told: dict[str, Any] = await answer.json() if answer.status == 200 else {}
                return told
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SetupError(
                f"OpenBao does not answer {method} {path} ({type(error).__name__})"
            ) from None


async def _all(calls: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Wait for all; the first that fails ends the others, and its error is the one."""
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _url(mount: Mount, verb: str, path: str) -> str:
    return "/".join(filter(None, (mount.name, verb, quote(path, safe="/"))))


@asynccontextmanager
async def open_estate(server: OpenBaoServer, ca: Path) -> AsyncIterator[Estate]:
    """The estate on a running server, its secrets not yet put in."""
    import ssl

    connector = aiohttp.TCPConnector(limit=_AT_ONCE, ssl=ssl.create_default_context(cafile=str(ca)))
    headers = {"X-Vault-Token": server.root_token}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        yield Estate(server, http)
