"""Does one screen show how every backend stands, on any terminal, and nothing that is not so?"""

import asyncio
import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console
from rich.screen import Screen

from svsync.cli.status_view import Frame, ServiceAwayError, keep_looking
from svsync.domain.errors import StoreError, StoreUnavailableError, SvsyncError

AT = "2026-11-24T19:02:15.5Z"
AGO = "2026-11-24T18:59:15Z"
AWAY = StoreUnavailableError("the database has not answered in time: see its log")


def backend(id: str, **changes: Any) -> dict[str, Any]:
    """One that is well, as a look gives it."""
    well = {
        "id": id,
        "name": id,
        "type": "hashicorp-vault",
        "state": "active",
        "syncs": True,
        "status": "healthy",
        "mode": "sync",
        "paused": False,
        "last_sync_at": AGO,
        "last_success_at": AGO,
        "next_sync_at": "2026-11-24T19:13:15Z",
        "staleness_s": 180.5,
        "connection_latency_ms": 3.2,
        "consecutive_failures": 0,
        "unreachable_since": None,
        "conflicts_open": 0,
        "pending_pushes": 0,
        "last_error": None,
        "max_staleness_s": 3600,
        "stale": False,
        "tls_verify": True,
        "runs_waiting": 0,
        "run": None,
        "rate_per_s": None,
    }
    return well | changes


def run(**changes: Any) -> dict[str, Any]:
    began = {"kind": "full", "started_at": "2026-11-24T19:01:15Z"}
    return {
        **began,
        "stage": "fetch",
        "listed": 50_000,
        "to_do": 50_000,
        "done": 12_500,
        "in_hand": 3_500,
        **changes,
    }


DOWN = backend(
    "fed_down",
    status="unreachable",
    consecutive_failures=7,
    unreachable_since="2026-11-24T18:40:15Z",
    last_error="backend_unreachable",
)


def seen(*backends: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "at": AT,
        "stopped": None,
        "processes": [{"id": "a:1", "version": "0.1.0"}, {"id": "b:1", "version": "0.1.0"}],
        "runs": {"running": 1, "waiting": 3},
        "signals": "redis",
        "backends": list(backends) or [backend("fed_a")],
    } | changes


def drawn(
    look: Mapping[str, Any] | None,
    problem: SvsyncError | None = None,
    *,
    width: int = 160,
    height: int = 20,
    colour: bool = False,
) -> str:
    """What stands on a terminal of this size."""
    held = io.StringIO()
    console = Console(
        file=held,
        width=width,
        height=height,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        markup=False,
        highlight=False,
    )
    console.print(Screen(Frame(look, problem, "acme")))
    return held.getvalue()


def line_of(screen: str, backend: str) -> str:
    [line] = [line for line in screen.splitlines() if line.startswith(f"{backend} ")]
    return " ".join(line.split())


# --- a row ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "healthy sync 3 min ago 3 min / 60 min in 11 min"),
        ({"last_sync_at": None, "connection_latency_ms": None}, "new sync"),
        ({"paused": True}, "paused sync 3 min ago 3 min / 60 min -"),
        ({"stale": True, "staleness_s": 7300}, "stale sync 3 min ago 2 h / 60 min"),
        ({"runs_waiting": 1}, "3 min / 60 min waiting"),
        ({"syncs": False, "mode": "proxy"}, "healthy proxy - "),
        ({"max_staleness_s": None}, "3 min / - in 11 min"),
        ({"conflicts_open": 3, "pending_pushes": 12}, "3 12"),
        ({"run": run()}, "12,500 of 50,000 (25 %), 60 s"),
        ({"run": run(done=0, in_hand=500)}, "first 500 of 50,000, 60 s"),
        ({"run": run(done=46_500)}, "last 3,500 of 50,000, 60 s"),
        ({"run": run(to_do=7, done=0, in_hand=7)}, "7 in hand, 60 s"),
        ({"run": run(to_do=0, done=0, in_hand=0)}, "nothing to do, 60 s"),
        ({"run": run(to_do=None, stage="diff")}, "comparing 50,000, 60 s"),
        ({"run": run(to_do=None, listed=None, stage="list")}, "listing, 60 s"),
        ({"run": run(to_do=None, listed=None, kind="probe")}, "probing, 60 s"),
        ({"run": run(), "rate_per_s": 1234.4}, "12,500 of 50,000 (25 %), 60 s 1,234/s 0 0 3 ms"),
        ({"run": run(), "rate_per_s": 4.96}, "60 s 5.0/s 0 0"),
        ({"last_error": "denied"}, "- 0 0 3 ms denied"),
    ],
)
def test_row_says_how_its_backend_stands(changes: dict[str, Any], words: str) -> None:
    assert words in line_of(drawn(seen(backend("fed_a", **changes))), "fed_a")


def test_backend_that_is_down_says_since_when() -> None:
    assert "backend_unreachable, for 22 min" in line_of(drawn(seen(DOWN)), "fed_down")


def test_under_the_stop_nothing_is_said_to_come_next() -> None:
    stopped = {"since": AGO, "by": "ann"}
    screen = drawn(seen(backend("fed_a", runs_waiting=1), stopped=stopped))
    assert "All runs are stopped, by ann, 3 min ago: `svsync backends resume --all`" in screen
    assert "3 min / 60 min stopped" in line_of(screen, "fed_a")


def test_missing_check_of_the_certificate_is_red_on_every_screen() -> None:
    unsafe = backend("fed_a", tls_verify=False)
    assert "fed_a: tls_verify is off" in drawn(seen(unsafe), width=60)
    assert "\x1b[1;31mfed_a: tls_verify is off" in drawn(seen(unsafe), colour=True)


