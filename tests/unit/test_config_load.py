"""File and environment become settings, or one sentence that says where and what to do."""

import os
from pathlib import Path

import pytest

from svsync.config import load as loading
from svsync.config.load import default_state_dir, load
from svsync.config.model import ROWS, EventLoop, KmsProvider, LogLevel, Settings
from svsync.domain.errors import ConfigError
from svsync.domain.limits import ApiRates
from svsync.domain.values import SecretValue

CANARY = "c4n4ry"
HOME = {"HOME": "/home/ada"}
URL = f"postgresql://svsync:{CANARY}@db.internal/svsync"

BACKEND = """
  - id: fed_abc
    name: vault
    type: hashicorp-vault
    config: {endpoint: "https://vault.internal:8200", auth_method: token, auth_config_path: a/b}
    path_mapping: {"external/**": "kv/data/**"}
"""


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "svsync.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(path: str | None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, HOME | (environ or {}))
    message = str(caught.value)
    assert "\n" not in message
    assert CANARY not in message
    assert CANARY not in repr(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


# --- which file ---------------------------------------------------------------------


@pytest.fixture
def no_default_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        loading, "DEFAULT_FILES", (str(tmp_path / "etc.yaml"), str(tmp_path / "here.yaml"))
    )
    return tmp_path


def test_without_a_file_the_environment_is_the_whole_configuration(no_default_files: Path) -> None:
    settings = load(None, HOME | {"DATABASE_URL": URL, "SVSYNC_BACKENDS": BACKEND})
    assert settings.source is None
    assert settings.database_url == SecretValue(URL)
    assert [spec.id for spec in settings.backends] == ["fed_abc"]


def test_the_first_default_file_that_exists_is_read(no_default_files: Path) -> None:
    (no_default_files / "here.yaml").write_text("log_level: debug")
    assert load(None, HOME).log_level is LogLevel.DEBUG
    (no_default_files / "etc.yaml").write_text("log_level: warn")
    assert load(None, HOME).source == str(no_default_files / "etc.yaml")


def test_the_default_files_are_the_documented_ones() -> None:
    assert loading.DEFAULT_FILES == ("/etc/svsync/svsync.yaml", "./config/svsync.yaml")


def test_a_broken_default_file_is_not_passed_over(no_default_files: Path) -> None:
    (no_default_files / "etc.yaml").write_text("nonsense: c4n4ry")
    (no_default_files / "here.yaml").write_text("log_level: debug")
    assert "etc.yaml:1: nonsense: is an unknown key" in refusal(None)


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    assert refusal(str(tmp_path / "no.yaml")).endswith(
        "no.yaml: does not exist; create it or correct --config"
    )


def test_a_name_below_a_file_is_a_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(write(tmp_path, "log_level: info") + "/x.yaml")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "cannot be read (Is a directory)" in refusal(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "log_level: info")
    Path(path).chmod(0)
    assert "cannot be read (Permission denied)" in refusal(path)


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    assert "cannot be read (no such name)" in refusal(str(tmp_path) + "/a\0b")


