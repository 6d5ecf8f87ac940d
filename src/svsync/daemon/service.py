"""One process of the service: what it runs by its roles, and the order in which it stops.

Up: store, signals, listeners, then the tasks. Down, on SIGTERM: no run is claimed any
more; those under way are given back at the end of their batch, or where they stand when
the grace is over; then everything else is cancelled, listeners answer what they have
taken, the process leaves the list of those that are up, and connections close.
"""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Final

from svsync import __version__
from svsync.app import App, new_id, open_app, open_hints, open_vouching, open_webhooks
from svsync.config.model import Settings
from svsync.daemon.beside import Beside
from svsync.daemon.systemd import Notify
from svsync.domain.audit import SVSYNC
from svsync.domain.errors import StoreUnavailableError, SvsyncError
from svsync.domain.roles import Role
from svsync.http.console import Console
from svsync.http.limits import Limits
from svsync.http.listening import Listener, listening
from svsync.http.metrics import serving_metrics
from svsync.http.server import Api, make_server
from svsync.observe.logs import configure, get_logger
from svsync.observe.metrics import Metrics, watch_loop
from svsync.observe.opening import open_tracer
from svsync.observe.tracer import Tracer
from svsync.ports import Signals
from svsync.services.audit import AuditLog
from svsync.services.audit_chains import AuditChains
from svsync.services.audit_months import EVERY_S as MONTHS_S
from svsync.services.audit_months import TASK as MONTHS
from svsync.services.authority import Authority
from svsync.services.authorizing import Authorizing
from svsync.services.checkpoints import keep_checkpoints
from svsync.services.deliveries import Deliveries, keep_delivering
from svsync.services.feeds import Feeds
from svsync.services.gauges import Gauges
from svsync.services.instances import keep_beating
from svsync.services.key_grace import KeyGrace, keep_looking
from svsync.services.mapping_tests import MappingTests
from svsync.services.notices import Notices
from svsync.services.plans import Plans
from svsync.services.readiness import Readiness
from svsync.services.reports import Reports
from svsync.services.scheduling import Scheduling, keep_schedule
from svsync.services.singletons import turn_at
from svsync.services.subtrees import Subtrees
from svsync.services.tenants import keep_forgetting
from svsync.services.webhooks import Webhooks
from svsync.services.workers import Workers

SLOTS: Final = 8
"""Runs that one process works at a time."""
POOL: Final = 24
"""Connections to the database: two a run, and those of the API."""
API_POOL: Final = 8
"""Those of the API, where a process works no runs."""
RETENTION_S: Final = 3600.0
"""Seconds between two walks of retention, whichever process makes them."""
_LOOK_S: Final = 60.0
_RELOAD_AGAIN_S: Final = 2.0
"""Seconds until a configuration is applied again that met a store that was away."""
_CLOSE_S: Final = 5.0
"""Seconds in which listeners answer what they have taken, once the runs are given back."""

LoadSettings = Callable[[], Settings]
"""Reads the configuration anew. Raises ConfigError: what is in force stays so."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process listens; None where it does not."""

    api: str | None
    metrics: str | None


