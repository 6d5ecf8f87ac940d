"""How many secrets a second the runs at work get through, as somebody sees who looks on.

A run says how far it is batch by batch, as it takes each in hand, so what is told is measured
from batch to batch, over some seconds at least. The first batches are taken in hand at once,
because some may wait for the backend; from then on each has to wait until one is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

WINDOW_S: Final = 10.0
AT_ONCE: Final = 1_500
"""Secrets that are taken in hand before the backend has answered for the first of them."""


class _Step(NamedTuple):
    """At that moment a batch was seen to be taken in hand, the last that was `reached`."""

    at: datetime
    reached: int


@dataclass
class _Progress:
    """How far a run is, and the steps in which it was seen to get there."""

    reached: int
    to_do: int
    steps: list[_Step] = field(default_factory=list)

    def see(self, at: datetime, reached: int) -> None:
        moved, self.reached = reached != self.reached, reached
        if moved and reached > AT_ONCE:
            self.steps.append(_Step(at, reached))
            while len(self.steps) > 2 and (at - self.steps[1].at).total_seconds() >= WINDOW_S:
                del self.steps[0]

    def rate(self, now: datetime) -> float | None:
        if len(self.steps) < 2:
            return None
        first, last = self.steps[0], self.steps[-1]
        seconds = (last.at - first.at).total_seconds()
        if self.reached < self.to_do:
            # One that stands still for longer than its batches took is told to be slower.
            seconds = max(seconds, (now - last.at).total_seconds())
        return max(0, last.reached - first.reached) / seconds


class Rates:
    """Remembers how the runs of the last looks got on."""

    def __init__(self) -> None:
        self._runs: dict[str, _Progress] = {}

    def told(self, look: Mapping[str, Any]) -> dict[str, Any]:
        """The same look, and in each backend `rate_per_s` of the run that is at work there;
        None: there is none, or it is not known yet."""
        now = datetime.fromisoformat(look["at"])
        runs = [b["run"] for b in look["backends"]]
        self._runs = {
            run["run_id"]: self._seen(run, now) for run in runs if run and run["done"] is not None
        }
        rates = {run_id: progress.rate(now) for run_id, progress in self._runs.items()}
        return {
            **look,
            "backends": [
                {**b, "rate_per_s": rates.get(run["run_id"]) if run else None}
                for b, run in zip(look["backends"], runs, strict=True)
            ],
        }

    def _seen(self, run: Mapping[str, Any], now: datetime) -> _Progress:
        reached = run["done"] + run["in_hand"]
        # Where it is at the first look it may have been for long.
        progress = self._runs.get(run["run_id"]) or _Progress(reached, run["to_do"])
        progress.see(now, reached)
        return progress