# --- what stands in it ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "svsync.yaml: is empty"),
        ("# only a comment\n", "svsync.yaml: is empty"),
        ("null", "svsync.yaml:1: is empty"),
        ("- a\n- b\n", "svsync.yaml:1: must be a mapping of keys to values, not a list"),
        ("c4n4ry", "svsync.yaml:1: must be a mapping of keys to values, not text"),
        (
            "log_levle: c4n4ry",
            "svsync.yaml:1: log_levle: is an unknown key; did you mean log_level?",
        ),
        ("Log-Level: c4n4ry", "did you mean log_level?"),
        ("xyzzy: 1", "xyzzy: is an unknown key; known here: allow_loopback, allow_private_targets"),
        ("log_level: INFO", "svsync.yaml:1: log_level: must be debug, info, warn or error"),
        ("log_level: [c4n4ry]", "log_level: must be debug, info, warn or error, not a list"),
        ("log_level:", "log_level: has no value; give it debug, info, warn or error or remove"),
        ("migrate_on_start: yes", "must be true or false, not text"),
        ("migrate_on_start: 1", "must be true or false, not a number"),
        ("kms_grace: 1.5", "kms_grace: must be a duration from 0 to 30d"),
        ("kms_grace: 31d", "kms_grace: must be a duration from 0 to 30d"),
        ("kms_grace: .nan", "kms_grace: must be a duration"),
        ("kms_grace: 1e400", "kms_grace: must be a duration"),
        ("kms_grace: true", "kms_grace: must be a duration from 0 to 30d, such as 15m"),
        ("kms_grace: 1 h", "kms_grace: must be a duration"),
        ("kms_grace: -5", "kms_grace: must be a duration"),
        ("unreachable_after: " + "9" * 9000, "must be a whole number from 1 to 1,000"),
        ("unreachable_after: '3'", "must be a whole number from 1 to 1,000, not text"),
        ("bind_address: 8443", "bind_address: must be host:port, not a number; put it in quotes"),
        ("bind_address: 0.0.0.0", "bind_address: must be host:port"),
        ("bind_address: 0.0.0.0:99999", "bind_address: must be host:port"),
        ("bind_address: ':::1'", "bind_address: must be host:port"),
        ("metrics_address: nowhere", "metrics_address: must be host:port"),
        ("state_dir: var/lib", "state_dir: must be an absolute file path"),
        ('state_dir: "/a\\0b"', "state_dir: holds a control character"),
        ("trusted_proxies: 10.0.0.0/8", "trusted_proxies: must be a list, not text"),
        ("trusted_proxies: [10.0.0.1/8]", "trusted_proxies[0]: must be an address or a range"),
        ("allowed_backend_hosts: ['c4n4ry!']", "allowed_backend_hosts[0]: must be a host name"),
        ("allowed_backend_hosts: [10.0.0.999]", "allowed_backend_hosts[0]: must be a host name"),
        ("base_url: https://u:c4n4ry@x/", "base_url: holds a credential in plain text"),
        ("base_url: ftp://x", "base_url: must be a URL"),
        ("scaikey_url: https://x/?q=c4n4ry", "scaikey_url: must not hold a query or fragment"),
        ("bootstrap_super_admin: ada", "bootstrap_super_admin: must be an e-mail address"),
        ("backends: {a: 1}", "backends: must be a list, not a mapping"),
        ("backends: [c4n4ry]", "backends[0]: must be a mapping of keys to values, not text"),
        ("tls_cert_file: /a", "svsync.yaml:1: tls_cert_file: needs tls_key_file beside it"),
        ("tls_key_file: /a", "tls_key_file: needs tls_cert_file beside it"),
        ("tls_client_ca_file: /a", "needs tls_cert_file and tls_key_file"),
        ("kms_provider: aws", "kms_provider: aws needs kms_key_id"),
        ("kms_provider: aws\nkms_key_id: svsync", "kms_key_id: must be, for aws, a key's ARN"),
        ("kms_key_id: kms.key", "kms_key_id: must be, for local, file: and an absolute path"),
        (
            "kms_key_id_secondary: aws:svsync",
            "kms_key_id_secondary: must be, for aws, a key's ARN",
        ),
        (
            "kms_key_id_secondary: azure:https://vault.example.com/keys/k",
            "kms_key_id_secondary: must be, for azure, a key's address",
        ),
        (
            "kms_key_id: file:/k\nkms_key_id_secondary: local:file:/k",
            "kms_key_id_secondary: is the key of kms_key_id",
        ),
        ("kms_access: {endpoint: 'https://vault'}", "kms_access: has the key endpoint, and local"),
        ("kms_access: {token: x}", "kms_access.token: holds a credential in plain text"),
        ("kms_access: {credentials_path: infra/kms}", "must be env:NAME or file:/absolute/path"),
        (
            "kms_access_secondary: {region: eu-west-1}",
            "kms_access_secondary: needs kms_key_id_secondary",
        ),
        (
            "kms_provider: pkcs11\nkms_key_id: token=a;object=b\nkms_access: {module: /m.so}",
            "kms_access: needs module",
        ),
        (
            "kms_provider: vault\nkms_key_id: transit/k\nkms_access: {endpoint: 'http://vault'}",
            "kms_access: endpoint must begin with https://",
        ),
        ("scaikey_jwks_url: https://x/jwks", "scaikey_jwks_url: needs scaikey_url"),
        ("scaikey_url: http://x", "svsync.yaml:1: scaikey_url: must begin with https://"),
        ("scaikey_url: http://127.0.0.1:1", "scaikey_url: is on loopback; set allow_loopback"),
        ("scaikey_audience: a b", "scaikey_audience: must be letters, digits and"),
        ("api_rate_limits: {secrets_read: 0}", "must be a number from 0.01 to 1e+06"),
        ("api_rate_limits: {secrets: 1}", "api_rate_limits.secrets: is an unknown key; did you"),
        ("api_rate_limits: [admin]", "must be a list such as secrets_write=50,admin=off"),
        ("database_url_read: postgresql://db/x", "database_url_read: needs database_url"),
    ],
)
def test_bad_input_is_one_sentence_with_file_line_and_key(
    tmp_path: Path, text: str, expected: str
) -> None:
    message = refusal(write(tmp_path, text))
    assert message.startswith(str(tmp_path))
    assert expected in message


