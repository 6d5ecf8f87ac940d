"""Are the counts right, the labels bounded, and the page one that Prometheus can read?"""

import inspect
from collections.abc import Iterable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from svsync.observe.meter import SILENT, BackendStanding, Meter, Standing, TenantStanding
from svsync.observe.metrics import Metrics, watch_loop

Labels = frozenset[tuple[str, str]]
CALLS = "svsync_backend_api_calls_total"
RUNS = "svsync_sync_runs_total"


def stands(backend: str, tenant: str = "default", type: str = "vault", **told: object) -> object:
    given = {
        "down": False, "stale": False, "last_success": 1000.0, "staleness": 5.0, "latency": 0.1,
        "secrets": 3, "quarantined": 0, "conflicts": 1, "pending_pushes": 2,
    }  # fmt: skip
    return BackendStanding(tenant=tenant, backend=backend, type=type, **(given | told))  # type: ignore[arg-type]


def standing(*backends: object, tenants: Iterable[str] = ("default",)) -> Standing:
    return Standing(
        backends,  # type: ignore[arg-type]
        tuple(TenantStanding(tenant, 4, 9.0) for tenant in tenants),
    )


def samples(metrics: Metrics, name: str, now: Standing | None = None) -> dict[Labels, float]:
    """The page's samples of one name; counters without their zeros."""
    return {
        frozenset(sample.labels.items()): sample.value
        for family in text_string_to_metric_families(metrics.page(now).decode())
        for sample in family.samples
        if sample.name == name and (sample.value or family.type != "counter")
    }


def labels(**given: str) -> Labels:
    return frozenset(given.items())


def ended(metrics: Meter, backend: str = "fed_a", tenant: str = "default") -> None:
    metrics.run_ended(tenant, backend, "vault", "ok", 2.0, {"created": 3, "listed": 9})


def called(metrics: Meter, backend: str = "fed_a", tenant: str = "default") -> None:
    metrics.backend_called(tenant, backend, "vault", "read", "ok", 0.02)


# --- counting ---------------------------------------------------------------------


def test_run_counts_by_backend_and_result_with_its_time_and_what_it_did() -> None:
    metrics = Metrics()
    ended(metrics)
    ended(metrics)
    metrics.run_ended("default", "fed_a", "vault", "failed", 70.0, {})
    assert samples(metrics, RUNS) == {
        labels(tenant="default", backend="fed_a", result="ok"): 2,
        labels(tenant="default", backend="fed_a", result="failed"): 1,
    }
    assert samples(metrics, "svsync_sync_secrets_total") == {
        labels(tenant="default", change="created"): 6
    }
    buckets = samples(metrics, "svsync_sync_duration_seconds_bucket")
    assert buckets[labels(tenant="default", le="1.0")] == 0
    assert buckets[labels(tenant="default", le="5.0")] == 2
    assert buckets[labels(tenant="default", le="+Inf")] == 3
    assert samples(metrics, "svsync_sync_duration_seconds_sum") == {labels(tenant="default"): 74}


def test_each_call_counts_with_its_time() -> None:
    metrics = Metrics()
    called(metrics)
    metrics.backend_called("default", "fed_a", "vault", "read", "throttled", 0.5)
    label = {"tenant": "default", "backend": "fed_a", "operation": "read"}
    assert samples(metrics, CALLS) == {
        labels(**label, status="ok"): 1,
        labels(**label, status="throttled"): 1,
    }
    seconds = samples(metrics, "svsync_backend_api_call_duration_seconds_sum")
    assert seconds == {labels(tenant="default", type="vault", operation="read"): 0.52}


def test_what_others_tell_is_on_the_page() -> None:
    metrics = Metrics()
    metrics.webhook_delivered("default", "dead", 1.0)
    metrics.read_served("default", "proxy", "not_found", 0.1)
    metrics.feed_noticed("vault-audit", "dropped", 7)
    metrics.feeds_down("vault-events", 1)
    metrics.signals_shared(True)
    metrics.key_services_away(90.0)
    metrics.workers(2, 8)
    metrics.loop_lag(0.25)
    for name, found in {
        "svsync_webhook_deliveries_total": {labels(tenant="default", status="dead"): 1},
        "svsync_reads_total": {labels(tenant="default", mode="proxy", status="not_found"): 1},
        "svsync_feed_notices_total": {labels(feed="vault-audit", outcome="dropped"): 7},
        "svsync_feeds_down": {labels(feed="vault-events"): 1},
        "svsync_signals_shared": {labels(): 1},
        "svsync_key_services_away_seconds": {labels(): 90},
        "svsync_workers_busy": {labels(): 2},
        "svsync_workers": {labels(): 8},
        "svsync_event_loop_lag_seconds": {labels(): 0.25},
    }.items():
        assert samples(metrics, name) == found


