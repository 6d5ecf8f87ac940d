"""Do two backends claim one path, and can each rule ever match?"""

import pytest

from svsync.domain.errors import MappingError
from svsync.domain.federation import RuleSpec
from svsync.domain.languages import Budget, UndecidedError, find_path
from svsync.domain.mapping import RuleSet
from svsync.domain.mapping_lint import lint, overlap
from svsync.domain.paths import LOCAL_ALPHABET, local_problem
from svsync.domain.patterns import Pattern


def claiming(*locals_: str | RuleSpec) -> RuleSet:
    """Rules with these local sides; the remote sides do not matter."""
    return RuleSet.compile(
        [
            one if isinstance(one, RuleSpec) else RuleSpec(one, f"kv/{number}/{one}")
            for number, one in enumerate(locals_)
        ]
    )


def exclude(local: str = "", remote: str = "") -> RuleSpec:
    return RuleSpec(local, remote, exclude=True)


# --- overlap --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "witness"),
    [
        ("a/**", "a/**", "a/a"),
        ("a/**", "a/b/c", "a/b/c"),
        ("a/**", "**/z", "a/z"),
        ("a/*/c", "a/b/*", "a/b/c"),
        ("db-*", "*-main", "db-main"),
        ("db-*a", "*-ab*", "db-aba"),
        ("a/{x}/**", "a/**/{y}", "a/a/a"),
        ("**/x/**/y", "**/y/**/x/*", "a/y/a/x/y"),
    ],
)
def test_two_rules_that_can_match_one_path_are_shown_it(
    left: str, right: str, witness: str
) -> None:
    found = overlap(claiming(left), claiming(right))
    assert found is not None
    assert len(found) == len(witness)
    for pattern in (left, right):
        assert Pattern.parse(pattern).read(found.split("/")) is not None
    assert local_problem(found) is None


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("a/**", "b/**"),
        ("a/*", "a/*/*"),
        ("a/**", "a"),
        ("db-*", "dbx*"),
        ("a/*x", "a/*y"),
        ("a/*/*", "a/*"),
        (".*", "x*"),
    ],
)
def test_rules_that_share_no_path_do_not_overlap(left: str, right: str) -> None:
    assert overlap(claiming(left), claiming(right)) is None


def test_a_path_that_could_not_exist_is_no_overlap() -> None:
    found = overlap(claiming(".*"), claiming("*."))
    assert found is not None  # the shortest that both match would be ".."
    assert len(found) == 3
    found = overlap(claiming(".*/x"), claiming("*./x"))
    assert found is not None
    assert len(found) == 5
    long = "a" * 300
    assert overlap(claiming(f"{long}*"), claiming(f"*{long}")) == "a" * 301
    assert overlap(claiming(f"{'a' * 300}*"), claiming(f"*{'b' * 300}")) is None


def test_every_rule_of_both_sets_is_compared() -> None:
    left = claiming("a/**", "b/**", "c/x/**")
    right = claiming("d/**", "c/*/y")
    assert overlap(left, right) == "c/x/y"
    assert overlap(right, left) == "c/x/y"


def test_a_subtree_excluded_here_may_be_mapped_there() -> None:
    moved = claiming(exclude("ext/team/**"), "ext/**")
    assert overlap(moved, claiming("ext/team/**")) is None
    assert overlap(claiming("ext/team/**"), moved) is None
    assert overlap(moved, claiming("ext/**")) is not None


def test_an_exclude_that_comes_later_excludes_nothing() -> None:
    assert (
        overlap(claiming("ext/**", exclude("ext/team/**")), claiming("ext/team/x")) == "ext/team/x"
    )


def test_the_path_shown_is_not_an_excluded_one() -> None:
    left = claiming(exclude("ext/a*/**"), exclude("ext/*/a"), "ext/**")
    found = overlap(left, claiming(exclude("ext/b"), "ext/**"))
    assert found is not None
    assert not found.startswith("ext/a")
    assert found != "ext/b"


def test_a_path_is_found_where_excludes_name_every_character_it_could_hold() -> None:
    others = LOCAL_ALPHABET.replace("Z", "").replace(".", "")
    named = [exclude(f"ext/{char}{star}") for char in others for star in ("", "*")]
    left = claiming(*named, exclude("ext/.*"), exclude("ext/Z"), "ext/*")
    found = overlap(left, claiming("ext/*"))
    assert found is not None
    assert found.startswith("ext/Z")


def test_several_excludes_may_cover_a_rule_together() -> None:
    left = claiming(exclude("ext/x/*"), exclude("ext/x/**/*/*"), exclude("ext/x/*/*"), "ext/**")
    assert overlap(left, claiming("ext/x/**")) is None