async def serve(
    settings: Settings,
    load: LoadSettings,
    *,
    roles: Collection[Role],
    environ: Mapping[str, str] | None = None,
    beside: Beside | None = None,
    told: Callable[[App, Place], None],
) -> None:
    """Run the service until SIGTERM or SIGINT; a second one ends the process where it is.

    SIGHUP reads the configuration anew. `beside`: it shares its port with others. `told` is
    called once everything runs.

    Raises:
        SvsyncError: whatever keeps it from starting, as one sentence.
    """
    environ = os.environ if environ is None else environ
    notify = Notify(environ)
    meter = Metrics(max_backends=settings.metrics_max_backends)
    async with AsyncExitStack() as stack:
        tracer = await stack.enter_async_context(open_tracer(environ))
        app = await stack.enter_async_context(
            open_app(
                settings,
                environ=environ,
                meter=meter,
                tracer=tracer,
                by=SVSYNC,
                pool=POOL if Role.WORKER in roles else API_POOL,
            )
        )
        signals = await stack.enter_async_context(open_hints(settings))
        app.registry.share_rates(signals)
        with suppress(SvsyncError):  # looked after again by whoever has the turn
            await app.months.prepare()
        service = _Service(
            app, settings, load, signals, meter, tracer, notify, frozenset(roles), beside
        )
        webhooks, deliveries = await stack.enter_async_context(
            open_webhooks(
                app, own_listeners=lambda: service.own_listeners, meter=meter, tracer=tracer
            )
        )
        place = await service.listen(stack, webhooks)
        stop = asyncio.Event()
        # Not before: until here a signal cancels the start, however long that waits.
        _on_signals(stop, service.reload)
        async with asyncio.TaskGroup() as tasks:
            running = service.start(tasks, deliveries)
            notify.ready()
            told(app, place)
            await stop.wait()
            notify.stopping()
            get_logger().info("stopping")
            await service.stop()
            for task in running:
                task.cancel()


