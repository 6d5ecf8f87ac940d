"""As whom svsync calls Key Vault, and what it does when a token ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.azure import KEYS, LOOPBACK, certificate, open_azure
from tests.azure_fake import CLIENT, OTHER_TENANT, SECRET, TENANT, AzureFake
from tests.azure_vault import Vault
from tests.odd_keys import UNKNOWN

from svsync.clients.azure import AzureSession, AzureSettings
from svsync.domain.changes import RemoteValue
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    LoginError,
    ThrottledError,
)
from svsync.domain.values import Credential
from svsync.network import NetworkPolicy

CANARY = "canary-of-azure-login"


def keys(**changes: str | None) -> str:
    """What stands at the credential's path, with changes."""
    told = {**json.loads(KEYS), **changes}
    return json.dumps({name: text for name, text in told.items() if text is not None})


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gives this process nothing."""
    for name in (
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_AUTHORITY_HOST",
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        "IDENTITY_ENDPOINT",
        "IDENTITY_HEADER",
        "MSI_ENDPOINT",
    ):
        monkeypatch.delenv(name, raising=False)


# --- a client secret ----------------------------------------------------------------


async def test_one_login_is_for_all_calls(azure_fake: AzureFake, vault: Vault) -> None:
    async with open_azure(azure_fake, vault) as azure:
        for _ in range(3):
            await azure.listed()
        assert azure.guard.calls.count("login") == 1
    [form] = azure_fake.entra.forms
    assert form["scope"] == "https://vault.azure.net/.default"
    assert len(set(azure_fake.tokens)) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"client_secret": CANARY}, "env:AZURE_KEYS"),
        ({"client_id": CANARY}, "client_id"),
        ({"tenant_id": OTHER_TENANT}, "tenant_id"),
    ],
)
async def test_credential_that_entra_refuses_is_told_by_its_place(
    azure_fake: AzureFake, vault: Vault, changes: dict[str, str], told: str
) -> None:
    async with open_azure(azure_fake, vault, keys=lambda: keys(**changes)) as azure:
        with pytest.raises(LoginError, match=told) as raised:
            await azure.read("a")
    assert CANARY not in raised.value.message
    assert not raised.value.sent
    assert len(azure_fake.entra.forms) == 1


async def test_expired_secret_is_told_as_such(azure_fake: AzureFake, vault: Vault) -> None:
    azure_fake.entra.refuses = 7000222
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(LoginError, match="expired"):
            await azure.read("a")


@pytest.mark.parametrize("missing", ["tenant_id", "client_id", "client_secret"])
async def test_credential_that_lacks_a_field_is_told(
    azure_fake: AzureFake, vault: Vault, missing: str
) -> None:
    async with open_azure(azure_fake, vault, keys=lambda: keys(**{missing: None})) as azure:
        with pytest.raises(ConfigError, match=missing):
            await azure.read("a")


async def test_directory_that_is_none_is_told(azure_fake: AzureFake, vault: Vault) -> None:
    async with open_azure(azure_fake, vault, keys=lambda: keys(tenant_id="a/../b")) as azure:
        with pytest.raises(ConfigError, match="tenant_id"):
            await azure.read("a")


async def test_vault_of_another_directory_is_named(azure_fake: AzureFake, vault: Vault) -> None:
    vault.tenant = OTHER_TENANT
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(LoginError, match=OTHER_TENANT) as raised:
            await azure.read("a")
    assert raised.value.code == "wrong_tenant"
    assert TENANT in raised.value.message
    assert azure_fake.seen == []


@pytest.mark.parametrize(
    ("status", "error"), [(429, ThrottledError), (503, BackendUnreachableError)]
)
async def test_entra_that_does_not_answer_is_asked_again_later(
    azure_fake: AzureFake, vault: Vault, status: int, error: type[BackendError]
) -> None:
    azure_fake.entra.status = status
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(error):
            await azure.read("a")
        assert len(azure_fake.entra.forms) == 1, "the SDK does not try again"
        azure_fake.entra.status = 0
        await azure.listed()


async def test_entra_is_called_at_addresses_that_may_be_called(
    azure_fake: AzureFake, vault: Vault
) -> None:
    async with open_azure(azure_fake, vault, policy=NetworkPolicy()) as azure:
        with pytest.raises(BackendError, match="signs in is a loopback") as raised:
            await azure.read("a")
    assert raised.value.code == "endpoint_refused"


# --- a certificate --------------------------------------------------------------------


BY_CERTIFICATE = {"auth_method": "certificate"}


async def test_certificate_signs_in(
    azure_fake: AzureFake, vault: Vault, rsa_pem: tuple[str, bytes]
) -> None:
    pem, azure_fake.entra.certificate = rsa_pem
    given = keys(client_secret=None, certificate_pem=pem)
    async with open_azure(azure_fake, vault, keys=lambda: given, config=BY_CERTIFICATE) as azure:
        await azure.listed()
    [form] = azure_fake.entra.forms
    assert "client_secret" not in form
    assert form["client_assertion"].count(".") == 2


async def test_clock_that_is_wrong_is_named(
    azure_fake: AzureFake, vault: Vault, rsa_pem: tuple[str, bytes]
) -> None:
    pem, azure_fake.entra.certificate = rsa_pem
    azure_fake.entra.ahead = 7200
    given = keys(client_secret=None, certificate_pem=pem)
    async with open_azure(azure_fake, vault, keys=lambda: given, config=BY_CERTIFICATE) as azure:
        with pytest.raises(LoginError, match="clock") as raised:
            await azure.listed()
    assert raised.value.code == "clock_skew"
    assert len(azure_fake.entra.forms) == 1


async def test_certificate_that_the_application_does_not_have_is_told(
    azure_fake: AzureFake, vault: Vault, rsa_pem: tuple[str, bytes]
) -> None:
    _, azure_fake.entra.certificate = certificate(rsa.generate_private_key(65537, 2048))
    given = keys(client_secret=None, certificate_pem=rsa_pem[0])
    async with open_azure(azure_fake, vault, keys=lambda: given, config=BY_CERTIFICATE) as azure:
        with pytest.raises(LoginError, match="the certificate at env:AZURE_KEYS"):
            await azure.listed()


@pytest.mark.parametrize("what", ["no key", "elliptic", "unknown", "nothing"])
async def test_certificate_that_entra_could_not_take_is_told_before_it_is_asked(
    azure_fake: AzureFake, vault: Vault, rsa_pem: tuple[str, bytes], what: str
) -> None:
    pems = {
        "no key": rsa_pem[1].decode(),
        "elliptic": certificate(ec.generate_private_key(ec.SECP256R1()))[0],
        "unknown": UNKNOWN,
        "nothing": CANARY,
    }
    given = keys(client_secret=None, certificate_pem=pems[what])
    async with open_azure(azure_fake, vault, keys=lambda: given, config=BY_CERTIFICATE) as azure:
        with pytest.raises(LoginError, match="RSA") as raised:
            await azure.listed()
    assert CANARY not in raised.value.message
    assert azure_fake.entra.forms == []


# --- the identity of this process -------------------------------------------------------


def no_keys() -> str:
    raise AssertionError("no credential is configured, so none is asked for")


def of_machine(**config: Any) -> dict[str, Any]:
    told = {"auth_method": "managed_identity", "credentials_path": None, **config}
    return {"config": told, "keys": no_keys}


async def test_managed_identity_of_the_machine_is_used(
    azure_fake: AzureFake, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure_fake.machine_url)
    vault.put("a", "v")
    async with open_azure(azure_fake, vault, **of_machine()) as azure:
        [read] = await azure.read("a")
        assert azure.guard.calls.count("login") == 1
    assert isinstance(read, RemoteValue)
    assert "login.microsoftonline.com" not in azure_fake.resolver.asked


async def test_managed_identity_of_several_is_chosen_by_its_client_id(
    azure_fake: AzureFake, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure_fake.machine_url)
    azure_fake.entra.identities = {"mine"}
    async with open_azure(azure_fake, vault, **of_machine(client_id="mine")) as azure:
        await azure.listed()
    async with open_azure(azure_fake, vault, **of_machine(client_id="another")) as azure:
        with pytest.raises(LoginError, match=r"config\.client_id"):
            await azure.listed()


async def test_managed_identity_of_app_service_is_used(
    azure_fake: AzureFake, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure_fake.machine_url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    async with open_azure(azure_fake, vault, **of_machine()) as azure:
        await azure.listed()
    assert azure_fake.entra.forms == [{"client_id": ""}]


async def test_machine_without_an_identity_is_told_what_to_do(
    azure_fake: AzureFake, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    async with open_azure(azure_fake, vault, **of_machine()) as azure:
        with pytest.raises(LoginError, match="assign it"):
            await azure.listed()


async def test_metadata_service_that_is_busy_is_asked_again_later(
    azure_fake: AzureFake, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure_fake.machine_url)
    azure_fake.entra.status = 429
    async with open_azure(azure_fake, vault, **of_machine()) as azure:
        with pytest.raises(ThrottledError):
            await azure.listed()
    assert len(azure_fake.entra.forms) == 1, "the SDK does not try again"


@pytest.fixture
def token_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("of-the-pod")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    return file


async def test_workload_identity_gives_what_stands_in_its_file(
    azure_fake: AzureFake, vault: Vault, token_file: Path
) -> None:
    azure_fake.entra.federated = {"of-the-pod"}
    method = of_machine(auth_method="workload_identity")
    async with open_azure(azure_fake, vault, **method) as azure:
        await azure.listed()
    [form] = azure_fake.entra.forms
    assert (form["client_id"], form["client_assertion"]) == (CLIENT, "of-the-pod")


async def test_token_of_a_pod_that_has_expired_is_told(
    azure_fake: AzureFake, vault: Vault, token_file: Path
) -> None:
    azure_fake.entra.refuses = 700024
    method = of_machine(auth_method="workload_identity")
    async with open_azure(azure_fake, vault, **method) as azure:
        with pytest.raises(LoginError, match="expired") as raised:
            await azure.listed()
    assert raised.value.code == "login_failed"


async def test_token_of_a_pod_that_cannot_be_read_is_told(
    azure_fake: AzureFake, vault: Vault, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", f"{token_file}.gone")
    method = of_machine(auth_method="workload_identity")
    async with open_azure(azure_fake, vault, **method) as azure:
        with pytest.raises(LoginError, match="cannot be read"):
            await azure.listed()


async def test_process_without_a_workload_identity_is_told_what_is_missing(
    azure_fake: AzureFake, vault: Vault
) -> None:
    method = of_machine(auth_method="workload_identity", client_id="mine")
    async with open_azure(azure_fake, vault, **method) as azure:
        with pytest.raises(LoginError, match="AZURE_FEDERATED_TOKEN_FILE") as raised:
            await azure.listed()
    assert "AZURE_CLIENT_ID" not in raised.value.message, "it is configured"


# --- when a token ends ------------------------------------------------------------------


async def test_token_that_was_revoked_is_replaced_once(azure_fake: AzureFake, vault: Vault) -> None:
    vault.put("a", "v")
    async with open_azure(azure_fake, vault) as azure:
        await azure.listed()
        azure_fake.entra.revoke()
        [read] = await azure.read("a")
    assert isinstance(read, RemoteValue)
    assert len(azure_fake.entra.forms) == 2


async def test_credential_that_was_changed_is_picked_up(
    azure_fake: AzureFake, vault: Vault
) -> None:
    given = [KEYS, keys(client_secret="the-new-one")]
    async with open_azure(azure_fake, vault, keys=lambda: given.pop(0)) as azure:
        await azure.listed()
        azure_fake.entra.revoke()
        azure_fake.entra.applications[CLIENT] = "the-new-one"
        await azure.listed()
    assert given == []


async def test_vault_that_refuses_every_token_ends_it(azure_fake: AzureFake, vault: Vault) -> None:
    azure_fake.refuse_as("", 401, "Unauthorized")
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(LoginError, match="right after a new login"):
            await azure.read("a")
    assert len(azure_fake.entra.forms) == 2


async def test_token_is_replaced_at_two_thirds_of_its_life(
    azure_fake: AzureFake, vault: Vault
) -> None:
    now = 1000.0

    async def credential() -> Credential:
        return Credential.parse(KEYS, "test")

    async def call() -> None:
        await session.call("GET", "/secrets", operation="list")

    settings = AzureSettings(vault.url, "client_secret", tls_verify=azure_fake.pem)
    async with AzureSession(
        settings, credential, LOOPBACK, clock=lambda: now, resolver=azure_fake.resolver
    ) as session:
        await call()
        now += 2300
        await call()
        assert len(azure_fake.entra.forms) == 1
        now += 200
        await call()
        assert len(azure_fake.entra.forms) == 2
        now += 2500
        azure_fake.entra.status = 503
        await call()
        assert len(set(azure_fake.tokens)) == 2, "what is good is used"
        now += 1200
        with pytest.raises(BackendUnreachableError):
            await call()


async def test_nothing_of_a_login_shows(
    azure_fake: AzureFake, vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_azure(azure_fake, vault) as azure:
        await azure.listed()
        azure_fake.entra.revoke()
        azure_fake.answer("", lambda _: web.Response(status=401))
        with pytest.raises(LoginError) as raised:
            await azure.read("a")
    shown = repr(raised.value) + repr(azure.backend) + caplog.text
    assert SECRET not in shown
    assert not [token for token in azure_fake.tokens if token in shown]


# --- what is loaded ---------------------------------------------------------------------


def test_process_that_speaks_to_vault_alone_loads_no_sdk_of_azure() -> None:
    code = (
        "import sys\n"
        "from svsync.config.model import Settings\n"
        "from svsync.registry import Registry\n"
        "registry = Registry(Settings(state_dir='.'), lambda spec, tenant: None)\n"
        "registry.driver('hashicorp-vault')\n"
        "before = sorted(m for m in sys.modules if m.partition('.')[0] in ('azure', 'msal'))\n"
        "registry.driver('azure-key-vault')\n"
        "print(before, 'azure.keyvault.secrets' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[] True\n"


def test_missing_package_is_named_with_what_brings_it() -> None:
    code = (
        "import sys\n"
        "sys.modules['azure.keyvault.secrets'] = None\n"
        "from svsync.config.model import Settings\n"
        "from svsync.registry import Registry\n"
        "try:\n"
        "    registry = Registry(Settings(state_dir='.'), lambda spec, tenant: None)\n"
        "    registry.driver('azure-key-vault')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("ConfigError azure-key-vault needs the package azure.keyvault")
    assert "svsync[azure]" in run.stdout
