"""What each kind of key service does that the others do not: refusals, versions, logins."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.aws import AwsFront
from tests.azure_keys import FakeVault
from tests.gcp_kms import FakeKms
from tests.key_services import PIN, Home, vault_home_at
from tests.openbao import new_mount

from svsync.config.model import KmsProvider
from svsync.domain.errors import ConfigError, KeyServiceAwayError, KeyServiceError
from svsync.embedded.openbao import OpenBaoServer, TlsFiles
from svsync.kms import pkcs11

KEY = bytes(range(100, 132))
CONTEXT = {"svsync": "root"}


# --- AWS ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "says", "away"),
    [
        ("AccessDeniedException", 400, "AWS denies encrypt", False),
        ("ThrottlingException", 400, "asks to slow down", True),
        ("KMSInternalException", 500, "AWS failed", True),
        ("DependencyTimeoutException", 503, "AWS failed", True),
        ("KMSInvalidStateException", 400, "scheduled for deletion", False),
        ("DisabledException", 400, "enable it", False),
        ("InvalidKeyUsageException", 400, "not a symmetric key", False),
        ("ExpiredTokenException", 400, "refuses the keys", False),
        ("UnknownToUsException", 400, "with status 400", False),
    ],
)
async def test_refusals_of_aws_are_told_apart(
    aws_front: AwsFront,
    roto_home: Home,
    state_dir: Path,
    code: str,
    status: int,
    says: str,
    away: bool,
) -> None:
    service = roto_home.service(
        state_dir, kms_access={**roto_home.access, "endpoint": aws_front.url}
    )
    aws_front.refuse_as("^Encrypt ", code, status, "a text that nobody may be shown")
    with pytest.raises(KeyServiceError, match=says) as refused:
        await service.wrap(KEY, CONTEXT)
    assert isinstance(refused.value, KeyServiceAwayError) is away
    assert "nobody may" not in str(refused.value)


async def test_keys_for_aws_that_were_changed_count_from_the_next_call(
    roto_home: Home, state_dir: Path
) -> None:
    environ = dict(roto_home.environ)
    service = replace(roto_home, environ=environ).service(state_dir)
    environ["AWS_KEYS"] = '{"access_key_id": "AKIA"}'
    with pytest.raises(KeyServiceError, match="secret_access_key"):
        await service.wrap(KEY, CONTEXT)
    environ["AWS_KEYS"] = roto_home.environ["AWS_KEYS"]
    assert await service.unwrap(await service.wrap(KEY, CONTEXT), CONTEXT) == KEY


async def test_key_without_an_arn_needs_a_region(roto_home: Home, state_dir: Path) -> None:
    named = {"kms_key_id": roto_home.key.rpartition("/")[2]}
    with pytest.raises(ConfigError, match="names no region"):
        roto_home.service(state_dir, **named)
    there = replace(roto_home, environ={**roto_home.environ, "AWS_REGION": "us-east-1"})
    service = there.service(state_dir, **named)
    assert await service.unwrap(await service.wrap(KEY, CONTEXT), CONTEXT) == KEY


# --- Vault ----------------------------------------------------------------------------


async def test_new_version_of_a_transit_key_wraps_and_the_old_one_opens(
    vault_home: Home, openbao: OpenBaoServer, state_dir: Path
) -> None:
    service = vault_home.service(state_dir)
    old = await service.wrap(KEY, CONTEXT)
    await openbao.request("POST", f"{vault_home.key.replace('/', '/keys/')}/rotate")
    new = await service.wrap(KEY, CONTEXT)
    assert (b":v1:" in old, b":v2:" in new) == (True, True)
    assert [await service.unwrap(one, CONTEXT) for one in (old, new)] == [KEY, KEY]
    await openbao.request(
        "POST",
        f"{vault_home.key.replace('/', '/keys/')}/config",
        {"min_decryption_version": 2},
    )
    with pytest.raises(KeyServiceError, match="min_decryption_version"):
        await service.unwrap(old, CONTEXT)


async def test_policy_of_the_page_makes_no_key_and_is_all_that_is_needed(
    vault_home: Home, openbao: OpenBaoServer, state_dir: Path
) -> None:
    service = vault_home.service(state_dir, kms_key_id=vault_home.missing)
    with pytest.raises(KeyServiceError, match="the key has to be there"):
        await service.wrap(KEY, CONTEXT)
    narrow = await openbao.request("POST", "auth/token/create", {"policies": ["default"]})
    auth = narrow["auth"]
    assert isinstance(auth, dict)
    denied = replace(vault_home, environ={"KMS_TOKEN": str(auth["client_token"])})
    with pytest.raises(KeyServiceError, match="denied: its policy needs `update`"):
        await denied.service(state_dir).wrap(KEY, CONTEXT)


async def test_login_by_approle_is_revoked_after_each_call(
    openbao: OpenBaoServer, state_dir: Path
) -> None:
    home = await vault_home_at(openbao)
    mount = await new_mount(openbao)
    login = await mount.approle(
        f'path "{home.key.partition("/")[0]}/*" {{ capabilities = ["update"] }}'
    )
    given = json.dumps({"role_id": login.role_id, "secret_id": login.secret_id})
    service = replace(home, environ={"KMS_TOKEN": given}).service(state_dir)
    before = await _tokens(openbao)
    assert await service.unwrap(await service.wrap(KEY, CONTEXT), CONTEXT) == KEY
    assert await _tokens(openbao) == before


async def _tokens(openbao: OpenBaoServer) -> int:
    listed = await openbao.request("LIST", "auth/token/accessors")
    data = listed["data"]
    assert isinstance(data, dict)
    return len(data["keys"])


async def test_vault_with_a_certificate_of_its_own(
    openbao_tls: OpenBaoServer, tls_files: TlsFiles, state_dir: Path
) -> None:
    trusted = await vault_home_at(openbao_tls, ca_file=str(tls_files.ca))
    service = trusted.service(state_dir)
    assert await service.unwrap(await service.wrap(KEY, CONTEXT), CONTEXT) == KEY
    strange = {name: value for name, value in trusted.access.items() if name != "ca_file"}
    with pytest.raises(KeyServiceAwayError, match=r"set kms_access\.ca_file to its authority"):
        await trusted.service(state_dir, kms_access=strange).wrap(KEY, CONTEXT)


async def test_vault_is_found_by_its_own_variables(vault_home: Home, state_dir: Path) -> None:
    environ = {
        "VAULT_ADDR": str(vault_home.access["endpoint"]),
        "VAULT_TOKEN": vault_home.environ["KMS_TOKEN"],
    }
    service = replace(vault_home, environ=environ, access={}).service(state_dir)
    assert await service.unwrap(await service.wrap(KEY, CONTEXT), CONTEXT) == KEY
    for missing in environ:
        left = {name: text for name, text in environ.items() if name != missing}
        with pytest.raises(ConfigError, match=missing):
            replace(vault_home, environ=left, access={}).service(state_dir)


# --- GCP ------------------------------------------------------------------------------


async def test_what_is_damaged_on_its_way_is_not_believed(
    cloud_kms: FakeKms, gcp_home: Home, state_dir: Path
) -> None:
    service = gcp_home.service(state_dir)
    wrapped = await service.wrap(KEY, CONTEXT)
    cloud_kms.damage = True
    for call in (service.wrap(KEY, CONTEXT), service.unwrap(wrapped, CONTEXT)):
        with pytest.raises(KeyServiceAwayError, match="CRC32C"):
            await call
    cloud_kms.damage, cloud_kms.unverified = False, True
    with pytest.raises(KeyServiceAwayError, match="CRC32C"):
        await service.wrap(KEY, CONTEXT)
    assert await service.unwrap(wrapped, CONTEXT) == KEY


# --- Azure ----------------------------------------------------------------------------


async def test_version_that_wrapped_opens_after_the_key_was_rotated(
    key_vault: FakeVault, azure_home: Home, state_dir: Path
) -> None:
    service = azure_home.service(state_dir)
    old = await service.wrap(KEY, CONTEXT)
    version = key_vault.keys["root"].rotate()
    new = await service.wrap(KEY, CONTEXT)
    assert version.encode() in new
    assert [await service.unwrap(one, CONTEXT) for one in (old, new)] == [KEY, KEY]
    assert not any("wrapkey" in line.replace("unwrapkey", "") for line in key_vault.seen)


@pytest.mark.parametrize(("status", "away"), [(429, True), (500, True), (503, True)])
async def test_vault_that_has_no_time_is_away(
    key_vault: FakeVault, azure_home: Home, state_dir: Path, status: int, away: bool
) -> None:
    service = azure_home.service(state_dir)
    wrapped = await service.wrap(KEY, CONTEXT)
    key_vault.fault = status
    with pytest.raises(KeyServiceError) as refused:
        await service.unwrap(wrapped, CONTEXT)
    assert isinstance(refused.value, KeyServiceAwayError) is away
    assert "never shown" not in str(refused.value)


@pytest.mark.parametrize("operations", [("sign", "verify"), ("wrapKey",), ("unwrapKey",)])
async def test_key_that_may_not_wrap_and_unwrap_is_refused(
    key_vault: FakeVault, azure_home: Home, state_dir: Path, operations: tuple[str, ...]
) -> None:
    key_vault.keys["root"].operations = operations
    with pytest.raises(KeyServiceError, match="wrapKey and unwrapKey"):
        await azure_home.service(state_dir).wrap(KEY, CONTEXT)


async def test_secret_that_entra_refuses_is_not_told(azure_home: Home, state_dir: Path) -> None:
    given = json.loads(azure_home.environ["AZURE_LOGIN"])
    given["client_secret"] = "another-secret-of-nobody"
    environ = {**azure_home.environ, "AZURE_LOGIN": json.dumps(given)}
    with pytest.raises(KeyServiceError, match="Entra") as refused:
        await replace(azure_home, environ=environ).service(state_dir).wrap(KEY, CONTEXT)
    assert "nobody" not in str(refused.value)


# --- PKCS#11 --------------------------------------------------------------------------


async def test_key_that_may_leave_its_token_wraps_nothing(
    pkcs11_home: Home, state_dir: Path
) -> None:
    loose = pkcs11_home.service(state_dir, kms_key_id="token=svsync;object=loose")
    with pytest.raises(KeyServiceError, match="may leave its token"):
        await loose.wrap(KEY, CONTEXT)


async def test_pin_that_was_refused_is_not_tried_again(pkcs11_home: Home, state_dir: Path) -> None:
    """SoftHSM counts tries, and real tokens lock after few."""
    environ = {"HSM_PIN": "00000000"}
    service = replace(pkcs11_home, environ=environ).service(state_dir)
    with pytest.raises(KeyServiceError, match="refuses the PIN") as refused:
        await service.wrap(KEY, CONTEXT)
    assert "00000000" not in str(refused.value)
    with pytest.raises(KeyServiceError, match="not tried again"):
        await service.wrap(KEY, CONTEXT)
    environ["HSM_PIN"] = PIN
    assert await service.unwrap(await service.wrap(KEY, CONTEXT), CONTEXT) == KEY


async def test_module_that_is_none_is_said(pkcs11_home: Home, state_dir: Path) -> None:
    access = {**pkcs11_home.access, "module": "/nonexistent/module.so"}
    with pytest.raises(KeyServiceError, match=r"module /nonexistent/module\.so cannot be loaded"):
        await pkcs11_home.service(state_dir, kms_access=access).wrap(KEY, CONTEXT)


async def test_call_that_hangs_in_the_module_is_away_and_holds_nobody_up(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    hangs = [True]

    def use(*_: object) -> bytes:
        if hangs[0]:
            go.wait()
        return KEY

    monkeypatch.setattr(pkcs11, "_SECONDS", 0.05)
    monkeypatch.setattr(pkcs11.Pkcs11KeyService, "_use", use)
    home = Home(
        KmsProvider.PKCS11,
        "token=a%20b;object=c",
        "",
        "",
        {"module": "/m.so", "credentials_path": "env:PIN"},
        {},
        {"PIN": PIN},
    )
    service = home.service(state_dir)
    assert service.reference == "pkcs11:token=a b;object=c"
    for _ in range(2):  # the second one waits for the first
        with pytest.raises(KeyServiceAwayError, match="did not answer"):
            await service.wrap(KEY, CONTEXT)
    hangs[0] = False
    go.set()
    monkeypatch.setattr(pkcs11, "_SECONDS", 15.0)
    assert (await service.wrap(KEY, CONTEXT)).endswith(KEY)


# --- what is loaded -------------------------------------------------------------------

_OPEN = """
import sys
from svsync.config.load import load
from svsync.registry import key_services
found = key_services(load(None, {"HOME": "/nonexistent"} | eval(sys.argv[1])), {}, stored=("x",))
print(found.primary.reference if found.primary else found.problems)
print(*{name.partition(".")[0] for name in sys.modules})
"""
_LOGIN = "{credentials_path: 'env:X', endpoint: 'https://kms.internal'}"
_KINDS = {
    "aws": ({"aiobotocore", "botocore"}, "alias/k", "{region: eu-west-1}"),
    "gcp": (
        {"google", "grpc", "google_crc32c"},
        "projects/p/locations/l/keyRings/r/cryptoKeys/k",
        "{credentials_path: 'env:X'}",
    ),
    "azure": ({"azure"}, "https://v.vault.azure.net/keys/k", "{credentials_path: 'env:X'}"),
    "vault": ({"hvac"}, "transit/k", _LOGIN),
    "pkcs11": (
        {"pkcs11"},
        "token=t;object=o",
        "{credentials_path: 'env:X', module: /usr/lib/m.so}",
    ),
}


@pytest.mark.parametrize("kind", list(_KINDS))
def test_each_kind_loads_its_own_sdk_and_no_other(kind: str) -> None:
    own, key, access = _KINDS[kind]
    environ = {"KMS_PROVIDER": kind, "KMS_KEY_ID": key, "SVSYNC_KMS_ACCESS": access}
    run = subprocess.run(
        [sys.executable, "-c", _OPEN, repr(environ)], capture_output=True, text=True, check=True
    )
    opened, loaded = run.stdout.splitlines()
    assert opened.startswith(f"{kind}:")
    others = set().union(*(packages for name, (packages, *_) in _KINDS.items() if name != kind))
    assert not (others - own) & set(loaded.split())
