"""Estimated costs and what stands in the way of cycles, in words for people."""

from collections.abc import Mapping
from typing import Any

from svsync.cli.output import span


def money(amount: float, currency: str) -> str:
    """`1.44 USD`; of less than ten cents as many digits as say something."""
    if not amount or amount >= 0.1:
        return f"{amount:,.2f} {currency}"
    if amount < 0.0001:
        return f"less than 0.0001 {currency}"
    return f"{amount:.2g} {currency}"


def _about(amount: float, currency: str) -> str:
    said = money(amount, currency)
    return said if said.startswith("less") else f"about {said}"


def of_run(cost: Mapping[str, Any] | None) -> str | None:
    """What the calls of one run cost; None: nobody bills them."""
    return None if cost is None else _about(cost["amount"], cost["currency"])


def of_month(cost: Mapping[str, Any] | None) -> str | None:
    """What a backend's status says of it."""
    if cost is None:
        return None
    one = _about(cost["per_cycle"], cost["currency"])
    calls, secrets = (
        money(cost[name], cost["currency"]) for name in ("calls_per_month", "secrets_per_month")
    )
    kept = f", beside {secrets} for keeping the secrets there" if cost["secrets_per_month"] else ""
    return f"{one} a cycle, {calls} a month{kept} (estimated by list prices)"


def too_short(status: Mapping[str, Any]) -> str | None:
    """Why its cycles cannot be as far apart as its interval says, and what could hold."""
    short = status.get("interval_unreachable")
    return None if short is None else f"cannot be kept: {short['message']}"


def shortest(status: Mapping[str, Any]) -> str | None:
    """The same in few words."""
    short = status.get("interval_unreachable")
    if short is None:
        return None
    fits = short["shortest_s"]
    could = "none could hold" if fits is None else f"{span(fits)} could hold"
    return f"its sync_interval cannot be kept ({short['because']}): {could}"
