"""Type names to what they stand for, loaded when first used.

A deployment that uses only Vault loads no cloud SDK. A third party's backend is an
entry point of the group `svsync.backends`, loaded only when the operator named it in
`allowed_plugins`. Every backend is opened with a call guard around its calls; nobody
else may open one.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from svsync.backends.guarded import BackendGuard
from svsync.bus.local import LocalSignals
from svsync.config.backend_types import is_ambient
from svsync.config.feed_types import FEEDS
from svsync.config.key_services import KeyServiceSpec, specs_of
from svsync.config.model import Settings
from svsync.config.references import Reference, resolve
from svsync.domain.costs import Terms
from svsync.domain.errors import ConfigError, KeyServiceError, SvsyncError
from svsync.domain.federation import BackendSpec, ManagedBy, store_of
from svsync.domain.ids import BackendId, TenantId
from svsync.domain.mapping import RuleSet
from svsync.domain.quotas import parse_limits
from svsync.domain.values import Credential
from svsync.network import NetworkPolicy
from svsync.observe.meter import SILENT, Meter
from svsync.observe.tracer import UNTRACED, Tracer
from svsync.ports import (
    AccessLog,
    Anchor,
    ArrivingFeed,
    Attestor,
    Backend,
    BackendDriver,
    ChangeFeed,
    Features,
    KeyService,
    KeyServices,
    Operation,
    Signals,
    Tell,
)
from svsync.store.pairs import Mapping as PairMapping

_BACKENDS = {
    "hashicorp-vault": "svsync.backends.vault.driver:VaultDriver",
    "aws-secrets-manager": "svsync.backends.aws.driver:AwsDriver",
    "azure-key-vault": "svsync.backends.azure.driver:AzureDriver",
    "gcp-secret-manager": "svsync.backends.gcp.driver:GcpDriver",
}
_FEEDS = {
    "vault-audit": "svsync.feeds.vault_audit.feed:open_feed",
    "vault-events": "svsync.feeds.vault_events:open_feed",
    "aws-sqs": "svsync.feeds.aws_sqs.feed:open_feed",
    "gcp-pubsub": "svsync.feeds.gcp_pubsub.feed:open_feed",
}
_ARRIVING = {
    "http": "svsync.feeds.http:FEED",
    "azure-eventgrid": "svsync.feeds.azure_eventgrid:FEED",
}
_KEY_SERVICES = {
    "aws": "svsync.kms.aws:open_service",
    "azure": "svsync.kms.azure:open_service",
    "gcp": "svsync.kms.gcp:open_service",
    "pkcs11": "svsync.kms.pkcs11:open_service",
    "vault": "svsync.kms.vault:open_service",
}
_ANCHORS = {
    "file": "svsync.anchors.file:open_anchor",
    "s3": "svsync.anchors.s3:open_anchor",
    "syslog": "svsync.anchors.syslog:open_anchor",
}
_ATTESTORS = {
    ("hashicorp-vault", "aws"): "svsync.clients.aws.attesting:attestor",
    ("hashicorp-vault", "gcp"): "svsync.clients.gcp_identity:attestor",
}
"""Of logins that take a proof of who svsync is in a cloud, by type and `auth_method`. Only
that of AWS needs an SDK."""
_EXTRAS = {
    "aws-secrets-manager": "aws",
    "azure-key-vault": "azure",
    "gcp-secret-manager": "gcp",
}
"""The extra of this package that brings what a type needs."""
_ACCESS_LOG = "svsync.feeds.vault_audit.reads:AuditFiles"
_PLUGINS = "svsync.backends"

CredentialReader = Callable[[BackendSpec, TenantId], Awaitable[Credential]]
"""Reads the credential of a backend from where its configuration points."""
Authorised = Callable[[BackendSpec, TenantId], Awaitable[None]]
"""Raises ConfigError for a backend that is not what somebody authorised."""
_COMPILED = 10_000
"""Backends whose compiled rules are kept."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A backend ready to be called, and the guard that counts its calls."""

    backend: Backend
    guard: BackendGuard

    def calls(self) -> dict[str, int]:
        return {str(name): made for name, made in self.guard.snapshot().calls.items()}

    def throttled(self) -> int:
        return self.guard.snapshot().throttled

    def calls_left(self) -> int | None:
        return self.guard.calls_left

    def allow(self, calls: int) -> None:
        self.guard.allow(calls)


