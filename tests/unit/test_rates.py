"""Is the rate that is shown the one at which runs get on, and none where it is not known?"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from svsync.cli.rates import AT_ONCE, WINDOW_S, Rates
from svsync.services.sync.intake import BATCH
from svsync.services.sync.pipeline import AHEAD

BEGAN = datetime(2026, 11, 24, 19, 0, tzinfo=UTC)
MANY = 1_000_000


def look(at: float, reached: int | None, run: str = "run_a", to_do: int = MANY) -> dict[str, Any]:
    """So many seconds after the beginning, one backend at work and one that is not."""
    in_hand = None if reached is None else min(reached, 3_500)
    working = {
        "run_id": run,
        "to_do": None if reached is None else to_do,
        "done": None if reached is None or in_hand is None else reached - in_hand,
        "in_hand": in_hand,
    }
    moment = (BEGAN + timedelta(seconds=at)).isoformat()
    backends = [{"id": "fed_a", "run": working}, {"id": "fed_b", "run": None}]
    return {"at": moment, "backends": backends}


def rates(*seen: tuple[float, int | None], to_do: int = MANY) -> list[float | None]:
    """What is told at each look: after so many seconds so many secrets were in hand or done."""
    kept = Rates()
    looks = [look(at, reached, to_do=to_do) for at, reached in seen]
    return [kept.told(one)["backends"][0]["rate_per_s"] for one in looks]


def test_rate_is_told_once_two_batches_were_waited_for() -> None:
    assert rates((0, None), (1, 0), (2, 1500), (3, 2000), (4, 2000), (5, 2500), (6, 3000)) == [
        None, None, None, None, None, 250, pytest.approx(1000 / 3),
    ]  # fmt: skip


def test_what_is_taken_in_hand_at_once_is_what_may_wait_for_the_backend() -> None:
    assert AT_ONCE == (AHEAD + 1) * BATCH


def test_who_comes_into_the_middle_of_a_batch_is_told_nothing_of_it() -> None:
    assert rates((0, 9000), (1, 9500), (2, 10_000)) == [None, None, 500]


def test_rate_follows_the_last_seconds() -> None:
    fast = [(n, 2000 + 500 * n) for n in range(60)]
    slow = [(59 + n, 2000 + 59 * 500 + 100 * n) for n in range(1, 20)]
    told = rates(*fast, *slow)
    assert told[59] == 500
    assert told[-1] == pytest.approx(100)
    between = told[59 + round(WINDOW_S / 2)]
    assert between is not None
    assert 100 < between < 500


def test_batches_that_take_longer_than_the_window_are_measured_from_one_to_the_next() -> None:
    told = rates((0, 1500), (1, 2000), (101, 2500), (151, 2500), (201, 3000))
    assert told == [None, None, 5, 5, 5]


def test_run_that_stands_still_gets_slower() -> None:
    assert rates((0, 1500), (1, 2000), (2, 2500), (11, 2500))[-1] == pytest.approx(500 / 9)


def test_run_whose_last_batches_are_in_hand_keeps_its_rate() -> None:
    told = rates((0, 1500), (1, 2000), (2, 2500), (3, 2800), (30, 2800), to_do=2800)
    assert told[-1] == 400


def test_another_run_begins_anew_and_one_that_ended_is_forgotten() -> None:
    kept = Rates()
    for at, reached in ((0, 2000), (1, 2500), (2, 3000)):
        told = kept.told(look(at, reached))
    assert told["backends"][0]["rate_per_s"] == 500
    assert kept.told(look(3, 3500, "run_b"))["backends"][0]["rate_per_s"] is None
    assert kept.told(look(4, 4000))["backends"][0]["rate_per_s"] is None


def test_backend_that_is_not_at_work_has_no_rate_and_nothing_else_is_changed() -> None:
    seen = look(0, 0)
    told = Rates().told(seen)
    assert told["backends"][1] == {"id": "fed_b", "run": None, "rate_per_s": None}
    assert told["at"] == seen["at"]
    assert "rate_per_s" not in seen["backends"][0]