def test_each_key_refuses_a_mapping_a_list_and_nothing_in_one_sentence(tmp_path: Path) -> None:
    for name in ROWS:
        for value in ("{c4n4ry: c4n4ry}", "[[c4n4ry]]", "~", ".nan", "'c4n4ry\\'", "-1e400"):
            if name in ("kms_key_id", "kms_key_id_secondary") and value.startswith("'"):
                continue  # these take any text
            if name.startswith("kms_access") and value.startswith("{"):
                continue  # these take a mapping, and name a key that they do not know
            if name == "api_rate_limits" and value.startswith("{"):
                continue  # this takes a mapping, and names a key that it does not know
            assert f"svsync.yaml:2: {name}" in refusal(write(tmp_path, f"\n{name}: {value}"))


@pytest.mark.parametrize(
    "line",
    [
        f"database_url: {URL}",
        f"database_url: postgresql://db/x?user=a&password={CANARY}",
        f"redis_url: rediss://:{CANARY}@cache:6379/0",
        f"kms_key_id: pkcs11:token=svsync?pin-value={CANARY}",
        f"token: {CANARY}",
        f"client_secret: {CANARY}",
        f"scaikey_client_secret: {CANARY}",
        f"bootstrap_super_admin: hvs.{CANARY}AAAAAAAAAAAAAAAAAAAA",
    ],
)
def test_a_literal_credential_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    message = refusal(write(tmp_path, f"log_level: info\n{line}\n"))
    key = line.partition(":")[0]
    assert f"svsync.yaml:2: {key}: holds a credential in plain text" in message


def test_a_database_address_without_password_may_stand_in_the_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "database_url: postgresql://svsync@db/svsync"), HOME)
    assert settings.database_url == SecretValue("postgresql://svsync@db/svsync")


def test_a_database_address_may_be_a_reference(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text(URL + "\n")
    secret.chmod(0o600)
    text = f"database_url: env:MY_URL\nredis_url: file:{tmp_path}/redis"
    (tmp_path / "redis").write_text("redis://cache/0")
    (tmp_path / "redis").chmod(0o600)
    settings = load(write(tmp_path, text), HOME | {"MY_URL": URL})
    assert settings.database_url == SecretValue(URL)
    assert settings.redis_url == SecretValue("redis://cache/0")
    assert load(None, HOME | {"DATABASE_URL": f"file:{secret}"}).database_url == SecretValue(URL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("database_url: env:MY_URL", "svsync.yaml:1: database_url: env:MY_URL: is not set"),
        ("database_url: file:/no/such", "database_url: file:/no/such: does not exist"),
        ("database_url: env:c4n4ry-x", "database_url: must be a reference"),
        ("database_url: infra/db", "database_url: must be a URL such as postgresql://"),
        ("redis_url: postgresql://db/x", "redis_url: must be a URL such as rediss://"),
    ],
)
def test_a_reference_that_gives_nothing_is_refused_at_its_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert expected in refusal(write(tmp_path, text))