@dataclass(frozen=True, slots=True)
class _CheckedFeed:
    """A feed that calls nobody before its backend was found to be what somebody authorised:
    one that signs in as svsync itself reads no credential at which that would be asked."""

    feed: ChangeFeed
    check: Callable[[], Awaitable[None]]

    async def listen(self, tell: Tell) -> None:
        await self.check()
        await self.feed.listen(tell)

    @property
    def invalid(self) -> int:
        return self.feed.invalid

    @property
    def dropped(self) -> int:
        return self.feed.dropped


class Registry:
    """The types of backend that this process may use; see `services.runs.Backends`."""

    def __init__(
        self,
        settings: Settings,
        credentials: CredentialReader,
        *,
        authorised: Authorised | None = None,
        drivers: Mapping[str, BackendDriver] | None = None,
        meter: Meter = SILENT,
        tracer: Tracer = UNTRACED,
    ) -> None:
        """`authorised` is asked about each backend that is opened; None where there is no
        store, and so no backend of the API. `drivers` adds types by hand, as tests and
        benchmarks do."""
        self._settings = settings
        self._credentials = credentials
        self._authorised = authorised
        self._by_hand = dict(drivers or {})
        self._drivers = dict(self._by_hand)
        self._own_listeners: frozenset[tuple[str, int]] = frozenset()
        self._signals: Signals = LocalSignals()
        self._meter = meter
        self._tracer = tracer
        self._compiled: dict[BackendId, tuple[BackendSpec, tuple[RuleSet, PairMapping]]] = {}

    def know_listeners(self, own: frozenset[tuple[str, int]]) -> None:
        """Addresses and ports on which this process listens: no backend is reached there."""
        self._own_listeners = own
        self._drivers = dict(self._by_hand)  # the others are loaded anew, with these

    def share_rates(self, signals: Signals) -> None:
        """Rates of calls are of all processes together, as far as these signals reach."""
        self._signals = signals

    def driver(self, kind: str) -> BackendDriver:
        """The driver of a type. Raises ConfigError for a type that is not there."""
        if kind not in self._drivers:
            self._drivers[kind] = self._load(kind)
        return self._drivers[kind]

    def rules(self, spec: BackendSpec) -> tuple[RuleSet, PairMapping]:
        """The compiled rules, and the hash under which pairs are attached.

        Raises:
            ConfigError: a key, value or rule that this type cannot use.
        """
        known = self._compiled.get(spec.id)
        if known is not None and known[0] == spec:
            return known[1]
        self.driver(spec.type).check_config(spec)
        rules = self.mapping(spec)
        store = store_of(spec)
        hashed = rules.hash({"store": store, "filters": dict(spec.filters)})
        compiled = (rules, PairMapping(hashed, store))
        if len(self._compiled) >= _COMPILED:
            self._compiled.clear()
        self._compiled[spec.id] = (spec, compiled)
        return compiled

    def mapping(self, spec: BackendSpec) -> RuleSet:
        """The compiled rules alone: which paths a backend federates, also where this
        process could not use it (its endpoint is not allowed here, its type not loaded)."""
        known = self._compiled.get(spec.id)
        if known is not None and known[0] == spec:
            return known[1][0]
        try:
            features = self.driver(spec.type).features
        except ConfigError:
            features = Features()
        return RuleSet.compile(
            spec.rules,
            separator=features.separator,
            segment=features.segment,
            case_sensitive=features.case_sensitive,
            max_name=features.max_name,
        )

    def terms(self, spec: BackendSpec) -> Terms:
        """What the provider of a backend publishes: none where its type is not loaded here."""
        try:
            return self.driver(spec.type).features.terms
        except ConfigError:
            return Terms()

    @asynccontextmanager
    async def open(
        self,
        spec: BackendSpec,
        tenant: TenantId,
        *,
        calls_left: int | None = None,
        more: Callable[[], Awaitable[int]] | None = None,
        patience: float | None = None,
        trial: bool = False,
    ) -> AsyncIterator[Opened]:
        """A backend behind its guard, closed when the block ends; see `services.runs.Backends`.

        What it was authorised for is compared before anything goes out, and before its
        credential is read again for another login.
        """
        driver = self.driver(spec.type)

        async def turn(operation: Operation, per_second: float) -> float:
            return await self._signals.turn(f"{spec.tenant}:{spec.id}:{operation}", per_second)

        guard = BackendGuard(
            parse_limits(spec.rate_limit, driver.features.terms.limits),
            calls_left=calls_left,
            more=more,
            turn=turn,
            patience=patience,
            tell=partial(self._called, spec),
        )

        async def check() -> None:
            self._refuse_ambient(spec)
            if self._authorised is not None and not trial:
                await self._authorised(spec, tenant)

        async def credential() -> Credential:
            await check()
            return await self._credential(spec, tenant)

        await check()
        async with driver.open(spec, credential, guard) as backend:
            yield Opened(backend, guard)

    def _called(self, spec: BackendSpec, operation: Operation, status: str, seconds: float) -> None:
        about = (spec.tenant, spec.id, spec.type, operation, status, seconds)
        self._meter.backend_called(*about)
        self._tracer.backend_called(*about)

    def open_feed(
        self, entry: Mapping[str, object], spec: BackendSpec, tenant: TenantId
    ) -> ChangeFeed:
        """The change feed of one entry of a backend's `events`.

        Raises:
            ConfigError: there is no such feed, it is of another type of backend, or it cannot
                listen as configured.
        """
        kind = str(entry.get("feed"))
        if kind not in _FEEDS:
            raise ConfigError(f"there is no change feed {kind!r}", where="events.feed")
        wanted, _ = FEEDS[kind]
        if wanted != spec.type:
            raise ConfigError(f"{kind} is for {wanted}, not for {spec.type}", where="events.feed")

        async def check() -> None:
            self._refuse_ambient(spec)
            if self._authorised is not None:
                await self._authorised(spec, tenant)

        async def credential() -> Credential:
            await check()
            return await self._credential(spec, tenant)

        # A queue is no backend: what it is asked is not among the backend's limits, budget
        # and figures, which a wait of twenty seconds a call would spoil.
        guard = BackendGuard()
        try:
            opens = _named(_FEEDS[kind])
        except ModuleNotFoundError as missing:
            if spec.type not in _EXTRAS:
                raise
            raise _not_installed(kind, spec.type, missing) from None
        feed: ChangeFeed = opens(entry, spec, credential, self._policy(), guard)
        return _CheckedFeed(feed, check)

    def arriving(self, feed: str) -> ArrivingFeed | None:
        """What reads a feed that comes over HTTP; None: there is none of this name."""
        if feed not in _ARRIVING:
            return None
        found: ArrivingFeed = _named(_ARRIVING[feed])
        return found

    async def _credential(self, spec: BackendSpec, tenant: TenantId) -> Credential:
        """What a backend signs in with: what stands where its configuration points, or, where
        a login takes a proof of who we are in a cloud, one that is made with it or, where
        nothing is named, as ourselves."""
        method = str(spec.config.get("auth_method", ""))
        target = _ATTESTORS.get((spec.type, method))
        if target is None:
            return await self._credentials(spec, tenant)
        policy = replace(self._policy(), file_managed=spec.managed_by is ManagedBy.FILE)
        try:
            attestor: Attestor = _named(target)(spec.config, policy)
        except ModuleNotFoundError as missing:
            raise _not_installed(f"auth_method: {method}", "aws-secrets-manager", missing) from None
        given = None if is_ambient(spec) else await self._credentials(spec, tenant)
        return await attestor.attest(str(spec.config.get("role", "")), given)

    def _refuse_ambient(self, spec: BackendSpec) -> None:
        """Our own identity is lent to the operator's backends, and to those of the API of
        the tenants that they name now, not when the backend was made."""
        if spec.managed_by is ManagedBy.FILE or not is_ambient(spec):
            return
        if spec.tenant not in self._settings.ambient_identity_tenants:
            raise ConfigError(
                f"the backend {spec.id} signs in as svsync itself, which its tenant may not: give"
                " it a credential, or have the operator add the tenant to"
                " ambient_identity_tenants",
                code="ambient_identity_not_allowed",
            )

    def _policy(self) -> NetworkPolicy:
        return NetworkPolicy(
            allow_loopback=self._settings.allow_loopback,
            allowed_hosts=self._settings.allowed_backend_hosts,
            own_listeners=self._own_listeners,
        )

    def _load(self, kind: str) -> BackendDriver:
        policy = self._policy()
        if kind in _BACKENDS:
            try:
                made: BackendDriver = _named(_BACKENDS[kind])(policy)
            except ModuleNotFoundError as missing:
                if kind not in _EXTRAS:
                    raise
                raise _not_installed(kind, kind, missing) from None
            return made
        if kind in self._settings.allowed_plugins:
            for entry in entry_points(group=_PLUGINS, name=kind):
                plugin: BackendDriver = entry.load()(policy)
                return plugin
            raise ConfigError(f"no installed package brings the backend type {kind!r}")
        known = ", ".join(sorted({*_BACKENDS, *self._drivers}))
        raise ConfigError(
            f"there is no backend type {kind!r}: it knows {known}; a plugin's type is named in"
            " allowed_plugins"
        )


