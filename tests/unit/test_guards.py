"""Which numbers stop a run before its first write, and which let it through?"""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svsync.domain.errors import GuardError
from svsync.domain.federation import Guard
from svsync.domain.guards import Allow, GuardNumbers, check_guards

DEFAULT = Guard()
NOTHING = Allow()


def stopped_by(numbers: GuardNumbers, guard: Guard = DEFAULT, allow: Allow = NOTHING) -> str | None:
    try:
        check_guards(numbers, guard, allow)
    except GuardError as error:
        return error.code
    return None


# --- deletion ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "missing", "stopped"),
    [
        (1, 1, False),  # the only secret may go
        (2, 1, False),
        (2, 2, True),  # all of two or more
        (3, 3, True),
        (4, 3, False),  # three are always let through
        (5, 4, True),
        (39, 4, True),  # a tenth is 3.9
        (40, 4, False),
        (40, 5, True),
        (500, 50, False),
        (500, 51, True),
        (10_000, 50, False),
        (10_000, 51, True),  # the count, though it is half a percent
    ],
)
def test_the_limits_of_deletion(known: int, missing: int, stopped: bool) -> None:
    """Unlisted, listed as gone, and remote deletes have the same limits."""
    expected = "mass_delete_guard" if stopped else None
    for numbers in (
        GuardNumbers(known, listed=1, unlisted=missing),
        GuardNumbers(known, listed=known, listed_gone=missing),
        GuardNumbers(known, listed=known, remote_deletes=missing),
        GuardNumbers(known, listed=known, unlisted=missing - 1, listed_gone=1),
    ):
        assert stopped_by(numbers) == expected, numbers


def test_what_is_gone_and_what_is_to_be_deleted_are_counted_apart() -> None:
    numbers = GuardNumbers(100, listed=100, unlisted=5, listed_gone=5, remote_deletes=10)
    assert stopped_by(numbers) is None
    assert stopped_by(replace(numbers, unlisted=6)) == "mass_delete_guard"
    assert stopped_by(replace(numbers, remote_deletes=11)) == "mass_delete_guard"


@pytest.mark.parametrize(
    ("known", "listed", "stopped"), [(0, 0, False), (1, 0, False), (2, 0, True), (2, None, False)]
)
def test_an_empty_listing_of_two_or_more_known_is_a_mass_deletion(
    known: int, listed: int | None, stopped: bool
) -> None:
    """Also where denied scopes keep the missing ones from counting as unlisted."""
    expected = "mass_delete_guard" if stopped else None
    assert stopped_by(GuardNumbers(known, listed=listed, unlisted=0)) == expected


def test_a_first_run_has_nothing_to_delete() -> None:
    assert stopped_by(GuardNumbers(0, listed=20_000)) is None


def test_a_ratio_that_is_met_exactly_is_not_exceeded() -> None:
    guard = Guard(max_delete_ratio=0.29)  # as a double, 0.29 * 100 is a little less than 29
    assert stopped_by(GuardNumbers(100, listed=71, unlisted=29), guard) is None
    assert stopped_by(GuardNumbers(100, listed=70, unlisted=30), guard) == "mass_delete_guard"


# --- regression and overwriting ---------------------------------------------------


@pytest.mark.parametrize(
    ("ordered", "backwards", "stopped"),
    [(4, 4, False), (5, 5, True), (50, 5, False), (49, 5, True), (1000, 100, False)],
)
def test_the_limits_of_regression(ordered: int, backwards: int, stopped: bool) -> None:
    expected = "mass_regression_guard" if stopped else None
    numbers = GuardNumbers(2000, listed=2000, ordered=ordered, backwards=backwards)
    assert stopped_by(numbers) == expected
    assert stopped_by(GuardNumbers(ordered, listed=ordered, backwards=backwards)) == expected


@pytest.mark.parametrize(
    ("known", "overwrites", "stopped"),
    [(19, 19, False), (20, 20, True), (40, 20, False), (40, 21, True), (0, 20, True)],
)
def test_the_limits_of_overwriting(known: int, overwrites: int, stopped: bool) -> None:
    numbers = GuardNumbers(known, listed=known, overwrites=overwrites)
    assert stopped_by(numbers) == ("mass_overwrite_guard" if stopped else None)


def test_moved_tokens_alone_stop_nothing() -> None:
    """Whether the values moved as well is for their fingerprints to say."""
    assert stopped_by(GuardNumbers(40, listed=40, changed=21)) is None


# --- letting one run through ------------------------------------------------------

BAD = GuardNumbers(100, listed=50, unlisted=50, backwards=50, overwrites=60)


def test_each_guard_is_let_through_by_its_own_word_alone() -> None:
    assert stopped_by(BAD) == "mass_delete_guard"
    assert stopped_by(BAD, allow=Allow(mass_delete=True)) == "mass_regression_guard"
    through = Allow(mass_delete=True, regression=True)
    assert stopped_by(BAD, allow=through) == "mass_overwrite_guard"
    assert stopped_by(BAD, allow=replace(through, mass_overwrite=True)) is None


def test_the_delete_flag_also_lets_an_empty_listing_and_remote_deletes_through() -> None:
    allow = Allow(mass_delete=True)
    assert stopped_by(GuardNumbers(10, listed=0, unlisted=10), allow=allow) is None
    assert stopped_by(GuardNumbers(10, listed=10, remote_deletes=10), allow=allow) is None


def test_the_sentence_names_the_numbers_and_the_flag() -> None:
    with pytest.raises(GuardError, match=r"50 of 100 known .* --allow-mass-delete") as stopped:
        check_guards(BAD, DEFAULT, NOTHING)
    assert stopped.value.plan["unlisted"] == 50
    assert "ordered" not in stopped.value.plan


@given(st.integers(0, 400), st.integers(0, 400), st.floats(0, 1), st.integers(0, 100))
def test_one_more_deletion_never_lets_a_stopped_run_through(
    known: int, missing: int, ratio: float, count: int
) -> None:
    guard = Guard(max_delete_ratio=ratio, max_delete_count=count)
    numbers = GuardNumbers(known, listed=known, unlisted=missing)
    more = replace(numbers, unlisted=missing + 1)
    assert stopped_by(numbers, guard) is None or stopped_by(more, guard) is not None
