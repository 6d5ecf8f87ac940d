"""The one place where things are wired: `async with open_app(settings) as app`."""

import asyncio
import gc
import os
import random
import secrets as entropy
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svsync.bus.opening import open_signals
from svsync.config.backends import Policy as BackendPolicy
from svsync.config.key_services import specs_of
from svsync.config.model import KmsProvider, Settings
from svsync.config.references import Place, Reference, resolve
from svsync.domain.audit import SVSYNC, Actor
from svsync.domain.authorisations import ENDPOINTS_FIELD, authorised_of, may_be_sent
from svsync.domain.errors import ConfigError, SchemaError, SetupError, StoreUnavailableError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import LocalPath, TenantId
from svsync.domain.scaikey import Terms
from svsync.domain.values import Credential
from svsync.domain.wrapping import KEY_SIZE
from svsync.network import NetworkPolicy
from svsync.observe.logs import get_logger
from svsync.observe.meter import SILENT, Meter
from svsync.observe.tracer import UNTRACED, Tracer
from svsync.ports import BackendDriver, Signals
from svsync.registry import CredentialReader, Registry, anchors, key_services
from svsync.services import root_keys
from svsync.services.access import Access
from svsync.services.audit import AuditLog
from svsync.services.audit_months import AuditMonths
from svsync.services.authorisations import Authorisations
from svsync.services.authorizing import Authorizing
from svsync.services.backends import ManagedBackends
from svsync.services.checkpoints import Checkpoints
from svsync.services.conflicts import Conflicts
from svsync.services.deliveries import Deliveries
from svsync.services.doctor import Doctor, Store
from svsync.services.federation import Federation
from svsync.services.feed_secrets import FeedSecrets
from svsync.services.feed_tokens import Directories, FeedTokens
from svsync.services.groups import Groups
from svsync.services.idempotency import Idempotency
from svsync.services.inventory import take_inventory
from svsync.services.keys import Keys
from svsync.services.listing import Listing
from svsync.services.overview import Overview
from svsync.services.pair_states import PairStates
from svsync.services.policies import Policies
from svsync.services.policy_tests import PolicyTests
from svsync.services.proxying import Proxying, open_proxying
from svsync.services.reading import Reading
from svsync.services.recording import Recorder, open_recorder
from svsync.services.removal import Removal
from svsync.services.restore import Restored, after_restore
from svsync.services.retention import Ages, Retention
from svsync.services.runs import Runs
from svsync.services.scaikey import SignIn, Vouching
from svsync.services.sealing import Sealing
from svsync.services.secret_writes import SecretWrites
from svsync.services.secrets import Secrets
from svsync.services.signing import Signing
from svsync.services.strangers import Strangers
from svsync.services.tenants import Tenants
from svsync.services.verification import Verification
from svsync.services.webhooks import Webhooks
from svsync.store import federation, keys, restore
from svsync.store.database import NO_TENANT, Database, Row, open_database
from svsync.store.migrate import Migration, migrate
from svsync.store.replica import Replica, open_replica

if TYPE_CHECKING:  # loaded where no database is configured
    from svsync.embedded.postgres import EmbeddedPostgres

_NO_KMS = (
    "the root key is wrapped by a key file on this machine, which is no key management"
    " service: whoever has that file and the database has the secrets; back it up apart"
)
YOUNG_OBJECTS = 10_000
"""New objects after which Python looks for cycles. A batch makes many more, without any,
and they live until it is committed: looking after each 700 finds nothing, and takes a
twentieth of a first import's processor time."""
_MOVED = (
    "the database is on another server or timeline than before: where it was restored from a"
    " backup, or a standby took over, run `svsync migrate --after-restore`"
)
_CREDENTIAL_KEYS = ("auth_config_path", "credentials_path")