def key_services(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    stored: Collection[str],
    may_make: bool = True,
) -> KeyServices:
    """The configured key services; none is contacted yet.

    Args:
        stored: the references of those that wrapped what is in the database. A key file that
            is missing is not replaced by a new one, which would open nothing.
        may_make: a key file that wrapped nothing yet may be made: at first boot, or where
            another key service may open what it is to take over.

    Raises:
        KeyServiceError, ConfigError: none of them can be used.
    """
    opened: list[KeyService | None] = []
    problems: list[SvsyncError] = []
    specs = specs_of(settings)
    for spec in specs:
        try:
            may = may_make and (not stored or len(specs) > 1)
            opened.append(_key_service(spec, settings, environ, stored if may else None))
        except (KeyServiceError, ConfigError) as problem:  # the other one may do
            opened.append(None)
            problems.append(problem)
    if not any(opened):
        raise problems[0]
    primary, secondary = (*opened, None)[:2]
    return KeyServices(primary, secondary, tuple(problem.message for problem in problems))


def _key_service(
    spec: KeyServiceSpec,
    settings: Settings,
    environ: Mapping[str, str],
    stored: Collection[str] | None,
) -> KeyService:
    """`stored`: a key file of another reference may be made; None: none may."""
    opened: KeyService
    if spec.provider == "local":
        local: Any = import_module("svsync.kms.local")
        path = local.key_file(spec.key, Path(settings.state_dir))
        create = stored is not None and f"local:{path}" not in stored
        opened = local.LocalKeyService.open(path, create=create)
        return opened
    policy = NetworkPolicy(allow_loopback=settings.allow_loopback, file_managed=True)
    named = spec.access.get("credentials_path")

    async def credential() -> Credential:
        text = resolve(
            Reference.parse(str(named)),
            environ=environ,
            allowed_file_roots=settings.allowed_file_roots,
        )
        return Credential.parse(text.reveal(), str(named))

    try:
        open_service = _named(_KEY_SERVICES[spec.provider])
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"{spec.provider} needs the package {missing.name}, which is not installed: install"
            f" svsync[{spec.provider}]",
            where="kms_provider",
        ) from None
    opened = open_service(spec, credential if named else None, policy, environ)
    return opened


def access_log(files: Sequence[str]) -> AccessLog:
    """The log of a Vault's audit device, of these files and what they were rotated to.

    Raises UsageError for a file that cannot be read.
    """
    opened: AccessLog = _named(_ACCESS_LOG)(files)
    return opened


def anchors(settings: Settings, environ: Mapping[str, str]) -> list[Anchor]:
    """The configured places outside; nothing is contacted yet.

    Raises ConfigError for one that may not be called.
    """
    return [
        _named(_ANCHORS[entry["anchor"]])(entry, settings, environ)
        for entry in settings.audit_anchors
    ]


def _not_installed(what: str, kind: str, missing: ModuleNotFoundError) -> ConfigError:
    return ConfigError(
        f"{what} needs the package {missing.name}, which is not installed: install"
        f" svsync[{_EXTRAS[kind]}]"
    )


def _named(target: str) -> Any:
    module, attribute = target.split(":")
    return getattr(import_module(module), attribute)
