"""What calls and secrets cost at a provider that bills them: estimates, from its list prices."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from svsync.domain.quotas import Limit, Operation

DAY_S: Final = 86_400
MONTH_S: Final = 30 * DAY_S
"""Seconds of the month that an estimate is for."""
_CENTS: Final = 6
"""Decimal places of an amount: one call costs millionths."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a provider asks for, by its own list.

    Attributes:
        calls: for 10,000 calls of an operation class; one that is not named is not billed.
        secret_month: for one secret that is kept for a month; 0 where that is not billed.
        source: the page that says so.
        seen: the date on which that was looked up.
    """

    calls: Mapping[Operation, float]
    secret_month: float
    source: str
    seen: str
    currency: str = "USD"

    def of_calls(self, made: Mapping[str, int]) -> float:
        """What so many calls cost, by operation class."""
        amount = sum(price * made.get(name, 0) for name, price in self.calls.items()) / 10_000
        return round(amount, _CENTS)

    def of_calls_json(self, made: Mapping[str, int]) -> dict[str, object]:
        """The same as a report gives it."""
        return {"amount": self.of_calls(made), "currency": self.currency}

    def by_month(self, cycle: Mapping[str, int], interval_s: float, secrets: int) -> "Monthly":
        """What a month costs in which nothing changes.

        Args:
            cycle: calls of one cycle.
            interval_s: seconds between the starts of two of them.
            secrets: how many are kept there.
        """
        one = self.of_calls(cycle)
        return Monthly(
            cycle=one,
            calls=round(one * MONTH_S / interval_s, _CENTS),
            secrets=round(self.secret_month * secrets, _CENTS),
            prices=self,
        )


@dataclass(frozen=True, slots=True)
class Monthly:
    """An estimate: of one cycle, of the cycles of a month, and of a month of keeping what
    they look at, which is paid for whoever reads it."""

    cycle: float
    calls: float
    secrets: float
    prices: Prices

    def to_json(self) -> dict[str, object]:
        """As a status gives it."""
        return {
            "currency": self.prices.currency,
            "per_cycle": self.cycle,
            "calls_per_month": self.calls,
            "secrets_per_month": self.secrets,
            "prices_of": self.prices.seen,
        }

    def of_day_json(self) -> dict[str, object]:
        """What a day of it costs, calls and keeping together."""
        amount = round((self.calls + self.secrets) * DAY_S / MONTH_S, _CENTS)
        return {"amount": amount, "currency": self.prices.currency}


@dataclass(frozen=True, slots=True)
class Terms:
    """What a provider publishes of its API, as far as svsync goes by it.

    Attributes:
        limits: by operation class, as they hold where `rate_limit` says nothing; a class that
            is missing has 16 calls at a time and no rate.
        prices: None where calls are not billed.
    """

    limits: Mapping[Operation, Limit] = field(default_factory=dict)
    prices: Prices | None = None
