"""As whom svsync calls Google Cloud, and what it does when a token ends."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.gcp import GLOBAL, LOOPBACK, PREFIX, WHERE, Gcp, gcp_spec, open_gcp
from tests.gcp_tokens import ACCOUNT, ACCOUNTS, CANARY, Key, federation
from tests.odd_keys import UNKNOWN, elliptic

from svsync.backends.gcp.driver import _service
from svsync.clients.gcp import GcpSession, GcpSettings
from svsync.domain.changes import RemoteValue
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    LoginError,
    ThrottledError,
)
from svsync.domain.federation import ManagedBy
from svsync.domain.values import Credential

TOKEN = "oauth2.googleapis.com /token"
STS = "sts.googleapis.com /v1/token"
SUBJECT = "header.payload.signature"


@asynccontextmanager
async def session(
    gcp: Gcp, *, static: bool = True, federated: bool = False, **how: Any
) -> AsyncIterator[GcpSession]:
    """One below any backend."""

    async def credential() -> Credential:
        return Credential.parse(gcp.tokens.key.json(), WHERE)

    settings = GcpSettings(static=static, federated=federated)
    service = _service(gcp_spec())
    async with GcpSession(settings, service, credential, LOOPBACK, dial=gcp.dial, **how) as made:
        yield made


async def call(made: GcpSession) -> None:
    await made.call("list_secrets", {"parent": "projects/acme"}, operation="list")


# --- a service account --------------------------------------------------------------


async def test_service_account_signs_in_once_for_many_calls(gcp: Gcp) -> None:
    gcp.put("a", "x")
    async with open_gcp(gcp) as google:
        await google.listed()
        [read] = await google.read("a")
        assert google.guard.calls.count("login") == 1
    assert isinstance(read, RemoteValue)
    assert gcp.tokens.asked == [TOKEN]


async def test_token_is_replaced_at_two_thirds_of_its_life(gcp: Gcp) -> None:
    now = 1000.0
    async with session(gcp, clock=lambda: now) as made:
        await call(made)
        now += 2300
        await call(made)
        assert len(gcp.tokens.asked) == 1
        now += 200
        await call(made)
        assert len(gcp.tokens.asked) == 2
        now += 2500
        gcp.tokens.fault = (503, "")
        await call(made)
        now += 1200
        with pytest.raises(BackendUnreachableError) as raised:
            await call(made)
    assert not raised.value.sent


async def test_token_that_google_refuses_is_replaced_once(gcp: Gcp) -> None:
    gcp.put("a", "x")
    async with open_gcp(gcp) as google:
        await google.listed()
        gcp.fake.tokens.clear()
        [read] = await google.read("a")
    assert isinstance(read, RemoteValue)
    assert gcp.tokens.asked == [TOKEN, TOKEN]


async def test_token_that_stays_refused_ends_it_with_the_place_of_the_key(
    gcp: Gcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcp.tokens, "given", set())
    async with open_gcp(gcp) as google:
        with pytest.raises(LoginError, match=WHERE) as raised:
            await google.listed()
    assert CANARY not in raised.value.message
    assert not raised.value.sent
    assert len(gcp.fake.seen) == 2


async def test_changed_key_is_picked_up_without_a_restart(gcp: Gcp) -> None:
    keys = [Key.make().json(), gcp.tokens.key.json()]
    async with open_gcp(gcp, key=lambda: keys[0]) as google:
        with pytest.raises(LoginError, match=f"{WHERE}.*deleted or disabled") as raised:
            await google.listed()
        assert CANARY not in raised.value.message
        keys.pop(0)
        await google.listed()


async def test_clock_that_is_wrong_is_named(gcp: Gcp) -> None:
    gcp.tokens.skew = 7200.0
    async with open_gcp(gcp) as google:
        with pytest.raises(LoginError, match="clock") as raised:
            await google.listed()
    assert raised.value.code == "clock_skew"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"private_key": None}, "private_key"),
        ({"private_key": "no key"}, "no RSA key"),
        ({"private_key": elliptic()}, "no RSA key"),
        ({"private_key": UNKNOWN}, "no RSA key"),
        ({"client_email": ""}, "client_email"),
        ({"type": "authorized_user"}, "'type'"),
        ({"type": None}, "'type'"),
        ({"token_uri": "http://oauth2.googleapis.com/token"}, "https"),
        ({"token_uri": "https://169.254.169.254/token"}, "metadata"),
    ],
)
async def test_key_that_cannot_be_used_is_told_with_its_field(
    gcp: Gcp, changes: dict[str, Any], said: str
) -> None:
    async with open_gcp(gcp, key=lambda: gcp.tokens.key.json(**changes)) as google:
        with pytest.raises(ConfigError, match=said) as raised:
            await google.listed()
    assert WHERE in str(raised.value)
    assert gcp.tokens.asked == []


async def test_bare_token_is_no_service_account(gcp: Gcp) -> None:
    async with open_gcp(gcp, key=lambda: "ya29.something") as google:
        with pytest.raises(ConfigError, match="'type'") as raised:
            await google.listed()
    assert "ya29" not in raised.value.message


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, ThrottledError), (500, BackendUnreachableError), (302, LoginError), (404, LoginError)],
)
async def test_token_endpoint_that_gives_none_is_asked_once(
    gcp: Gcp, status: int, error: type[BackendError]
) -> None:
    gcp.tokens.fault = (status, f"<html>{CANARY}</html>")
    async with open_gcp(gcp) as google:
        with pytest.raises(error) as raised:
            await google.listed()
    assert CANARY not in raised.value.message
    assert not raised.value.sent
    assert gcp.tokens.asked == [TOKEN]


async def test_token_endpoint_without_a_trusted_certificate_is_not_asked(gcp: Gcp) -> None:
    dial = type(gcp.dial)(gcp.dial.resolve, None)
    async with open_gcp(gcp, dial=dial) as google:
        with pytest.raises(BackendUnreachableError, match="certificate"):
            await google.listed()
    assert gcp.tokens.asked == []


async def test_closed_session_asks_nobody(gcp: Gcp) -> None:
    async with open_gcp(gcp) as google:
        await google.backend.aclose()
        with pytest.raises(BackendUnreachableError, match="closed") as raised:
            await google.listed()
    assert not raised.value.sent
    assert gcp.tokens.asked == []


# --- federation -----------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """The file in which the machine's identity provider keeps its token."""

    file: Path

    def __str__(self) -> str:
        return str(self.file)

    def keep(self, text: str) -> None:
        self.file.write_text(text)


