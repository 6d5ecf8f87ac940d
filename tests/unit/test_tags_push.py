"""Do tags and custom metadata reach the backend's pairs, and only what changed here?"""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svsync.domain.federation import TagTransform
from svsync.domain.tags import (
    MANAGED,
    after_push,
    flatten,
    invertible,
    merge_fields,
    pairs_to_push,
    unflatten,
)

PLAIN = TagTransform()
ONE_WAY = TagTransform(format="{value}")
COLLIDING = TagTransform(rename={"a": "b"})
BASE = {"team": "x", "env": "dev"}
SHOWN = flatten(BASE, PLAIN)

KEYS = st.sampled_from(["a", "b", "c", MANAGED])
PAIRS = st.dictionaries(KEYS, st.sampled_from("xyz"), max_size=4)
FIELDS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3)
TRANSFORMS = st.sampled_from(
    [
        PLAIN,
        ONE_WAY,
        TagTransform(format="{value} of {key}"),
        TagTransform(exclude=("a",)),
        TagTransform(include=("b",)),
        TagTransform(rename={"a": "d"}),
        COLLIDING,
        TagTransform(drop=True),
    ]
)
OWN = st.sets(st.sampled_from(["mine", "a=b=c", "=x"]), max_size=2)


def push(
    tags: tuple[str, ...] = SHOWN,
    custom: Mapping[str, str] = BASE,
    remote: Mapping[str, str] = BASE,
    transform: TagTransform = PLAIN,
    *,
    local_wins: bool = True,
) -> dict[str, str] | None:
    return pairs_to_push(tags, custom, BASE, remote, transform, local_wins=local_wins)


def test_nothing_is_written_where_nothing_changed() -> None:
    assert push() is None


def test_nothing_is_written_where_only_the_backend_changed() -> None:
    assert push(remote={"team": "there", "more": "1"}) is None


@pytest.mark.parametrize(
    ("tags", "custom"),
    [
        (("env=dev", "owner=me", "team=x"), BASE),
        (SHOWN, {**BASE, "owner": "me"}),
        (("env=dev", "owner=me", "team=x"), {**BASE, "owner": "me"}),
    ],
)
def test_addition_in_tags_or_in_fields_is_an_addition(
    tags: tuple[str, ...], custom: Mapping[str, str]
) -> None:
    assert push(tags, custom) == {**BASE, "owner": "me"}


@pytest.mark.parametrize(
    ("tags", "custom"),
    [(("env=dev",), BASE), (SHOWN, {"env": "dev"}), (("env=dev",), {"env": "dev"})],
)
def test_removal_in_tags_or_in_fields_is_a_removal(
    tags: tuple[str, ...], custom: Mapping[str, str]
) -> None:
    assert push(tags, custom) == {"env": "dev"}


def test_field_wins_over_a_tag_that_contradicts_it() -> None:
    assert push(("env=dev", "team=z"), {**BASE, "team": "y"}) == {**BASE, "team": "y"}
    assert push(("env=dev",), {**BASE, "team": "y"}) == {**BASE, "team": "y"}
    assert push(("env=dev", "team=z"), {"env": "dev"}) == {"env": "dev"}


def test_what_the_backend_added_meanwhile_stays() -> None:
    pushed = push(("env=dev", "team=y"), remote={**BASE, "cost": "7"})
    assert pushed == {"env": "dev", "team": "y", "cost": "7"}


@pytest.mark.parametrize(("local_wins", "kept"), [(True, "here"), (False, "there")])
def test_key_that_changed_on_both_sides_follows_the_policy(local_wins: bool, kept: str) -> None:
    pushed = push(
        ("env=dev", "new=1", "team=here"), remote={**BASE, "team": "there"}, local_wins=local_wins
    )
    assert pushed == {"env": "dev", "team": kept, "new": "1"}


def test_hidden_pairs_and_the_mark_of_ownership_are_neither_taken_nor_made() -> None:
    remote = {**BASE, MANAGED: "true", "internal": "1"}
    transform = TagTransform(exclude=("internal",))
    tags = ("env=dev", f"{MANAGED}=false", "internal=9", "team=x")
    fields = {**BASE, MANAGED: "false", "internal": "9"}
    assert pairs_to_push(tags, fields, remote, remote, transform, local_wins=True) is None
    assert pairs_to_push((), {}, remote, remote, transform, local_wins=True) == {
        MANAGED: "true",
        "internal": "1",
    }


def test_mark_of_ownership_is_shown_nowhere_and_kept_on_the_way_back() -> None:
    remote = {"team": "x", MANAGED: "true"}
    assert flatten(remote, PLAIN) == ("team=x",)
    assert merge_fields({}, {}, remote, local_wins=False) == {"team": "x"}
    assert unflatten(["team=y"], remote, PLAIN) == {"team": "y", MANAGED: "true"}
    assert after_push(("team=x",), {"team": "x"}, {}, remote, PLAIN) == (
        ("team=x",),
        {"team": "x"},
    )