def test_process_tells_its_memory_and_no_other_registry_is_used() -> None:
    first, second = Metrics(), Metrics()
    ended(first)
    assert samples(first, "process_resident_memory_bytes")[labels()] > 1_000_000
    assert samples(second, RUNS) == {}


def test_silent_meter_takes_all_that_metrics_take() -> None:
    told = {name for name, _ in inspect.getmembers(Meter, inspect.isfunction)}
    assert all(name in vars(Metrics) for name in told)
    ended(SILENT)
    called(SILENT)
    SILENT.forget("default")
    SILENT.prune(SILENT.known(), standing())


def test_first_failure_is_a_rise_from_zero() -> None:
    metrics = Metrics()
    ended(metrics)
    metrics.webhook_delivered("default", "delivered", 1.0)
    page = metrics.page(None).decode()
    label = 'backend="fed_a",result="failed",tenant="default"'
    assert f"{RUNS}{{{label}}} 0.0\n" in page
    assert 'svsync_webhook_deliveries_total{status="dead",tenant="default"} 0.0\n' in page


# --- bounds -----------------------------------------------------------------------


@pytest.mark.parametrize("word", ["kv/data/app", 'x"} 1\nsvsync_forged 1', ""])
def test_word_that_is_on_no_list_counts_as_other(word: str) -> None:
    metrics = Metrics()
    metrics.run_ended("default", "fed_a", "vault", word, 1.0, {word: 5})
    metrics.backend_called("default", "fed_a", "vault", word, word, 1.0)
    metrics.webhook_delivered("default", word, 1.0)
    metrics.read_served("default", word, word, 1.0)
    metrics.feed_noticed(word, word)
    metrics.feeds_down(word, 1)
    told = {
        value
        for family in text_string_to_metric_families(metrics.page(None).decode())
        for sample in family.samples
        for name, value in sample.labels.items()
        if sample.value and name not in ("tenant", "backend", "type", "le", "version")
    }
    assert told == {"other"}


def test_beyond_so_many_backends_the_label_is_the_type_and_nothing_counted_is_lost() -> None:
    metrics = Metrics(max_backends=3)
    for backend in ("fed_a", "fed_b", "fed_c"):
        ended(metrics, backend)
        called(metrics, backend)
    assert len(samples(metrics, RUNS)) == 3
    metrics.run_ended("default", "fed_d", "aws", "ok", 1.0, {})
    ended(metrics, "fed_e")
    ended(metrics, "fed_e", tenant="other")
    assert samples(metrics, RUNS) == {
        labels(tenant="default", backend="vault", result="ok"): 4,
        labels(tenant="default", backend="aws", result="ok"): 1,
        labels(tenant="other", backend="vault", result="ok"): 1,
    }
    label = {"tenant": "default", "backend": "vault", "operation": "read", "status": "ok"}
    assert samples(metrics, CALLS) == {labels(**label): 3}


def test_of_many_backends_at_once_the_sum_or_the_worst_is_told() -> None:
    metrics = Metrics(max_backends=2)
    ended(metrics)
    now = standing(
        stands("fed_a", stale=True, staleness=100.0, last_success=7.0, latency=None),
        stands("fed_b", down=True, stale=True),
        stands("fed_c", last_success=None, staleness=None),
        stands("fed_d", type="aws"),
    )
    metrics.prune(metrics.known(), now)
    vault, aws = (labels(tenant="default", backend=name) for name in ("vault", "aws"))
    for name, found in {
        "svsync_backends_stale": {vault: 2, aws: 0},
        "svsync_backends_down": {vault: 1, aws: 0},
        "svsync_staleness_seconds": {vault: 100, aws: 5},
        "svsync_last_success_timestamp_seconds": {vault: 7, aws: 1000},
        "svsync_backend_latency_seconds": {vault: 0.1, aws: 0.1},
        "svsync_conflicts_open": {vault: 3, aws: 1},
        "svsync_pushes_pending": {vault: 6, aws: 2},
    }.items():
        assert samples(metrics, name, now) == found
    assert samples(metrics, RUNS) == {vault | {("result", "ok")}: 1}


