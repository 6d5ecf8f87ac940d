"""The settings of one process, frozen, each with its sentence.

A setting's sentence says what it is for and why its default is what it is; the
reference page and the JSON Schema are made of the same rows. The key in the
file is the field's name, the variable is in its row, or `SVSYNC_` and the key.
"""

# ruff: noqa: RUF009 - `setting` is `dataclasses.field` with a row in its metadata

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from svsync.config.anchors import ANCHOR, ANCHORS
from svsync.config.api_rates import API_RATES, RATES
from svsync.config.backend_keys import BACKEND, DAY
from svsync.config.document import Node
from svsync.config.endpoints import ORIGIN, URL
from svsync.config.key_services import ACCESS, KMS_ACCESS
from svsync.config.kinds import (
    ADDRESS,
    ANY_TEXT,
    BOOLEAN,
    FILE_PATH,
    HOST_OR_NETWORK,
    NETWORK,
    TENANT,
    Key,
    Kind,
    choice,
    duration,
    integer,
    list_of,
    object_schema,
    sequence,
    text,
)
from svsync.config.secret_urls import POSTGRES_URL, REDIS_URL
from svsync.domain.federation import BackendSpec
from svsync.domain.limits import ApiRates
from svsync.domain.values import SecretValue


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class LogFormat(StrEnum):
    JSON = "json"
    TEXT = "text"


class EventLoop(StrEnum):
    UVLOOP = "uvloop"
    ASYNCIO = "asyncio"


class KmsProvider(StrEnum):
    LOCAL = "local"
    AWS = "aws"
    GCP = "gcp"
    AZURE = "azure"
    VAULT = "vault"
    PKCS11 = "pkcs11"


def setting(
    kind: Kind,
    sentence: str,
    *,
    default: Any = None,
    default_words: str = "",
    variable: str = "",
    keys: tuple[Key, ...] = (),
    computed: bool = False,
) -> Any:
    """A field whose row travels in its metadata; `default` as the file would have it.

    `computed`: the loader works the default out, so the field has none.
    """
    row = Key(
        "", kind, sentence, default, default_words=default_words, variable=variable, keys=keys
    )
    if computed:
        return field(metadata={"row": row})
    return field(default=row.read_default(), metadata={"row": row})


def _read_metrics_address(node: Node) -> str | None:
    return None if node.value == "off" else str(ADDRESS.read(node))


METRICS_ADDRESS = Kind(_read_metrics_address, {"type": "string"}, "an address, or `off`")

CLAIM_TEXT = text(r"[A-Za-z0-9._:/@-]+", "letters, digits and . _ : / @ -", max_length=256)
EMAIL = text(r"[^@\s]+@[^@\s]+", "an e-mail address", max_length=254)