@dataclass(frozen=True, slots=True)
class App:
    """Everything a command or a server needs, open."""

    settings: Settings
    db: Database
    registry: Registry
    sealing: Sealing
    keys: Keys
    secrets: Secrets
    listing: Listing
    writes: SecretWrites
    idempotency: Idempotency
    federation: Federation
    backends: ManagedBackends
    pair_states: PairStates
    removal: Removal
    conflicts: Conflicts
    runs: Runs
    retention: Retention
    access: Access
    tenants: Tenants
    feed_secrets: FeedSecrets
    feed_tokens: FeedTokens
    groups: Groups
    policies: Policies
    policy_tests: PolicyTests
    recorder: Recorder
    strangers: Strangers
    audit: AuditLog
    months: AuditMonths
    signing: Signing
    checkpoints: Checkpoints
    verification: Verification
    proxying: Proxying
    reading: Reading
    overview: Overview
    embedded: bool

    async def tenant(self, slug: str) -> TenantId:
        """Raises NotFoundError, TenantShreddedError, ConfigError when the tenant is shut."""
        return await federation.tenant(self.db, slug)

    async def forget(self, tenant: TenantId) -> None:
        """Put away what is at hand of a tenant that was shredded."""
        self.sealing.forget(tenant)
        self.signing.forget(tenant)
        self.reading.forget(tenant)
        await self.proxying.forget(tenant)


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    environ: Mapping[str, str] | None = None,
    drivers: Mapping[str, BackendDriver] | None = None,
    apply_backends: bool = True,
    by: Actor | None = None,
    pool: int = 8,
    meter: Meter = SILENT,
    tracer: Tracer = UNTRACED,
) -> AsyncIterator[App]:
    """The whole of svsync on the configured store, closed when the block ends.

    Brings the schema up to date (unless `migrate_on_start` is false), opens the root
    key, and applies the file's backends; `by` whom, the audit log tells (None: it does not).

    Raises:
        SvsyncError: whatever keeps svsync from working, as one sentence.
    """
    environ = os.environ if environ is None else environ
    gc.set_threshold(YOUNG_OBJECTS)
    async with AsyncExitStack() as stack:
        dsn, embedded = await _store(settings, stack)
        if embedded is not None:
            stack.enter_context(_told_of_full_disk(embedded))
        db = await stack.enter_async_context(open_database(dsn, size=pool))
        db.replica = await _replica(settings, db, stack)
        await migrate(dsn, apply=settings.migrate_on_start)
        await restore.remember(db, only_first=True)
        roots = await keys.root_keys(db)
        services = key_services(settings, environ, stored=_key_services_of(roots))
        sealing = Sealing(db, services, entropy.token_bytes)
        await sealing.open_root()
        if settings.kms_provider is KmsProvider.LOCAL and not roots:
            get_logger().warning("key_service", detail=_NO_KMS)
        for warning in sealing.warnings:
            get_logger().warning("key_service", detail=warning)
        secrets: Secrets
        registry = Registry(
            settings,
            _credentials(settings, lambda: secrets, environ),
            authorised=Authorisations(db).check,
            drivers=drivers,
            meter=meter,
            tracer=tracer,
        )
        secrets = Secrets(db, sealing)
        recorder = await stack.enter_async_context(
            open_recorder(db, _holder(), audit_timeout=settings.audit_timeout)
        )
        signing = Signing(db, sealing)
        proxying = await stack.enter_async_context(
            open_proxying(db, recorder, registry, ids=new_id)
        )
        app = App(
            settings=settings,
            db=db,
            registry=registry,
            sealing=sealing,
            keys=Keys(db, sealing),
            secrets=secrets,
            listing=Listing(db, sealing, proxying),
            writes=SecretWrites(db, sealing, registry, ids=new_id),
            idempotency=Idempotency(db, sealing, ids=new_id),
            federation=Federation(db, registry, recorder),
            backends=ManagedBackends(
                db,
                registry,
                Authorizing(recorder),
                BackendPolicy(
                    allow_loopback=settings.allow_loopback,
                    allowed_plugins=settings.allowed_plugins,
                    ambient_identity_tenants=settings.ambient_identity_tenants,
                ),
                random=entropy.token_bytes,
            ),
            pair_states=PairStates(db),
            removal=Removal(
                db,
                sealing,
                registry,
                ids=new_id,
                in_file={(spec.tenant, spec.id) for spec in settings.backends},
            ),
            conflicts=Conflicts(db, sealing, registry, ids=new_id),
            runs=Runs(
                db,
                sealing,
                registry,
                holder=_holder(),
                ids=new_id,
                random=random.random,
                meter=meter,
                tracer=tracer,
                unreachable_after=settings.unreachable_after,
            ),
            retention=Retention(db, ages_of(settings), recorder),
            access=Access(db, ids=new_id, random=entropy.token_bytes),
            tenants=Tenants(db, sealing, ids=new_id),
            feed_secrets=FeedSecrets(db, ids=new_id, random=entropy.token_bytes),
            feed_tokens=FeedTokens(db, _Directories(settings), now=time.time),
            groups=Groups(db),
            policies=Policies(db, ids=new_id),
            policy_tests=PolicyTests(db),
            recorder=recorder,
            strangers=Strangers(db, recorder),
            audit=AuditLog(db),
            months=AuditMonths(db, recorder, settings.audit_retention),
            signing=signing,
            checkpoints=Checkpoints(db, signing, anchors(settings, environ)),
            verification=Verification(db, signing),
            proxying=proxying,
            reading=Reading(db, recorder, sealing, proxying),
            overview=Overview(db, registry),
            embedded=embedded is not None,
        )
        if apply_backends and (settings.backends or settings.source is not None):
            await app.federation.apply(settings.backends, by=by)
        yield app


