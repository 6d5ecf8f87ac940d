"""Fixtures with key services of each kind, each with two keys, as an operator names them.

The hands that make and disable keys are those of a person with another client.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import pytest
from tests.aws import KEYS, REGION, Aws
from tests.azure_keys import CREDENTIAL, SECRET, FakeVault, fake_key_vault

from svsync.config.model import KmsProvider, Settings
from svsync.embedded.openbao import OpenBaoServer, TlsFiles
from svsync.embedded.processes import free_port
from svsync.ports import KeyService
from svsync.registry import key_services

if TYPE_CHECKING:  # it takes Google's SDK, which most tests do without
    from tests.gcp_kms import FakeKms

PIN: Final = "48151623"
_NUMBERS = count(1)
_MODULES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
)


async def _cannot() -> None:
    pytest.skip("this key service has no such state")


@dataclass(frozen=True)
class Home:
    """A key service with two keys.

    Attributes:
        other, missing: another key there, and one that is not there.
        access, environ: how it is reached.
        away: likewise, and nobody is there; `away_key`: the key to ask for then.
        secrets: texts that nobody may be shown.
        disable: make the key unusable there.
        seals: what it wraps is sealed indeed, and not only noted.
    """

    provider: KmsProvider
    key: str
    other: str
    missing: str
    access: Mapping[str, Any]
    away: Mapping[str, Any]
    environ: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    disable: Callable[[], Awaitable[None]] = _cannot
    away_key: str = ""
    seals: bool = True

    def settings(self, state_dir: Path, **changes: Any) -> Settings:
        """With this key service as the only one."""
        return replace(
            Settings(state_dir=str(state_dir), allow_loopback=True),
            kms_provider=self.provider,
            kms_key_id=self.key,
            kms_access=self.access,
            **changes,
        )

    def service(self, state_dir: Path, **changes: Any) -> KeyService:
        settings = replace(self.settings(state_dir), **changes)
        found = key_services(settings, self.environ, stored=()).primary
        assert found is not None
        return found


def nowhere() -> str:
    """An address at which nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


# --- AWS ------------------------------------------------------------------------------


async def kms_call(aws: Aws, operation: str, **body: Any) -> dict[str, Any]:
    """One call to KMS, as another client makes it."""
    headers = {
        "X-Amz-Target": f"TrentService.{operation}",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": (
            f"AWS4-HMAC-SHA256 Credential=AKIA/20261123/{REGION}/kms/aws4_request,"
            " SignedHeaders=host, Signature=00"
        ),
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{aws.url}/", data=json.dumps(body), headers=headers) as answer,
    ):
        told: dict[str, Any] = json.loads(await answer.read() or b"{}")
        assert answer.status == 200, told
        return told


async def aws_home(aws: Aws) -> Home:
    """Two new keys; the first is named by its ARN."""
    keys = [(await kms_call(aws, "CreateKey"))["KeyMetadata"] for _ in range(2)]

    async def disable() -> None:
        await kms_call(aws, "DisableKey", KeyId=keys[0]["KeyId"])

    access = {"endpoint": aws.url, "credentials_path": "env:AWS_KEYS"}
    return Home(
        KmsProvider.AWS,
        keys[0]["Arn"],
        keys[1]["Arn"],
        keys[0]["Arn"].rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000",
        access,
        {**access, "endpoint": nowhere()},
        {"AWS_KEYS": KEYS},
        ("of-nobody",),
        disable,
    )


@pytest.fixture
async def roto_home(roto_server: Aws) -> Home:
    return replace(await aws_home(roto_server), seals=False)


@pytest.fixture
async def moto_home(moto_server: Aws) -> Home:
    """The second opinion, which opens with a disabled key too."""
    return replace(await aws_home(moto_server), disable=_cannot)


# --- Vault ----------------------------------------------------------------------------

TRANSIT_POLICY: Final = (
    'path "{mount}/encrypt/*" {{ capabilities = ["update"] }}\n'
    'path "{mount}/decrypt/*" {{ capabilities = ["update"] }}\n'
)
"""What svsync needs of transit, and nothing more."""


async def vault_home_at(server: OpenBaoServer, **access: Any) -> Home:
    """Two new keys of a new mount, and a token that may use them."""
    mount = f"transit{next(_NUMBERS)}"
    await server.request("POST", f"sys/mounts/{mount}", {"type": "transit"})
    for key in ("root", "other"):
        await server.request("POST", f"{mount}/keys/{key}", {"type": "aes256-gcm96"})
    policy = {"policy": TRANSIT_POLICY.format(mount=mount)}
    await server.request("PUT", f"sys/policies/acl/{mount}", policy)
    made = await server.request("POST", "auth/token/create", {"policies": [mount]})
    auth = made["auth"]
    assert isinstance(auth, dict)
    token = str(auth["client_token"])

    async def disable() -> None:
        await server.request("POST", f"{mount}/keys/root/config", {"deletion_allowed": True})
        await server.request("DELETE", f"{mount}/keys/root")

    access = {"endpoint": server.url, "credentials_path": "env:KMS_TOKEN", **access}
    return Home(
        KmsProvider.VAULT,
        f"{mount}/root",
        f"{mount}/other",
        f"{mount}/missing",
        access,
        {**access, "endpoint": nowhere()},
        {"KMS_TOKEN": token},
        (token,),
        disable,
    )