@pytest.fixture
def subject(gcp: Gcp, tmp_path: Path) -> Subject:
    gcp.tokens.subjects.add(SUBJECT)
    made = Subject(tmp_path / "token")
    made.keep(SUBJECT + "\n")
    return made


async def test_token_of_a_file_is_exchanged(gcp: Gcp, subject: Subject) -> None:
    async with open_gcp(gcp, key=lambda: federation({"file": str(subject)})) as google:
        await google.listed()
        assert google.guard.calls.count("login") == 1
    assert gcp.tokens.asked == [STS]


async def test_service_account_is_asked_for_where_one_is_named(gcp: Gcp, subject: Subject) -> None:
    url = f"{ACCOUNTS}/{ACCOUNT}:generateAccessToken"
    told = federation({"file": str(subject)}, service_account_impersonation_url=url)
    async with open_gcp(gcp, key=lambda: told) as google:
        await google.listed()
        asked = gcp.tokens.asked[-1].partition(" ")[0]
        assert asked == "iamcredentials.googleapis.com"
        gcp.fake.tokens.clear()
        gcp.tokens.may_act = False
        with pytest.raises(LoginError, match=r"roles/iam\.workloadIdentityUser") as raised:
            await google.listed()
    assert CANARY not in raised.value.message


async def test_token_in_json_and_by_url_is_found(gcp: Gcp, subject: Subject) -> None:
    subject.keep(json.dumps({"id_token": SUBJECT}))
    form = {"type": "json", "subject_token_field_name": "id_token"}
    told = federation({"file": str(subject), "format": form})
    async with open_gcp(gcp, key=lambda: told) as google:
        await google.listed()
    # The metadata server's answer stands in for that of a provider of identities.
    form["subject_token_field_name"] = "access_token"
    url = f"http://{gcp.tokens.metadata}/token"
    source = {"url": url, "headers": {"Metadata-Flavor": "Google"}, "format": form}
    gcp.tokens.subjects |= {f"ya29.{CANARY}.{n}" for n in range(10)}
    async with open_gcp(gcp, key=lambda: federation(source)) as google:
        await google.listed()


async def test_token_that_has_expired_is_named(gcp: Gcp, subject: Subject) -> None:
    gcp.tokens.subjects.clear()
    async with open_gcp(gcp, key=lambda: federation({"file": str(subject)})) as google:
        with pytest.raises(LoginError, match="may have expired") as raised:
            await google.listed()
    assert SUBJECT not in raised.value.message
    assert CANARY not in raised.value.message


async def test_file_is_read_again_at_each_login(gcp: Gcp, subject: Subject) -> None:
    async with open_gcp(gcp, key=lambda: federation({"file": str(subject)})) as google:
        await google.listed()
        gcp.fake.tokens.clear()
        gcp.tokens.subjects = {"another"}
        subject.keep("another")
        await google.listed()


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ({"file": "/none/token"}, LoginError, "cannot be read: /none/token"),
        ({"environment_id": "aws1"}, ConfigError, "neither a file nor a url"),
        ({"executable": {"command": "/bin/true"}}, ConfigError, "neither a file nor a url"),
    ],
)
async def test_source_that_gives_no_token_is_told(
    gcp: Gcp, source: dict[str, Any], error: type[Exception], said: str
) -> None:
    async with open_gcp(gcp, key=lambda: federation(source)) as google:
        with pytest.raises(error, match=said):
            await google.listed()


