"""Do tags and custom metadata survive when both sides may have changed them?"""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svsync.domain.federation import TagTransform
from svsync.domain.tags import flatten, merge, merge_fields

PLAIN = TagTransform()
PAIRS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"), max_size=4)
STRINGS = st.sets(st.sampled_from(["mine", "a=x", "a=y", "b=x", "c=z"])).map(
    lambda found: tuple(sorted(found))
)
TRANSFORMS = st.sampled_from(
    [
        PLAIN,
        TagTransform(format="{value}"),
        TagTransform(exclude=("a",)),
        TagTransform(rename={"a": "b"}),
        TagTransform(drop=True),
    ]
)


def test_tag_added_there_is_added_and_tag_removed_there_is_removed() -> None:
    merged = merge(("mine", "team=x"), {"team": "x"}, {"env": "prod"}, PLAIN, local_wins=True)
    assert merged == ("env=prod", "mine")


def test_tag_that_was_removed_here_does_not_come_back() -> None:
    assert merge((), {"team": "x"}, {"team": "x", "env": "prod"}, PLAIN, local_wins=True) == (
        "env=prod",
    )


@settings(max_examples=100)
@given(STRINGS, PAIRS, PAIRS, TRANSFORMS)
def test_merging_tags_twice_does_nothing_more(
    local: tuple[str, ...],
    base: Mapping[str, str],
    remote: Mapping[str, str],
    transform: TagTransform,
) -> None:
    once = merge(local, base, remote, transform, local_wins=True)
    assert merge(once, base, remote, transform, local_wins=True) == once
    assert (
        merge(once, remote, remote, transform, local_wins=True) == once
    )  # as base stands after the commit


@settings(max_examples=100)
@given(STRINGS, PAIRS, TRANSFORMS)
def test_tags_that_changed_only_here_stay_as_they_are(
    local: tuple[str, ...], base: Mapping[str, str], transform: TagTransform
) -> None:
    assert merge(local, base, base, transform, local_wins=True) == local


@settings(max_examples=100)
@given(PAIRS, PAIRS, TRANSFORMS)
def test_tags_that_changed_only_there_become_the_remote_ones(
    base: Mapping[str, str], remote: Mapping[str, str], transform: TagTransform
) -> None:
    assert merge(flatten(base, transform), base, remote, transform, local_wins=True) == flatten(
        remote, transform
    )


@settings(max_examples=100)
@given(STRINGS, PAIRS, PAIRS)
def test_no_tag_of_a_person_is_lost_to_a_remote_change(
    local: tuple[str, ...], base: Mapping[str, str], remote: Mapping[str, str]
) -> None:
    own = set(local) - set(flatten(base, PLAIN))
    assert own <= set(merge(local, base, remote, PLAIN, local_wins=True))


@pytest.mark.parametrize(
    ("local_wins", "kept"), [(True, {"team": "here"}), (False, {"team": "there"})]
)
def test_field_that_changed_on_both_sides_follows_the_policy(
    local_wins: bool, kept: Mapping[str, str]
) -> None:
    merged = merge_fields({"team": "here"}, {"team": "x"}, {"team": "there"}, local_wins=local_wins)
    assert merged == kept


def test_field_that_is_removed_there_and_unchanged_here_is_removed() -> None:
    merged = merge_fields({"team": "x", "note": "mine"}, {"team": "x"}, {}, local_wins=False)
    assert merged == {"note": "mine"}


@settings(max_examples=100)
@given(PAIRS, PAIRS, PAIRS, st.booleans())
def test_merging_fields_twice_does_nothing_more(
    local: Mapping[str, str], base: Mapping[str, str], remote: Mapping[str, str], local_wins: bool
) -> None:
    once = merge_fields(local, base, remote, local_wins=local_wins)
    assert merge_fields(once, base, remote, local_wins=local_wins) == once
    assert merge_fields(once, remote, remote, local_wins=local_wins) == once


@settings(max_examples=100)
@given(PAIRS, PAIRS, PAIRS, st.booleans())
def test_field_that_changed_on_one_side_only_follows_that_side(
    local: Mapping[str, str], base: Mapping[str, str], remote: Mapping[str, str], local_wins: bool
) -> None:
    merged = merge_fields(local, base, remote, local_wins=local_wins)
    for key in {*local, *base, *remote}:
        if remote.get(key) == base.get(key):
            assert merged.get(key) == local.get(key)
        elif local.get(key) == base.get(key):
            assert merged.get(key) == remote.get(key)


@pytest.mark.parametrize(
    ("local_wins", "expected"), [(True, ("env=here", "mine")), (False, ("env=there", "mine"))]
)
def test_one_key_that_changed_on_both_sides_follows_the_side_that_wins(
    local_wins: bool, expected: tuple[str, ...]
) -> None:
    mine, base, theirs = ("env=here", "mine"), {"env": "prod"}, {"env": "there"}
    assert merge(mine, base, theirs, PLAIN, local_wins=local_wins) == expected


def test_tag_that_was_removed_on_one_side_and_changed_on_the_other_follows_the_side_that_wins() -> (
    None
):
    base, changed = {"env": "prod"}, {"env": "new"}
    assert merge((), base, changed, PLAIN, local_wins=True) == ()
    assert merge((), base, changed, PLAIN, local_wins=False) == ("env=new",)
    assert merge(("env=new",), base, {}, PLAIN, local_wins=True) == ("env=new",)
    assert merge(("env=new",), base, {}, PLAIN, local_wins=False) == ()