# --- the head ---------------------------------------------------------------------


def test_head_says_what_is_up_at_work_and_shared() -> None:
    screen = drawn(seen())
    assert "tenant acme, 2026-11-24 19:02:15 UTC" in screen
    assert "2 processes up (0.1.0).  Runs: 1 at work, 3 waiting.  Signals: over Redis." in screen


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"processes": []}, "No process is up"),
        ({"signals": "lost"}, "Redis does not answer"),
        ({"signals": "local"}, "within each process"),
        (
            {"processes": [{"version": "0.2.0"}, {"version": "0.1.0"}]},
            "2 processes up (0.1.0, 0.2.0).",
        ),
    ],
)
def test_head_says_what_is_missing(changes: dict[str, Any], words: str) -> None:
    assert words in drawn(seen(**changes))


def test_screen_says_when_the_store_is_away_and_of_when_the_rest_is() -> None:
    screen = drawn(seen(), AWAY)
    assert "has not answered in time" in screen
    assert "as it was at 19:02:15 UTC" in screen
    assert "fed_a" in screen
    assert "has not answered in time" in drawn(None, AWAY)


def test_nothing_in_a_name_acts_on_the_terminal() -> None:
    screen = drawn(seen(stopped={"since": AGO, "by": "a\x1b[2Jb"}))
    assert "a\\x1b[2Jb" in screen
    assert "\x1b" not in screen


def test_sentences_of_the_head_are_not_broken_where_they_fit_on_a_line() -> None:
    screen = drawn(seen(processes=[]), width=80)
    lines = [line.rstrip() for line in screen.splitlines()]
    assert "No process is up: nothing runs by itself.  Runs: 1 at work, 3 waiting." in lines
    assert "Signals: over Redis." in lines
    assert all(len(line) <= 20 for line in drawn(seen(processes=[]), width=20).splitlines())


# --- small terminals --------------------------------------------------------------


@pytest.mark.parametrize("width", [30, 50, 80, 100, 120, 160, 250])
def test_what_is_wrong_is_told_at_any_width(width: int) -> None:
    screen = drawn(seen(backend("fed_a"), DOWN, backend("fed_b", run=run())), width=width)
    assert all(len(line) <= width for line in screen.splitlines())
    assert "unreachable" in line_of(screen, "fed_down")
    assert "backend_unreachable" in screen.replace("\n", "")


def test_more_backends_than_lines_leave_out_those_that_are_well() -> None:
    many = [backend(f"fed_{n:02}") for n in range(40)]
    screen = drawn(seen(*many, DOWN), height=15)
    assert len(screen.rstrip().splitlines()) <= 15
    assert "fed_down" in screen
    assert "fed_00" in screen
    assert "fed_39" not in screen
    shown = sum(f"{b['id']} " in screen for b in [*many, DOWN])
    assert screen.rstrip().splitlines()[-1].rstrip() == f"… and {41 - shown} more"


def test_those_that_are_not_well_and_do_not_fit_are_counted() -> None:
    many = [dict(DOWN, id=f"fed_{n:02}") for n in range(40)]
    assert "of them not well" in drawn(seen(*many), height=15)


# --- looking ----------------------------------------------------------------------


async def test_store_that_is_away_ends_nothing() -> None:
    found: list[Mapping[str, Any] | StoreError] = [seen(), AWAY, seen(at="later")]
    told: list[tuple[Any, bool]] = []

    async def look() -> Mapping[str, Any]:
        one = found.pop(0)
        if isinstance(one, StoreError):
            raise one
        return one

    def tell(last: Mapping[str, Any] | None, problem: SvsyncError | None) -> bool:
        told.append((last and last["at"], problem is None))
        return bool(found)

    await keep_looking(look, tell, asyncio.Event(), every=0)
    assert told == [(AT, True), (AT, False), ("later", True)]


async def test_stop_ends_a_look_that_hangs() -> None:
    stop, hanging, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def look() -> Mapping[str, Any]:
        hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    watching = asyncio.create_task(keep_looking(look, lambda *_: True, stop))
    await hanging.wait()
    stop.set()
    await watching
    assert ended.is_set()


async def test_mistake_in_a_look_is_not_swallowed() -> None:
    async def look() -> Mapping[str, Any]:
        raise LookupError

    with pytest.raises(LookupError):
        await keep_looking(look, lambda *_: True, asyncio.Event())


def test_look_of_a_service_is_shown_without_what_no_tenant_is_told() -> None:
    whole = seen(backend("fed_a"))
    look = {name: whole[name] for name in ("at", "runs", "backends")}
    screen = drawn(look)
    assert line_of(screen, "fed_a") == line_of(drawn(whole), "fed_a")
    assert "Runs: 1 at work, 3 waiting." in screen
    for word in ("process", "Signals", "stopped"):
        assert word not in screen


def test_service_that_is_away_is_told_apart_from_a_store_that_is() -> None:
    away = ServiceAwayError("it has not answered in time", code="unavailable")
    assert "The service does not answer: it has not answered in time" in drawn(seen(), away)
    assert "The store does not answer" in drawn(seen(), AWAY)


async def test_service_that_is_away_ends_no_watch() -> None:
    told: list[bool] = []
    found: list[Any] = [ServiceAwayError("away", code="unavailable"), seen()]

    async def look() -> Mapping[str, Any]:
        one = found.pop(0)
        if isinstance(one, ServiceAwayError):
            raise one
        return one  # type: ignore[no-any-return]

    def tell(last: Mapping[str, Any] | None, problem: object) -> bool:
        told.append(problem is None)
        return bool(found)

    await keep_looking(look, tell, asyncio.Event(), every=0)
    assert told == [False, True]
