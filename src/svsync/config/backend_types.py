"""The types of backend: what each takes, and which of its keys mean what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from svsync.config.cloud_keys import (
    AWS,
    AWS_FILTERS,
    AZURE,
    AZURE_FILTERS,
    AZURE_STATIC,
    GCP,
    GCP_FILTERS,
    aws_problem,
    azure_problem,
    gcp_problem,
)
from svsync.config.endpoints import URL
from svsync.config.kinds import FILE_PATH, REFERENCE, Key, choice, text
from svsync.config.tls_keys import TLS_VERIFY
from svsync.domain.federation import BackendSpec

HEADER_TEXT = text(r"[A-Za-z0-9_/-]+", "letters, digits, `_`, `/` and `-`", max_length=256)
"""What may stand in a request header or a login's path."""

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

_VAULT_STATIC = ("token", "approle")


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
        aws_problem,
        lambda config: "credentials_path" not in config and "role_arn" not in config,
        AWS_FILTERS,
    ),
    "azure-key-vault": BackendType(
        AZURE,
        "credentials_path",
        "vault_url",
        azure_problem,
        lambda config: config["auth_method"] not in AZURE_STATIC,
        AZURE_FILTERS,
    ),
    "gcp-secret-manager": BackendType(
        GCP,
        "credentials_path",
        "",
        gcp_problem,
        lambda config: "credentials_path" not in config,
        GCP_FILTERS,
    ),
}


def is_ambient(spec: BackendSpec) -> bool:
    """Does it sign in as the daemon itself? No type that is unknown here does."""
    known = TYPES.get(spec.type)
    return known is not None and known.ambient(spec.config)
