"""What a command shows: tables for people, one JSON object for programs.

Only this module writes to stdout, in whole pieces that are flushed at once, so that
a reader who went away or a full disk is met here and nowhere else. On a terminal
tables have colour and lines (rich, loaded only then); anywhere else they are plain
aligned text that keeps its width. Names come from other people's stores: whatever
would move a cursor or hide text is shown escaped.
"""

import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Final, cast

from svsync.domain.errors import SetupError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from svsync.domain.runs import Stage
    from svsync.services.sync.context import Progress

Row = Sequence[object]

_COLOURS: Final = {
    "green": {"ok", "healthy", "granted", "completed", "in_sync", "active"},
    "yellow": {
        "warning",
        "partial",
        "degraded",
        "missing_optional",
        "conflict",
        "open",
        "paused",
        "new",
        "retained",
    },
    "red": {
        "wrong",
        "failed",
        "unreachable",
        "denied",
        "missing",
        "quarantined",
        "failing",
        "stale",
    },
}
_FOLDED: Final = frozenset(
    {"path", "source", "remote path", "local", "remote", "but", "what", "because", "such as"}
    | {"value", "tags", "error", "granted by", "wrapped by", "from run"}
    | {"reader", "from where", "below", "not listed below", "mount", "last read here"}
)
"""Columns that give way on a narrow terminal; all others keep their words whole."""
_NARROWEST: Final = 12
"""Characters of such a column, below which rows are told one by one."""
_STAGE_WORDS: Final = {"list": "listing", "fetch": "reading and writing what changed"}


class Output:
    """Where one command's answer goes.

    Attributes:
        json: programs are reading; views are not drawn.
        answered: the one JSON object has been written.
        unheard: whoever read went away; what is written goes nowhere.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.answered = False
        self.unheard = False
        self.on_terminal = sys.stdout.isatty()

    # --- for programs -----------------------------------------------------------------

    def document(self, document: Mapping[str, Any]) -> None:
        """Write the one object of this command."""
        self.raw_document(json.dumps(document, indent=2).encode())

    def raw_document(self, text: bytes) -> None:
        """Likewise, of a text that is JSON already and must not be written anew."""
        self.answered = True
        self.raw(text + b"\n")

    # --- for people -------------------------------------------------------------------

    def line(self, text: str = "") -> None:
        self.text(shown(text) + "\n")

    def heading(self, text: str, says: str = "") -> None:
        """A line that stands out, in the colour of the word that it says."""
        if self.on_terminal:
            from rich.text import Text

            self._draw(Text(shown(text), style=f"bold {_colour(says)}"))
        else:
            self.text(shown(text) + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Rows under their column names; numbers are set to the right. Where a terminal is too
        narrow for that, one by one: rich would leave columns out."""
        cells = [[shown(cell) for cell in row] for row in rows]
        right = [
            bool(rows) and all(_is_number(row[n]) for row in rows) for n in range(len(columns))
        ]
        if not self.on_terminal:
            self.text(plain_table([name.upper() for name in columns], cells, right))
            return
        from rich import box
        from rich.table import Table

        if not _fits(columns, cells):
            self._draw(_row_by_row(columns, cells))
            return
        table = Table(
            box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold", show_edge=False
        )
        for name, to_right in zip(columns, right, strict=True):
            table.add_column(
                name,
                justify="right" if to_right else "left",
                overflow="fold",
                no_wrap=name not in _FOLDED,
            )
        for row in cells:
            table.add_row(*map(styled, row))
        self._draw(table)

    def facts(self, facts: Sequence[tuple[str, object]]) -> None:
        """Names and what they are, one a line; None leaves a fact out."""
        rows = [[name, shown(value)] for name, value in facts if value is not None]
        if not self.on_terminal:
            self.text(plain_table(None, rows, [False, False]))
            return
        self._draw(_named(rows))

    @contextmanager
    def progress(self) -> Iterator["Progress"]:
        """A bar on stderr while a run works, if somebody looks at it."""
        if not sys.stderr.isatty():
            yield _tell_nobody
            return
        with _bar("connecting") as draw:

            def tell(stage: "Stage", done: int, total: int | None) -> None:
                draw(_STAGE_WORDS.get(stage, stage), done, total)

            yield tell

    @contextmanager
    def counting(self, words: str) -> Iterator[Callable[[int, int | None], None]]:
        """How much of something is done: a bar on stderr if somebody looks at it, else a line
        for each further tenth, but not for programs. None: of how many is not known."""
        if sys.stderr.isatty():
            with _bar(words) as draw:
                yield lambda done, total: draw(words, done, total)
            return
        told = 0

        def tell(done: int, total: int | None) -> None:
            nonlocal told
            tenth = 10 * done // total if total else 0
            if tenth > told and not self.json:
                told = tenth
                self.line(f"{words}: {done:,} of {total:,}")

        yield tell

    @property
    def can_draw(self) -> bool:
        """Can what was written be written over?"""
        return self.on_terminal and os.environ.get("TERM") not in (None, "", "dumb", "unknown")

    @contextmanager
    def screen(self) -> Iterator[Callable[["RenderableType"], bool]]:
        """The whole terminal, drawn anew by each call; as it was before when the block ends.

        A call says whether somebody still sees it.
        """
        from rich.console import Console
        from rich.live import Live

        console = Console(
            file=cast("IO[str]", _Written(self)), force_terminal=True, highlight=False, markup=False
        )
        with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False,
                  redirect_stderr=False) as live:  # fmt: skip

            def draw(thing: "RenderableType") -> bool:
                live.update(thing, refresh=True)
                return not self.unheard

            yield draw

    def _draw(self, thing: object) -> None:
        """Render by rich, then write as everything else is written."""
        import io

        from rich.console import Console

        drawn = io.StringIO()
        Console(file=drawn, force_terminal=True, highlight=False, markup=False).print(thing)
        lines = [line.rstrip() for line in drawn.getvalue().split("\n")]
        self.text("\n".join(lines).strip("\n") + "\n")

    def text(self, text: str) -> None:
        self.raw(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))

    def raw(self, data: bytes) -> None:
        """Write bytes to stdout, now.

        A reader who went away (`| head`) is no error: the work is done all the same,
        and the exit code tells how it ended.

        Raises:
            SetupError: the device does not take them.
        """
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            self.unheard = True
            _forget_stdout()
        except OSError as error:
            _forget_stdout()
            raise SetupError(
                f"what svsync prints cannot be written ({os.strerror(error.errno or 0)}):"
                " make room, or send stdout elsewhere",
                code="output_failed",
            ) from None


