"""What people read of a backend whose cycles cost, wait, or cannot be as often as they should."""

from typing import Any

import pytest

from svsync.cli.output import Output
from svsync.cli.run import show_report
from svsync.cli.standing import show

AT = "2026-11-24T12:00:00+00:00"
COST = {
    "currency": "USD",
    "per_cycle": 0.0005,
    "calls_per_month": 1.44,
    "secrets_per_month": 4000.0,
    "prices_of": "2026-11-29",
}
SHORT = {
    "shortest_s": 1200,
    "because": "rate_limit",
    "message": "a cycle makes 30 list calls; set sync_interval to 20m or more",
}


def backend(**changes: Any) -> dict[str, Any]:
    """One that is well, as a look gives it."""
    nothing = dict.fromkeys(
        ("lease", "last_error", "unreachable_since", "last_run", "connection_latency_ms", "put_off",
         "estimated_cost", "interval_unreachable", "diverged", "skipped", "quarantined",
         "calls_per_cycle")
    )  # fmt: skip
    well = {
        "id": "fed_a",
        "status": "healthy",
        "mode": "sync",
        "paused": False,
        "last_sync_at": AT,
        "last_success_at": AT,
        "next_sync_at": "2026-11-24T12:15:00+00:00",
        "staleness_s": 0,
        "secrets_synced": 10_000,
        "conflicts_open": 0,
        "pending_pushes": 0,
        "consecutive_failures": 0,
        "tls_verify": True,
    }
    return nothing | well | changes


def said(capsys: pytest.CaptureFixture[str], *, one: bool, **changes: Any) -> str:
    look = {"at": AT, "stopped": None, "backends": [backend(**changes)]}
    show(Output(), look, one=one)
    return " ".join(capsys.readouterr().out.split())


def test_one_backend_tells_its_costs_and_why_its_interval_cannot_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = said(capsys, one=True, estimated_cost=COST, interval_unreachable=SHORT)
    assert "about 0.0005 USD a cycle, 1.44 USD a month, beside 4,000.00 USD" in told
    assert "estimated" in told
    assert "cannot be kept: a cycle makes 30 list calls; set sync_interval to 20m" in told
    plain = said(capsys, one=True)
    assert "USD" not in plain
    assert "interval" not in plain


def test_of_many_those_whose_interval_cannot_hold_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = said(capsys, one=False, interval_unreachable=SHORT)
    assert "fed_a: its sync_interval cannot be kept (rate_limit): 20 min could hold" in told
    assert "none could hold" in said(
        capsys, one=False, interval_unreachable={**SHORT, "shortest_s": None}
    )
    assert "cannot be kept" not in said(capsys, one=False)


@pytest.mark.parametrize("one", [True, False])
def test_what_is_put_off_is_not_called_due(capsys: pytest.CaptureFixture[str], one: bool) -> None:
    off = {"reason": "call_budget_spent", "until": "2026-11-24T15:00:00+00:00"}
    told = said(capsys, one=one, put_off=off)
    assert "put off, in 3 h" in told
    assert ("call_budget_spent" in told) == one


def test_a_plan_tells_what_it_and_its_cycles_would_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = {
        "backend_id": "fed_a", "run_id": "run_1", "kind": "dry", "state": "completed",
        "result": "ok", "duration_ms": 5, "error": None, "plan": [], "guards": [], "skipped": [],
        "counts": {"estimated_cost": {"amount": 0.01, "currency": "USD"}}, "stages_ms": {},
        "api_calls": {"list": 100}, "calls_per_cycle": 100, "estimated_cost": COST,
        "would_cost": {"amount": 2.5, "currency": "USD"}, "interval_unreachable": SHORT,
    }  # fmt: skip
    show_report(Output(), run)
    told = " ".join(capsys.readouterr().out.split())
    assert "it would cost about 2.50 USD" in told
    assert "100 calls, as the last run; about 0.0005 USD a cycle" in told
    assert "set sync_interval to 20m or more" in told
