"""The part of a backend's configuration that a session with AWS needs."""

from dataclasses import dataclass
from typing import Self

from svsync.domain.errors import ConfigError
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.network import NetworkPolicy, check_url


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """Where to call, and as whom.

    Attributes:
        region: whose services are called, its STS included.
        endpoint_url: called in place of every address of AWS, STS included; empty: AWS's own.
        static: access keys come from a credential; else the identity of this process is
            used: its environment, container, instance or web identity.
        role_arn, external_id: the role that is assumed from there, where one is named.
        role_session: how AWS's own log names who assumed it.
        timeout: seconds for one call, connecting included.
        connections: at most, at one time; the call guard allows fewer.
    """

    region: str
    endpoint_url: str = ""
    static: bool = True
    role_arn: str = ""
    external_id: str = ""
    role_session: str = "svsync"
    timeout: float = 30.0
    connections: int = 256

    @classmethod
    def of(cls, spec: BackendSpec) -> Self:
        """Those of a backend. A role of a backend of the API is assumed under an external id
        that nobody else's backend can give.

        Raises ConfigError for what is no text.
        """
        role, external = _text(spec, "role_arn"), _text(spec, "external_id")
        if role and not external and spec.managed_by is ManagedBy.API:
            external = f"svsync:{spec.tenant}:{spec.name}"
        return cls(
            region=_text(spec, "region"),
            endpoint_url=_text(spec, "endpoint_url"),
            static=bool(spec.config.get("credentials_path")),
            role_arn=role,
            external_id=external,
            role_session=f"svsync-{spec.id}"[:64],
        )

    def check(self, policy: NetworkPolicy) -> None:
        """Raises ConfigError for an endpoint that may not be called."""
        if self.endpoint_url:
            check_url(self.endpoint_url, policy, where="config.endpoint_url")


def _text(spec: BackendSpec, key: str) -> str:
    value = spec.config.get(key, "")
    if not isinstance(value, str):
        raise ConfigError("is a text", where=f"config.{key}")
    return value
