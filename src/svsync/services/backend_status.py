"""The status of a backend as the API gives it: one row of its health, in words."""

import json
from typing import Any

from svsync.domain.costs import DAY_S, Terms
from svsync.domain.cycles import QuietCycle, unreachable
from svsync.domain.federation import BackendSpec
from svsync.domain.quotas import parse_limits
from svsync.services.call_budgets import for_schedule
from svsync.store.database import Row


def status_json(spec: BackendSpec, terms: Terms, state: str, health: Row) -> dict[str, object]:
    """The status of a backend as the API gives it. `terms`: what its provider publishes."""
    staleness = health["staleness_s"]
    return {
        "id": spec.id,
        "status": health["status"],
        "mode": str(spec.mode),
        "paused": state == "paused",
        "last_sync_at": _time(health["last_sync_at"]),
        "last_success_at": _time(health["last_success_at"]),
        "next_sync_at": _time(health["next_due_at"]),
        "staleness_s": None if staleness is None else round(float(staleness), 1),
        "secrets_synced": health["secrets_synced"],
        "secrets_proxied": None,
        "connection_latency_ms": health["latency_ms"],
        "consecutive_failures": health["failures"],
        "unreachable_since": _time(health["unreachable_since"]),
        "conflicts_open": health["conflicts_now"],
        "diverged": health["diverged"],
        "skipped": health["skipped"],
        "quarantined": health["quarantined"],
        "pending_pushes": health["pending_pushes"],
        "last_run": health["last_run_id"],
        "last_error": health["last_error"],
        "calls_per_cycle": health["calls_per_cycle"],
        **_of_cycles(spec, terms, health),
        "put_off": None
        if health["put_off"] is None
        else {"reason": health["put_off"], "until": _time(health["put_off_until"])},
        "lease": None
        if health["holder"] is None
        else {"holder": health["holder"], "expires_at": _time(health["lease_until"])},
    }


def _of_cycles(spec: BackendSpec, terms: Terms, health: Row) -> dict[str, object]:
    """What cycles cost, and whether there can be one each interval; null until one was
    measured, and where there are none."""
    cycle = QuietCycle.from_json(json.loads(health["cycle"]) if health["cycle"] else None)
    if cycle is None or not spec.syncs:
        nothing = ("estimated_cost", "calls_per_day", "cost_per_day", "interval_unreachable")
        return dict.fromkeys(nothing)
    cost = None
    if terms.prices is not None:
        kept = health["secrets_synced"]
        cost = terms.prices.by_month(cycle.calls, spec.sync_interval, kept)
    limits = parse_limits(spec.rate_limit, terms.limits)
    short = unreachable(spec.sync_interval, cycle, limits, for_schedule(spec))
    return {
        "estimated_cost": None if cost is None else cost.to_json(),
        "calls_per_day": round(sum(cycle.calls.values()) * DAY_S / spec.sync_interval),
        "cost_per_day": None if cost is None else cost.of_day_json(),
        "interval_unreachable": None if short is None else short.to_json(),
    }


def _time(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
