"""The type `aws-secrets-manager`: checks a configuration and opens a backend."""

import difflib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from svsync.backends.aws.backend import FEATURES, AwsBackend
from svsync.backends.aws.calls import AwsCalls
from svsync.clients.aws import AwsSession, AwsSettings
from svsync.domain.errors import ConfigError
from svsync.domain.federation import BackendSpec, HistoryMode, ManagedBy
from svsync.domain.mapping import RuleSet
from svsync.network import NetworkPolicy
from svsync.ports import Backend, CallGuard, CredentialSource, Features

_KEYS: Final = (
    "region",
    "credentials_path",
    "role_arn",
    "external_id",
    "endpoint_url",
    "kms_key_id",
    "replica_regions",
)


class AwsDriver:
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
                    f"is not a setting of aws-secrets-manager{meant}", where=f"config.{key}"
                )
        if not spec.config.get("region"):
            raise ConfigError("is missing", where="config.region")
        if spec.history is HistoryMode.FULL:
            raise ConfigError(
                "cannot be full for aws-secrets-manager, whose versions have no numbers: what is"
                " current is synced; set current, or leave it out",
                where="history",
            )
        AwsSettings.of(spec).check(self._policy(spec))
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
        session = AwsSession(
            AwsSettings.of(spec),
            credential,
            self._policy(spec),
            login_call=partial(guard.call, "login"),
        )
        async with session:
            yield AwsBackend(spec, _rules(spec), AwsCalls(session, guard))

    def _policy(self, spec: BackendSpec) -> NetworkPolicy:
        return replace(self._network, file_managed=spec.managed_by is ManagedBy.FILE)


def _rules(spec: BackendSpec) -> RuleSet:
    return RuleSet.compile(
        spec.rules,
        separator=FEATURES.separator,
        segment=FEATURES.segment,
        max_name=FEATURES.max_name,
    )
