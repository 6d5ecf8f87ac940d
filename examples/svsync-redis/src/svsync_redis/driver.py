"""The type `redis-hash`: checks a configuration and opens a backend."""

import difflib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Final

from svsync.domain.errors import ConfigError
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.domain.mapping import RuleSet
from svsync.network import NetworkPolicy, check_url, tls_context
from svsync.ports import Backend, CallGuard, CredentialSource, Features
from svsync_redis.backend import FEATURES, RedisBackend
from svsync_redis.session import RedisSession, RedisSettings

_KEYS: Final = ("endpoint", "auth_config_path", "tls_verify")
_SCHEMES: Final = {"rediss": "https", "redis": "http"}
"""By what svsync's network rules know them: encrypted, or on loopback alone."""


class RedisDriver:
    """See `svsync.ports.BackendDriver`. svsync hands its network rules to each driver; who
    configured a backend is its own matter, and is taken from there."""

    features: Features = FEATURES

    def __init__(self, network: NetworkPolicy | None = None) -> None:
        self._network = network or NetworkPolicy()

    def check_config(self, spec: BackendSpec) -> None:
        """Raise ConfigError or MappingError, naming the key or the rule."""
        for key in spec.config:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, n=1)
                meant = f": did you mean {near[0]}?" if near else ""
                raise ConfigError(f"is not a setting of redis-hash{meant}", where=f"config.{key}")
        _settings(spec, self._policy(spec))
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
        policy = self._policy(spec)
        session = RedisSession(_settings(spec, policy), credential, policy)
        try:
            yield RedisBackend(spec, _rules(spec), session, guard)
        finally:
            await session.aclose()

    def _policy(self, spec: BackendSpec) -> NetworkPolicy:
        return replace(self._network, file_managed=spec.managed_by is ManagedBy.FILE)


def _rules(spec: BackendSpec) -> RuleSet:
    return RuleSet.compile(spec.rules, max_name=FEATURES.max_name)


def _settings(spec: BackendSpec, policy: NetworkPolicy) -> RedisSettings:
    endpoint = spec.config.get("endpoint")
    if not isinstance(endpoint, str) or not endpoint:
        raise ConfigError("is missing", where="config.endpoint")
    scheme, _, rest = endpoint.partition("://")
    if scheme not in _SCHEMES:
        raise ConfigError("is rediss://host:port, or redis:// on loopback", where="config.endpoint")
    url = check_url(f"{_SCHEMES[scheme]}://{rest}", policy, where="config.endpoint")
    database = url.path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        raise ConfigError("ends in the number of a database: /0", where="config.endpoint")
    context = None
    if scheme == "rediss":
        verify = spec.config.get("tls_verify", True)
        context = tls_context(verify, policy, where="config.tls_verify")
    port = url.explicit_port or 6379
    return RedisSettings(url.host or "", port, int(database or 0), context)
