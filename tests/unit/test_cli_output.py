"""Is what people read told in whole words, and can nothing in it act on their terminal?"""

import io
import os
import re
import sys
from datetime import UTC, datetime

import pytest
from rich.cells import cell_len

from svsync.cli.copy import tell_placed
from svsync.cli.output import Output, ago, plain_table, quoted, shown, span
from svsync.cli.standing import state_of
from svsync.cli.words import ALWAYS, COUNTS, REASONS
from svsync.domain.runs import Count, SkipReason
from svsync.services.transfer import Outcome, Placed, Report

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def terminal_for(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A stdout on which colour and lines are drawn; asked for within the test, since
    pytest puts its own there as the test begins."""
    stream = Terminal(io.BytesIO(), "utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def drawn(terminal: Terminal) -> str:
    held = terminal.buffer
    assert isinstance(held, io.BytesIO)
    return held.getvalue().decode()


def test_every_count_and_every_reason_has_words() -> None:
    assert set(COUNTS) == set(Count)
    assert set(REASONS) == set(SkipReason)
    assert set(ALWAYS) <= set(COUNTS)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("kv/data/ä", "kv/data/ä"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("a\u202eb", "a\\u202eb"),
        ("a\udc80", "a\\udc80"),
        ("a\rb\tc", "a\\rb\\tc"),
        ("two\nlines", "two\nlines"),
        (1234567, "1,234,567"),
        (True, "true"),
        (None, "-"),
    ],
)
def test_nothing_that_is_shown_acts_on_a_terminal(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_plain_table_is_aligned_and_has_one_line_a_row() -> None:
    rows = [["a", "1"], ["long\nname", "12,345"]]
    assert plain_table(["NAME", "COUNT"], rows, [False, True]) == (
        "NAME         COUNT\na                1\nlong\\nname  12,345\n"
    )


def test_a_table_on_a_terminal_keeps_run_ids_whole_and_markup_as_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = terminal_for(monkeypatch)
    run = "run_01a20d89840374179dfb43e1f3d6fce7"
    Output().table(("run", "path", "state"), [(run, "[red]" + "p" * 90, "failed")])
    text = drawn(terminal)
    assert run in text
    assert "[red]ppp" in text
    assert "\x1b[31mfailed" in text


@pytest.mark.parametrize("columns", ["50", "60", "80", "200"])
def test_no_column_is_left_out_however_narrow_the_terminal_is(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    terminal = terminal_for(monkeypatch)
    monkeypatch.setenv("COLUMNS", columns)
    names = ("id", "path", "state", "expires", "scopes")
    row = ("tok_" + "0" * 32, "部署/" * 20, "active", "2026-11-24", "secrets:read federation:read")
    Output().table(names, [row, row])
    text = re.sub(r"\x1b\[[0-9;]*m", "", drawn(terminal))
    for word in (*names, *row[:1], *row[2:4], *row[4].split()):
        assert word in text, word
    assert text.count("部署") == 40
    assert max(map(cell_len, text.splitlines())) <= int(columns)


def test_a_plain_table_is_aligned_by_what_letters_take_of_a_terminal() -> None:
    rows = [["部署", "x"], ["abcde", "y"], ["e\u0301", "z"]]
    lines = plain_table(None, rows, [False, False]).splitlines()
    assert [cell_len(line[: line.index(c)]) for line, c in zip(lines, "xyz", strict=True)] == [
        7
    ] * 3


def test_a_space_that_nobody_would_see_stands_in_quotes(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert [quoted(path) for path in ("apps /db", "a b/c", "")] == ["'apps /db'", "a b/c", ""]
    report = Report(placed=[Placed("new /db", "apps /db", Outcome.CREATED)])
    tell_placed(Output(), report, "copied")
    assert b"'apps /db'  'new /db'  copied" in capsysbinary.readouterr().out


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    Output().table(("state",), [("failed",)])
    assert "\x1b[31m" not in drawn(terminal)
    assert "failed" in drawn(terminal)


def test_a_reader_who_went_away_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        out = Output()
        out.line("nobody reads this")
        out.line("nor this")


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (None, "never"),
        ("2026-11-24T11:59:30Z", "30 s ago"),
        ("2026-11-24T11:57:00+00:00", "3 min ago"),
        ("2026-11-24T12:14:00Z", "in 14 min"),
        ("2026-11-21T12:00:00Z", "3 d ago"),
    ],
)
def test_times_are_told_as_people_say_them(moment: str | None, words: str) -> None:
    assert ago(moment, NOW) == words


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "healthy"),
        ({"last_sync_at": None}, "new"),
        ({"last_sync_at": None, "connection_latency_ms": 4.2}, "healthy"),
        ({"consecutive_failures": 2}, "failing"),
        ({"consecutive_failures": 2, "status": "denied"}, "denied"),
        ({"paused": True, "consecutive_failures": 2}, "paused"),
    ],
)
def test_a_backend_is_called_healthy_only_when_it_is(changes: dict[str, object], word: str) -> None:
    well = {"paused": False, "last_sync_at": "…", "consecutive_failures": 0, "status": "healthy"}
    well |= {"connection_latency_ms": None}
    assert state_of(well | changes) == word


def test_short_spans_keep_a_decimal() -> None:
    assert [span(0.25), span(12.4), span(7200)] == ["0.2 s", "12 s", "2 h"]


def test_what_is_counted_is_a_line_for_each_tenth_where_nobody_looks(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    for json, said in ((False, b"sealed: 100 of 1,000\nsealed: 1,000 of 1,000\n"), (True, b"")):
        with Output(json=json).counting("sealed") as tell:
            for done in (0, 50, 100, 150, 1_000, 1_001):
                tell(done, 1_000)
            tell(0, 0)
        assert capsysbinary.readouterr().out == said


def test_what_is_counted_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Output().counting("sealed anew") as tell:
        tell(500, 1_000)
    text = drawn(terminal)
    assert "sealed anew" in text
    assert "500 of 1,000" in text