def test_a_remote_exclude_counts_where_the_rule_only_changes_the_beginning() -> None:
    left = RuleSet.compile([exclude(remote="kv/data/team/**"), RuleSpec("ext/**", "kv/data/**")])
    assert overlap(left, claiming("ext/team/**")) is None
    assert overlap(left, claiming("ext/teams/x")) == "ext/teams/x"


def test_a_remote_exclude_with_another_separator_is_another_set_of_names() -> None:
    rule = RuleSpec("ext/**", "**", separator="--")
    for separator, expected in (("--", None), ("..", "ext/team/x")):
        team = RuleSpec("", "team/**", exclude=True, separator=separator)
        left = RuleSet.compile([team, rule], separator=None)
        assert overlap(left, claiming("ext/team/x")) == expected


def test_a_remote_exclude_before_any_other_rule_is_not_relied_on() -> None:
    left = RuleSet.compile([exclude(remote="kv/data/*/x"), RuleSpec("ext/*/*", "kv/data/*/*")])
    assert overlap(left, claiming("ext/a/x")) == "ext/a/x"


def test_rules_too_entangled_to_compare_are_refused_and_not_waved_through() -> None:
    # Together these leave nothing out of it, but which one applies depends on how
    # the twelfth segment from the end begins, and a search has to try them all.
    excludes = [exclude(f"ext/**/{char}*{'/*' * 12}") for char in LOCAL_ALPHABET]
    left = claiming(*excludes, "ext/**")
    with pytest.raises(MappingError, match="too entangled") as caught:
        overlap(left, claiming(f"ext/**/b*{'/*' * 12}"))
    assert caught.value.where == f"path_mapping[{len(excludes)}]"


def test_a_search_stops_when_its_budget_is_spent() -> None:
    with pytest.raises(UndecidedError):
        find_path([Pattern.parse("aaaa")], [], budget=Budget(10), max_length=9)
    assert find_path([Pattern.parse("aaaa")], [], budget=Budget(20), max_length=9) == "aaaa"


# --- lint -----------------------------------------------------------------------


def test_rules_that_can_all_match_have_no_findings() -> None:
    rules = RuleSet.compile(
        [
            exclude(remote="kv/data/tmp/**"),
            RuleSpec("special/db", "kv/data/app/db"),
            RuleSpec("apps/**", "kv/data/app/**"),
            RuleSpec("rest/**", "kv/data/**"),
        ]
    )
    assert lint(rules) == []


def test_a_rule_behind_a_wider_remote_side_is_found() -> None:
    rules = RuleSet.compile([RuleSpec("a/**", "kv/data/**"), RuleSpec("b/*", "kv/data/db-*")])
    (finding,) = lint(rules)
    assert (finding.rule, finding.side, finding.covered_by) == (1, "remote", (0,))
    assert finding.sentence == (
        "path_mapping[1] (b/* <-> kv/data/db-*) can never match: every remote path it could "
        "claim is claimed first by path_mapping[0] (a/** <-> kv/data/**); move it up or remove it"
    )


def test_a_rule_behind_a_wider_local_side_is_found() -> None:
    rules = RuleSet.compile([RuleSpec("a/**", "kv/one/**"), RuleSpec("a/b/**", "kv/two/**")])
    assert [(one.rule, one.side) for one in lint(rules)] == [(1, "local")]


def test_a_rule_behind_an_exclude_of_all_it_maps_is_found() -> None:
    rules = RuleSet.compile([exclude("a/**"), RuleSpec("a/b/*", "kv/data/*")])
    assert [one.rule for one in lint(rules)] == [1]


def test_a_rule_that_only_several_earlier_ones_cover_together_is_found() -> None:
    rules = RuleSet.compile(
        [
            RuleSpec("x/*", "kv/*"),
            RuleSpec("y/**", "other/**"),
            RuleSpec("z/*/**", "kv/*/**"),
            RuleSpec("all/**", "kv/**"),
        ]
    )
    (finding,) = lint(rules)
    assert (finding.rule, finding.covered_by) == (3, (0, 2))


def test_an_exclude_is_found_only_when_both_of_its_sides_are_covered() -> None:
    wide = RuleSpec("a/**", "kv/data/**")
    assert lint(RuleSet.compile([wide, exclude("a/x", "kv/other/x")])) == []
    findings = lint(RuleSet.compile([wide, exclude("a/x", "kv/data/x")]))
    assert [one.rule for one in findings] == [1]


def test_rules_with_different_separators_are_not_compared_by_name() -> None:
    rules = RuleSet.compile(
        [RuleSpec("a/**", "**", separator="--"), RuleSpec("b/**", "**", separator="..")],
        separator=None,
    )
    assert lint(rules) == []
