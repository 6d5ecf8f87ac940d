"""The type `hashicorp-vault`: checks a configuration and opens a backend."""

import difflib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from svsync.backends.vault.backend import FEATURES, VaultBackend
from svsync.backends.vault.calls import VaultCalls
from svsync.clients.vault import VaultSession, VaultSettings
from svsync.domain.errors import ConfigError, MappingError
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.domain.mapping import RuleSet
from svsync.network import NetworkPolicy, tls_context
from svsync.ports import Backend, CallGuard, CredentialSource, Features

_KEYS: Final = (
    "endpoint",
    "auth_method",
    "auth_config_path",
    "auth_mount",
    "namespace",
    "tls_verify",
    "role",
    "jwt_path",
    "aws_region",
    "aws_server_id",
    "gcp_service_account",
)
_NEVER_REMOTE: Final = frozenset({"sys", "auth", "identity", "cubbyhole"})


class VaultDriver:
    """See `ports.BackendDriver`. `network` holds the operator's network settings;
    who configured a backend is its own matter, and is taken from there."""

    features: Features = FEATURES

    def __init__(self, network: NetworkPolicy | None = None) -> None:
        self._network = network or NetworkPolicy()

    def check_config(self, spec: BackendSpec) -> None:
        """Raise ConfigError or MappingError, naming the key or the rule."""
        for key in spec.config:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, n=1)
                meant = f": did you mean {near[0]}?" if near else ""
                raise ConfigError(
                    f"is not a setting of hashicorp-vault{meant}", where=f"config.{key}"
                )
        policy = self._policy(spec)
        settings = VaultSettings.of_config(spec.config)
        settings.check(policy)
        tls_context(settings.tls_verify, policy, where="config.tls_verify")
        _check_rules(spec)

    def open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AbstractAsyncContextManager[Backend]:
        return self._open(spec, credential, guard)

    @asynccontextmanager
    async def _open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AsyncIterator[Backend]:
        self.check_config(spec)
        session = VaultSession(
            VaultSettings.of_config(spec.config),
            credential,
            self._policy(spec),
            login_call=partial(guard.call, "login"),
        )
        async with session:
            yield VaultBackend(spec, RuleSet.compile(spec.rules), VaultCalls(session, guard))

    def _policy(self, spec: BackendSpec) -> NetworkPolicy:
        return replace(self._network, file_managed=spec.managed_by is ManagedBy.FILE)


def _check_rules(spec: BackendSpec) -> None:
    RuleSet.compile(spec.rules)
    for index, rule in enumerate(spec.rules):
        if rule.exclude:
            continue
        mount, slash, _ = rule.remote.partition("/")
        where = f"path_mapping[{index}].remote"
        if not mount or not slash or "*" in mount or "{" in mount:
            raise MappingError("begins with the literal name of a mount (kv/data/**)", where=where)
        if mount in _NEVER_REMOTE:
            raise MappingError(f"{mount}/ holds no secrets that can be federated", where=where)
