"""`svsync status --watch`: all backends on one screen, looked at anew each second.

What is drawn is what one look at the store found (`services/overview.py`), and nothing
is remembered between two looks but the last one, and how fast the runs at work got on
(`cli/rates.py`): while the store does not answer, the screen says so and since when, above
what was last seen. A look that a service gave (`cli/remote/status.py`) lacks what no tenant
is told, and that is left out. Each state is a word, and colour
only repeats it, so that nothing is lost without colour. Where the terminal is too narrow,
columns go in the order of their use; where it is too low, backends that are well go first,
and how many they are is told.
"""

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from svsync.cli.output import Output, ago, shown, span, styled
from svsync.cli.rates import Rates
from svsync.cli.standing import next_words, of_backend, show, state_of, stop_line, unsafe_lines
from svsync.domain.errors import StoreError, StoreUnavailableError, SvsyncError
from svsync.services.overview import Overview

if TYPE_CHECKING:
    from svsync.config.model import Settings
    from svsync.domain.ids import TenantId
    from svsync.ports import Signals

EVERY_S: Final = 1.0
PATIENCE_S: Final = 5.0
"""Seconds that a look may take until the store counts as one that does not answer."""

Look = Mapping[str, Any]
Tell = Callable[[Look | None, SvsyncError | None], bool]
"""Shows the last look, and why there is none newer; False: nobody sees it any more."""


# --- watching -------------------------------------------------------------------------


async def watch(args: argparse.Namespace) -> int:
    """Until Ctrl-C, which is how it ends well: 0."""
    from svsync.app import open_hints
    from svsync.cli.opening import opened

    stop = on_interrupt()
    async with opened(args) as (app, tenant), open_hints(app.settings) as signals:
        named = args.backend and (await app.federation.spec(tenant, args.backend)).id
        rates = Rates()

        async def look() -> Look:
            found = of_backend(await _within(PATIENCE_S, app.overview, tenant), named)
            return {**rates.told(found), "signals": _signals(app.settings, signals)}

        await keep_showing(args, look, stop, args.tenant)
    return 0


class ServiceAwayError(SvsyncError):
    """The service gives no look now; it may give the next one."""


async def keep_showing(
    args: argparse.Namespace,
    look: Callable[[], Awaitable[Look]],
    stop: asyncio.Event,
    tenant: str,
) -> None:
    """Each look as whoever asked for it takes it: objects, tables, or a screen."""
    out: Output = args.out
    if out.json:
        await keep_looking(look, lambda seen, problem: _tell_program(out, seen, problem), stop)
    elif not out.can_draw:
        await keep_looking(look, lambda seen, problem: _tell_plainly(out, seen, problem), stop)
    else:
        _keep_logs_off_the_screen()
        with out.screen() as draw:

            def tell(seen: Look | None, problem: SvsyncError | None) -> bool:
                return draw(Frame(seen, problem, tenant))

            await keep_looking(look, tell, stop)


async def keep_looking(
    look: Callable[[], Awaitable[Look]],
    tell: Tell,
    stop: asyncio.Event,
    *,
    every: float = EVERY_S,
) -> None:
    """Look and tell until `stop`, or until nobody is told any more. A store, or a service,
    that is away ends nothing."""

    async def on_and_on() -> None:
        seen: Look | None = None
        while True:
            began = time.monotonic()
            problem: SvsyncError | None = None
            try:
                seen = await look()
            except (StoreError, ServiceAwayError) as error:
                problem = error
            if not tell(seen, problem):
                return
            await asyncio.sleep(max(0.05 * every, every - (time.monotonic() - began)))

    looking = asyncio.ensure_future(on_and_on())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if looking.done():
            looking.result()
    finally:
        looking.cancel()
        stopping.cancel()
        await asyncio.gather(looking, stopping, return_exceptions=True)


async def _within(seconds: float, overview: Overview, tenant: "TenantId") -> Look:
    """A look that does not outlast somebody's patience."""
    looking = asyncio.ensure_future(overview.look(tenant))
    try:
        await asyncio.wait({looking}, timeout=seconds)
        if not looking.done():
            raise StoreUnavailableError("the database has not answered in time: see its log")
        return looking.result()
    finally:
        looking.cancel()


def on_interrupt() -> asyncio.Event:
    """Set by the first Ctrl-C; the second ends the process where it stands."""
    stop = asyncio.Event()

    def told() -> None:
        if stop.is_set():
            os._exit(128 + signal.SIGINT)
        stop.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, told)
    return stop


def _signals(settings: "Settings", signals: "Signals") -> str:
    """`redis`, `lost` (there is one, and it does not answer), or `local`: there is none."""
    if settings.redis_url is None:
        return "local"
    return "redis" if signals.shared else "lost"


def _keep_logs_off_the_screen() -> None:
    """What is logged of signals and the store is on it anyway."""
    from svsync.config.model import LogFormat, LogLevel
    from svsync.observe.logs import configure

    configure(LogLevel.ERROR, LogFormat.TEXT)