def test_a_referenced_address_that_is_none_is_refused_without_being_shown(tmp_path: Path) -> None:
    path = write(tmp_path, "database_url: env:MY_URL")
    assert "must be a URL" in refusal(path, {"MY_URL": f"mysql://{CANARY}"})


def test_the_roots_hold_for_the_database_reference_too(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(URL)
    (tmp_path / "url").chmod(0o600)
    text = f"database_url: file:{tmp_path}/url\nallowed_file_roots: [/nowhere]"
    assert "outside allowed_file_roots" in refusal(write(tmp_path, text))


# --- the environment ------------------------------------------------------------------

VALUES = {
    "database_url": URL,
    "database_url_read": URL,
    "redis_url": f"redis://:{CANARY}@cache/1",
    "migrate_on_start": "false",
    "max_replica_lag": "9s",
    "state_dir": "/srv/state",
    "bind_address": "[::1]:1",
    "base_url": "https://vault.example.com/x",
    "tls_cert_file": "/c",
    "tls_key_file": "/k",
    "tls_client_ca_file": "/ca",
    "trusted_proxies": "10.0.0.0/8, 192.0.2.1",
    "scaikey_url": "https://scaikey.example.com",
    "scaikey_jwks_url": "https://scaikey.example.com/jwks",
    "scaikey_audience": "https://vault.example.com/api",
    "scaikey_tenant_claim": "org",
    "scaikey_groups_claim": "https://example.com/groups",
    "scaikey_scopes_claim": "scp",
    "bootstrap_super_admin": "ada@example.com",
    "console": "false",
    "console_client_id": "svsync-console",
    "api_rate_limits": "secrets_read=500, federation=0.5, admin=off",
    "audit_timeout": "3",
    "event_loop": "asyncio",
    "audit_anchors": '[{"anchor": "file", "path": "/srv/anchor"}]',
    "log_level": "error",
    "log_format": "text",
    "metrics_address": "off",
    "metrics_max_backends": "50",
    "health_interval": "2m",
    "unreachable_after": "5",
    "kms_provider": "vault",
    "kms_key_id": "transit/svsync",
    "kms_key_id_secondary": "transit/other",
    "kms_access": "{endpoint: 'https://vault.internal:8200', credentials_path: 'env:KMS_TOKEN'}",
    "kms_access_secondary": '{"namespace": "ops"}',
    "kms_grace": "1h",
    "allowed_file_roots": "/run/secrets,/etc/svsync",
    "ambient_identity_tenants": "ops",
    "allowed_plugins": "acme-store",
    "allow_loopback": "true",
    "allowed_backend_hosts": "Vault.internal,10.1.0.0/16",
    "allow_private_targets": "true",
    "max_versions": "3",
    "trim_grace": "2h",
    "tombstone_retention": "7d",
    "conflict_retention": "8d",
    "run_retention": "9d",
    "runs_kept": "30",
    "push_retention": "10d",
    "detached_retention": "11d",
    "events_kept": "12d",
    "token_retention": "13d",
    "audit_retention": "90d",
    "shutdown_grace": "30s",
    "backends": "[]",
}
GUIDE = [
    "DATABASE_URL",
    "DATABASE_URL_READ",
    "REDIS_URL",
    "SCAIKEY_URL",
    "SCAIKEY_JWKS_URL",
    "BIND_ADDRESS",
    "BASE_URL",
    "LOG_LEVEL",
    "LOG_FORMAT",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TLS_CLIENT_CA_FILE",
    "MIGRATE_ON_START",
    "BOOTSTRAP_SUPER_ADMIN",
    "KMS_PROVIDER",
    "KMS_KEY_ID",
    "KMS_KEY_ID_SECONDARY",
    "METRICS_ADDRESS",
]


def test_the_names_of_the_deployment_guide_keep_their_meaning() -> None:
    assert {ROWS[name.lower()].variable for name in GUIDE} == set(GUIDE)
    others = {row.name: row.variable for row in ROWS.values() if row.variable not in GUIDE}
    assert others == {name: f"SVSYNC_{name.upper()}" for name in others}


def test_any_value_can_be_given_by_the_environment() -> None:
    assert VALUES.keys() == ROWS.keys()
    settings = load(None, {ROWS[name].variable: value for name, value in VALUES.items()})
    assert settings == Settings(
        database_url=SecretValue(URL),
        database_url_read=SecretValue(URL),
        redis_url=SecretValue(VALUES["redis_url"]),
        migrate_on_start=False,
        max_replica_lag=9,
        state_dir="/srv/state",
        bind_address="[::1]:1",
        base_url="https://vault.example.com/x",
        tls_cert_file="/c",
        tls_key_file="/k",
        tls_client_ca_file="/ca",
        trusted_proxies=("10.0.0.0/8", "192.0.2.1/32"),
        scaikey_url="https://scaikey.example.com",
        scaikey_jwks_url="https://scaikey.example.com/jwks",
        scaikey_audience="https://vault.example.com/api",
        scaikey_tenant_claim="org",
        scaikey_groups_claim="https://example.com/groups",
        scaikey_scopes_claim="scp",
        bootstrap_super_admin="ada@example.com",
        console=False,
        console_client_id="svsync-console",
        api_rate_limits=ApiRates(secrets_read=500, federation=0.5, admin=None),
        audit_timeout=3,
        event_loop=EventLoop.ASYNCIO,
        audit_anchors=({"anchor": "file", "path": "/srv/anchor"},),
        log_level=LogLevel.ERROR,
        log_format=settings.log_format,
        metrics_address=None,
        metrics_max_backends=50,
        health_interval=120,
        unreachable_after=5,
        kms_provider=KmsProvider.VAULT,
        kms_key_id="transit/svsync",
        kms_key_id_secondary="transit/other",
        kms_access={"endpoint": "https://vault.internal:8200", "credentials_path": "env:KMS_TOKEN"},
        kms_access_secondary={"namespace": "ops"},
        kms_grace=3600,
        allowed_file_roots=("/run/secrets", "/etc/svsync"),
        ambient_identity_tenants=("ops",),
        allowed_plugins=("acme-store",),
        allow_loopback=True,
        allowed_backend_hosts=("vault.internal", "10.1.0.0/16"),
        allow_private_targets=True,
        max_versions=3,
        trim_grace=7200,
        tombstone_retention=7 * 86400,
        conflict_retention=8 * 86400,
        run_retention=9 * 86400,
        runs_kept=30,
        push_retention=10 * 86400,
        detached_retention=11 * 86400,
        events_kept=12 * 86400,
        token_retention=13 * 86400,
        audit_retention=90 * 86400,
        shutdown_grace=30,
    )
    assert settings.log_format == "text"


def test_settings_do_not_show_a_password() -> None:
    settings = load(None, {ROWS[name].variable: value for name, value in VALUES.items()})
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)


