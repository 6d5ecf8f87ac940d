"""What each type of backend takes under `config`, `filters` and `events`."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from svsync.config.document import Node
from svsync.config.endpoints import ORIGIN, URL, VAULT_URL
from svsync.config.kinds import (
    ANY_TEXT,
    FILE_PATH,
    REFERENCE,
    Key,
    Kind,
    choice,
    sequence,
    table,
    text,
    text_of,
    wrong_type,
)
from svsync.domain.federation import BackendSpec

HEADER_TEXT = text(r"[A-Za-z0-9_/-]+", "letters, digits, `_`, `/` and `-`", max_length=256)
"""What may stand in a request header or a login's path."""

_CERTIFICATE = re.compile(
    r"\s*(-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+"
)


def _read_certificates(node: Node) -> str:
    value = text_of(node, "PEM certificates")
    if not _CERTIFICATE.fullmatch(value):
        raise node.error("must be one or more PEM certificates (-----BEGIN CERTIFICATE-----)")
    return value


CERTIFICATES = Kind(_read_certificates, {"type": "string"}, "PEM certificates")


def _read_tls_verify(node: Node) -> bool | str:
    if isinstance(node.value, bool):
        return node.value
    if not isinstance(node.value, str):
        raise wrong_type(node, "true, false or a CA bundle")
    if node.value.lstrip().startswith("-----BEGIN"):
        return str(CERTIFICATES.read(node))
    return str(FILE_PATH.read(node))


