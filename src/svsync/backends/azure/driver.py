"""The type `azure-key-vault`: checks a configuration and opens a backend."""

import asyncio
import difflib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from aiohttp.abc import AbstractResolver

from svsync.backends.azure.backend import FEATURES, AzureBackend
from svsync.backends.azure.calls import AzureCalls
from svsync.clients.azure import AzureSession, AzureSettings
from svsync.domain.errors import ConfigError
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.domain.mapping import RuleSet
from svsync.network import NetworkPolicy
from svsync.ports import Backend, CallGuard, CredentialSource, Features

_KEYS: Final = (
    "vault_url",
    "auth_method",
    "credentials_path",
    "client_id",
    "tenant_id",
    "tls_verify",
    "content_type",
)


class AzureDriver:
    """See `ports.BackendDriver`. `network` holds the operator's network settings;
    who configured a backend is its own matter, and is taken from there.

    Args:
        resolver: of the names of vaults and of Entra; None: the system's.
        sleep: for deletions and recoveries, which take a moment.
    """

    features: Features = FEATURES

    def __init__(
        self,
        network: NetworkPolicy | None = None,
        *,
        resolver: AbstractResolver | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._network = network or NetworkPolicy()
        self._resolver = resolver
        self._sleep = sleep

    def check_config(self, spec: BackendSpec) -> None:
        """Raise ConfigError or MappingError, naming the key or the rule."""
        for key in spec.config:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, n=1)
                meant = f": did you mean {near[0]}?" if near else ""
                raise ConfigError(
                    f"is not a setting of azure-key-vault{meant}", where=f"config.{key}"
                )
        for key in ("vault_url", "auth_method"):
            if not spec.config.get(key):
                raise ConfigError("is missing", where=f"config.{key}")
        _settings(spec).check(self._policy(spec))
        _rules(spec)

    def open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AbstractAsyncContextManager[Backend]:
        return self._open(spec, credential, guard)

    @asynccontextmanager
    async def _open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AsyncIterator[Backend]:
        self.check_config(spec)
        session = AzureSession(
            _settings(spec),
            credential,
            self._policy(spec),
            login_call=partial(guard.call, "login"),
            resolver=self._resolver,
        )
        async with session:
            yield AzureBackend(spec, _rules(spec), AzureCalls(session, guard, self._sleep))

    def _policy(self, spec: BackendSpec) -> NetworkPolicy:
        return replace(self._network, file_managed=spec.managed_by is ManagedBy.FILE)


def _rules(spec: BackendSpec) -> RuleSet:
    return RuleSet.compile(
        spec.rules,
        separator=FEATURES.separator,
        segment=FEATURES.segment,
        case_sensitive=FEATURES.case_sensitive,
        max_name=FEATURES.max_name,
    )


def _settings(spec: BackendSpec) -> AzureSettings:
    return AzureSettings(
        vault_url=_text(spec, "vault_url").rstrip("/"),
        auth_method=_text(spec, "auth_method"),
        client_id=_text(spec, "client_id"),
        tenant_id=_text(spec, "tenant_id"),
        tls_verify=spec.config.get("tls_verify", True),
    )


def _text(spec: BackendSpec, key: str) -> str:
    value = spec.config.get(key, "")
    if not isinstance(value, str):
        raise ConfigError("is a text", where=f"config.{key}")
    return value
