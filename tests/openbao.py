"""Fixtures with a real OpenBao: one server a test worker, new mounts a test."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
import trustme

from svsync.embedded.openbao import OpenBaoServer, TlsFiles, openbao_server

_NUMBERS = count(1)


def guide_policy(mount: str, *, version: int = 2) -> str:
    """The policy that the migration guide prints, for `mount`; nothing more."""
    if version == 1:
        return f'path "{mount}/*" {{ capabilities = ["read", "list"] }}'
    return (
        f'path "{mount}/data/*" {{ capabilities = ["read", "list"] }}\n'
        f'path "{mount}/metadata/*" {{ capabilities = ["read", "list"] }}\n'
    )


def detailed_policy(mount: str) -> str:
    """The optional line that makes a listing one call a page on OpenBao."""
    return f'path "{mount}/detailed-metadata/*" {{ capabilities = ["list"] }}\n'


@dataclass
class AppRoleLogin:
    """A role's credential, as a person stores it."""

    role: str
    role_id: str
    secret_id: str = field(repr=False)


class Bao:
    """The test's own hands in OpenBao: a mount, and what a person does there."""

    def __init__(
        self, server: OpenBaoServer, mount: str, version: int, namespace: str = ""
    ) -> None:
        self.server = server
        self.mount = mount
        self.version = version
        self.namespace = namespace

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def root_token(self) -> str:
        return self.server.root_token

    async def request(
        self, method: str, path: str, body: object = None, **kwargs: object
    ) -> dict[str, object]:
        kwargs.setdefault("namespace", self.namespace)
        return await self.server.request(method, path, body, **kwargs)  # type: ignore[arg-type]

    async def put(self, name: str, data: object) -> int:
        """Write a new version; its number (0 on KV v1)."""
        if self.version == 1:
            await self.request("POST", f"{self.mount}/{_quoted(name)}", data)
            return 0
        made = await self.request("POST", f"{self.mount}/data/{_quoted(name)}", {"data": data})
        answer = made["data"]
        assert isinstance(answer, dict)
        return int(answer["version"])

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        body = {"custom_metadata": dict(tags)}
        await self.request("POST", f"{self.mount}/metadata/{_quoted(name)}", body)

    async def delete(self, name: str, versions: list[int] | None = None) -> None:
        """Soft delete on KV v2 (the current version, or those named), for good on KV v1."""
        if self.version == 1:
            await self.request("DELETE", f"{self.mount}/{_quoted(name)}")
        elif versions is None:
            await self.request("DELETE", f"{self.mount}/data/{_quoted(name)}")
        else:
            await self._versions("delete", name, versions)

    async def undelete(self, name: str, versions: list[int]) -> None:
        await self._versions("undelete", name, versions)

    async def destroy(self, name: str, versions: list[int]) -> None:
        await self._versions("destroy", name, versions)

    async def remove(self, name: str) -> None:
        """Remove the name with all versions and metadata."""
        await self.request("DELETE", f"{self.mount}/metadata/{_quoted(name)}")

    async def _versions(self, verb: str, name: str, versions: list[int]) -> None:
        await self.request("POST", f"{self.mount}/{verb}/{_quoted(name)}", {"versions": versions})

    async def policy(self, text: str) -> str:
        """A new policy; its name."""
        name = f"policy-{next(_NUMBERS)}"
        await self.request("PUT", f"sys/policies/acl/{name}", {"policy": text})
        return name

    async def token(self, policy: str, **options: object) -> str:
        """A token with this policy text (`ttl`, `no_default_policy`, … as options)."""
        body = {"policies": [await self.policy(policy)], **options}
        made = await self.request("POST", "auth/token/create", body)
        auth = made["auth"]
        assert isinstance(auth, dict)
        return str(auth["client_token"])

    async def approle(self, policy: str, **options: object) -> AppRoleLogin:
        """A new AppRole with this policy text; the method is enabled at first use."""
        enabled = await self.request("GET", "sys/auth")
        if "approle/" not in enabled:
            await self.request("POST", "sys/auth/approle", {"type": "approle"})
        role = f"role-{next(_NUMBERS)}"
        body = {"token_policies": await self.policy(policy), "token_ttl": "1h", **options}
        await self.request("POST", f"auth/approle/role/{role}", body)
        shown = await self.request("GET", f"auth/approle/role/{role}/role-id")
        made = await self.request("POST", f"auth/approle/role/{role}/secret-id", {})
        return AppRoleLogin(role, _text(shown, "role_id"), _text(made, "secret_id"))

    async def wrapped_secret_id(self, role: str) -> str:
        """A response-wrapped secret_id of `role`, good for one unwrap within a minute."""
        made = await self.request(
            "POST", f"auth/approle/role/{role}/secret-id", {}, headers={"X-Vault-Wrap-TTL": "60s"}
        )
        wrapping = made["wrap_info"]
        assert isinstance(wrapping, dict)
        return str(wrapping["token"])


def _text(answer: Mapping[str, object], key: str) -> str:
    data = answer["data"]
    assert isinstance(data, dict)
    return str(data[key])


def _quoted(name: str) -> str:
    return quote(name, safe="/")


async def new_mount(
    server: OpenBaoServer,
    *,
    version: int = 2,
    prefix: str = "kv",
    namespace: str = "",
    name: str | None = None,
) -> Bao:
    """A fresh KV mount, with a name that no other test has, or `name` on a server of one's own."""
    mount = name or f"{prefix}{next(_NUMBERS)}"
    options = {"type": "kv", "options": {"version": str(version)}}
    await server.request("POST", f"sys/mounts/{mount}", options, namespace=namespace)
    bao = Bao(server, mount, version, namespace)
    if version == 2:
        # A new KV v2 mount refuses everything until it has upgraded itself, which
        # it tells by 400; its first answer to a LIST (404: empty) ends that.
        await _wait_until_upgraded(bao)
    return bao


async def _wait_until_upgraded(bao: Bao) -> None:
    for _ in range(200):
        try:
            await bao.request("GET", f"{bao.mount}/config")
        except Exception as refused:
            if "400" not in str(refused):
                raise
        else:
            return
    raise AssertionError(f"mount {bao.mount} did not become usable")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def openbao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OpenBaoServer]:
    """The worker's shared server, storage in memory, no TLS. Do not seal or stop it."""
    async with openbao_server(tmp_path_factory.mktemp("openbao")) as server:
        yield server


@pytest.fixture
async def kv2(openbao: OpenBaoServer) -> Bao:
    """A fresh KV v2 mount."""
    return await new_mount(openbao)


@pytest.fixture
async def kv1(openbao: OpenBaoServer) -> Bao:
    """A fresh KV v1 mount."""
    return await new_mount(openbao, version=1, prefix="old")


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate for 127.0.0.1 and localhost, and the authority that signed it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    issued.private_key_pem.write_to_path(str(files.key))
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(str(files.ca))
    return files


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def openbao_tls(
    tmp_path_factory: pytest.TempPathFactory, tls_files: TlsFiles
) -> AsyncIterator[OpenBaoServer]:
    """The worker's shared server with TLS, certificate by a private authority."""
    folder: Path = tmp_path_factory.mktemp("openbao-tls")
    async with openbao_server(folder, tls=tls_files) as server:
        yield server


def credential_json(login: AppRoleLogin) -> str:
    """The credential as it stands at a ScaiVault path."""
    return json.dumps({"role_id": login.role_id, "secret_id": login.secret_id})