def ages_of(settings: Settings) -> Ages:
    """What is kept, and for how long, as configured."""
    return Ages(
        max_versions=settings.max_versions,
        trim_grace=settings.trim_grace,
        tombstones=settings.tombstone_retention,
        conflicts=settings.conflict_retention,
        runs=settings.run_retention,
        runs_kept=settings.runs_kept,
        pushes=settings.push_retention,
        detached=settings.detached_retention,
        events=settings.events_kept,
        tokens=settings.token_retention,
    )


def open_hints(settings: Settings) -> AbstractAsyncContextManager[Signals]:
    """The signals between this process and others, closed when the block ends.

    Raises ConfigError for a `redis_url` that means nothing.
    """
    return open_signals(settings.redis_url)


@asynccontextmanager
async def rates_shared(app: App) -> AsyncIterator[None]:
    """Until the block ends, rates of calls are shared with the other processes, where Redis
    joins them."""
    if app.settings.redis_url is None:
        yield
        return
    async with open_hints(app.settings) as signals:
        app.registry.share_rates(signals)
        yield


@asynccontextmanager
async def open_webhooks(
    app: App,
    *,
    own_listeners: Callable[[], frozenset[tuple[str, int]]] = frozenset,
    meter: Meter = SILENT,
    tracer: Tracer = UNTRACED,
) -> AsyncIterator[tuple[Webhooks, Deliveries]]:
    """The endpoints of webhooks, and what is delivered to them, over connections that are
    closed when the block ends and that never lead to this process's own listeners."""
    from svsync.clients.webhook import open_webhook_client

    private = app.settings.allow_private_targets
    async with open_webhook_client(private=private, own_listeners=own_listeners) as sender:
        yield (
            Webhooks(app.db, app.sealing, sender, ids=new_id),
            Deliveries(
                app.db, app.sealing, sender, random=random.random, meter=meter, tracer=tracer
            ),
        )


@asynccontextmanager
async def open_vouching(app: App) -> AsyncIterator[Vouching]:
    """Who vouches for the tokens of callers: static ones and, where `scaikey_url` is set, its
    own, whose keys are kept fresh until the block ends.

    Raises ConfigError for an address that may not be called.
    """
    settings = app.settings
    if settings.scaikey_url is None:
        if settings.bootstrap_super_admin is not None:
            get_logger().warning(
                "bootstrap_waits",
                setting="BOOTSTRAP_SUPER_ADMIN",
                detail="nobody can sign in with an address: set SCAIKEY_URL beside it",
            )
        yield Vouching(app.access, None)
        return
    from svsync.clients.scaikey.documents import Documents
    from svsync.clients.scaikey.keys import IssuerKeys

    policy = NetworkPolicy(allow_loopback=settings.allow_loopback, file_managed=True)
    issuer = IssuerKeys(Documents(settings.scaikey_url, settings.scaikey_jwks_url, policy).keys)
    sign_in = SignIn(
        app.db,
        app.recorder,
        issuer,
        Terms(
            settings.scaikey_url,
            settings.scaikey_audience,
            settings.scaikey_tenant_claim,
            settings.scaikey_groups_claim,
            settings.scaikey_scopes_claim,
        ),
        bootstrap=settings.bootstrap_super_admin,
        now=time.time,
    )
    await sign_in.tell_of_bootstrap()
    keeping = asyncio.create_task(issuer.keep_fresh(), name="scaikey")
    try:
        yield Vouching(app.access, sign_in)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


class _Directories:
    """Those of Entra. Their client is not loaded before a token of theirs arrives."""

    def __init__(self, settings: Settings) -> None:
        self._policy = NetworkPolicy(allow_loopback=settings.allow_loopback, file_managed=True)
        self._known: Directories | None = None

    async def payload_of(self, directory: str, text: str) -> bytes:
        if self._known is None:
            from svsync.clients.entra.directories import Directories as Entra

            self._known = Entra(self._policy)
        return await self._known.payload_of(directory, text)