# --- how things stand -------------------------------------------------------------


def test_what_stands_is_told_of_each_backend_and_what_there_is_not_is_left_out() -> None:
    metrics = Metrics()
    now = standing(stands("fed_a"), stands("fed_b", last_success=None, staleness=None))
    a, b = (labels(tenant="default", backend=name) for name in ("fed_a", "fed_b"))
    assert samples(metrics, "svsync_staleness_seconds", now) == {a: 5}
    assert samples(metrics, "svsync_last_success_timestamp_seconds", now) == {a: 1000}
    assert samples(metrics, "svsync_conflicts_open", now) == {a: 1, b: 1}
    assert samples(metrics, "svsync_requests_waiting", now) == {labels(tenant="default"): 4}
    assert samples(metrics, "svsync_oldest_request_seconds", now) == {labels(tenant="default"): 9}


def test_without_a_look_at_the_store_nothing_is_said_of_backends() -> None:
    metrics = Metrics()
    ended(metrics)
    page = metrics.page(None).decode()
    assert "svsync_staleness_seconds" not in page
    assert "svsync_conflicts_open" not in page
    assert RUNS in page


def test_series_of_a_removed_backend_and_of_a_shut_tenant_end() -> None:
    metrics = Metrics()
    for tenant, backend in (("default", "fed_a"), ("default", "fed_b"), ("shut", "fed_a")):
        ended(metrics, backend, tenant)
        called(metrics, backend, tenant)
    metrics.read_served("shut", "local", "ok", 0.1)
    metrics.webhook_delivered("shut", "failed", 0.1)
    metrics.prune(metrics.known(), standing(stands("fed_b")))
    page = metrics.page(None).decode()
    assert "shut" not in page
    assert "fed_a" not in page
    assert list(samples(metrics, RUNS).values()) == [1]
    assert list(samples(metrics, CALLS).values()) == [1]


def test_what_is_told_of_what_was_forgotten_counts_anew() -> None:
    metrics = Metrics()
    for _ in range(2):
        called(metrics, "fed_a")
        metrics.read_served("default", "local", "ok", 0.1)
        assert list(samples(metrics, CALLS).values()) == [1]
        assert list(samples(metrics, "svsync_reads_total").values()) == [1]
        assert ("default", "fed_a") in metrics.known()
        metrics.forget("default", "fed_a")
        metrics.forget("default")
        assert not metrics.known()


def test_calls_after_the_fold_count_for_the_type() -> None:
    metrics = Metrics(max_backends=1)
    for backend in ("fed_a", "fed_b", "fed_a"):
        called(metrics, backend)
    assert list(samples(metrics, CALLS).values()) == [3]


def test_backend_that_came_while_the_store_was_asked_is_not_taken_for_removed() -> None:
    metrics = Metrics()
    known = metrics.known()
    ended(metrics, "fed_new", tenant="new")
    metrics.prune(known, standing())
    assert list(samples(metrics, RUNS).values()) == [1]


# --- the loop ---------------------------------------------------------------------


class LastLookError(Exception):
    """The test has seen enough."""


async def test_worst_lag_of_the_last_minute_is_told_and_then_forgotten() -> None:
    now, told = 0.0, []
    late = iter([0.0, 3.5, *[0.01] * 60])

    class Kept(Meter):
        def loop_lag(self, seconds: float) -> None:
            told.append(round(seconds, 3))

    async def sleep(seconds: float) -> None:
        nonlocal now
        lag = next(late, None)
        if lag is None:
            raise LastLookError
        now += seconds + lag

    with pytest.raises(LastLookError):
        await watch_loop(Kept(), lambda: now, sleep=sleep)
    assert told == [0.0, *[3.5] * 60, 0.01]
