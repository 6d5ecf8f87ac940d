"""Opening the Vault backend onto a test's OpenBao, with defaults that tests override."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.house import TENANT, House, backend, open_house
from tests.openbao import Bao

from svsync.backends.vault import VaultDriver
from svsync.clients.vault import VaultSession, VaultSettings
from svsync.domain.federation import BackendSpec, RuleSpec, Writes
from svsync.domain.ids import BackendId, LocalPath
from svsync.domain.values import Credential, Payload
from svsync.network import NetworkPolicy
from svsync.ports import Backend, CallGuard
from svsync.services.write_rows import Put
from svsync.testing.conformance import CountingGuard

LOOPBACK = NetworkPolicy(allow_loopback=True, file_managed=True)


def source_of(fields: str | Mapping[str, str]) -> Any:
    """A credential source that always gives these fields, or this token."""
    text = fields if isinstance(fields, str) else json.dumps(dict(fields))

    async def credential() -> Credential:
        return Credential.parse(text, "infra/vault")

    return credential


def spec_of(bao: Bao, *, url: str = "", remote: str = "", **changes: Any) -> BackendSpec:
    """A backend over the whole mount, by token; `config` is merged in."""
    whole = f"{bao.mount}/data/**" if bao.version == 2 else f"{bao.mount}/**"
    config = {
        "endpoint": url or bao.url,
        "auth_method": "token",
        **({"namespace": bao.namespace} if bao.namespace else {}),
        **changes.pop("config", {}),
    }
    rules = changes.pop("rules", (RuleSpec("external/**", remote or whole),))
    return BackendSpec(
        BackendId("fed_vault"), "vault", "hashicorp-vault", rules, config=config, **changes
    )


@asynccontextmanager
async def opened(
    spec: BackendSpec, fields: str | Mapping[str, str], guard: CallGuard | None = None
) -> AsyncIterator[Backend]:
    driver = VaultDriver(NetworkPolicy(allow_loopback=True))
    async with driver.open(spec, source_of(fields), guard or CountingGuard()) as backend:
        yield backend


def session_of(url: str, fields: str | Mapping[str, str], **changes: Any) -> VaultSession:
    """A session by AppRole for fields, by token for a text."""
    method = "token" if isinstance(fields, str) else "approle"
    settings = VaultSettings(
        url,
        changes.pop("auth_method", method),
        **{k: changes.pop(k) for k in ("namespace", "tls_verify", "timeout") if k in changes},
    )
    policy = changes.pop("policy", LOOPBACK)
    return VaultSession(settings, changes.pop("credential", source_of(fields)), policy, **changes)


# --- a house that writes there ------------------------------------------------------


@asynccontextmanager
async def writing_house(
    bao: Bao, database: tuple[str, str, Path], *, url: str = "", token: str = "", **settings: Any
) -> AsyncIterator[House]:
    """A house that syncs the whole mount to `ext/**` and writes through; as root, and at
    the server itself, unless `token` and `url` say otherwise."""
    data = "data/" if bao.version == 2 else ""
    spec = backend(
        (RuleSpec("ext/**", f"{bao.mount}/{data}**"),),
        type="hashicorp-vault",
        config={
            "endpoint": url or bao.url,
            "auth_method": "token",
            "auth_config_path": "env:BAO_TOKEN",
        },
        **{"writes": Writes.WRITE_THROUGH, **settings},
    )
    environ = {"BAO_TOKEN": token or bao.root_token}
    async with open_house(*database, spec, environ=environ) as house:
        yield house


async def put(house: House, path: str, value: Mapping[str, str], **options: Any) -> str:
    """A write as the API makes it; how far it went."""
    payload = Payload.from_fields(dict(value))
    answer: Any = await house.app.writes.put(
        TENANT, LocalPath(path), Put(payload, **options), by="sa:test"
    )
    return str(answer["write_through"]["state"])


async def there(bao: Bao, name: str = "a") -> Any:
    """The value that stands in the mount."""
    inner = "data/" if bao.version == 2 else ""
    answer: Any = await bao.request("GET", f"{bao.mount}/{inner}{name}")
    return answer["data"]["data"] if bao.version == 2 else answer["data"]


async def versions_there(bao: Bao, name: str = "a") -> int:
    """How many versions a name of KV v2 has had."""
    answer: Any = await bao.request("GET", f"{bao.mount}/metadata/{name}")
    return int(answer["data"]["current_version"])