def _on_signals(stop: asyncio.Event, reload: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def told(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told, number)
    loop.add_signal_handler(signal.SIGHUP, reload.set)


class _Service:
    """What one process runs."""

    def __init__(
        self,
        app: App,
        settings: Settings,
        load: LoadSettings,
        signals: Signals,
        meter: Metrics,
        tracer: Tracer,
        notify: Notify,
        roles: frozenset[Role],
        beside: Beside | None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._load = load
        self._signals = signals
        self._meter = meter
        self._tracer = tracer
        self._notify = notify
        self._roles = roles
        self._beside = beside
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._listener: Listener | None = None
        self._working: asyncio.Task[None] | None = None
        self._scheduling = Scheduling(
            app.db, signals, ids=new_id, health_interval=settings.health_interval, meter=meter
        )
        self._workers = Workers(app.db, app.runs, signals, slots=SLOTS, name=self._name)
        self._feeds = Feeds(app.registry.open_feed, self._scheduling.notice)
        self._key_grace = KeyGrace(app.sealing, settings.kms_grace)
        self._noticed: Counter[tuple[str, str]] = Counter()
        self._answering = 1
        self.own_listeners: frozenset[tuple[str, int]] = frozenset()
        self.reload = asyncio.Event()

    async def listen(self, stack: AsyncExitStack, webhooks: Webhooks) -> Place:
        """Open the listeners of this process's roles."""
        app, settings = self._app, self._settings
        at: set[tuple[str, int]] = set() if self._beside is None else {*self._beside.listeners}
        metrics = None
        if settings.metrics_address is not None:
            gauges = Gauges(app.db, self._meter)
            stack.push_async_callback(gauges.aclose)
            host, port = await stack.enter_async_context(
                serving_metrics(self._meter, gauges, settings.metrics_address, look=self._measure)
            )
            metrics = f"http://{host}:{port}/metrics"
            at.add((host, port))
        if Role.API in self._roles:
            stack.push_async_callback(app.strangers.close)
            vouching = await stack.enter_async_context(open_vouching(app))
            api = Api(
                authority=Authority(app.db, vouching, clock=time.monotonic),
                tokens=app.access,
                keys=app.keys,
                authorizing=Authorizing(app.recorder),
                strangers=app.strangers,
                audit=AuditLog(app.db),
                audit_chains=AuditChains(app.db, app.checkpoints.places),
                reading=app.reading,
                secrets=app.secrets,
                listing=app.listing,
                writes=app.writes,
                idempotency=app.idempotency,
                federation=app.federation,
                backends=app.backends,
                pair_states=app.pair_states,
                conflicts=app.conflicts,
                removal=app.removal,
                overview=app.overview,
                reports=Reports(app.db),
                plans=Plans(app.runs, app.federation),
                mapping_tests=MappingTests(app.db, app.registry),
                subtrees=Subtrees(app.db, app.registry),
                policies=app.policies,
                policy_tests=app.policy_tests,
                scheduling=self._scheduling,
                webhooks=webhooks,
                feed_secrets=app.feed_secrets,
                feed_tokens=app.feed_tokens,
                notices=Notices(
                    app.db,
                    app.registry,
                    app.registry.arriving,
                    self._scheduling.notice,
                    meter=self._meter,
                ),
                readiness=Readiness(app.db, time.monotonic, keys_shut=lambda: self._key_grace.shut),
            )
            limits = Limits(
                settings.api_rate_limits,
                clock=time.monotonic,
                processes=lambda: self._answering,
            )
            server = make_server(
                api,
                trusted_proxies=settings.trusted_proxies,
                limits=limits,
                tracer=self._tracer,
                meter=self._meter,
                page=Console(settings.scaikey_url, settings.console_client_id)
                if settings.console
                else None,
            )
            self._listener = await stack.enter_async_context(
                listening(server, settings, grace=_CLOSE_S, shared=self._beside is not None)
            )
            at.add((self._listener.host, self._listener.port))
        self.own_listeners = frozenset(at)
        app.registry.know_listeners(self.own_listeners)
        return Place(self._listener.url if self._listener else None, metrics)

    def start(self, tasks: asyncio.TaskGroup, deliveries: Deliveries) -> list[asyncio.Task[None]]:
        """Start the tasks of this process's roles; those that end when they are cancelled."""
        beating = keep_beating(
            self._app.db,
            self._signals,
            self._name,
            roles=sorted(self._roles),
            version=__version__,
            each=self._say_status,
        )
        works = [beating, watch_loop(self._meter, time.monotonic), self._keep_reloading()]
        works.append(keep_looking(self._key_grace))
        works.append(keep_forgetting(self._app.db, self._app.forget, self._follow))
        # Whoever records may be the one to sign, so that no role has to be up for it.
        works.append(
            keep_checkpoints(self._app.db, self._app.checkpoints, self._app.recorder, self._name)
        )
        if self._notify.watchdog_s is not None:
            works.append(self._keep_alive(self._notify.watchdog_s))
        if Role.API in self._roles:
            works.append(self._app.strangers.keep_recording())
        if Role.SCHEDULER in self._roles:
            works += [keep_schedule(self._scheduling), self._keep_tidy(), self._keep_months()]
        if Role.WORKER in self._roles:
            works += [
                keep_delivering(deliveries, self._signals),
                self._keep_following(),
                self._feeds.run(),
            ]
            self._working = tasks.create_task(
                self._workers.serve(self._settings.shutdown_grace), name="workers"
            )
        return [tasks.create_task(work) for work in works]

    async def stop(self) -> None:
        """Give back the runs under way."""
        if self._working is not None:
            self._workers.stop()
            await asyncio.wait({self._working}, timeout=self._settings.shutdown_grace)
            self._working.cancel()

    # --- tasks ----------------------------------------------------------------------

    def _say_status(self, answering: int) -> None:
        self._answering = answering
        self._notify.status(f"{self._workers.at_work} of {SLOTS} workers busy")

    def _measure(self) -> None:
        """What stands in this process now, for the page of metrics."""
        self._meter.workers(self._workers.at_work, SLOTS)
        self._meter.signals_shared(self._signals.shared)
        self._meter.key_services_away(self._key_grace.away_s)
        down: Counter[str] = Counter()
        seen: Counter[tuple[str, str]] = Counter()
        for state in self._feeds.states():
            down[state.feed] += bool(state.problem)
            seen[state.feed, "told"] += state.heard - state.unmapped
            seen[state.feed, "unmapped"] += state.unmapped
            seen[state.feed, "gap"] += state.gaps
            seen[state.feed, "dropped"] += state.dropped
        for feed, many in down.items():
            self._meter.feeds_down(feed, many)
        for (feed, outcome), many in (seen - self._noticed).items():
            self._meter.feed_noticed(feed, outcome, many)
        self._noticed = self._noticed | seen

    async def _keep_alive(self, every_s: float) -> None:
        """The loop that does this is the one that does everything."""
        while True:
            self._notify.alive()
            await asyncio.sleep(every_s)

    async def _keep_following(self) -> None:
        """Listen for the backends that there are; those that are made later, within a minute."""
        while True:
            with suppress(SvsyncError):  # those that are followed stay so
                await self._follow()
            await asyncio.sleep(_LOOK_S)

    async def _follow(self) -> None:
        self._feeds.follow(await self._app.federation.listening())

    async def _keep_tidy(self) -> None:
        while True:
            try:
                async with turn_at(
                    self._app.db, "retention", self._name, every_s=RETENTION_S
                ) as ours:
                    if ours:
                        await _tidied(self._app.retention.run_all(), "retention")
                        await _tidied(self._app.tenants.clear_all(), "shredded tenants")
            except SvsyncError as problem:
                get_logger().warning("retention_waits", error_code=problem.code)
            await asyncio.sleep(_LOOK_S)

    async def _keep_months(self) -> None:
        """The audit log by months. They are there before the first row of a month is: made at
        each start, where a role may be down for long, and looked after once a day."""
        while True:
            try:
                async with turn_at(self._app.db, MONTHS, self._name, every_s=MONTHS_S) as ours:
                    if ours:
                        await self._app.months.prepare()
                        await self._app.checkpoints.wake()
                        await self._app.months.trim()
            except SvsyncError as problem:
                get_logger().warning("audit_months_wait", error_code=problem.code)
            await asyncio.sleep(_LOOK_S)

    # --- another configuration --------------------------------------------------------

    async def _keep_reloading(self) -> None:
        while True:
            await self.reload.wait()
            self.reload.clear()
            self._notify.reloading()
            waits = False
            try:
                await self._apply_anew()
            except StoreUnavailableError as problem:  # nothing is wrong with what was read
                waits = True
                get_logger().warning(
                    "reload_waits", error_code=problem.code, detail=problem.message
                )
            except SvsyncError as problem:
                get_logger().error(
                    "reload_refused", error_code=problem.code, detail=problem.message
                )
            self._notify.ready()
            if waits:
                await asyncio.sleep(_RELOAD_AGAIN_S)
                self.reload.set()

    async def _apply_anew(self) -> None:
        """Backends, the certificate and how it logs; the rest is taken at the next start, and
        named.

        Raises SvsyncError: backends are as they were, and logs too.
        """
        wanted = self._load()
        if self._listener is not None:
            self._listener.reload_certificate()
        changed = await self._app.federation.apply(wanted.backends, by=SVSYNC)
        self._app.removal.know_file({(spec.tenant, spec.id) for spec in wanted.backends})
        configure(wanted.log_level, wanted.log_format)
        rest = _changed_otherwise(self._settings, wanted)
        self._settings = replace(self._settings, backends=wanted.backends, source=wanted.source)
        get_logger().info("reloaded", count=len(changed))
        if rest:
            get_logger().warning(
                "restart_needed", detail=f"changed, and taken at the next start: {', '.join(rest)}"
            )
        with suppress(SvsyncError):  # they are looked up again within a minute
            await self._follow()


async def _tidied(work: Awaitable[object], what: str) -> None:
    """What does not come to its end is told, and keeps nothing else from being done."""
    try:
        await work
    except SvsyncError as problem:
        get_logger().warning("tidying_waits", detail=what, error_code=problem.code)


def _changed_otherwise(now: Settings, wanted: Settings) -> list[str]:
    # How it logs has changed by now.
    left_out = {"backends", "source", "places", "log_level", "log_format"}
    names = [name for name in Settings.__dataclass_fields__ if name not in left_out]
    return [name for name in names if getattr(now, name) != getattr(wanted, name)]
