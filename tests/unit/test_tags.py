"""Do key/value tags become strings as configured, and do they find the way back?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svsync.domain.federation import TagTransform
from svsync.domain.tags import flatten, format_problem, invertible, tag_problem, unflatten

PLAIN = TagTransform()


def test_tags_become_sorted_key_value_strings() -> None:
    assert flatten({"team": "billing", "env": "prod"}, PLAIN) == ("env=prod", "team=billing")


def test_equal_strings_are_told_once() -> None:
    transform = TagTransform(format="{value}")
    assert flatten({"a": "x", "b": "x", "c": "w"}, transform) == ("w", "x")


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (TagTransform(format="{key}:{value}"), ("env:prod", "team:b")),
        (TagTransform(include=("env",)), ("env=prod",)),
        (TagTransform(include=()), ()),
        (TagTransform(exclude=("env",)), ("team=b",)),
        (TagTransform(rename={"env": "stage"}), ("stage=prod", "team=b")),
        (TagTransform(drop=True), ()),
    ],
)
def test_the_transform_is_applied(transform: TagTransform, expected: tuple[str, ...]) -> None:
    assert flatten({"env": "prod", "team": "b"}, transform) == expected


def test_a_value_that_looks_like_a_placeholder_is_text() -> None:
    assert flatten({"k": "{key}"}, PLAIN) == ("k={key}",)
    assert flatten({"{value}": "v"}, PLAIN) == ("{value}=v",)


def test_a_string_from_a_pair_goes_back_to_that_pair() -> None:
    base = {"a": "b=c", "x=y": "z"}
    assert unflatten(flatten(base, PLAIN), base, PLAIN) == base


def test_an_ambiguous_string_that_no_pair_made_is_not_written_back() -> None:
    assert unflatten(["a=b=c", "plain", "=v"], {}, PLAIN) == {}


def test_a_new_string_that_splits_one_way_is_written_back() -> None:
    assert unflatten(["team=x", "env="], {}, PLAIN) == {"team": "x", "env": ""}


def test_a_removed_string_removes_its_pair_and_a_changed_one_changes_it() -> None:
    base = {"a": "1", "b": "2"}
    assert unflatten(["a=9"], base, PLAIN) == {"a": "9"}


def test_two_new_strings_for_one_key_are_not_written_back() -> None:
    assert unflatten(["a=1", "a=2"], {}, PLAIN) == {}
    assert unflatten(["a=1", "a=2"], {"a": "1"}, PLAIN) == {"a": "1"}


def test_pairs_that_are_not_shown_are_left_alone() -> None:
    transform = TagTransform(exclude=("internal",))
    assert unflatten([], {"internal": "1", "a": "2"}, transform) == {"internal": "1"}
    assert unflatten(["internal=9"], {"internal": "1"}, transform) == {"internal": "1"}


def test_a_renamed_key_finds_its_own_name_again() -> None:
    transform = TagTransform(rename={"Environment": "env"})
    assert unflatten(["env=prod"], {"Environment": "test"}, transform) == {"Environment": "prod"}
    assert unflatten(["env=prod"], {"env": "test"}, transform) == {"env": "prod"}
    assert unflatten(["env=prod"], {}, transform) == {"Environment": "prod"}
    assert unflatten(["Environment=prod"], {}, transform) == {}


def test_the_value_may_stand_before_the_key() -> None:
    transform = TagTransform(format="<{value} of {key}>")
    assert unflatten(["<prod of env>"], {}, transform) == {"env": "prod"}
    assert unflatten(["prod of env"], {}, transform) == {}


@pytest.mark.parametrize(
    "transform",
    [
        TagTransform(drop=True),
        TagTransform(format="{value}"),
        TagTransform(format="{key}{value}"),
        TagTransform(format="{key}={value}={key}"),
        TagTransform(rename={"a": "c", "b": "c"}),
    ],
)
def test_a_format_that_cannot_be_inverted_says_so(transform: TagTransform) -> None:
    assert not invertible(transform)
    assert unflatten(["a=1"], {"a": "1"}, transform) is None


@pytest.mark.parametrize("text", ["{key}={value}", "{value}", "tag"])
def test_a_format_is_usable_when_it_holds_a_placeholder(text: str) -> None:
    assert (format_problem(text) is None) == ("{" in text)


@pytest.mark.parametrize("text", ["{key}={val}", "{key}={value!r}", "{key}}", "{key}\n{value}"])
def test_a_format_with_anything_else_is_refused(text: str) -> None:
    assert format_problem(text) is not None


@pytest.mark.parametrize("bad", ["\x00", "\n", "\x1b", "\x7f", "\x9b", "\ud800"])
def test_tags_that_cannot_be_stored_are_named_without_their_value(bad: str) -> None:
    sentence = tag_problem({"fine": "x", "owner": f"hidden{bad}"})
    assert sentence is not None
    assert "value of tag 'owner'" in sentence
    assert f"U+{ord(bad):04X} at offset 6" in sentence
    assert "hidden" not in sentence
    sentence = tag_problem({f"k{bad}": "x"})
    assert sentence is not None
    sentence.encode()


def test_ordinary_tags_have_no_problem() -> None:
    assert tag_problem({"team": "Zahlungsverkehr \u00e9 \U0001f511", "": ""}) is None


TEXT = st.text(alphabet="ab=:", max_size=4)
PAIRS = st.dictionaries(TEXT, TEXT, max_size=4)
TRANSFORMS = st.builds(
    TagTransform,
    format=st.sampled_from(["{key}={value}", "{key}::{value}", "a{value}={key}b"]),
    include=st.none() | st.lists(TEXT, max_size=3).map(tuple),
    exclude=st.lists(TEXT, max_size=2).map(tuple),
    rename=st.dictionaries(TEXT, TEXT, max_size=2),
)


@settings(max_examples=150, deadline=None)
@given(base=PAIRS, transform=TRANSFORMS)
def test_unchanged_strings_leave_the_backends_pairs_unchanged(
    base: dict[str, str], transform: TagTransform
) -> None:
    back = unflatten(flatten(base, transform), base, transform)
    assert back is None or back == base


@settings(max_examples=150, deadline=None)
@given(base=PAIRS, strings=st.sets(TEXT, max_size=4), transform=TRANSFORMS)
def test_what_is_written_back_shows_no_string_that_nobody_asked_for(
    base: dict[str, str], strings: set[str], transform: TagTransform
) -> None:
    back = unflatten(strings, base, transform)
    if back is not None:
        assert set(flatten(back, transform)) <= strings
        hidden = {key: value for key, value in base.items() if not flatten({key: value}, transform)}
        assert hidden.items() <= back.items()
