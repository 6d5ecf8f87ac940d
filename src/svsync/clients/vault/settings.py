"""The part of a backend's configuration that a session with a Vault needs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from yarl import URL

from svsync.domain.errors import ConfigError
from svsync.network import NetworkPolicy, check_url

LOGIN_METHODS: Final = ("token", "approle", "kubernetes", "aws", "gcp")
ROLE_METHODS: Final = ("kubernetes", "aws", "gcp")
"""Those that sign in as a role, with a proof of who asks."""
POD_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_/-]*")
_MOUNT: Final = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Where to call, and how to sign in.

    Attributes:
        endpoint: https URL of the server, a path before `/v1` allowed.
        auth_method: one of LOGIN_METHODS.
        auth_mount: where the login method is mounted; its name by default.
        namespace: sent with every request that is not about the server itself.
        tls_verify: true, a PEM text, and in the operator's file a path or false.
        role: who to sign in as, by one of ROLE_METHODS.
        jwt_path: file with the service account's token, read anew at each login of
            `kubernetes`; empty: the credential is that token.
        timeout: seconds for one call, connecting included.
        connections: at most, at one time; the call guard allows fewer.
    """

    endpoint: str
    auth_method: str
    auth_mount: str = ""
    namespace: str = ""
    tls_verify: object = True
    role: str = ""
    jwt_path: str = ""
    timeout: float = 30.0
    connections: int = 256

    @classmethod
    def of_config(cls, config: Mapping[str, object]) -> Self:
        """From what a backend has under `config`. Raises ConfigError naming the key."""
        pod = not config.get("auth_config_path") and POD_TOKEN
        return cls(
            endpoint=_text(config, "endpoint", required=True),
            auth_method=_text(config, "auth_method", required=True),
            auth_mount=_text(config, "auth_mount"),
            namespace=_text(config, "namespace"),
            tls_verify=config.get("tls_verify", True),
            role=_text(config, "role"),
            jwt_path=_text(config, "jwt_path") or pod or "",
        )

    @property
    def mount(self) -> str:
        """Where the login method is mounted, without `auth/`."""
        return self.auth_mount or self.auth_method

    def check(self, policy: NetworkPolicy) -> URL:
        """The endpoint as a URL. Raises ConfigError naming the field."""
        if self.auth_method not in LOGIN_METHODS:
            known = f"{', '.join(LOGIN_METHODS[:-1])} and {LOGIN_METHODS[-1]}"
            raise ConfigError(
                f"{self.auth_method!r} is not a login method: {known} are",
                where="config.auth_method",
            )
        if self.auth_method in ROLE_METHODS and not self.role:
            raise ConfigError(
                f"is missing; {self.auth_method} signs in as a role", where="config.role"
            )
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigError("may hold letters, digits, _ / and -", where="config.namespace")
        if self.auth_mount and not _MOUNT.fullmatch(self.auth_mount):
            raise ConfigError("may hold letters, digits, _ / and -", where="config.auth_mount")
        return check_url(self.endpoint, policy, where="config.endpoint")


def _text(config: Mapping[str, object], key: str, *, required: bool = False) -> str:
    value = config.get(key, "")
    if not isinstance(value, str):
        raise ConfigError("is a text", where=f"config.{key}")
    if required and not value:
        raise ConfigError("is missing", where=f"config.{key}")
    return value
