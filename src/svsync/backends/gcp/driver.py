"""The type `gcp-secret-manager`: checks a configuration and opens a backend."""

import difflib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from svsync.backends.gcp.backend import FEATURES, GcpBackend
from svsync.backends.gcp.calls import GcpCalls
from svsync.backends.gcp.entries import is_label
from svsync.clients.gcp import Dial, GcpSession, GcpSettings, Service
from svsync.domain.errors import ConfigError
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.domain.mapping import RuleSet
from svsync.network import NetworkPolicy
from svsync.ports import Backend, CallGuard, CredentialSource, Features

_KEYS: Final = (
    "project_id",
    "location",
    "auth_method",
    "credentials_path",
    "kms_key_id",
    "replica_locations",
    "labels",
)
_TRANSPORT: Final = (
    "google.cloud.secretmanager_v1.services.secret_manager_service.transports.grpc_asyncio"
)


class GcpDriver:
    """See `ports.BackendDriver`. `network` holds the operator's network settings;
    who configured a backend is its own matter, and is taken from there. `dial` says how
    Google's names are reached; tests have their own."""

    features: Features = FEATURES

    def __init__(self, network: NetworkPolicy | None = None, dial: Dial | None = None) -> None:
        self._network = network or NetworkPolicy()
        self._dial = dial or Dial()

    def check_config(self, spec: BackendSpec) -> None:
        """Raise ConfigError or MappingError, naming the key or the rule."""
        for key in spec.config:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, n=1)
                meant = f": did you mean {near[0]}?" if near else ""
                raise ConfigError(
                    f"is not a setting of gcp-secret-manager{meant}", where=f"config.{key}"
                )
        if not spec.config.get("project_id"):
            raise ConfigError("is missing", where="config.project_id")
        _check_labels(spec.config.get("labels"), "config.labels")
        _check_labels(spec.filters.get("labels"), "filters.labels")
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
        of_file = spec.managed_by is ManagedBy.FILE
        session = GcpSession(
            GcpSettings(static=bool(spec.config.get("credentials_path")), federated=of_file),
            _service(spec),
            credential,
            replace(self._network, file_managed=of_file),
            dial=self._dial,
            login_call=partial(guard.call, "login"),
        )
        async with session:
            yield GcpBackend(spec, _rules(spec), GcpCalls(session, guard, _parent(spec)))


def _service(spec: BackendSpec) -> Service:
    """Secret Manager; secrets of a location are served by an address of its own alone
    ("Global and regional endpoints")."""
    location = spec.config.get("location")
    host = f"secretmanager.{location}.rep.googleapis.com" if location else ""
    return Service(
        host or "secretmanager.googleapis.com",
        "google.cloud.secretmanager_v1:SecretManagerServiceAsyncClient",
        f"{_TRANSPORT}:SecretManagerServiceGrpcAsyncIOTransport",
    )


def _parent(spec: BackendSpec) -> str:
    project, location = spec.config["project_id"], spec.config.get("location")
    return f"projects/{project}/locations/{location}" if location else f"projects/{project}"


def _rules(spec: BackendSpec) -> RuleSet:
    return RuleSet.compile(
        spec.rules,
        separator=FEATURES.separator,
        segment=FEATURES.segment,
        max_name=FEATURES.max_name,
    )


def _check_labels(given: object, where: str) -> None:
    if given is None:
        return
    if not isinstance(given, dict):
        raise ConfigError("are labels and their values", where=where)
    for key, text in given.items():
        if not (isinstance(text, str) and text and is_label(str(key), text)):
            raise ConfigError(
                "is no label with a value: both hold lower-case letters, digits, _ and -, at most"
                " 63, and the first begins with a letter",
                where=f"{where}.{key}",
            )
