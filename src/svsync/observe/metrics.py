"""What svsync counts, and the page on which Prometheus reads it.

What happens in this process is counted as it happens (`Metrics` is a `Meter`). How
things stand, staleness above all, is not kept here but given at each scrape by who has
read it from the store: a process that counted its own successes would call a backend
stale that another replica has just synced.

Labels are bounded. Statuses come from closed lists, a backend is its id, and where
there are more than `max_backends` its type: counters are added up then and stay so
until the process ends, and of what stands the sum or the worst is told.
"""

import asyncio
from collections import Counter as Sums
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NoReturn, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from svsync import __version__
from svsync.observe.meter import Meter, Standing
from svsync.ports import Operation

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
MAX_BACKENDS: Final = 2_000

OTHER: Final = "other"
RESULTS: Final = ("ok", "partial", "failed", OTHER)
CHANGES: Final = ("created", "updated", "deleted", "pushed", "conflicts", "skipped")
OPERATIONS: Final = (*get_args(Operation), OTHER)
CALL_STATUSES: Final = ("ok", "throttled", "unreachable", "denied", "error", OTHER)
DELIVERY_STATUSES: Final = ("delivered", "failed", "dead", OTHER)
READ_MODES: Final = ("local", "proxy", OTHER)
READ_STATUSES: Final = ("ok", "not_found", "denied", "unreachable", "error", OTHER)
NOTICE_OUTCOMES: Final = ("told", "unmapped", "gap", "dropped", OTHER)
FEEDS: Final = (
    "vault-audit", "vault-events", "aws-sqs", "azure-eventgrid", "gcp-pubsub", "http", OTHER,
)  # fmt: skip

_RUN_SECONDS: Final = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_CALL_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Fold = Callable[[Sequence[float]], float]
_STANDING: Final[tuple[tuple[str, str, str, Fold], ...]] = (
    (
        "svsync_last_success_timestamp_seconds",
        "When the last full run succeeded, in seconds since the epoch; none before the first.",
        "last_success",
        min,
    ),
    (
        "svsync_staleness_seconds",
        "Time since the last full run that succeeded; before the first, since it was configured.",
        "staleness",
        max,
    ),
    (
        "svsync_backends_stale",
        "1 where staleness exceeds max_staleness, or without it three intervals; 0 when paused.",
        "stale",
        sum,
    ),
    (
        "svsync_backends_down",
        "1 where the backend could not be reached, or refused us, when last asked; 0 when paused.",
        "down",
        sum,
    ),
    (
        "svsync_backend_latency_seconds",
        "How long the last connection to the backend took.",
        "latency",
        max,
    ),
    ("svsync_secrets_synced", "Secrets that are in sync with the backend.", "secrets", sum),
    (
        "svsync_secrets_quarantined",
        "Secrets that failed again and again and are left alone for a while.",
        "quarantined",
        sum,
    ),
    ("svsync_conflicts_open", "Conflicts that wait for a person.", "conflicts", sum),
    (
        "svsync_pushes_pending",
        "Local changes that the backend has not got yet.",
        "pending_pushes",
        sum,
    ),
)
"""Name, help, field of `BackendStanding`, and what is told of several backends at once."""