TLS_VERIFY = Kind(
    _read_tls_verify,
    {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
    "`true`, `false` or a CA bundle (file path or PEM text)",
)


# --- config -------------------------------------------------------------------------

VAULT = (
    Key(
        "endpoint",
        URL,
        "Address of Vault or OpenBao; a path before `/v1` may follow.",
        required=True,
    ),
    Key(
        "auth_method",
        choice(["token", "approle", "kubernetes", "aws", "gcp"]),
        "How svsync signs in; no other method is tried.",
        required=True,
    ),
    Key(
        "auth_config_path",
        REFERENCE,
        "Where the credential stands: `{token}`, also a service account's for kubernetes; "
        "`{role_id, secret_id}` or `{role_id, wrapped_secret_id}` for approle; "
        "`{access_key_id, secret_access_key, session_token?}` for aws; a service account's "
        "JSON key for gcp.",
        default_words="none; `kubernetes`, `aws` and `gcp` then use the daemon's own identity",
    ),
    Key("namespace", HEADER_TEXT, "Namespace that every request names.", default_words="the root"),
    Key(
        "tls_verify",
        TLS_VERIFY,
        "Check the server's certificate; a path or PEM text is the CA to check it with. "
        "`false` is shown red in `status` and `doctor`.",
        default=True,
    ),
    Key("role", HEADER_TEXT, "Role to sign in as; needed by `kubernetes`, `aws` and `gcp`."),
    Key(
        "auth_mount",
        HEADER_TEXT,
        "Where the login method is mounted, without `auth/`.",
        default_words="the method's name",
    ),
    Key(
        "jwt_path",
        FILE_PATH,
        "The service account's token for `kubernetes`.",
        default_words="the pod's own, `/var/run/secrets/kubernetes.io/serviceaccount/token`",
        file_only=True,
    ),
    Key(
        "aws_region",
        text(r"[a-z0-9-]+", "a region such as eu-central-1", max_length=64),
        "Region whose STS signs the `aws` login.",
        default_words="the global STS",
    ),
    Key(
        "aws_server_id",
        text(r"[A-Za-z0-9._:-]+", "a server id", max_length=256),
        "Value of `X-Vault-AWS-IAM-Server-ID` that the `aws` login requires.",
    ),
    Key(
        "gcp_service_account",
        text(r"[a-z0-9-]+@[a-z0-9.-]+", "a service account's address", max_length=256),
        "Service account as which IAM signs the `gcp` login's JWT, where no key is given.",
        default_words="the machine's identity token from its metadata server",
    ),
)

_AWS_REGION = text(r"[a-z]{2}(-[a-z]+)+-[0-9]+", "a region such as us-east-1", max_length=64)
_AWS_REGIONS = sequence(_AWS_REGION, "a list of regions", max_items=50)

AWS = (
    Key(
        "region",
        _AWS_REGION,
        "Region of the secrets.",
        required=True,
    ),
    Key(
        "credentials_path",
        REFERENCE,
        "Where static keys stand: `{access_key_id, secret_access_key, session_token?}`.",
        default_words="the default chain (instance role, web identity)",
    ),
    Key(
        "role_arn",
        text(
            r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+",
            "a role's ARN such as arn:aws:iam::123456789012:role/svsync",
        ),
        "Role to assume.",
    ),
    Key(
        "external_id",
        text(r"[A-Za-z0-9+=,.@:/_-]{2,}", "an external id", max_length=1224),
        "External id given when the role is assumed; "
        "a role of an API-made backend needs `svsync:<tenant>:<backend id or name>`.",
    ),
    Key(
        "endpoint_url",
        ORIGIN,
        "Address to call in place of AWS's own; no other address of AWS is called then.",
    ),
    Key(
        "kms_key_id",
        text(r"[A-Za-z0-9:/_-]+", "a key's id, ARN or alias", max_length=2048),
        "Key in KMS that secrets made by svsync are encrypted with.",
        default_words="`aws/secretsmanager`",
    ),
    Key(
        "replica_regions",
        # As JSON has it, so that a stored spec equals the one that was read.
        Kind(lambda node: list(_AWS_REGIONS.read(node)), _AWS_REGIONS.schema, "a list of regions"),
        "Regions to which secrets made by svsync are replicated.",
        default_words="none",
    ),
)

AZURE = (
    Key("vault_url", VAULT_URL, "Address of the Key Vault.", required=True),
    Key(
        "auth_method",
        choice(["managed_identity", "client_secret", "certificate", "workload_identity"]),
        "How svsync signs in; no other method is tried.",
        required=True,
    ),
    Key(
        "credentials_path",
        REFERENCE,
        "Where the credential stands: `{tenant_id, client_id, client_secret}` or "
        "`{tenant_id, client_id, certificate_pem}`.",
    ),
    Key(
        "client_id",
        text(r"[A-Za-z0-9-]+", "a client id", max_length=64),
        "Which identity, where the machine or pod has several.",
        default_words="its only one",
    ),
    Key(
        "tenant_id",
        text(r"[A-Za-z0-9.-]+", "a directory (tenant) id", max_length=128),
        "Directory of the identity, for `workload_identity`.",
        default_words="`AZURE_TENANT_ID`",
    ),
    Key(
        "tls_verify",
        TLS_VERIFY,
        "Check the certificates of the vault and of Entra; a path or PEM text is the CA to check "
        "them with. `false` is shown red in `status` and `doctor`.",
        default=True,
    ),
    Key(
        "content_type",
        text(
            r"[!-:<-~]+(; ?[!-:<-~]+)*", "a content type such as application/json", max_length=255
        ),
        "Content type of secrets made by svsync; those that are there keep theirs.",
        default_words="`application/json` for objects, `text/plain` for texts",
    ),
)

_GCP_PLACE = text(r"[a-z]+(-[a-z]+)*[0-9]*", "a location such as europe-west3", max_length=64)
_GCP_PLACES = sequence(_GCP_PLACE, "a list of locations", max_items=50)

GCP = (
    Key(
        "project_id",
        text(r"[a-z][a-z0-9.:-]{3,}[a-z0-9]|[0-9]+", "a project's id or number", max_length=64),
        "Project of the secrets.",
        required=True,
    ),
    Key(
        "location",
        _GCP_PLACE,
        "Location of regional secrets.",
        default_words="the project's global secrets",
    ),
    Key(
        "auth_method",
        choice(["service_account", "workload_identity"]),
        "How svsync signs in.",
        default_words="`service_account` where `credentials_path` is given, "
        "else `workload_identity`",
    ),
    Key(
        "credentials_path",
        REFERENCE,
        "Where the service account's JSON key stands; in the operator's file also where the "
        "configuration of workload identity federation does.",
        default_words="the daemon's own identity",
    ),
    Key(
        "kms_key_id",
        text(
            r"projects/[a-z0-9.:-]+/locations/([a-z0-9-]+|\{location\})/keyRings/[A-Za-z0-9_-]+/"
            r"cryptoKeys/[A-Za-z0-9_-]+",
            "a key such as projects/acme/locations/global/keyRings/r/cryptoKeys/k",
            max_length=512,
        ),
        "Key in Cloud KMS that secrets made by svsync are encrypted with; `{location}` stands "
        "for each of `replica_locations`.",
        default_words="Google's own",
    ),
    Key(
        "replica_locations",
        Kind(lambda node: list(_GCP_PLACES.read(node)), _GCP_PLACES.schema, "a list of locations"),
        "Locations to which secrets made by svsync are replicated.",
        default_words="Google chooses",
    ),
    Key(
        "labels",
        table(ANY_TEXT, "labels and their values"),
        "Labels that secrets made by svsync have, beside those of `filters`.",
        default_words="none",
    ),
)


# --- filters ------------------------------------------------------------------------

_WORDS = sequence(ANY_TEXT, "a list of texts", max_items=10)

AWS_FILTERS = tuple(
    Key(name, _WORDS, f"ListSecrets filter `{name}`; any of the texts, as AWS matches them.")
    for name in ("name", "description", "tag-key", "tag-value", "primary-region", "owning-service")
)

AZURE_FILTERS = (
    Key("tags", table(ANY_TEXT, "tags and their values"), "Only secrets with all these tags."),
)

GCP_FILTERS = (
    Key(
        "labels", table(ANY_TEXT, "labels and their values"), "Only secrets with all these labels."
    ),
)


# --- events -------------------------------------------------------------------------


def _read_listen(node: Node) -> str:
    value = text_of(node, "an address to listen on")
    scheme, _, rest = value.partition(":")
    if scheme in ("unix", "file") and rest.startswith("/"):
        return value
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and re.fullmatch(r"[0-9]{1,5}", port) and int(port) < 65536:
        try:
            if ipaddress.ip_address(host.strip("[]")).is_loopback:
                return value
        except ValueError:
            pass
    raise node.error(
        "must be unix:/path, file:/path or tcp: with a loopback address and port, "
        "such as tcp:127.0.0.1:9390"
    )


LISTEN = Kind(
    _read_listen,
    {"type": "string", "pattern": "^(unix:/.+|file:/.+|tcp:.+:[0-9]{1,5})$"},
    "`unix:/path`, `tcp:127.0.0.1:port` or `file:/path`",
)

_QUEUE_REGION = re.compile(r"https?://(?:[a-z0-9-]+\.)?sqs(?:-fips)?\.([a-z0-9-]+)\.[a-z]")


def queue_region(url: str) -> str | None:
    """The region in a queue's URL; None: it is none of AWS's own names."""
    named = _QUEUE_REGION.match(url)
    return named[1] if named else None


FEEDS: Mapping[str, tuple[str, tuple[Key, ...]]] = {
    "vault-audit": (
        "hashicorp-vault",
        (
            Key(
                "listen",
                LISTEN,
                "Where Vault's or OpenBao's audit device writes to, or the file it writes; "
                "never let it be the only audit device. Backends that name the same address "
                "share it.",
                required=True,
                file_only=True,
            ),
        ),
    ),
    "vault-events": ("hashicorp-vault", ()),
    "aws-sqs": (
        "aws-secrets-manager",
        (
            Key(
                "queue_url",
                text(
                    r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[0-9]{12}/[A-Za-z0-9_-]{1,80}(\.fifo)?",
                    "a queue's URL such as https://sqs.us-east-1.amazonaws.com/123456789012/svsync",
                ),
                "The queue that EventBridge sends the events of Secrets Manager to, in the region "
                "of the secrets. Backends of one login that name it share it.",
                required=True,
            ),
        ),
    ),
    "gcp-pubsub": (
        "gcp-secret-manager",
        (
            Key(
                "subscription",
                text(
                    r"projects/[a-z0-9][a-z0-9.:-]*[a-z0-9]/subscriptions"
                    r"/[A-Za-z][A-Za-z0-9_.~+%-]{2,254}",
                    "a subscription such as projects/acme/subscriptions/svsync",
                ),
                "The subscription to the topic that the secrets tell of their changes. Backends "
                "of one login that name it share it.",
                required=True,
            ),
        ),
    ),
    "azure-eventgrid": (
        "azure-key-vault",
        (
            Key(
                "secret_path",
                REFERENCE,
                "Where the feed's secret is kept for whoever sets up the subscription; svsync "
                "reads nothing there.",
            ),
        ),
    ),
    "http": ("", ()),
}
"""Feed → the type of backend it serves, empty for any, and the keys beside `feed`."""


# --- the types ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BackendType:
    """A type's tables, and which of its keys mean what.

    Attributes:
        credential: the key that refers to its credential.
        endpoint: the key that says where it is; empty where only the cloud's own is called.
        problem: why these keys do not go together, as (key, sentence), or None.
        ambient: whether they sign in as the daemon's own identity.
    """

    keys: tuple[Key, ...]
    credential: str
    endpoint: str
    problem: Callable[[Mapping[str, Any]], tuple[str, str] | None]
    ambient: Callable[[Mapping[str, Any]], bool]
    filters: tuple[Key, ...] = ()


_VAULT_STATIC = ("token", "approle")
_AZURE_STATIC = ("client_secret", "certificate")


def _vault_problem(config: Mapping[str, Any]) -> tuple[str, str] | None:
    method = config["auth_method"]
    if method in _VAULT_STATIC and "auth_config_path" not in config:
        return "auth_config_path", f"is missing; {method} needs the reference to its credential"
    if method not in _VAULT_STATIC and "role" not in config:
        return "role", f"is missing; {method} signs in as a role"
    if method != "kubernetes" and "jwt_path" in config:
        return "jwt_path", "is for auth_method: kubernetes only; remove it"
    for key in ("aws_region", "aws_server_id"):
        if method != "aws" and key in config:
            return key, "is for auth_method: aws only; remove it"
    if method != "gcp" and "gcp_service_account" in config:
        return "gcp_service_account", "is for auth_method: gcp only; remove it"
    for key in ("jwt_path", "gcp_service_account"):
        if key in config and "auth_config_path" in config:
            return key, "is for svsync's own identity, which auth_config_path replaces; keep one"
    return None


def _aws_problem(config: Mapping[str, Any]) -> tuple[str, str] | None:
    if "external_id" in config and "role_arn" not in config:
        return "external_id", "goes with role_arn; add that or remove it"
    return None


def _azure_problem(config: Mapping[str, Any]) -> tuple[str, str] | None:
    method = config["auth_method"]
    static = method in _AZURE_STATIC
    if static and "credentials_path" not in config:
        return "credentials_path", f"is missing; {method} needs the reference to its credential"
    if not static and "credentials_path" in config:
        return "credentials_path", f"is not used by {method}; remove it"
    return None


def _gcp_problem(config: Mapping[str, Any]) -> tuple[str, str] | None:
    method, given = config.get("auth_method"), "credentials_path" in config
    if method == "service_account" and not given:
        return "credentials_path", "is missing; service_account needs the reference to its key"
    if method == "workload_identity" and given:
        return "credentials_path", "is not used by workload_identity; remove it"
    places = config.get("replica_locations", ())
    if "location" in config and "replica_locations" in config:
        return "replica_locations", "is for global secrets; remove it, or location"
    if len(places) > 1 and "{location}" not in config.get("kms_key_id", "{location}"):
        return "kms_key_id", "is one key for several locations; write {location} in it"
    if not places and "{location}" in config.get("kms_key_id", ""):
        return "kms_key_id", "holds {location}, which goes with replica_locations"
    return None


TYPES: Mapping[str, BackendType] = {
    "hashicorp-vault": BackendType(
        VAULT,
        "auth_config_path",
        "endpoint",
        _vault_problem,
        lambda config: "auth_config_path" not in config,
    ),
    "aws-secrets-manager": BackendType(
        AWS,
        "credentials_path",
        "endpoint_url",
        _aws_problem,
        lambda config: "credentials_path" not in config and "role_arn" not in config,
        AWS_FILTERS,
    ),
    "azure-key-vault": BackendType(
        AZURE,
        "credentials_path",
        "vault_url",
        _azure_problem,
        lambda config: config["auth_method"] not in _AZURE_STATIC,
        AZURE_FILTERS,
    ),
    "gcp-secret-manager": BackendType(
        GCP,
        "credentials_path",
        "",
        _gcp_problem,
        lambda config: "credentials_path" not in config,
        GCP_FILTERS,
    ),
}


def is_ambient(spec: BackendSpec) -> bool:
    """Does it sign in as the daemon itself? No type that is unknown here does."""
    known = TYPES.get(spec.type)
    return known is not None and known.ambient(spec.config)
