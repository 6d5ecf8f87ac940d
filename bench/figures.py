"""A figure, the floor beside it, and how they are shown."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

_BEGIN, _END = "<!-- last results: begin -->", "<!-- last results: end -->"


@dataclass(frozen=True, slots=True)
class Figure:
    """One promise and what was seen of it.

    `seen` and `floor` are texts with their units; `ratio` is what the bar is about,
    a ratio where there is a floor and the figure itself where there is none. Without a bar
    it is shown for what it tells beside the others.
    """

    name: str
    seen: str
    floor: str
    ratio: float
    bar: float | None
    at_least: bool = False
    rounds: tuple[float, ...] = ()
    """The ratio of each round alone: how far the machine can be believed."""

    @property
    def holds(self) -> bool:
        if self.bar is None:
            return True
        return self.ratio >= self.bar if self.at_least else self.ratio <= self.bar

    def cells(self) -> tuple[str, ...]:
        sign = "≥" if self.at_least else "≤"
        bar, verdict = "", ""
        if self.bar is not None:
            bar = f"{sign} {_short(self.bar)}"
            verdict = "yes" if self.holds else "NO"
        return (
            self.name,
            self.seen,
            self.floor,
            _short(self.ratio) + _range(self.rounds),
            bar,
            verdict,
        )


HEADER = ("figure", "seen", "floor", "ratio", "bar", "holds")


def middle(values: Iterable[float]) -> float:
    return median(values)


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table, its columns aligned for a terminal."""
    rows = [HEADER, *(figure.cells() for figure in figures)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def read_results(path: Path) -> dict[str, Any]:
    """What was measured last, by part; empty where nothing was."""
    if not path.exists():
        return {}
    measured: dict[str, Any] = json.loads(path.read_text("utf-8"))["measured"]
    return measured


def write_results(path: Path, figures: Sequence[Figure], measured: dict[str, Any]) -> None:
    """Everything that was measured, for whoever compares two runs."""
    shown = [{**asdict(figure), "holds": figure.holds} for figure in figures]
    text = json.dumps({"figures": shown, "measured": measured}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")


def keep_in_document(path: Path, figures: Sequence[Figure], how: str) -> None:
    """Put the table where the document keeps the last results."""
    before, rest = path.read_text("utf-8").split(_BEGIN)
    after = rest.split(_END)[1]
    path.write_text(f"{before}{_BEGIN}\n\n{how}\n\n{table(figures)}\n\n{_END}{after}", "utf-8")


def _range(rounds: Sequence[float]) -> str:
    return f" ({_short(min(rounds))} to {_short(max(rounds))})" if rounds else ""


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