@pytest.fixture
async def vault_home(openbao: OpenBaoServer) -> Home:
    return await vault_home_at(openbao)


# --- PKCS#11 --------------------------------------------------------------------------

_MAKE_KEYS: Final = """
import sys
import pkcs11
from pkcs11 import Attribute, KeyType
module, pin, *labels = sys.argv[1:]
with pkcs11.lib(module).get_token(token_label="svsync").open(rw=True, user_pin=pin) as session:
    for label in labels:
        loose = label == "loose"
        session.generate_key(KeyType.AES, 256, label=label, store=True, template={
            Attribute.SENSITIVE: not loose, Attribute.EXTRACTABLE: loose,
        })
"""


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The module, with one token `svsync` in which are the keys root, other and loose. Loaded
    once a process, so there is one of it."""
    module = next((path for path in _MODULES if Path(path).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM is not installed (Debian package softhsm2)")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    kept = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(config)
    make = ["softhsm2-util", "--init-token", "--free", "--label", "svsync"]
    subprocess.run([*make, "--pin", PIN, "--so-pin", "5678"], check=True, capture_output=True)
    argv = [sys.executable, "-c", _MAKE_KEYS, module, PIN, "root", "other", "loose"]
    subprocess.run(argv, check=True, capture_output=True)
    yield module
    if kept is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = kept


@pytest.fixture
def pkcs11_home(softhsm: str) -> Home:
    access = {"module": softhsm, "credentials_path": "env:HSM_PIN"}
    return Home(
        KmsProvider.PKCS11,
        "token=svsync;object=root",
        "token=svsync;object=other",
        "token=svsync;object=missing",
        access,
        access,
        {"HSM_PIN": PIN},
        (PIN,),
        away_key="token=gone;object=root",
    )


# --- GCP and Azure --------------------------------------------------------------------


@pytest.fixture
async def cloud_kms(tls_files: TlsFiles) -> AsyncIterator["FakeKms"]:
    from tests.gcp_kms import fake_cloud_kms

    async with fake_cloud_kms(tls_files) as fake:
        yield fake


@pytest.fixture
def gcp_home(cloud_kms: "FakeKms", tls_files: TlsFiles) -> Home:
    key, other = cloud_kms.add("root"), cloud_kms.add("other")

    async def disable() -> None:
        cloud_kms.disabled.add(key)

    access = {
        "endpoint": f"https://localhost:{cloud_kms.port}",
        "ca_file": str(tls_files.ca),
        "credentials_path": "env:GCP_KEY",
    }
    return Home(
        KmsProvider.GCP,
        key,
        other,
        f"{key}-missing",
        access,
        {**access, "endpoint": f"https://localhost:{free_port()}"},
        {"GCP_KEY": cloud_kms.credential},
        ("PRIVATE KEY",),
        disable,
    )


@pytest.fixture
async def key_vault(tls_files: TlsFiles) -> AsyncIterator[FakeVault]:
    async with fake_key_vault(tls_files) as fake:
        yield fake


@pytest.fixture
def azure_home(key_vault: FakeVault, tls_files: TlsFiles) -> Home:
    root = key_vault.add("root")
    key_vault.add("other")

    async def disable() -> None:
        root.enabled = False

    access = {"ca_file": str(tls_files.ca), "credentials_path": "env:AZURE_LOGIN"}
    return Home(
        KmsProvider.AZURE,
        f"{key_vault.url}/keys/root",
        f"{key_vault.url}/keys/other",
        f"{key_vault.url}/keys/missing",
        access,
        access,
        {"AZURE_LOGIN": CREDENTIAL, "AZURE_AUTHORITY_HOST": key_vault.url},
        (SECRET,),
        disable,
        f"https://localhost:{free_port()}/keys/root",
    )


# --- each of them ---------------------------------------------------------------------

KINDS: Final = ("roto", "moto", "vault", "pkcs11", "gcp", "azure")


@pytest.fixture(params=KINDS)
def home(request: pytest.FixtureRequest) -> Home:
    """A key service of each kind."""
    found = request.getfixturevalue(f"{request.param}_home")
    assert isinstance(found, Home)
    return found