async def test_empty_file_is_no_token(gcp: Gcp, subject: Subject) -> None:
    subject.keep("\n")
    async with open_gcp(gcp, key=lambda: federation({"file": str(subject)})) as google:
        with pytest.raises(LoginError, match="credential_source"):
            await google.listed()
    assert gcp.tokens.asked == []


async def test_backend_of_the_api_reads_no_file_of_this_machine(gcp: Gcp, subject: Subject) -> None:
    """Else whoever may configure a backend could send any file to an address of their own."""
    told = federation({"file": str(subject)})
    async with open_gcp(gcp, key=lambda: told, managed_by=ManagedBy.API) as google:
        with pytest.raises(ConfigError, match="operator's file"):
            await google.listed()
    assert gcp.tokens.asked == []


# --- the identity of this process ---------------------------------------------------


def no_key() -> str:
    raise AssertionError("no credential is configured, so none is asked for")


async def test_machine_of_googles_is_asked_for_its_token(
    gcp: Gcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", gcp.tokens.metadata)
    gcp.put("a", "x")
    config = {"credentials_path": None, "auth_method": "workload_identity"}
    async with open_gcp(gcp, key=no_key, config=config) as google:
        assert (await google.listed()).names == [PREFIX + "a"]
    [asked] = gcp.tokens.asked
    assert asked.endswith("/computeMetadata/v1/instance/service-accounts/default/token")


@pytest.mark.parametrize("kind", ["key", "federation"])
async def test_file_that_the_environment_names_comes_first(
    gcp: Gcp, subject: Subject, tmp_path: Path, kind: str
) -> None:
    made = {"key": gcp.tokens.key.json, "federation": lambda: federation({"file": str(subject)})}
    file = tmp_path / "adc.json"
    file.write_text(made[kind]())
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "GCE_METADATA_HOST": "127.0.0.1:9"}
    async with session(gcp, static=False, environ=environ) as found:
        await call(found)
    assert gcp.tokens.asked == [TOKEN if kind == "key" else STS]


@pytest.mark.parametrize(
    ("environ", "error", "said"),
    [
        ({"GOOGLE_APPLICATION_CREDENTIALS": "/none"}, LoginError, "cannot be read|can be read"),
        ({"GCE_METADATA_HOST": "127.0.0.1:9"}, BackendUnreachableError, "127.0.0.1:9"),
    ],
)
async def test_process_without_an_identity_is_told_what_is_missing(
    gcp: Gcp, environ: dict[str, str], error: type[Exception], said: str
) -> None:
    async with session(gcp, static=False, environ=environ) as made:
        with pytest.raises(error, match=said):
            await call(made)


async def test_machine_without_a_service_account_is_told_what_to_do(gcp: Gcp) -> None:
    gcp.tokens.fault = (404, CANARY)
    environ = {"GCE_METADATA_HOST": gcp.tokens.metadata}
    async with session(gcp, static=False, environ=environ) as made:
        with pytest.raises(LoginError, match=r"config\.credentials_path") as raised:
            await call(made)
    assert CANARY not in raised.value.message


async def test_names_that_are_called_are_googles_own(gcp: Gcp) -> None:
    async with open_gcp(gcp) as google:
        await google.listed()
    assert gcp.looked_up == ["oauth2.googleapis.com", GLOBAL]


# --- what is loaded ---------------------------------------------------------------


def run(code: str) -> str:
    prelude = (
        "import sys\n"
        "from svsync.config.model import Settings\n"
        "from svsync.registry import Registry\n"
        "registry = Registry(Settings(state_dir='.'), lambda spec, tenant: None)\n"
    )
    made = [sys.executable, "-c", prelude + code]
    return subprocess.run(made, capture_output=True, text=True, check=True).stdout


def test_process_that_speaks_to_vault_alone_loads_nothing_of_google() -> None:
    said = run(
        "registry.driver('hashicorp-vault')\n"
        "before = sorted(m for m in sys.modules if m.split('.')[0] in ('google', 'grpc'))\n"
        "registry.driver('gcp-secret-manager')\n"
        "print(before, 'grpc' in sys.modules, 'google.cloud.secretmanager_v1' in sys.modules)"
    )
    assert said == "[] True False\n", "the service's own part comes with the first call"


def test_missing_package_is_named_with_what_brings_it() -> None:
    said = run(
        "sys.modules['grpc'] = None\n"
        "try:\n"
        "    registry.driver('gcp-secret-manager')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)"
    )
    assert said.startswith("ConfigError gcp-secret-manager needs the package grpc")
    assert "svsync[gcp]" in said