def _tell_program(out: Output, seen: Look | None, problem: SvsyncError | None) -> bool:
    """One object a line: what was seen, or why nothing was."""
    told = (
        seen if problem is None else {"error": {"code": problem.code, "message": problem.message}}
    )
    out.raw_document(json.dumps(told).encode())
    return not out.unheard


def _tell_plainly(out: Output, seen: Look | None, problem: SvsyncError | None) -> bool:
    """A table each time, where nothing can be drawn over."""
    if problem is not None:
        out.line(_away(seen, problem))
    elif seen is not None:
        out.line(_clock(seen))
        show(out, seen, one=False)
    out.line()
    return not out.unheard


# --- the screen -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """One screen: the last look, and why there is none newer."""

    seen: Look | None
    problem: SvsyncError | None
    tenant: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = list(self._head(options.max_width))
        yield from head
        if self.seen is None:
            return
        backends = self.seen["backends"]
        if not backends:
            yield Text("There is no backend: name one under `backends:` in the file.")
            return
        rows = [_cells(b, self.seen) for b in backends]
        columns = _that_fit(rows, options.max_width)
        notes = [Text(line, "bold red") for line in unsafe_lines(backends)]
        if "last error" not in columns:
            errors = [
                (b["id"], row["last error"].text) for b, row in zip(backends, rows, strict=True)
            ]
            notes += [Text(f"{name}: {error}", "red") for name, error in errors if error]
        height = options.height or options.size.height
        room = max(3, height - _lines(console, options, head) - 2)
        chosen, rest = _chosen(backends, room - min(len(notes), room // 3))
        yield _table(columns, [rows[n] for n in chosen])
        if rest:
            yield Text(rest, "dim")
        yield from notes

    def _head(self, width: int) -> Iterable[RenderableType]:
        if self.problem is not None:
            yield Text(_away(self.seen, self.problem), "bold red")
        if self.seen is None:
            return
        seen = self.seen
        yield Text.assemble(
            (f"svsync, tenant {shown(self.tenant)}, {_clock(seen)}", "bold"),
            ("   Ctrl-C ends this", "dim"),
        )
        sentences = [_runs(seen)]
        if "processes" in seen:
            sentences = [_up(seen), *sentences, _shared(seen)]
        yield from _side_by_side(sentences, width)
        if seen.get("stopped"):
            yield Text(shown(stop_line(seen["stopped"], _at(seen))), "bold red")
        yield Text()


class _Cell(NamedTuple):
    text: str
    style: str | None = None
    """None: the colour of what it says."""


_COLUMNS: Final = (
    # name; rank, the highest goes first where the terminal is narrow, and 0 never; set to the right
    ("backend", 0, False),
    ("health", 0, False),
    ("mode", 10, False),
    ("last success", 3, True),
    ("stale / limit", 5, True),
    ("next", 4, True),
    ("at work", 1, False),
    ("rate", 8, True),
    ("conflicts", 2, True),
    ("pushes", 6, True),
    ("latency", 9, True),
    ("last error", 7, False),
)
_GAP: Final = 2
"""Between two columns, one of it the table's own."""


def _cells(b: Look, seen: Look) -> dict[str, _Cell]:
    now = _at(seen)
    latency, limit = b["connection_latency_ms"], b["max_staleness_s"]
    age = None if b["staleness_s"] is None else span(round(b["staleness_s"]))
    error = b["last_error"]
    if error and b["unreachable_since"]:
        error += f", for {span(_since(b['unreachable_since'], now))}"
    return {
        "backend": _Cell(shown(b["id"]), "" if b["tls_verify"] else "bold red"),
        "health": _Cell(_health(b)),
        "mode": _Cell(b["mode"], ""),
        "last success": _Cell(ago(b["last_success_at"], now) if b["syncs"] else "-", ""),
        "stale / limit": _Cell(
            f"{age or '-'} / {span(limit) if limit else '-'}", "bold red" if b["stale"] else ""
        ),
        "next": _Cell(_next(b, seen.get("stopped"), now), ""),
        "at work": _Cell(_work(b, now), "cyan"),
        "rate": _Cell(_rate(b["rate_per_s"]), "cyan"),
        "conflicts": _Cell(f"{b['conflicts_open']:,}", "yellow" if b["conflicts_open"] else ""),
        "pushes": _Cell(f"{b['pending_pushes']:,}", "yellow" if b["pending_pushes"] else ""),
        "latency": _Cell("-" if latency is None else f"{latency:.0f} ms", ""),
        "last error": _Cell(shown(error) if error else "", "red"),
    }


def _health(b: Look) -> str:
    """The one word; a backend that is well but older than it may be is not called so."""
    word = state_of(b)
    return "stale" if word == "healthy" and b["stale"] else word


def _next(b: Look, stopped: object, now: datetime) -> str:
    if b["runs_waiting"] and not stopped and not b["paused"]:
        return "waiting"
    return next_words(b, stopped, now) or "-"


def _work(b: Look, now: datetime) -> str:
    run = b["run"]
    if run is None:
        return ""
    took = span(_since(run["started_at"], now))
    if run["to_do"] is not None:
        return f"{_progress(run['done'], run['in_hand'], run['to_do'])}, {took}"
    if run["listed"] is not None:
        return f"comparing {run['listed']:,}, {took}"
    return f"{'probing' if run['kind'] == 'probe' else 'listing'}, {took}"


def _progress(done: int, in_hand: int, to_do: int) -> str:
    """What is done is known some batches late, so at both ends it is told what is in hand."""
    if not to_do:
        return "nothing to do"
    if in_hand >= to_do:
        return f"{to_do:,} in hand"
    if done + in_hand >= to_do:
        return f"last {in_hand:,} of {to_do:,}"
    if not done:
        return f"first {in_hand:,} of {to_do:,}"
    return f"{done:,} of {to_do:,} ({100 * done // to_do} %)"


def _rate(per_second: float | None) -> str:
    """Secrets a second of the run at work."""
    if per_second is None:
        return "-"
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"


def _that_fit(rows: Sequence[Mapping[str, _Cell]], width: int) -> list[str]:
    """The columns that have room, the most useful ones first."""
    fit, taken = set(), 0
    for _, name in sorted((rank, name) for name, rank, _ in _COLUMNS):
        wide = max(len(name), *(cell_len(row[name].text) for row in rows)) + _GAP
        rank = next(rank for column, rank, _ in _COLUMNS if column == name)
        if rank == 0 or taken + wide - _GAP <= width:
            fit.add(name)
            taken += wide
    return [name for name, _, _ in _COLUMNS if name in fit]


def _chosen(backends: Sequence[Look], room: int) -> tuple[list[int], str]:
    """Which backends are shown, in their order, and what is said of the rest."""
    if len(backends) <= room:
        return list(range(len(backends))), ""
    ranked = sorted(range(len(backends)), key=lambda n: (_rank(backends[n]), n))
    chosen, left = ranked[: max(1, room - 1)], ranked[max(1, room - 1) :]
    unwell = sum(_rank(backends[n]) == 0 for n in left)
    rest = f"… and {len(left):,} more" + (f", {unwell:,} of them not well" if unwell else "")
    return sorted(chosen), rest


def _rank(b: Look) -> int:
    """0: something is wrong; 1: somebody is awaited, or it is at work; 2: all is quiet."""
    if _health(b) not in ("healthy", "paused") or b["last_error"] or not b["tls_verify"]:
        return 0
    return 1 if b["conflicts_open"] or b["pending_pushes"] or b["run"] else 2


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, _Cell]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), header_style="bold",
                  show_edge=False, pad_edge=False)  # fmt: skip
    right = {name: to_right for name, _, to_right in _COLUMNS}
    for name in columns:
        table.add_column(
            name,
            justify="right" if right[name] else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        cells = (row[name] for name in columns)
        table.add_row(
            *(styled(c.text) if c.style is None else Text(c.text, c.style) for c in cells)
        )
    return table


def _lines(console: Console, options: ConsoleOptions, parts: Sequence[RenderableType]) -> int:
    free = options.update(height=None)
    return sum(len(console.render_lines(part, free, pad=False)) for part in parts)


# --- words ----------------------------------------------------------------------------


def _away(seen: Look | None, problem: SvsyncError) -> str:
    who = "service" if isinstance(problem, ServiceAwayError) else "store"
    last = f"; below it is as it was at {_at(seen):%H:%M:%S} UTC" if seen else ""
    return f"The {who} does not answer: {problem.message}{last}"


def _side_by_side(sentences: Iterable[Text], width: int) -> Iterable[Text]:
    """Whole sentences, as many on a line as fit."""
    line: Text | None = None
    for sentence in sentences:
        if line is not None and line.cell_len + 2 + sentence.cell_len <= width:
            line = Text("  ").join([line, sentence])
            continue
        if line is not None:
            yield line
        line = sentence
    if line is not None:
        yield line


def _clock(seen: Look) -> str:
    return f"{_at(seen):%Y-%m-%d %H:%M:%S} UTC"


def _at(seen: Look) -> datetime:
    return datetime.fromisoformat(seen["at"])


def _since(moment: str, now: datetime) -> float:
    return max(0, round((now - datetime.fromisoformat(moment)).total_seconds()))


def _up(seen: Look) -> Text:
    up = seen["processes"]
    if not up:
        return Text("No process is up: nothing runs by itself.", "yellow")
    versions = sorted({process["version"] for process in up})
    words = f"{len(up)} {'process' if len(up) == 1 else 'processes'} up ({', '.join(versions)})."
    return Text(shown(words), "yellow" if len(versions) > 1 else "")


def _runs(seen: Look) -> Text:
    runs = seen["runs"]
    return Text(f"Runs: {runs['running']:,} at work, {runs['waiting']:,} waiting.")


def _shared(seen: Look) -> Text:
    match seen["signals"]:
        case "redis":
            return Text("Signals: over Redis.")
        case "lost":
            return Text("Signals: Redis does not answer.", "yellow")
    return Text("Signals: within each process.")