BACKENDS = Kind(
    lambda node: tuple(list_of(node)),
    {"type": "array", "items": object_schema(BACKEND)},
    "a list of backends",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the file and the environment say, checked.

    Attributes:
        source: the file it came from, None where there was none.
        places: key path → where it stands (`svsync.yaml:12: backends[0].name`).
    """

    # --- store -------------------------------------------------------------------

    database_url: SecretValue | None = setting(
        POSTGRES_URL,
        "PostgreSQL 14 or later, with a role that neither is superuser nor bypasses row-level "
        "security.",
        default_words="an embedded PostgreSQL under `state_dir`",
        variable="DATABASE_URL",
    )
    database_url_read: SecretValue | None = setting(
        POSTGRES_URL,
        "A replica that answers lists, histories, reports and audit queries; never values.",
        default_words="`database_url`",
        variable="DATABASE_URL_READ",
    )
    redis_url: SecretValue | None = setting(
        REDIS_URL,
        "Redis 7 or Valkey, for wake-ups and invalidations between replicas; it holds no truth.",
        default_words="signals stay inside the process",
        variable="REDIS_URL",
    )
    migrate_on_start: bool = setting(
        BOOLEAN,
        "Bring the schema up to date before serving; `false` where that is a step of its own.",
        default=True,
        variable="MIGRATE_ON_START",
    )
    max_replica_lag: int = setting(
        duration(0, 3600),
        "A read replica that lags further is not asked.",
        default="5s",
    )
    state_dir: str = setting(
        FILE_PATH,
        "Folder of what is not in the database: the local key file, sockets, the embedded "
        "PostgreSQL.",
        default_words="`/var/lib/svsync` as root, else `$XDG_STATE_HOME/svsync` or "
        "`~/.local/state/svsync`",
        variable="SVSYNC_STATE_DIR",
        computed=True,
    )

    # --- API ---------------------------------------------------------------------

    bind_address: str = setting(
        ADDRESS, "Where the API listens.", default="0.0.0.0:8443", variable="BIND_ADDRESS"
    )
    event_loop: EventLoop = setting(
        choice(EventLoop),
        "What `serve` runs on: `uvloop`, where it is installed, or `asyncio`, which is Python's "
        "own.",
        default="uvloop",
    )
    base_url: str | None = setting(
        URL,
        "How clients reach the API; stands in events and messages.",
        default_words="the listening address",
        variable="BASE_URL",
    )
    tls_cert_file: str | None = setting(
        FILE_PATH,
        "Certificate chain, where svsync itself terminates TLS.",
        default_words="none: TLS ends before svsync",
        variable="TLS_CERT_FILE",
    )
    tls_key_file: str | None = setting(FILE_PATH, "Its private key.", variable="TLS_KEY_FILE")
    tls_client_ca_file: str | None = setting(
        FILE_PATH,
        "CA of client certificates, which are then required on top of the token.",
        variable="TLS_CLIENT_CA_FILE",
    )
    trusted_proxies: tuple[str, ...] = setting(
        sequence(NETWORK, "a list of addresses and ranges"),
        "Proxies whose `X-Forwarded-For` is believed for the audit log and rate limits.",
        default=[],
    )
    scaikey_url: str | None = setting(
        ORIGIN,
        "The ScaiKey instance that signs people in.",
        default_words="only static tokens sign in",
        variable="SCAIKEY_URL",
    )
    scaikey_jwks_url: str | None = setting(
        URL,
        "Where ScaiKey's keys are, in place of what it announces.",
        default_words="as `scaikey_url` announces",
        variable="SCAIKEY_JWKS_URL",
    )
    scaikey_audience: str = setting(
        CLAIM_TEXT,
        "What a token of ScaiKey must have among its `aud`; one that is meant for others does not "
        "count.",
        default="scaivault",
    )
    scaikey_tenant_claim: str = setting(
        CLAIM_TEXT,
        "The claim with the slug of the tenant that a token speaks for.",
        default="tenant",
    )
    scaikey_groups_claim: str = setting(
        CLAIM_TEXT,
        "The claim with the names of its holder's groups, a list; where a token has none, those "
        "that are known count.",
        default="groups",
    )
    scaikey_scopes_claim: str | None = setting(
        CLAIM_TEXT,
        "The claim with its scopes, a list or words with spaces between; others than those of "
        "svsync mean nothing here.",
        default_words="`scope`, or `scp` where that is missing",
    )
    bootstrap_super_admin: str | None = setting(
        EMAIL,
        "The first ScaiKey sign-in with this verified address becomes `super_admin`, once.",
        variable="BOOTSTRAP_SUPER_ADMIN",
    )
    console: bool = setting(
        BOOLEAN,
        "Serve the page for people at `/ui/`; it shows each of them what their token may see.",
        default=True,
    )
    console_client_id: str | None = setting(
        CLAIM_TEXT,
        "As what ScaiKey knows the console: a public client, whose redirect address is `/ui/`.",
        default_words="the console signs people in by tokens alone",
    )
    api_rate_limits: ApiRates = setting(
        RATES,
        "Calls to the API that one identity may make, by kind, at all replicas together; "
        "beyond it 429. Ten seconds' worth may come at once.",
        default={},
        default_words="see `api_rate_limits` below",
        keys=API_RATES,
    )
    audit_timeout: int = setting(
        duration(1, 60),
        "A read whose audit row takes longer to commit is refused: nothing leaves unrecorded.",
        default="2s",
    )
    audit_anchors: tuple[Mapping[str, Any], ...] = setting(
        ANCHORS,
        "Places outside the database that keep the signed checkpoints of the audit log; without "
        "one, whoever owns the database and the root key could make the log anew.",
        default=[],
        keys=ANCHOR,
    )

    # --- observation -------------------------------------------------------------

    log_level: LogLevel = setting(
        choice(LogLevel),
        "The least severe lines written; libraries stay at `warn` whatever it is.",
        default="info",
        variable="LOG_LEVEL",
    )
    log_format: LogFormat = setting(
        choice(LogFormat), "How log lines are written.", default="json", variable="LOG_FORMAT"
    )
    metrics_address: str | None = setting(
        METRICS_ADDRESS,
        "Where Prometheus metrics are served; loopback, because they need no token. With "
        "`serve --processes` each process has the next port.",
        default="127.0.0.1:9464",
        variable="METRICS_ADDRESS",
    )
    metrics_max_backends: int = setting(
        integer(0, 1_000_000),
        "Up to so many backends the metrics name each; with more they name types, which keeps the "
        "series few.",
        default=2_000,
    )
    health_interval: int = setting(
        duration(1, DAY),
        "How often a backend without cycles is probed.",
        default="60s",
    )
    unreachable_after: int = setting(
        integer(1, 1000),
        "Connection failures in a row until `federation.backend.unreachable` is sent.",
        default=3,
    )

    # --- keys --------------------------------------------------------------------

    kms_provider: KmsProvider = setting(
        choice(KmsProvider),
        "Who wraps the root key. `local` is a key file under `state_dir`, which is no KMS.",
        default="local",
        variable="KMS_PROVIDER",
    )
    kms_key_id: str | None = setting(
        ANY_TEXT,
        "The wrapping key, in the provider's own words; needed by all but `local`.",
        variable="KMS_KEY_ID",
    )
    kms_key_id_secondary: str | None = setting(
        ANY_TEXT,
        "A second key that wraps the root key too, for when the first is unreachable: of the "
        "same provider, or of another one as `PROVIDER:key`.",
        variable="KMS_KEY_ID_SECONDARY",
    )
    kms_access: Mapping[str, Any] | None = setting(
        KMS_ACCESS,
        "How the key service is reached, and as whom.",
        keys=ACCESS,
        default_words="see `kms_access` below",
    )
    kms_access_secondary: Mapping[str, Any] | None = setting(
        KMS_ACCESS,
        "The same of the secondary one.",
        keys=ACCESS,
    )
    kms_grace: int = setting(
        duration(0, 30 * DAY),
        "For how long a running process goes on without its KMS; a starting one refuses.",
        default="24h",
    )

    # --- what backends may do ----------------------------------------------------

    allowed_file_roots: tuple[str, ...] | None = setting(
        sequence(FILE_PATH, "a list of folders"),
        "Folders that `file:` references may lie in, links followed.",
        default_words="any file that other users can neither read nor change",
    )
    ambient_identity_tenants: tuple[str, ...] = setting(
        sequence(TENANT, "a list of tenants"),
        "Tenants whose API-made backends may sign in as svsync itself (instance role, managed "
        "identity, service account).",
        default=[],
    )
    allowed_plugins: tuple[str, ...] = setting(
        sequence(text(r"[a-z0-9][a-z0-9-]*", "a plugin's name", max_length=64), "a list of names"),
        "Entry points of `svsync.backends` that are loaded; no other code is.",
        default=[],
    )
    allow_loopback: bool = setting(
        BOOLEAN,
        "Backends and ScaiKey may be on loopback, and there over `http`; for a laptop or a "
        "sidecar.",
        default=False,
    )
    allowed_backend_hosts: tuple[str, ...] = setting(
        sequence(HOST_OR_NETWORK, "a list of host names and ranges"),
        "Private addresses that API-made backends may have; those of this file may have any.",
        default=[],
    )
    allow_private_targets: bool = setting(
        BOOLEAN,
        "Webhooks may go to private and loopback addresses, over `http`, to any port.",
        default=False,
    )

    # --- what is kept, and for how long -------------------------------------------

    max_versions: int = setting(
        integer(1, 10_000),
        "Versions that are kept of a secret that neither names a number itself nor belongs to a "
        "backend, which has its own.",
        default=10,
    )
    trim_grace: int = setting(
        duration(0, 365 * DAY),
        "Versions that have been here for less outlive `max_versions`; a backend may have its own.",
        default="1h",
    )
    tombstone_retention: int = setting(
        duration(0, 3650 * DAY),
        "For how long a deleted secret can be restored. The mark that it was deleted stays as long "
        "as its backend has the path.",
        default="30d",
    )
    conflict_retention: int = setting(
        duration(0, 3650 * DAY),
        "For how long both values of a conflict are kept after it was closed.",
        default="30d",
    )
    run_retention: int = setting(
        duration(2 * DAY, 3650 * DAY),
        "For how long the reports of runs are kept; no shorter, for a budget of calls counts them.",
        default="90d",
    )
    runs_kept: int = setting(
        integer(20, 1_000_000),
        "Reports that are kept of each backend, however old; and the full runs whose calls tell "
        "what a cycle costs.",
        default=100,
    )
    push_retention: int = setting(
        duration(7 * DAY, 3650 * DAY),
        "For how long it is known how a write to a backend ended; no shorter, for a late one is "
        "told by it.",
        default="30d",
    )
    detached_retention: int = setting(
        duration(0, 90 * DAY),
        "For how long base is kept of a path that left the mapping, in case it comes back; no "
        "longer, for an older one is not believed. The secret stays.",
        default="90d",
    )
    events_kept: int = setting(
        duration(DAY, 3650 * DAY),
        "For how long events are kept once they were delivered or given up, to be replayed; no "
        "shorter, for a delivery is tried for a day.",
        default="7d",
    )
    token_retention: int = setting(
        duration(0, 3650 * DAY),
        "For how long a token is listed after it expired or was revoked.",
        default="90d",
    )
    audit_retention: int = setting(
        duration(31 * DAY, 3650 * DAY),
        "For how long the audit log is kept; it goes by whole months, once a checkpoint covers "
        "them.",
        default="400d",
    )

    # --- stopping ----------------------------------------------------------------

    shutdown_grace: int = setting(
        duration(0, 3600),
        "Time for the batch in hand after SIGTERM; shorter than what the supervisor allows.",
        default="20s",
    )

    # --- backends ----------------------------------------------------------------

    backends: tuple[BackendSpec, ...] = setting(
        BACKENDS,
        "The backends that this file manages. One that vanishes from it is paused, never deleted.",
        default=[],
        keys=BACKEND,
    )
    source: str | None = None
    places: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def place(self, backend: BackendSpec, path: str = "") -> str:
        """Where a backend's setting stands, for an error found after loading.

        `path` is within the backend (`path_mapping[2].remote`); where that has
        no line, the nearest setting around it.
        """
        index = next(i for i, spec in enumerate(self.backends) if spec.id == backend.id)
        whole = f"backends[{index}].{path}" if path else f"backends[{index}]"
        around = whole
        while around and around not in self.places:
            around = around[: max(around.rfind("."), around.rfind("["), 0)]
        return self.places[around].removesuffix(around) + whole if around else whole

    @property
    def public_url(self) -> str:
        """`base_url`, or the listening address as a URL."""
        if self.base_url:
            return self.base_url
        host, _, port = self.bind_address.rpartition(":")
        here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
        return f"{'https' if self.tls_cert_file else 'http'}://{here}:{port}"


def _row(name: str, row: Key) -> Key:
    return replace(row, name=name, variable=row.variable or f"SVSYNC_{name.upper()}")


ROWS: Mapping[str, Key] = {
    item.name: _row(item.name, item.metadata["row"])
    for item in fields(Settings)
    if "row" in item.metadata
}
"""The top-level keys of the file, in the order of the reference page."""