async def survey_source(
    settings: Settings,
    spec: BackendSpec,
    *,
    depth: int,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a store holds that is not among the backends; no store of ours is opened.

    Raises ConfigError, BackendError.
    """

    def no_secrets() -> Secrets:
        raise ConfigError("a store that is not configured signs in by the environment alone")

    environ = os.environ if environ is None else environ
    registry = Registry(settings, _credentials(settings, no_secrets, environ))
    async with registry.open(spec, NO_TENANT, trial=True) as opened:
        return await take_inventory(opened.backend, spec, None, depth=depth)


def make_doctor(
    settings: Settings,
    *,
    environ: Mapping[str, str] | None = None,
    drivers: Mapping[str, BackendDriver] | None = None,
) -> Doctor:
    """Who examines this installation; nothing is opened before it does."""
    environ = os.environ if environ is None else environ
    secrets: list[Secrets] = []
    bound: list[Authorisations] = []

    async def authorised(spec: BackendSpec, tenant: TenantId) -> None:
        for known in bound:  # without a store nobody knows of a backend that needs it
            await known.check(spec, tenant)

    def opened_secrets() -> Secrets:
        if not secrets:
            raise ConfigError(
                "its credential is kept in ScaiVault, which cannot be opened",
                code="credential_unavailable",
            )
        return secrets[0]

    @asynccontextmanager
    async def open_store() -> AsyncIterator[Store]:
        async with AsyncExitStack() as stack:
            dsn, embedded = await _store(settings, stack)
            db = await stack.enter_async_context(open_database(dsn, size=4))
            replica = await _replica(settings, db, stack)
            problem = None
            try:
                await migrate(dsn, apply=False)
            except SchemaError as found:
                problem = found
            bound[:] = [Authorisations(db)]
            yield Store(db, embedded is not None, problem, replica)

    async def open_root(db: Database) -> Sealing | None:
        roots = await keys.root_keys(db)
        if not roots:
            await _try_key_services(settings, environ)
            return None
        known, second = settings, specs_of(settings)[-1].provider
        if second == "local" and not any(row["wrapped_2"] for row in roots):
            # A second key file that wraps nothing yet is made, and used, by the next start.
            known = replace(settings, kms_key_id_secondary=None, kms_access_secondary=None)
        stored = _key_services_of(roots)
        services = key_services(known, environ, stored=stored, may_make=False)
        sealing = Sealing(db, services, entropy.token_bytes)
        await sealing.open_root(take_over=False)
        secrets.append(Secrets(db, sealing))
        return sealing

    return Doctor(
        settings,
        Registry(
            settings,
            _credentials(settings, opened_secrets, environ),
            authorised=authorised,
            drivers=drivers,
        ),
        open_store=open_store,
        open_root=open_root,
        open_hints=lambda: open_hints(settings),
        now=lambda: datetime.now(UTC),
        places=[anchor.place for anchor in anchors(settings, environ)],
    )


async def _try_key_services(settings: Settings, environ: Mapping[str, str]) -> None:
    """Those that the first start will need, but for key files, which it makes.

    Raises KeyServiceError, ConfigError.
    """
    if all(spec.provider == "local" for spec in specs_of(settings)):
        return
    services = key_services(settings, environ, stored=(), may_make=False)
    for service in filter(None, (services.primary, services.secondary)):
        await root_keys.wrapped(service, entropy.token_bytes(KEY_SIZE))


def _key_services_of(roots: Sequence[Row]) -> frozenset[str]:
    """The references of the key services that wrapped what is stored."""
    named = {row["kms_ref"] for row in roots} | {row["kms_ref_2"] for row in roots}
    return frozenset(named - {None})


async def migrate_only(
    settings: Settings, *, restored: bool = False, by: Actor = SVSYNC
) -> tuple[list[Migration], Restored | None]:
    """Bring the schema up to date; what was applied. With `restored`, the database comes
    from a backup: make it safe to go on as well; `by` whom, the audit log tells."""
    async with AsyncExitStack() as stack:
        dsn, _ = await _store(settings, stack)
        # As the role that will use it: a schema made by another could not be used.
        db = await stack.enter_async_context(open_database(dsn, size=2))
        applied = await migrate(dsn)
        if restored:
            recorder = await stack.enter_async_context(
                open_recorder(db, _holder(), audit_timeout=settings.audit_timeout)
            )
            return applied, await after_restore(db, recorder, by=by, ids=new_id)
        await restore.remember(db, only_first=True)
        if await restore.has_moved(db):
            get_logger().warning("store_moved", detail=_MOVED)
        return applied, None


async def _store(
    settings: Settings, stack: AsyncExitStack
) -> tuple[str, "EmbeddedPostgres | None"]:
    """Where the store is; started here where none is configured."""
    if settings.database_url is not None:
        return settings.database_url.reveal(), None
    from svsync.embedded.postgres import embedded_postgres

    server = await stack.enter_async_context(embedded_postgres(Path(settings.state_dir)))
    get_logger().info("embedded_store", detail="no DATABASE_URL: an embedded PostgreSQL serves")
    return server.dsn, server


async def _replica(settings: Settings, db: Database, stack: AsyncExitStack) -> Replica | None:
    """What may be a moment old is read there; None: no such place is configured."""
    if settings.database_url_read is None:
        return None
    dsn = settings.database_url_read.reveal()
    return await stack.enter_async_context(open_replica(dsn, db, max_lag=settings.max_replica_lag))


@contextmanager
def _told_of_full_disk(server: "EmbeddedPostgres") -> Iterator[None]:
    """A PostgreSQL that cannot write its log of changes ends itself, so all that is seen
    of a full disk is a lost connection; its own log knows better."""
    mark = server.log.stat().st_size
    try:
        yield
    except StoreUnavailableError:
        with server.log.open("rb") as log:
            log.seek(mark)
            full = b"No space left on device" in log.read()
        if not full:
            raise
        raise SetupError(
            f"the disk of {server.log.parent} is full: free some space and run again; what was"
            " committed is kept",
            code="disk_full",
        ) from None


def _credentials(
    settings: Settings, secrets: Callable[[], Secrets], environ: Mapping[str, str]
) -> CredentialReader:
    """Reads a backend's credential, anew at each login, from where it points."""

    async def read(spec: BackendSpec, tenant: TenantId) -> Credential:
        named = [spec.config[key] for key in _CREDENTIAL_KEYS if spec.config.get(key)]
        if not named:
            raise ConfigError(
                f"the backend {spec.id} names no credential: set config.auth_config_path",
                code="credential_unavailable",
            )
        reference = Reference.parse(str(named[0]))
        if reference.place is Place.SCAIVAULT:
            shown, data = await secrets().get(tenant, LocalPath(reference.target))
            _refuse_other_endpoints(spec, reference.target, shown)
            return Credential.parse(data, str(reference))
        text = resolve(reference, environ=environ, allowed_file_roots=settings.allowed_file_roots)
        return Credential.parse(text.reveal(), str(reference))

    return read


def _refuse_other_endpoints(spec: BackendSpec, path: str, shown: Mapping[str, Any]) -> None:
    """A credential that names the endpoints it is for is sent nowhere else."""
    if not may_be_sent(shown["metadata"]["custom"], authorised_of(spec).origin):
        raise ConfigError(
            f"the credential at {path} is not for the endpoint of {spec.id}: its"
            f" {ENDPOINTS_FIELD} names those it may be sent to",
            code="endpoint_not_allowed",
        )


def new_id(prefix: str) -> str:
    """`run_…`, `cfl_…`, `evt_…`: a UUIDv7 (RFC 9562) in hex, so ids sort by their moment."""
    return _id_of(prefix, int.from_bytes(entropy.token_bytes(10)))


_CHANCE = random.Random(entropy.token_bytes(32))  # noqa: S311 - what it draws may be guessed
os.register_at_fork(after_in_child=lambda: _CHANCE.seed(entropy.token_bytes(32)))


def passing_id(prefix: str) -> str:
    """The same for what is named a thousand times a second, as requests are, and by whose id
    nothing can be had: the system's own randomness costs a call to it each time."""
    return _id_of(prefix, _CHANCE.getrandbits(80))


def _id_of(prefix: str, bits: int) -> str:
    moment = time.time_ns() // 1_000_000
    value = (moment & (1 << 48) - 1) << 80 | 0x7 << 76 | (bits >> 68 & 0xFFF) << 64
    value |= 0b10 << 62 | bits & ((1 << 62) - 1)
    return f"{prefix}_{value:032x}"


def _holder() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
