"""What a cycle takes in which nothing changes, and how often there can be one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from svsync.domain.quotas import Limit, Operation

DAY_S: Final = 86_400
LONGEST_S: Final = 7 * DAY_S
"""The longest interval that a backend can have."""


@dataclass(frozen=True, slots=True)
class QuietCycle:
    """Measured: calls by operation class of a full run in which nothing changed, or which
    called least, and the seconds that it took.

    Attributes:
        passing: how many of the calls were for what had changed, and come no more where
            nothing does.
    """

    calls: Mapping[str, int]
    seconds: float
    passing: int = 0

    @property
    def least(self) -> int:
        """Calls that a cycle takes in which nothing changes, as far as this one tells."""
        return sum(self.calls.values()) - self.passing

    def to_json(self) -> dict[str, object]:
        return {
            "calls": dict(self.calls),
            "seconds": round(self.seconds, 3),
            "total": sum(self.calls.values()),
            "passing": self.passing,
        }

    @classmethod
    def from_json(cls, known: Mapping[str, Any] | None) -> "QuietCycle | None":
        if known is None:
            return None
        return cls(known["calls"], known["seconds"], known.get("passing", 0))


def passing(calls: Mapping[str, int], untold: int | None) -> int:
    """Of a full run's calls, how many were for what had changed.

    Args:
        untold: listed secrets of whose value the listing told nothing, so that each costs a
            call in every cycle; None: nobody counted them, and any read may come again.
    """
    reads = calls.get("read", 0)
    again = reads if untold is None else min(reads, untold)
    return reads - again + calls.get("write", 0) + calls.get("delete", 0)


@dataclass(frozen=True, slots=True)
class Unreachable:
    """An interval that is shorter than its cycles can be apart.

    Attributes:
        shortest_s: seconds of the shortest that could hold, rounded up; None: none could.
        because: what makes it so long.
        why: a sentence for people, without what to do about it.
    """

    shortest_s: int | None
    because: Literal["rate_limit", "call_budget", "duration"]
    why: str

    @property
    def advice(self) -> str:
        other = {
            "rate_limit": "raise that limit",
            "call_budget": "raise call_budget.per_day",
            "duration": "federate less",
        }[self.because]
        if self.shortest_s is None or self.shortest_s > LONGEST_S:
            return f"no sync_interval is long enough: {other}"
        return f"set sync_interval to {words(self.shortest_s)} or more, or {other}"

    def to_json(self) -> dict[str, object]:
        return {
            "shortest_s": self.shortest_s,
            "because": self.because,
            "message": f"{self.why}; {self.advice}",
        }


def slowest(
    calls: Mapping[str, int], limits: Mapping[Operation, Limit]
) -> tuple[float, Operation | None]:
    """Seconds that calls take at least by their rates, and the class that takes the longest."""
    paces = {o: limit.per_second for o, limit in limits.items() if limit.per_second}
    return max(((calls.get(o, 0) / pace, o) for o, pace in paces.items()), default=(0.0, None))


def unreachable(
    interval_s: float,
    cycle: QuietCycle,
    limits: Mapping[Operation, Limit],
    budget: int | None,
) -> Unreachable | None:
    """Whether an interval is too short for the cycles of a backend; None: it can hold.

    Args:
        interval_s: seconds between the starts of two cycles.
        budget: calls that the schedule's runs may make in 24 hours; None: any.
    """
    total = cycle.least
    by_rate, operation = slowest(cycle.calls, limits)
    found: list[tuple[float, Unreachable]] = []
    if operation is not None:
        many, pace = cycle.calls.get(operation, 0), limits[operation].per_second
        why = (
            f"a cycle makes {many:,} {operation} calls, which take {math.ceil(by_rate):,}s at"
            f" rate_limit.{operation}.per_second {pace:g}"
        )
        found.append((by_rate, Unreachable(rounded_up(by_rate), "rate_limit", why)))
    if budget is not None and total:
        if total > budget:
            why = f"a cycle makes {total:,} calls, and a day's budget leaves runs {budget:,}"
            found.append((math.inf, Unreachable(None, "call_budget", why)))
        else:
            apart = DAY_S * total / budget
            why = (
                f"a cycle makes {total:,} calls, and a day's budget leaves runs enough for"
                f" {budget // total:,} of them"
            )
            found.append((apart, Unreachable(rounded_up(apart), "call_budget", why)))
    why = f"a cycle takes {math.ceil(cycle.seconds):,}s"
    found.append((cycle.seconds, Unreachable(rounded_up(cycle.seconds), "duration", why)))
    needs, worst = max(found, key=lambda one: one[0])
    return worst if needs > interval_s else None


def rounded_up(seconds: float) -> int:
    """To whole minutes; up to one minute to whole seconds."""
    unit = 1 if seconds <= 60 else 60
    return max(1, math.ceil(seconds / unit) * unit)


def words(seconds: int) -> str:
    """As a configuration takes it: `90s`, `17m`, `2h`."""
    for unit, letter in ((DAY_S, "d"), (3600, "h"), (60, "m")):
        if seconds % unit == 0:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
