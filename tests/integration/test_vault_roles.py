"""Signing in to a Vault as a role: `kubernetes`, `aws` and `gcp`, and what a refusal says."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.house import TENANT
from tests.odd_keys import UNKNOWN
from tests.openbao import Bao, guide_policy
from tests.servers import Front
from tests.vault_roles import (
    ACCOUNT,
    AwsLogin,
    Cluster,
    Google,
    aws_front,
    gcp_mount,
    kubernetes,
    new_key,
    served,
    service_account,
)
from tests.vaults import LOOPBACK, source_of, spec_of

from svsync.clients.aws.attesting import AwsAttestor
from svsync.clients.gcp_identity import GcpAttestor
from svsync.clients.vault import VaultSession, VaultSettings
from svsync.config.model import Settings
from svsync.domain.errors import BackendUnreachableError, ConfigError, LoginError
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.domain.ids import RemotePath, TenantId
from svsync.domain.values import Credential
from svsync.embedded.openbao import TlsFiles
from svsync.ports import Attestor
from svsync.registry import Registry

ROLE = "svsync"


@asynccontextmanager
async def signed_in(
    url: str,
    method: str,
    attestor: Attestor | None = None,
    fields: Mapping[str, str] | str = "",
    role: str = ROLE,
    **settings: Any,
) -> AsyncIterator[VaultSession]:
    """A session; by an attestor it proves itself with these fields, or as this process."""

    async def credential() -> Credential:
        given: Credential | None = await source_of(fields)() if fields else None
        if attestor is None:
            assert given is not None
            return given
        return await attestor.attest(role, given)

    about = VaultSettings(url, method, role=role, **settings)
    async with VaultSession(about, credential, LOOPBACK) as session:
        yield session


async def value_of(session: VaultSession, bao: Bao) -> Any:
    path = f"{bao.mount}/data/a"
    answer = await session.request("GET", path, operation="read", shown=path)
    return answer.json()["data"]["data"]


async def forget(session: VaultSession, bao: Bao) -> None:
    """The server no longer knows the token of a session."""
    token = (await session.token()).reveal()
    await bao.request("POST", "auth/token/revoke", {"token": token})


async def refusal(context: Any) -> LoginError:
    with pytest.raises(LoginError) as caught:
        async with context as session:
            await session.sign_in()
    return caught.value


@pytest.fixture
async def bao(kv2: Bao) -> Bao:
    await kv2.put("a", {"k": "v"})
    return kv2


# --- kubernetes -----------------------------------------------------------------------


@pytest.fixture
async def cluster(bao: Bao, tls_files: TlsFiles) -> AsyncIterator[tuple[Cluster, str]]:
    async with kubernetes(bao, tls_files, guide_policy(bao.mount)) as made:
        yield made


def written(folder: Path, token: str) -> str:
    file = folder / "token"
    file.write_text(f"{token}\n")
    return str(file)


async def test_service_accounts_token_is_read_anew_at_each_login(
    bao: Bao, cluster: tuple[Cluster, str], tmp_path: Path
) -> None:
    pods, mount = cluster
    first, second = pods.token(), pods.token()
    file = written(tmp_path, first)
    async with signed_in(bao.url, "kubernetes", auth_mount=mount, jwt_path=file) as session:
        assert await value_of(session, bao) == {"k": "v"}
        written(tmp_path, second)
        await forget(session, bao)
        assert await value_of(session, bao) == {"k": "v"}
    assert pods.reviewed == [first, second]


async def test_login_as_a_role_is_renewed_and_revoked_as_any_other(
    bao: Bao, cluster: tuple[Cluster, str]
) -> None:
    pods, mount = cluster
    asked: asyncio.Queue[float] = asyncio.Queue()
    wake: asyncio.Queue[None] = asyncio.Queue()

    async def sleep(seconds: float) -> None:
        asked.put_nowait(seconds)
        await wake.get()

    async with Front(bao.url) as front:
        settings = VaultSettings(front.url, "kubernetes", auth_mount=mount, role=ROLE)
        async with VaultSession(
            settings, source_of(pods.token()), LOOPBACK, clock=lambda: 0.0, sleep=sleep
        ) as session:
            await session.sign_in()
            assert await asked.get() == pytest.approx(2400)
            wake.put_nowait(None)
            assert await asked.get() == pytest.approx(2400)
    ends = [line.rpartition("/")[2] for line in front.seen]
    assert ends == ["login", "renew-self", "revoke-self"]


async def test_service_accounts_token_may_be_a_credential(
    bao: Bao, cluster: tuple[Cluster, str]
) -> None:
    pods, mount = cluster
    async with signed_in(bao.url, "kubernetes", fields=pods.token(), auth_mount=mount) as session:
        assert await value_of(session, bao) == {"k": "v"}


async def test_pods_own_token_is_used_where_nothing_is_named() -> None:
    config = {"endpoint": "https://v", "auth_method": "kubernetes", "role": "r"}
    settings = VaultSettings.of_config(config)
    assert settings.jwt_path == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert VaultSettings.of_config({**config, "auth_config_path": "a/b"}).jwt_path == ""


@pytest.mark.parametrize(
    ("about", "role", "says", "code"),
    [
        ({}, "nobody", "has no role nobody: check config.role", "login_failed"),
        (
            {"since": timedelta(hours=-2)},
            ROLE,
            "has expired: whoever renews it has stopped doing so",
            "login_failed",
        ),
        ({"audience": "https://other"}, ROLE, "is for another audience", "login_failed"),
        ({"since": timedelta(minutes=30)}, ROLE, "set the clock, by NTP", "clock_skew"),
        ({"account": "other"}, ROLE, "does not let svsync in as the role", "login_failed"),
    ],
)
async def test_refusal_of_a_service_account_says_why_in_one_sentence(
    bao: Bao,
    cluster: tuple[Cluster, str],
    tmp_path: Path,
    about: dict[str, Any],
    role: str,
    says: str,
    code: str,
) -> None:
    pods, mount = cluster
    token = pods.token(**about)
    file = written(tmp_path, token)
    error = await refusal(
        signed_in(bao.url, "kubernetes", role=role, auth_mount=mount, jwt_path=file)
    )
    assert says in error.message
    assert error.code == code
    assert token not in repr(error)
    assert "\n" not in error.message
    assert error.__cause__ is None


async def test_service_account_that_was_deleted_is_refused(
    bao: Bao, cluster: tuple[Cluster, str], tmp_path: Path
) -> None:
    pods, mount = cluster
    pods.deleted.add("svsync")
    file = written(tmp_path, pods.token())
    error = await refusal(signed_in(bao.url, "kubernetes", auth_mount=mount, jwt_path=file))
    assert "does not let svsync in" in error.message


async def test_method_that_is_not_mounted_is_named(bao: Bao, tmp_path: Path) -> None:
    file = written(tmp_path, Cluster().token())
    error = await refusal(signed_in(bao.url, "kubernetes", auth_mount="nowhere", jwt_path=file))
    assert "auth/nowhere" in error.message


@pytest.mark.parametrize("content", [None, "", "é"])
async def test_token_file_that_holds_no_token_is_named(
    bao: Bao, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    error = await refusal(signed_in(bao.url, "kubernetes", jwt_path=str(file)))
    assert str(file) in error.message
    assert not error.sent


# --- aws ------------------------------------------------------------------------------

KEYS = {"access_key_id": "AKIASVSYNC", "secret_access_key": "canary-secret-key"}
OF_SESSION = {**KEYS, "session_token": "canary-session-token"}


def known_to(login: AwsLogin, keys: Mapping[str, str]) -> None:
    login.keys[keys["access_key_id"]] = (keys["secret_access_key"], keys.get("session_token", ""))


def aws(server_id: str = "vault.internal", region: str = "") -> AwsAttestor:
    return AwsAttestor(region, server_id, LOOPBACK)


@pytest.mark.parametrize("keys", [KEYS, OF_SESSION], ids=["static", "of a session"])
async def test_keys_of_aws_sign_the_request_that_vault_sends(
    bao: Bao, keys: Mapping[str, str]
) -> None:
    async with aws_front(bao, guide_policy(bao.mount)) as (login, front):
        known_to(login, keys)
        async with signed_in(front.url, "aws", aws(), keys) as session:
            assert await value_of(session, bao) == {"k": "v"}
            await forget(session, bao)
            assert await value_of(session, bao) == {"k": "v"}
        assert login.logins == 2


async def test_request_is_signed_for_the_sts_of_a_region(bao: Bao) -> None:
    about = {"host": "sts.eu-central-1.amazonaws.com", "region": "eu-central-1"}
    async with aws_front(bao, guide_policy(bao.mount), **about) as (login, front):
        known_to(login, KEYS)
        async with signed_in(front.url, "aws", aws(region="eu-central-1"), KEYS) as session:
            assert await value_of(session, bao) == {"k": "v"}


async def test_identity_of_this_process_signs_where_no_credential_is_named(
    bao: Bao, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, field in (
        ("AWS_ACCESS_KEY_ID", "access_key_id"),
        ("AWS_SECRET_ACCESS_KEY", "secret_access_key"),
        ("AWS_SESSION_TOKEN", "session_token"),
    ):
        monkeypatch.setenv(name, OF_SESSION[field])
    async with aws_front(bao, guide_policy(bao.mount)) as (login, front):
        known_to(login, OF_SESSION)
        async with signed_in(front.url, "aws", aws()) as session:
            assert await value_of(session, bao) == {"k": "v"}


@pytest.mark.parametrize(
    ("attestor", "about", "role", "says", "code"),
    [
        (aws(), {}, "nobody", "auth/aws has no role nobody", "login_failed"),
        (aws("other"), {}, ROLE, "set config.aws_server_id", "login_failed"),
        (aws(""), {}, ROLE, "set config.aws_server_id", "login_failed"),
        (aws(), {"keys": {}}, ROLE, "STS refuses the keys from infra/vault", "login_failed"),
        (
            aws(region="eu-west-1"),
            {},
            ROLE,
            "check the keys, and config.aws_region",
            "login_failed",
        ),
        (aws(), {"ahead": timedelta(hours=1)}, ROLE, "set the clock, by NTP", "clock_skew"),
        (aws(), {"ahead": timedelta(hours=-1)}, ROLE, "set the clock, by NTP", "clock_skew"),
    ],
)
async def test_refusal_of_an_identity_in_aws_says_why_in_one_sentence(
    bao: Bao, attestor: AwsAttestor, about: dict[str, Any], role: str, says: str, code: str
) -> None:
    async with aws_front(bao, guide_policy(bao.mount), **about) as (login, front):
        if "keys" not in about:
            known_to(login, KEYS)
        error = await refusal(signed_in(front.url, "aws", attestor, KEYS, role))
    assert says in error.message
    assert error.code == code
    assert "canary" not in repr(error)


async def test_proof_holds_no_key(bao: Bao) -> None:
    proof = await aws().attest(ROLE, await source_of(KEYS)())
    sent = json.dumps({name: value.reveal() for name, value in proof.items()})
    assert "canary" not in sent
    assert set(proof) == {
        "iam_http_request_method",
        "iam_request_url",
        "iam_request_body",
        "iam_request_headers",
    }


# --- gcp ------------------------------------------------------------------------------

KEY = new_key()


def gcp(sign_as: str = "", **about: Any) -> GcpAttestor:
    return GcpAttestor(sign_as, LOOPBACK, **{"environ": {}, **about})


async def test_key_of_a_service_account_signs_its_jwt_here(bao: Bao) -> None:
    mount = await gcp_mount(bao, KEY, guide_policy(bao.mount))
    key = service_account(KEY)
    async with signed_in(bao.url, "gcp", gcp(), key, auth_mount=mount) as session:
        assert await value_of(session, bao) == {"k": "v"}


async def test_key_that_the_environment_names_is_read_anew_at_each_login(
    bao: Bao, tmp_path: Path
) -> None:
    mount = await gcp_mount(bao, KEY, guide_policy(bao.mount))
    file = tmp_path / "key.json"
    file.write_text(json.dumps(service_account(KEY)))
    attestor = gcp(environ={"GOOGLE_APPLICATION_CREDENTIALS": str(file)})
    async with signed_in(bao.url, "gcp", attestor, auth_mount=mount) as session:
        assert await value_of(session, bao) == {"k": "v"}
        file.write_text(json.dumps({**service_account(KEY), "client_email": "other@x"}))
        await forget(session, bao)
        with pytest.raises(LoginError, match="bound to"):
            await value_of(session, bao)


async def test_machines_identity_token_is_asked_of_its_metadata_server(bao: Bao) -> None:
    mount = await gcp_mount(bao, KEY, guide_policy(bao.mount), audience="http://vault/svsync")
    google = Google(KEY)
    async with served(google.app()) as url:
        attestor = gcp(environ={"GCE_METADATA_HOST": url.removeprefix("http://")})
        async with signed_in(bao.url, "gcp", attestor, auth_mount=mount) as session:
            assert await value_of(session, bao) == {"k": "v"}
    assert [path.rpartition("/")[2] for path in google.asked] == ["identity"]


async def test_iam_signs_as_the_service_account_that_is_named(bao: Bao) -> None:
    mount = await gcp_mount(bao, KEY, guide_policy(bao.mount))
    google = Google(KEY)
    async with served(google.app()) as url:
        environ = {"GCE_METADATA_HOST": url.removeprefix("http://")}
        attestor = gcp(ACCOUNT, iam_url=url, environ=environ)
        async with signed_in(bao.url, "gcp", attestor, auth_mount=mount) as session:
            assert await value_of(session, bao) == {"k": "v"}
        google.may_sign = False
        error = await refusal(signed_in(bao.url, "gcp", attestor, auth_mount=mount))
        assert "roles/iam.serviceAccountTokenCreator" in error.message
        google.flavor = "no metadata server"
        error = await refusal(signed_in(bao.url, "gcp", attestor, auth_mount=mount))
        assert "has no service account" in error.message


async def test_machine_outside_of_google_cloud_says_what_to_do(bao: Bao) -> None:
    attestor = gcp(environ={"GCE_METADATA_HOST": "127.0.0.1:1"})
    with pytest.raises(BackendUnreachableError, match=r"give a service account's key") as caught:
        async with signed_in(bao.url, "gcp", attestor) as session:
            await session.sign_in()
    assert not caught.value.sent


@pytest.mark.parametrize(
    ("about", "attestor", "role", "says", "code"),
    [
        ({}, gcp(), "nobody", "has no role nobody", "login_failed"),
        ({"audience": "vault/other"}, gcp(), ROLE, "is for another audience", "login_failed"),
        ({"key": new_key()}, gcp(), ROLE, "does not let svsync in", "login_failed"),
        ({}, gcp(now=lambda: 1e9), ROLE, "set the clock, by NTP", "clock_skew"),
        ({}, gcp(now=lambda: 4e9), ROLE, "set the clock, by NTP", "clock_skew"),
    ],
)
async def test_refusal_of_a_jwt_says_why_in_one_sentence(
    bao: Bao, about: dict[str, Any], attestor: GcpAttestor, role: str, says: str, code: str
) -> None:
    mount = await gcp_mount(bao, **{"key": KEY, "policy": guide_policy(bao.mount), **about})
    key = service_account(KEY)
    error = await refusal(signed_in(bao.url, "gcp", attestor, key, role, auth_mount=mount))
    assert says in error.message
    assert error.code == code
    assert "PRIVATE" not in repr(error)


@pytest.mark.parametrize("pem", ["canary-no-key", "", UNKNOWN])
async def test_credential_that_is_no_key_is_named_and_not_shown(bao: Bao, pem: str) -> None:
    key = {**service_account(KEY), "private_key": pem}
    with pytest.raises(ConfigError, match="infra/vault") as caught:
        async with signed_in(bao.url, "gcp", gcp(), key) as session:
            await session.sign_in()
    assert "canary" not in repr(caught.value)


# --- through the registry -------------------------------------------------------------


def role_spec(bao: Bao, url: str, config: Mapping[str, str], **changes: Any) -> BackendSpec:
    about = {"role": ROLE, "auth_config_path": "infra/vault", **config}
    return spec_of(bao, url=url, config={k: v for k, v in about.items() if v}, **changes)


def registry(fields: Mapping[str, str], *tenants: str) -> Registry:
    settings = Settings(state_dir=".", allow_loopback=True, ambient_identity_tenants=tenants)

    async def read(spec: BackendSpec, tenant: TenantId) -> Credential:
        given: Credential = await source_of(fields)()
        return given

    return Registry(settings, read)


async def test_backend_signs_in_with_the_proof_that_its_configuration_asks_for(bao: Bao) -> None:
    mount = await gcp_mount(bao, KEY, guide_policy(bao.mount))
    path = RemotePath(f"{bao.mount}/data/a")
    for keys, url, config in (
        (service_account(KEY), bao.url, {"auth_method": "gcp", "auth_mount": mount}),
        (KEYS, "", {"auth_method": "aws", "aws_server_id": "vault.internal"}),
    ):
        async with aws_front(bao, guide_policy(bao.mount)) as (login, front):
            known_to(login, KEYS)
            spec = role_spec(bao, url or front.url, config)
            async with registry(keys).open(spec, TENANT) as opened:
                [read] = await opened.backend.read([path])
                assert opened.calls()["login"] >= 1
            assert "RemoteValue" in type(read).__name__


@pytest.mark.parametrize("method", ["kubernetes", "aws", "gcp"])
async def test_own_identity_is_lent_to_no_tenant_from_whom_it_was_taken_back(
    bao: Bao, method: str
) -> None:
    config = {"auth_method": method, "auth_config_path": ""}
    spec = role_spec(bao, bao.url, config, managed_by=ManagedBy.API)
    with pytest.raises(ConfigError, match="ambient_identity_tenants") as caught:
        async with registry({}).open(spec, TENANT):
            pass
    assert caught.value.code == "ambient_identity_not_allowed"
    async with registry({}, "default").open(spec, TENANT):
        pass
    async with registry({}).open(role_spec(bao, bao.url, config), TENANT):
        pass
