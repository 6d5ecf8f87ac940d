"""What the backends of the clouds take under `config` and `filters`."""

from collections.abc import Mapping
from typing import Any

from svsync.config.endpoints import ORIGIN, VAULT_URL
from svsync.config.kinds import ANY_TEXT, REFERENCE, Key, Kind, choice, sequence, table, text
from svsync.config.tls_keys import TLS_VERIFY

AZURE_STATIC = ("client_secret", "certificate")

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


# --- why keys do not go together ------------------------------------------------------


def aws_problem(config: Mapping[str, Any]) -> tuple[str, str] | None:
    if "external_id" in config and "role_arn" not in config:
        return "external_id", "goes with role_arn; add that or remove it"
    return None


def azure_problem(config: Mapping[str, Any]) -> tuple[str, str] | None:
    method = config["auth_method"]
    static = method in AZURE_STATIC
    if static and "credentials_path" not in config:
        return "credentials_path", f"is missing; {method} needs the reference to its credential"
    if not static and "credentials_path" in config:
        return "credentials_path", f"is not used by {method}; remove it"
    return None


def gcp_problem(config: Mapping[str, Any]) -> tuple[str, str] | None:
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