@contextmanager
def _bar(words: str) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar on stderr, gone when the block ends; a call says what is done, and how far."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.completed:,.0f}{task.fields[of]}"),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as p:
        bar = p.add_task(words, total=None, of="")

        def draw(words: str, done: int, total: int | None) -> None:
            of = "" if total is None else f" of {total:,}"
            p.update(bar, description=words, completed=done, total=total, of=of)

        yield draw


def _tell_nobody(stage: "Stage", done: int, total: int | None) -> None:
    """Progress where nobody looks."""


def say(text: str) -> None:
    """One sentence on stderr, whatever stderr is by now."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"svsync: {shown(text)}\n")
        sys.stderr.flush()


def shown(value: object) -> str:
    """A cell's text, fit for a terminal: nothing in it acts on one.

    Line breaks stay; every other character that does not print is shown as its escape.
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def quoted(path: str) -> str:
    """A path for a table, in quotes where a segment begins or ends with a space that nobody
    would see."""
    return f"'{path}'" if any(part != part.strip() for part in path.split("/")) else path


def plain_table(head: Sequence[str] | None, rows: Sequence[Row], right: Sequence[bool]) -> str:
    """Columns two spaces apart, as wide as their widest cell; one line a row."""
    lines = [*([head] if head else []), *rows]
    cells = [[str(cell).replace("\n", "\\n") for cell in line] for line in lines]
    widths = [max(_width(line[n]) for line in cells) for n in range(len(right))] if cells else []
    return "".join(
        "  ".join(
            " " * (width - _width(cell)) + cell if to_right else cell + " " * (width - _width(cell))
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        + "\n"
        for line in cells
    )


def _width(text: str) -> int:
    """In cells of a terminal, of which some letters take two and accents none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _fits(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> bool:
    """Is the terminal wide enough for a table of these, once what may give way has done so?"""
    from rich.cells import cell_len
    from rich.console import Console

    needed = 0
    for n, name in enumerate(columns):
        lines = [name, *(line for row in cells for line in row[n].split("\n"))]
        width = max(map(cell_len, lines))
        needed += 2 + (min(width, _NARROWEST) if name in _FOLDED else width)
    return needed <= Console(force_terminal=True).width


def _row_by_row(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> "RenderableType":
    rows: list[tuple[str, str]] = []
    for row in cells:
        rows += [("", ""), *zip(columns, row, strict=True)]
    return _named(rows[1:])


def _named(rows: Sequence[Sequence[str]]) -> "RenderableType":
    """Names and what they are, one a line."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, styled(value))
    return grid


def ago(moment: str | None, now: datetime) -> str:
    """An RFC 3339 time as people say it: `3 min ago`, `in 12 min`, `never`."""
    if moment is None:
        return "never"
    seconds = (now - datetime.fromisoformat(moment)).total_seconds()
    length = span(max(1, round(abs(seconds))))
    return f"{length} ago" if seconds >= 0 else f"in {length}"


def span(seconds: float) -> str:
    """A length of time in its largest fitting unit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    whole = seconds >= 10 or isinstance(seconds, int)
    return f"{seconds:.0f} s" if whole else f"{seconds:.1f} s"


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


class _Written:
    """A file for rich, whose writes are those of an `Output`."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def write(self, text: str) -> int:
        self._out.text(text)
        return len(text)

    def flush(self) -> None:
        """Every write is flushed already."""


def styled(text: str) -> Any:
    """A cell that says how something stands has its colour."""
    from rich.text import Text

    return Text(text, _colour(text))


def _colour(word: str) -> str:
    return next((colour for colour, words in _COLOURS.items() if word in words), "")


def _forget_stdout() -> None:
    """Let whatever is still buffered, and all that follows, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