class Metrics(Meter):
    """Counts for Prometheus; see `Meter` for when its methods are called.

    It belongs to the event loop's thread; only `page` may run in another.
    """

    def __init__(self, *, max_backends: int = MAX_BACKENDS) -> None:
        self._max_backends = max_backends
        # What is told thousands of times a second: to look a series up by its labels costs most.
        self._call_series: dict[tuple[str, str, str, str, str], tuple[Counter, Histogram]] = {}
        self._read_series: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._types: dict[tuple[str, str], str] = {}
        self._tenants: set[str] = set()
        self._folded = False
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("svsync_build", "The svsync that runs here.", registry=registry).info(
            {"version": __version__}
        )

        self._runs = Counter(
            "svsync_sync_runs",
            "Cycles that ended, full and targeted ones.",
            ("tenant", "backend", "result"),
            registry=registry,
        )
        self._run_seconds = Histogram(
            "svsync_sync_duration_seconds",
            "How long cycles took.",
            ("tenant",),
            buckets=_RUN_SECONDS,
            registry=registry,
        )
        self._changes = Counter(
            "svsync_sync_secrets",
            "What cycles did with secrets.",
            ("tenant", "change"),
            registry=registry,
        )
        self._calls = Counter(
            "svsync_backend_api_calls",
            "Calls to backends, each try.",
            ("tenant", "backend", "operation", "status"),
            registry=registry,
        )
        self._call_seconds = Histogram(
            "svsync_backend_api_call_duration_seconds",
            "How long calls to backends took, each try.",
            ("tenant", "type", "operation"),
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        self._deliveries = Counter(
            "svsync_webhook_deliveries",
            "Attempts to deliver an event: delivered, failed (tried again later), dead (given up).",
            ("tenant", "status"),
            registry=registry,
        )
        self._delivery_seconds = Histogram(
            "svsync_webhook_delivery_duration_seconds",
            "How long attempts to deliver took.",
            ("tenant",),
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        self._reads = Counter(
            "svsync_reads",
            "Reads of a secret's value.",
            ("tenant", "mode", "status"),
            registry=registry,
        )
        self._read_seconds = Histogram(
            "svsync_read_duration_seconds",
            "How long reads of a secret's value took.",
            ("tenant", "mode"),
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        self._of_tenants: tuple[Counter | Histogram, ...] = (
            self._runs, self._run_seconds, self._changes, self._calls, self._call_seconds,
            self._deliveries, self._delivery_seconds, self._reads, self._read_seconds,
        )  # fmt: skip

        self._notices = Counter(
            "svsync_feed_notices",
            "Change notices: told (to a backend), unmapped (of none), gap, dropped (unread).",
            ("feed", "outcome"),
            registry=registry,
        )
        self._feeds_down = Gauge(
            "svsync_feeds_down",
            "Change feeds that should listen and do not.",
            ("feed",),
            registry=registry,
        )
        self._shared = Gauge(
            "svsync_signals_shared",
            "1 where other processes hear this one's signals (Redis), 0 where nobody does.",
            registry=registry,
        )
        self._keys_away = Gauge(
            "svsync_key_services_away_seconds",
            "Time since a key service last opened the root key; 0 while one does.",
            registry=registry,
        )
        self._workers = Gauge(
            "svsync_workers", "Workers of this process, for runs.", registry=registry
        )
        self._busy = Gauge(
            "svsync_workers_busy", "Workers that have a run in hand.", registry=registry
        )
        self._lag = Gauge(
            "svsync_event_loop_lag_seconds",
            "How late the event loop came to what was due, at the worst of the last minute.",
            registry=registry,
        )

    # --- what happens -----------------------------------------------------------------

    def run_ended(
        self,
        tenant: str,
        backend: str,
        kind: str,
        result: str,
        seconds: float,
        counts: Mapping[str, int],
    ) -> None:
        name = self._name(tenant, backend, kind)
        _count(self._runs, (tenant, name), result, RESULTS)
        self._run_seconds.labels(tenant).observe(seconds)
        for change in CHANGES:
            if counts.get(change):
                self._changes.labels(tenant, change).inc(counts[change])

    def backend_called(
        self, tenant: str, backend: str, kind: str, operation: str, status: str, seconds: float
    ) -> None:
        series = self._call_series.get((tenant, backend, kind, operation, status))
        if series is None:
            name, listed = self._name(tenant, backend, kind), _listed(operation, OPERATIONS)
            series = self._call_series[tenant, backend, kind, operation, status] = (
                self._calls.labels(tenant, name, listed, _listed(status, CALL_STATUSES)),
                self._call_seconds.labels(tenant, kind, listed),
            )
        series[0].inc()
        series[1].observe(seconds)

    def webhook_delivered(self, tenant: str, status: str, seconds: float) -> None:
        self._tenants.add(tenant)
        _count(self._deliveries, (tenant,), status, DELIVERY_STATUSES)
        self._delivery_seconds.labels(tenant).observe(seconds)

    def read_served(self, tenant: str, mode: str, status: str, seconds: float) -> None:
        series = self._read_series.get((tenant, mode, status))
        if series is None:
            self._tenants.add(tenant)
            listed = _listed(mode, READ_MODES)
            series = self._read_series[tenant, mode, status] = (
                self._reads.labels(tenant, listed, _listed(status, READ_STATUSES)),
                self._read_seconds.labels(tenant, listed),
            )
        series[0].inc()
        series[1].observe(seconds)

    def feed_noticed(self, feed: str, outcome: str, n: int = 1) -> None:
        self._notices.labels(_listed(feed, FEEDS), _listed(outcome, NOTICE_OUTCOMES)).inc(n)

    def feeds_down(self, feed: str, n: int) -> None:
        self._feeds_down.labels(_listed(feed, FEEDS)).set(n)

    def signals_shared(self, shared: bool) -> None:
        self._shared.set(shared)

    def key_services_away(self, seconds: float) -> None:
        self._keys_away.set(seconds)

    def workers(self, busy: int, total: int) -> None:
        self._busy.set(busy)
        self._workers.set(total)

    def loop_lag(self, seconds: float) -> None:
        self._lag.set(seconds)

    # --- whose series there are -------------------------------------------------------

    def _name(self, tenant: str, backend: str, kind: str) -> str:
        """What the label `backend` says: its id, or its type where there are too many."""
        self._tenants.add(tenant)
        if not self._folded:
            self._types[tenant, backend] = kind
            if len(self._types) > self._max_backends:
                self._fold()
        return kind if self._folded else backend

    def _fold(self) -> None:
        """From now on by type, with all that was counted so far."""
        self._folded = True
        self._call_series.clear()
        for counter in (self._runs, self._calls):
            sums: Sums[tuple[tuple[str, str], ...]] = Sums()
            for sample in (s for family in counter.collect() for s in family.samples):
                if sample.name.endswith("_total"):
                    kind = self._types[sample.labels["tenant"], sample.labels["backend"]]
                    sums[tuple({**sample.labels, "backend": kind}.items())] += int(sample.value)
            counter.clear()
            for labels, n in sums.items():
                counter.labels(**dict(labels)).inc(n)
        self._types.clear()

    def forget(self, tenant: str, backend: str | None = None) -> None:
        self._call_series.clear()
        self._read_series.clear()
        if backend is None:
            self._tenants.discard(tenant)
            self._types = {key: kind for key, kind in self._types.items() if key[0] != tenant}
            for metric in self._of_tenants:
                metric.remove_by_labels({"tenant": tenant})
        elif self._types.pop((tenant, backend), None) is not None:
            for result in RESULTS:
                self._runs.remove(tenant, backend, result)
            for operation in OPERATIONS:
                for status in CALL_STATUSES:
                    self._calls.remove(tenant, backend, operation, status)

    def known(self) -> Collection[tuple[str, str | None]]:
        return frozenset([*self._types, *((tenant, None) for tenant in self._tenants)])

    def prune(self, known: Collection[tuple[str, str | None]], standing: Standing) -> None:
        there: set[tuple[str, str | None]] = {(b.tenant, b.backend) for b in standing.backends}
        there |= {(tenant.tenant, None) for tenant in standing.tenants}
        for tenant, backend in set(known) - there:
            self.forget(tenant, backend)
        if len(standing.backends) > self._max_backends and not self._folded:
            self._fold()

    # --- the page ---------------------------------------------------------------------

    def page(self, standing: Standing | None) -> bytes:
        """All metrics as text; without `standing`, those of this process alone."""
        return generate_latest(_Page(self._registry, standing, folded=self._folded))


class _Page(Collector):
    """The process's own metrics, and how things stand."""

    def __init__(
        self, registry: CollectorRegistry, standing: Standing | None, *, folded: bool
    ) -> None:
        self._registry = registry
        self._standing = standing
        self._folded = folded

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            # When each series was made is of no use to anybody, and would be every third line.
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family
        if self._standing is not None:
            yield from _of_backends(self._standing, folded=self._folded)
            yield from _of_tenants(self._standing)


def _of_backends(standing: Standing, *, folded: bool) -> Iterator[Metric]:
    for name, text, field, fold in _STANDING:
        values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for backend in standing.backends:
            value = getattr(backend, field)
            if value is not None:
                values[backend.tenant, backend.type if folded else backend.backend].append(value)
        family = GaugeMetricFamily(name, text, labels=("tenant", "backend"))
        for labels, found in values.items():
            family.add_metric(labels, float(fold(found)))
        yield family


def _of_tenants(standing: Standing) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "svsync_requests_waiting", "Runs that could begin and wait for a worker.", labels=["tenant"]
    )
    oldest = GaugeMetricFamily(
        "svsync_oldest_request_seconds",
        "For how long the oldest run that could begin has waited for a worker.",
        labels=["tenant"],
    )
    for tenant in standing.tenants:
        waiting.add_metric([tenant.tenant], tenant.waiting)
        oldest.add_metric([tenant.tenant], tenant.oldest)
    yield waiting
    yield oldest


def _count(counter: Counter, labels: Sequence[str], word: str, words: Sequence[str]) -> None:
    """One more of this word. The others begin at 0 beside it, so that the first failure is
    seen as a rise."""
    for each in words[:-1]:
        counter.labels(*labels, each).inc(each == word)
    if word not in words[:-1]:
        counter.labels(*labels, OTHER).inc()


def _listed(word: str, words: Sequence[str]) -> str:
    return word if word in words else OTHER


async def watch_loop(
    meter: Meter,
    clock: Callable[[], float],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoReturn:
    """Measure each second how late the loop is, until cancelled. `clock`: monotonic seconds."""
    recent: deque[float] = deque(maxlen=60)
    while True:
        began = clock()
        await sleep(1.0)
        recent.append(max(0.0, clock() - began - 1.0))
        meter.loop_lag(max(recent))