def test_a_variable_replaces_the_files_value(tmp_path: Path) -> None:
    path = write(tmp_path, "log_level: debug\nkms_grace: 1h\nbackends: []")
    settings = load(path, HOME | {"LOG_LEVEL": "error", "SVSYNC_BACKENDS": BACKEND})
    assert settings.log_level is LogLevel.ERROR
    assert settings.kms_grace == 3600
    assert len(settings.backends) == 1


def test_an_empty_variable_takes_the_files_value_away(tmp_path: Path) -> None:
    path = write(tmp_path, "bootstrap_super_admin: ada@example.com")
    assert load(path, HOME).bootstrap_super_admin == "ada@example.com"
    assert load(path, HOME | {"BOOTSTRAP_SUPER_ADMIN": ""}).bootstrap_super_admin is None


@pytest.mark.parametrize("name", ["DATABASE_URL", "KMS_PROVIDER", "KMS_KEY_ID", "SVSYNC_STATE_DIR"])
def test_an_empty_variable_never_moves_the_data_elsewhere(name: str) -> None:
    assert refusal(None, {name: " "}) == f"{name}: is set but empty; give it a value or unset it"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LOG_LEVEL": "c4n4ry"}, "LOG_LEVEL: must be debug, info, warn or error"),
        ({"MIGRATE_ON_START": "no"}, "MIGRATE_ON_START: must be true or false"),
        ({"DATABASE_URL": "c4n4ry"}, "DATABASE_URL: must be a URL such as postgresql://"),
        ({"DATABASE_URL": f"{URL} x"}, "DATABASE_URL: must be a URL such as"),
        ({"REDIS_URL": "http://c4n4ry"}, "REDIS_URL: must be a URL such as rediss://"),
        ({"SVSYNC_TRUSTED_PROXIES": "10.0.0.0/8,c4n4ry"}, "SVSYNC_TRUSTED_PROXIES: must be an"),
        ({"KMS_KEY_ID": "pkcs11:x?pin-value=c4n4ry"}, "KMS_KEY_ID: holds a credential"),
        ({"SVSYNC_BACKENDS": "[{nmae: c4n4ry}]"}, "SVSYNC_BACKENDS:1: backends[0].nmae: is an unk"),
        ({"SVSYNC_BACKENDS": "[{"}, "SVSYNC_BACKENDS:1: is not valid YAML"),
        ({"SVSYNC_BACKENDS": "\udcff"}, "SVSYNC_BACKENDS:1: is not UTF-8"),
        ({"LOG_LEVEL": "\udcff"}, "LOG_LEVEL: must be debug"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(environ: dict[str, str], expected: str) -> None:
    assert expected in refusal(None, environ)


def test_the_variables_of_a_kubernetes_service_named_svsync_are_not_settings() -> None:
    environ = HOME | {"SVSYNC_PORT": "tcp://10.0.0.1:8443", "SVSYNC_SERVICE_HOST": "10.0.0.1"}
    assert load(None, environ) == load(None, HOME)


# --- defaults -------------------------------------------------------------------------


def test_the_documented_defaults_are_those_of_the_contract() -> None:
    settings = Settings(state_dir="/x")
    assert settings.bind_address == "0.0.0.0:8443"
    assert settings.metrics_address == "127.0.0.1:9464"
    assert (settings.shutdown_grace, settings.kms_grace) == (20, 86400)
    assert (settings.health_interval, settings.max_replica_lag) == (60, 5)
    assert (settings.audit_timeout, settings.unreachable_after) == (2, 3)
    assert settings.metrics_max_backends == 2_000
    assert (settings.events_kept, settings.token_retention) == (7 * 86_400, 90 * 86_400)
    assert settings.kms_provider is KmsProvider.LOCAL
    assert settings.allowed_file_roots is None
    assert settings.migrate_on_start


@pytest.mark.parametrize(
    ("environ", "euid", "expected"),
    [
        ({"HOME": "/root", "XDG_STATE_HOME": "/x"}, 0, "/var/lib/svsync"),
        ({"HOME": "/home/ada"}, 1000, "/home/ada/.local/state/svsync"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": "/x/"}, 1000, "/x/svsync"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": "x"}, 1000, "/home/ada/.local/state/svsync"),
    ],
)
def test_state_lies_where_the_user_keeps_state(
    environ: dict[str, str], euid: int, expected: str
) -> None:
    assert default_state_dir(environ, euid) == expected


def test_a_user_without_a_home_must_name_the_state_folder() -> None:
    with pytest.raises(ConfigError, match="set SVSYNC_STATE_DIR"):
        default_state_dir({}, 1000)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "http://127.0.0.1:8443"),
        ({"bind_address": "[::]:1"}, "http://[::1]:1"),
        ({"bind_address": "10.0.0.1:1", "tls_cert_file": "/c"}, "https://10.0.0.1:1"),
        ({"base_url": "https://v.example.com"}, "https://v.example.com"),
    ],
)
def test_the_public_url_defaults_to_the_listening_address(
    given: dict[str, str], expected: str
) -> None:
    assert Settings(state_dir="/x", **given).public_url == expected  # type: ignore[arg-type]


def test_an_error_found_later_can_still_name_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"log_level: info\nbackends:{BACKEND}")
    settings = load(path, HOME)
    (spec,) = settings.backends
    assert settings.place(spec, "config.endpoint") == f"{path}:6: backends[0].config.endpoint"
    assert settings.place(spec, "path_mapping[0].remote") == (
        f"{path}:7: backends[0].path_mapping[0].remote"
    )
    assert settings.place(spec) == f"{path}:3: backends[0]"
