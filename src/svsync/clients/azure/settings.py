"""The part of a configuration that a session with a Key Vault needs."""

from dataclasses import dataclass
from typing import Final

from yarl import URL

from svsync.config.endpoints import is_loopback
from svsync.domain.errors import ConfigError
from svsync.network import NetworkPolicy, check_url, tls_context


@dataclass(frozen=True, slots=True)
class Cloud:
    """One of Azure's clouds: what its vaults' names end in, for what a token is asked
    there, and who gives it."""

    suffix: str
    resource: str
    authority: str


CLOUDS: Final = (
    Cloud(".vault.azure.net", "https://vault.azure.net", "login.microsoftonline.com"),
    Cloud(".vault.azure.cn", "https://vault.azure.cn", "login.chinacloudapi.cn"),
    Cloud(
        ".vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net", "login.microsoftonline.us"
    ),
    Cloud(
        ".vault.microsoftazure.de", "https://vault.microsoftazure.de", "login.microsoftonline.de"
    ),
)
STATIC: Final = ("client_secret", "certificate")
"""Ways to sign in by a credential that is given; the others are this process's own."""


@dataclass(frozen=True, slots=True)
class AzureSettings:
    """Which vault to call, and as whom.

    Attributes:
        vault_url: without a path.
        auth_method: client_secret, certificate, managed_identity or workload_identity; no
            other is tried.
        client_id: which identity, where this process has several of its own.
        tenant_id: its directory, for workload_identity; empty: as the environment says.
        tls_verify: as `network.tls_context` takes it.
        timeout: seconds for one call, connecting included.
        connections: at most, at one time; the call guard allows fewer.
    """

    vault_url: str
    auth_method: str
    client_id: str = ""
    tenant_id: str = ""
    tls_verify: object = True
    timeout: float = 30.0
    connections: int = 256

    @property
    def host(self) -> str:
        return (URL(self.vault_url).host or "").lower()

    @property
    def on_loopback(self) -> bool:
        """A vault that somebody imitates on this machine; allowed by the operator only."""
        return is_loopback(self.host)

    @property
    def cloud(self) -> Cloud:
        """Raises ConfigError: it is no Key Vault's address."""
        for cloud in CLOUDS:
            if self.host.endswith(cloud.suffix):
                return cloud
        if self.on_loopback:
            return CLOUDS[0]
        raise ConfigError("is not the address of a Key Vault", where="config.vault_url")

    def check(self, policy: NetworkPolicy) -> None:
        """Raises ConfigError for a vault that may not be called, or a bad CA."""
        check_url(self.vault_url, policy, where="config.vault_url")
        tls_context(self.tls_verify, policy, where="config.tls_verify")
        _ = self.cloud
