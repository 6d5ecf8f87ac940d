"""Which intervals can hold, by what a quiet cycle was measured to take."""

import pytest

from svsync.domain.cycles import (
    QuietCycle,
    Unreachable,
    passing,
    rounded_up,
    unreachable,
    words,
)
from svsync.domain.quotas import Limit, Operation

SLOW: dict[Operation, Limit] = {"list": Limit(per_second=0.5)}


def cycle(seconds: float = 1, **calls: int) -> QuietCycle:
    return QuietCycle(calls, seconds)


def short(interval: float, of: QuietCycle, budget: int | None = None) -> Unreachable:
    found = unreachable(interval, of, SLOW, budget)
    assert found is not None
    return found


def test_an_interval_that_holds_is_none_of_its_business() -> None:
    assert unreachable(60, cycle(59, list=29), SLOW, None) is None
    assert unreachable(60, cycle(59, list=0), {}, 10) is None
    assert unreachable(60, QuietCycle({}, 0), {}, 0) is None


def test_a_rate_is_told_with_its_calls_and_what_could_hold() -> None:
    found = short(60, cycle(list=100, read=10**6))
    assert (found.because, found.shortest_s) == ("rate_limit", 240)
    told = str(found.to_json()["message"])
    for part in ("100 list calls", "200s", "rate_limit.list.per_second 0.5", "4m or more"):
        assert part in told


def test_a_budget_is_enough_for_so_many_cycles_a_day() -> None:
    found = short(60, cycle(list=10, login=1), budget=110)
    assert (found.because, found.shortest_s) == ("call_budget", 8_640)
    assert "for 10 of them" in found.why
    assert "call_budget.per_day" in found.advice


def test_what_was_for_changes_asks_for_no_longer_interval() -> None:
    first = QuietCycle({"list": 10, "read": 90}, 1, passing=90)
    assert unreachable(900, first, {}, 96 * 10) is None
    assert unreachable(900, QuietCycle(first.calls, 1), {}, 96 * 10) is not None


def test_a_cycle_beyond_a_whole_days_budget_never_comes_to_its_end() -> None:
    found = short(7 * 86_400, cycle(list=10), budget=9)
    assert (found.because, found.shortest_s) == ("call_budget", None)
    assert found.advice == "no sync_interval is long enough: raise call_budget.per_day"


def test_a_cycle_that_takes_longer_than_the_interval_cannot_be_as_often() -> None:
    found = short(60, cycle(90.2))
    assert (found.because, found.shortest_s) == ("duration", 120)
    assert "takes 91s" in found.why
    assert short(60, cycle(8 * 86_400)).advice.startswith("no sync_interval is long enough")


def test_what_takes_longest_is_told() -> None:
    assert short(30, cycle(500, list=100), budget=10**6).because == "duration"
    assert short(30, cycle(100, list=100), budget=10**6).because == "rate_limit"
    assert short(30, cycle(100, list=100), budget=1_000).because == "call_budget"


def test_it_is_kept_and_read_back_as_it_was() -> None:
    known = cycle(1.5, list=3, login=1)
    assert QuietCycle.from_json(known.to_json()) == known
    assert known.to_json()["total"] == 4
    assert QuietCycle.from_json(None) is None


@pytest.mark.parametrize(
    ("seconds", "fits", "written"),
    [
        (0.2, 1, "1s"),
        (60, 60, "1m"),
        (60.1, 120, "2m"),
        (3_599, 3_600, "1h"),
        (86_400, 86_400, "1d"),
    ],
)
def test_what_fits_is_rounded_up_and_written_as_the_file_takes_it(
    seconds: float, fits: int, written: str
) -> None:
    assert rounded_up(seconds) == fits
    assert words(fits) == written


def test_what_was_for_changes_comes_no_more_in_a_quiet_cycle() -> None:
    calls = {"list": 10, "metadata": 3, "read": 100, "write": 4, "delete": 2, "login": 1}
    assert passing(calls, 0) == 106
    assert passing(calls, 30) == 76
    assert passing(calls, 500) == passing(calls, None) == 6
    assert passing({}, 5) == 0
    assert QuietCycle(calls, 1, 106).least == 14
    assert QuietCycle.from_json(QuietCycle(calls, 1, 106).to_json()) == QuietCycle(calls, 1, 106)