def test_tags_of_a_format_that_cannot_be_inverted_do_not_count() -> None:
    assert push(("nothing",), transform=ONE_WAY) is None
    assert push(("nothing",), {"team": "x"}, transform=ONE_WAY) == {"team": "x"}


def test_dropped_tags_leave_the_pairs_alone() -> None:
    assert push((), {"team": "y"}, transform=TagTransform(drop=True)) is None


def test_after_a_push_tags_and_fields_tell_the_same() -> None:
    tags, fields = after_push(
        ("mine", "env=dev", "owner=me", "team=x"),
        {**BASE, "team": "y"},
        BASE,
        {"env": "dev", "team": "y", "owner": "me", "cost": "7"},
        PLAIN,
    )
    assert tags == ("cost=7", "env=dev", "mine", "owner=me", "team=y")
    assert fields == {"env": "dev", "team": "y", "owner": "me", "cost": "7"}


@pytest.mark.parametrize(
    ("local_wins", "tag", "field"),
    [(True, ("team=newer",), {"team": "newer"}), (False, ("team=sent",), {"team": "sent"})],
)
def test_key_changed_again_during_the_push_stays_where_the_local_side_wins(
    local_wins: bool, tag: tuple[str, ...], field: Mapping[str, str]
) -> None:
    landed = after_push(
        ("team=newer",),
        {"team": "newer"},
        {"team": "x"},
        {"team": "sent"},
        PLAIN,
        local_wins=local_wins,
    )
    assert landed == (tag, field)


def _local(
    base: Mapping[str, str], fields: Mapping[str, str], by_tags: bool, transform: TagTransform
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Local tags and fields once somebody made `fields` of what base shows, by one of both."""
    shown = {key: value for key, value in base.items() if key != MANAGED}
    if by_tags:
        return flatten(fields, transform), shown
    return flatten(base, transform), dict(fields)


@settings(max_examples=200, deadline=None)
@given(PAIRS, FIELDS, OWN, st.booleans(), PAIRS, TRANSFORMS, st.booleans())
def test_nothing_that_the_backend_changed_is_lost_but_to_the_policy(
    base: dict[str, str],
    fields: dict[str, str],
    own: set[str],
    by_tags: bool,
    remote: dict[str, str],
    transform: TagTransform,
    local_wins: bool,
) -> None:
    tags, custom = _local(base, fields, by_tags, transform)
    tags = (*tags, *sorted(own))
    pushed = pairs_to_push(tags, custom, base, remote, transform, local_wins=local_wins)
    if pushed is None:
        return
    assert pushed != remote
    for key in {*base, *remote, *pushed}:
        changed_there = remote.get(key) != base.get(key)
        changed_here = by_tags or custom.get(key) != base.get(key)
        if key == MANAGED or (changed_there and not (changed_here and local_wins)):
            assert pushed.get(key) == remote.get(key)


@settings(max_examples=200, deadline=None)
@given(PAIRS, PAIRS, TRANSFORMS, st.booleans())
def test_what_is_shown_unchanged_writes_nothing(
    base: dict[str, str], remote: dict[str, str], transform: TagTransform, local_wins: bool
) -> None:
    shown = {key: value for key, value in base.items() if key != MANAGED}
    tags = flatten(base, transform)
    assert pairs_to_push(tags, shown, base, remote, transform, local_wins=local_wins) is None


@settings(max_examples=300, deadline=None)
@given(PAIRS, FIELDS, OWN, st.booleans(), PAIRS, TRANSFORMS, st.booleans())
def test_once_landed_there_is_nothing_more_to_write(
    base: dict[str, str],
    fields: dict[str, str],
    own: set[str],
    by_tags: bool,
    remote: dict[str, str],
    transform: TagTransform,
    local_wins: bool,
) -> None:
    tags, custom = _local(base, fields, by_tags, transform)
    tags = (*tags, *sorted(own))
    pushed = pairs_to_push(tags, custom, base, remote, transform, local_wins=local_wins)
    landed = dict(remote) if pushed is None else pushed
    after = after_push(tags, custom, base, landed, transform, local_wins=local_wins)
    if transform == COLLIDING:
        # A string that asked for the key of another one may ask alone now.
        again = pairs_to_push(*after, landed, landed, transform, local_wins=local_wins)
        if again is not None:
            after = after_push(*after, landed, again, transform, local_wins=local_wins)
            landed = again
    assert pairs_to_push(*after, landed, landed, transform, local_wins=local_wins) is None
    assert own <= set(after[0])
    if invertible(transform):
        assert set(flatten(landed, transform)) <= set(after[0])
    assert after_push(*after, landed, landed, transform, local_wins=local_wins) == after
