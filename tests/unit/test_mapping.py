"""Which path maps to which, and what is said where there is no counterpart?"""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from svsync.domain.errors import MappingError
from svsync.domain.federation import (
    ConflictPolicy,
    Mode,
    Overrides,
    RuleSpec,
    TagTransform,
)
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.mapping import Mapped, RuleSet, Unmapped
from svsync.domain.runs import SkipReason

GUIDE = RuleSpec("external/hashicorp/**", "kv/data/**")


def compiled(*rules: RuleSpec | tuple[str, str]) -> RuleSet:
    return RuleSet.compile(
        [rule if isinstance(rule, RuleSpec) else RuleSpec(*rule) for rule in rules]
    )


def azure(*rules: RuleSpec) -> RuleSet:
    return RuleSet.compile(
        rules, separator=None, segment="[0-9A-Za-z-]+", case_sensitive=False, max_name=127
    )


def local_of(rules: RuleSet, remote: str) -> str:
    outcome = rules.to_local(RemotePath(remote))
    return outcome.local if isinstance(outcome, Mapped) else outcome.reason


def remote_of(rules: RuleSet, local: str) -> str:
    outcome = rules.to_remote(LocalPath(local))
    return outcome.remote if isinstance(outcome, Mapped) else outcome.reason


def refused(rules: RuleSet, remote: str) -> Unmapped:
    outcome = rules.to_local(RemotePath(remote))
    assert isinstance(outcome, Unmapped)
    return outcome


# --- wildcards ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local", "remote", "local_path", "remote_path"),
    [
        ("external/hashicorp/**", "kv/data/**", "external/hashicorp/a/b", "kv/data/a/b"),
        ("**", "kv/data/**", "a", "kv/data/a"),
        ("x/*", "kv/data/*", "x/a", "kv/data/a"),
        ("db/*", "kv/data/db-*", "db/main", "kv/data/db-main"),
        ("x/*/y/*", "kv/data/*/*", "x/1/y/2", "kv/data/1/2"),
        ("x/*-*.*", "kv/data/*/*/*", "x/a-b.c", "kv/data/a/b/c"),
        ("x/**/y/*", "kv/data/*/**", "x/a/b/y/c", "kv/data/c/a/b"),
        ("{env}/{app}/db", "kv/data/{app}/db-{env}", "prod/billing/db", "kv/data/billing/db-prod"),
        (
            "environments/production/billing",
            "kv/data/b",
            "environments/production/billing",
            "kv/data/b",
        ),
    ],
)
def test_wildcards_are_matched_up_by_kind_position_and_name(
    local: str, remote: str, local_path: str, remote_path: str
) -> None:
    rules = compiled((local, remote))
    assert local_of(rules, remote_path) == local_path
    assert remote_of(rules, local_path) == remote_path


@pytest.mark.parametrize(
    ("local", "remote", "path"),
    [
        ("x/*", "kv/data/*", "kv/data/a/b"),
        ("x/*", "kv/data/*", "kv/data"),
        ("x/*", "kv/data/db-*", "kv/data/db-"),
        ("x/**", "kv/data/**", "kv/data"),
        ("x/**", "kv/data/**", "kv/database/x"),
        ("x/**", "kv/data/**/x", "kv/data/x"),
        ("x/*/*", "kv/*a*a", "kv/aa"),
        ("x/*/*", "kv/*a*", "kv/ba"),
        ("x/**/y/**", "kv/**/x/**", "kv/a/x"),
    ],
)
def test_a_wildcard_never_holds_nothing(local: str, remote: str, path: str) -> None:
    assert local_of(compiled((local, remote)), path) == "unmapped"


def test_captures_are_told_in_the_order_of_the_local_pattern() -> None:
    outcome = compiled(("{env}/**/*", "kv/data/*/{env}/**")).to_local(
        RemotePath("kv/data/z/prod/a/b")
    )
    assert isinstance(outcome, Mapped)
    assert outcome.captures == (("{env}", "prod"), ("**", "a/b"), ("*", "z"))
    assert outcome.rule == 0


def test_the_first_rule_that_matches_wins_in_both_directions() -> None:
    rules = compiled(("special/db", "kv/data/app/db"), ("apps/**", "kv/data/app/**"))
    assert local_of(rules, "kv/data/app/db") == "special/db"
    assert local_of(rules, "kv/data/app/web") == "apps/web"
    assert remote_of(rules, "special/db") == "kv/data/app/db"


# --- what is not federated ------------------------------------------------------


def test_a_path_outside_every_rule_is_unmapped() -> None:
    assert local_of(compiled(GUIDE), "other/data/a") == "unmapped"
    assert remote_of(compiled(GUIDE), "team/a") == "unmapped"


@pytest.mark.parametrize(
    "exclude",
    [
        RuleSpec("", "kv/data/tmp/**", exclude=True),
        RuleSpec("external/hashicorp/tmp/**", exclude=True),
        RuleSpec("external/hashicorp/tmp/**", "kv/data/tmp/*", exclude=True),
    ],
)
def test_an_exclude_stops_the_search_whichever_side_it_names(exclude: RuleSpec) -> None:
    rules = compiled(exclude, GUIDE)
    assert local_of(rules, "kv/data/tmp/a") == "excluded"
    assert remote_of(rules, "external/hashicorp/tmp/a") == "excluded"
    assert local_of(rules, "kv/data/tmpx/a") == "external/hashicorp/tmpx/a"


def test_an_exclude_does_not_take_what_an_earlier_rule_claims() -> None:
    rules = compiled(
        ("keep/**", "kv/data/tmp/keep/**"), RuleSpec("", "kv/data/tmp/**", exclude=True), GUIDE
    )
    assert local_of(rules, "kv/data/tmp/keep/a") == "keep/a"
    assert local_of(rules, "kv/data/tmp/a") == "excluded"


def test_a_path_whose_counterpart_an_earlier_rule_claims_is_shadowed() -> None:
    rules = compiled(("a/**", "kv/data/one/**"), ("a/**", "kv/data/two/**"))
    assert local_of(rules, "kv/data/one/x") == "a/x"
    outcome = refused(rules, "kv/data/two/x")
    assert outcome.reason is SkipReason.SHADOWED
    assert (outcome.rule, outcome.claimed_by) == (1, 0)
    assert "path_mapping[0] (a/** <-> kv/data/one/**) claims first" in outcome.detail


def test_a_local_path_whose_remote_name_an_earlier_rule_claims_is_shadowed() -> None:
    rules = compiled(("special/db", "kv/data/app/db"), ("apps/**", "kv/data/app/**"))
    assert remote_of(rules, "apps/db") == "shadowed"


def test_two_remote_paths_with_one_local_path_collide_and_neither_is_federated() -> None:
    rules = compiled(("x/*-*", "kv/data/*/*"))
    assert local_of(rules, "kv/data/a-b/c") == "collision"
    assert local_of(rules, "kv/data/a/b-c") == "collision"
    assert local_of(rules, "kv/data/a/b") == "x/a-b"


def test_two_local_paths_with_one_remote_path_federate_the_one_that_is_read_back() -> None:
    rules = compiled(("x/*/*", "kv/data/*-*"))
    assert local_of(rules, "kv/data/a-b-c") == "x/a/b-c"
    assert remote_of(rules, "x/a/b-c") == "kv/data/a-b-c"
    assert remote_of(rules, "x/a-b/c") == "collision"


def test_a_repeated_folder_name_between_two_double_stars_collides() -> None:
    rules = compiled(("t/**/prod/**", "kv/data/**/production/**"))
    assert local_of(rules, "kv/data/a/production/b") == "t/a/prod/b"
    assert local_of(rules, "kv/data/a/prod/production/b") == "collision"


def test_an_illegal_remote_path_is_listed_with_the_character_and_its_place() -> None:
    outcome = refused(compiled(GUIDE), "kv/data/we ird")
    assert outcome.reason is SkipReason.ILLEGAL_PATH
    assert outcome.problem is not None
    assert (outcome.problem.character, outcome.problem.position) == (" ", 10)
    assert "' ' at offset 10" in outcome.detail


@pytest.mark.parametrize(
    "path",
    [
        "kv/data/../sys",
        "kv/data/a//b",
        "kv/data/",
        "kv/data/a\x00",
        "kv/data/%2e%2e/x",
        "kv/data/\udc80",
    ],
)
@pytest.mark.parametrize("escape", [False, True])
def test_no_hostile_name_maps_to_anything(path: str, escape: bool) -> None:
    outcome = refused(compiled(RuleSpec("e/**", "kv/data/**", escape=escape)), path)
    assert outcome.reason is SkipReason.ILLEGAL_PATH
    outcome.detail.encode()


def test_a_local_path_that_would_be_too_long_is_illegal() -> None:
    rules = compiled(GUIDE)
    assert local_of(rules, "kv/data/" + "a" * 493) == "external/hashicorp/" + "a" * 493
    assert local_of(rules, "kv/data/" + "a" * 494) == "illegal_path"


def test_a_name_longer_than_the_backend_takes_is_not_sent() -> None:
    rules = RuleSet.compile([RuleSpec("a/**", "b/**")], max_name=10)
    assert remote_of(rules, "a/12345678") == "b/12345678"
    assert remote_of(rules, "a/123456789") == "name_not_allowed"
    assert local_of(rules, "b/123456789") == "name_not_allowed"


def test_a_name_is_measured_in_bytes_also_where_only_the_rule_is_not_ascii() -> None:
    rules = RuleSet.compile([RuleSpec("a/**", "\u00e9/**")], max_name=10)
    assert local_of(rules, "\u00e9/1234567") == "a/1234567"
    assert local_of(rules, "\u00e9/12345678") == "name_not_allowed"


def test_a_name_outside_the_backends_alphabet_is_not_sent() -> None:
    rules = RuleSet.compile([RuleSpec("a/**", "b/**")], segment="[a-z]+")
    assert remote_of(rules, "a/x") == "b/x"
    assert remote_of(rules, "a/x.y") == "name_not_allowed"


def test_a_batch_answers_each_path_in_order() -> None:
    rules = compiled(GUIDE)
    paths = [RemotePath(text) for text in ("kv/data/b", "other", "kv/data/a b", "kv/data/a")]
    assert rules.map_batch(paths) == [rules.to_local(path) for path in paths]


# --- transform: separator -------------------------------------------------------


def test_a_separator_stands_for_the_slash_both_ways() -> None:
    rules = azure(RuleSpec("external/azure/**", "prod--**", separator="--"))
    assert local_of(rules, "prod--billing--db") == "external/azure/billing/db"
    assert remote_of(rules, "external/azure/billing/db") == "prod--billing--db"


def test_the_remote_side_may_be_written_with_slashes_too() -> None:
    rules = azure(RuleSpec("external/azure/**", "prod/**", separator="--"))
    assert local_of(rules, "prod--billing--db") == "external/azure/billing/db"


@pytest.mark.parametrize("name", ["a---b", "a--", "--a", "a----b", "a--b---c", "a-----b"])
def test_a_name_that_comes_apart_in_two_ways_is_refused(name: str) -> None:
    rules = azure(RuleSpec("external/azure/**", "**", separator="--"))
    assert local_of(rules, name) == "ambiguous_separator"


@pytest.mark.parametrize("path", ["a--b", "a-/b", "a/-b", "a/b--", "-/a", "a--b/c"])
def test_a_local_path_that_would_not_come_apart_again_is_refused(path: str) -> None:
    rules = azure(RuleSpec("external/azure/**", "**", separator="--"))
    assert remote_of(rules, f"external/azure/{path}") == "ambiguous_separator"


def test_a_separator_that_overlaps_itself_in_the_middle_is_ambiguous() -> None:
    rules = RuleSet.compile([RuleSpec("e/**", "**", separator="aba")], separator=None)
    assert local_of(rules, "xabay") == "e/x/y"
    assert local_of(rules, "xabababay") == "ambiguous_separator"


def test_a_flat_store_without_a_separator_takes_one_segment() -> None:
    rules = azure(RuleSpec("external/azure/**", "**"))
    assert local_of(rules, "db-main") == "external/azure/db-main"
    assert remote_of(rules, "external/azure/billing/db") == "name_not_allowed"


# --- transform: escape ----------------------------------------------------------


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        ("kv/data/we ird/a?b#c", "e/we_x20ird/a_x3Fb_x23c"),
        ("kv/data/\u00e9", "e/_xC3_xA9"),
        ("kv/data/_x20", "e/_x5Fx20"),
        ("kv/data/_x5Fx20", "e/_x5Fx5Fx20"),
        ("kv/data/plain_name-1", "e/plain_name-1"),
        ("kv/data/__x2g_X20", "e/__x2g_X20"),
    ],
)
def test_an_escape_makes_every_remote_name_legal_and_is_undone(remote: str, local: str) -> None:
    rules = compiled(RuleSpec("e/**", "kv/data/**", escape=True))
    assert local_of(rules, remote) == local
    assert remote_of(rules, local) == remote


def test_what_only_looks_escaped_has_no_counterpart() -> None:
    rules = compiled(RuleSpec("e/**", "kv/data/**", escape=True))
    for text in ("_x41", "_xC3", "_xE9", "a_x2Fb"):
        assert remote_of(rules, f"e/{text}") == "illegal_path"


def test_an_escape_never_brings_a_control_character_to_the_backend() -> None:
    rules = compiled(RuleSpec("e/**", "kv/data/**", escape=True))
    for text in ("_x00", "_x5C", "_x0A", "_x252e", "e_xCC_x81"):
        assert remote_of(rules, f"e/{text}") == "illegal_path"


def test_what_the_backend_forbids_is_escaped_on_the_way_out() -> None:
    rules = azure(RuleSpec("external/azure/**", "**", separator="--", escape=True))
    assert remote_of(rules, "external/azure/app/d_b.main") == "app--d-x5Fb-x2Emain"
    assert local_of(rules, "app--d-x5Fb-x2Emain") == "external/azure/app/d_b.main"
    assert local_of(rules, "app--my-secret") == "external/azure/app/my-secret"
    assert local_of(rules, "app--a-x41") == "illegal_path"


# --- rules that are refused -----------------------------------------------------


@pytest.mark.parametrize(
    ("local", "remote", "where", "sentence"),
    [
        ("", "kv/**", "", "no local side"),
        ("a/**", "", "", "no remote side"),
        ("a/*", "kv/**", "", r"\* on the local side only and \*\* on the remote side only"),
        ("a/*/*", "kv/*", "", r"\*2 on the local side only"),
        ("a/{x}", "kv/{y}", "", r"\{x\} on the local side only and \{y\} on the remote"),
        ("a/{x}", "kv/*", "", "same wildcards"),
        ("a/**/**", "kv/**", ".local", "side by side"),
        ("a/**", "kv/x**", ".remote", "whole segments"),
        ("a/***", "kv/***", ".local", "whole segments"),
        ("a/{}", "kv/{}", ".local", "braces that hold no name"),
        ("a/{a-b}", "kv/*", ".local", "braces that hold no name"),
        ("a/{x", "kv/*", ".local", "braces that hold no name"),
        ("a/{x}/{x}", "kv/*/*", ".local", r"\{x\} stands twice"),
        ("a/*{x}", "kv/*{x}", ".local", "two wildcards stand side by side"),
        ("a/../**", "kv/**", ".local", r"a segment '\.\.'"),
        ("a/**", "kv/./**", ".remote", r"a segment '\.'"),
        ("/a/**", "kv/**", ".local", "empty segment"),
        ("a/**", "kv/**/", ".remote", "empty segment"),
        ("a/*.*.*.*.*", "kv/*.*.*.*.*", ".local", "at most 4 a segment"),
        ("a/" + "b" * 511, "kv/b", ".local", "at most 512"),
        ("a b/**", "kv/**", ".local", "' ' at offset 1"),
        ("a\u0430/**", "kv/**", ".local", r"U\+0430"),
        ("a/**", "kv/%2e%2e/**", ".remote", "%2e"),
        ("a/**", "kv\\data/**", ".remote", "offset 2"),
        ("a/**", "kv/\ud800/**", ".remote", r"U\+D800"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_place_and_reason(
    local: str, remote: str, where: str, sentence: str
) -> None:
    with pytest.raises(MappingError, match=sentence) as caught:
        compiled(GUIDE, (local, remote))
    assert caught.value.where == f"path_mapping[1]{where}"
    assert caught.value.code == "invalid_mapping"


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (RuleSpec("a/**", "x/**"), "set transform.separator"),
        (RuleSpec("a/**", "**", separator=""), "one or more characters"),
        (RuleSpec("a/**", "**", separator="/"), "one or more characters"),
        (RuleSpec("a/**", "**", separator="*"), "one or more characters"),
        (RuleSpec("a/**", "**", separator="_"), "the separator cannot be used"),
        (RuleSpec("a/**", "x-/**", separator="--"), "makes every name ambiguous"),
        (RuleSpec("a/**", "prod---**", separator="--"), "whole segments"),
        (RuleSpec("a/*", "prod.*"), "no name of this backend can look like this: '\\.'"),
        (RuleSpec("a/*", "x" * 127 + "*"), "at most 127"),
    ],
)
def test_a_rule_that_a_flat_store_cannot_hold_is_refused(rule: RuleSpec, sentence: str) -> None:
    with pytest.raises(MappingError, match=sentence):
        azure(rule)


def test_a_separator_is_refused_where_names_have_one() -> None:
    with pytest.raises(MappingError, match="names have '/' already") as caught:
        compiled(RuleSpec("a/**", "kv/**", separator="--"))
    assert caught.value.where == "path_mapping[0].transform.separator"


def test_an_escape_is_refused_where_nothing_can_write_it() -> None:
    with pytest.raises(MappingError, match="lack the characters"):
        RuleSet.compile([RuleSpec("a/**", "kv/**", escape=True)], segment="[a-z]+")


def test_an_exclude_without_a_pattern_is_refused() -> None:
    with pytest.raises(MappingError, match="a local or a remote pattern"):
        compiled(RuleSpec("", exclude=True))


def test_rules_that_differ_in_case_only_are_refused_where_case_is_ignored() -> None:
    rules = [RuleSpec("a/*", "Db-*"), RuleSpec("b/*", "db-*")]
    with pytest.raises(MappingError, match="in case only"):
        azure(*rules)
    RuleSet.compile(rules, separator=None)


# --- what the client asks -------------------------------------------------------


@pytest.mark.parametrize(
    ("remotes", "prefixes"),
    [
        (["kv/data/**"], ("kv/data/",)),
        (["kv/data/db-*"], ("kv/data/",)),
        (["kv/data/app/config"], ("kv/data/app/",)),
        (["kv/data/a/**", "kv/data/**", "old/**"], ("kv/data/", "old/")),
        (["kv/data/ab/**", "kv/data/a/**"], ("kv/data/a/", "kv/data/ab/")),
        (["**", "kv/**"], ("",)),
        (["{mount}/data/**"], ("",)),
    ],
)
def test_folders_to_list_are_the_literal_beginnings(
    remotes: list[str], prefixes: tuple[str, ...]
) -> None:
    rules = compiled(*((remote.replace("db-*", "*"), remote) for remote in remotes))
    assert rules.list_prefixes() == prefixes


def test_excludes_are_listed_neither_more_nor_less() -> None:
    rules = compiled(RuleSpec("", "other/**", exclude=True), GUIDE)
    assert rules.list_prefixes() == ("kv/data/",)
    assert not rules.in_literal_prefix("other/a")


def test_a_flat_store_is_listed_as_a_whole() -> None:
    rules = azure(RuleSpec("a/**", "prod--**", separator="--"))
    assert rules.list_prefixes() == ("",)
    assert rules.in_literal_prefix("prod--x")
    assert not rules.in_literal_prefix("prod-x")


def test_only_paths_under_a_rules_literal_beginning_may_be_asked_for() -> None:
    rules = compiled(("db/*", "kv/data/db-*"), ("x", "kv/data/app/config"))
    assert rules.in_literal_prefix("kv/data/db-main")
    assert rules.in_literal_prefix("kv/data/app/config")
    assert not rules.in_literal_prefix("kv/data/other")
    assert not rules.in_literal_prefix("sys/raw/x")
    assert not compiled().in_literal_prefix("kv/data/db-main")


def test_names_that_differ_in_case_have_one_key_where_case_is_ignored() -> None:
    flat = azure(RuleSpec("a/*", "*"))
    assert flat.remote_key(RemotePath("Db")) == flat.remote_key(RemotePath("dB"))
    exact = compiled(GUIDE)
    assert exact.remote_key(RemotePath("Db")) != exact.remote_key(RemotePath("dB"))


def test_a_rules_configuration_can_be_had_by_its_index() -> None:
    rules = compiled(("a/**", "b/**"), GUIDE)
    assert rules.spec(1) is GUIDE


# --- the hash -------------------------------------------------------------------

EXTRA: Mapping[str, object] = {"endpoint": "https://vault.internal:8200", "filters": {"k": ["v"]}}


def test_the_hash_does_not_depend_on_the_process() -> None:
    program = (
        "from svsync.domain.federation import RuleSpec\n"
        "from svsync.domain.mapping import RuleSet\n"
        "rules = RuleSet.compile([RuleSpec('external/hashicorp/**', 'kv/data/**')])\n"
        f"print(rules.hash({dict(EXTRA)!r}), end='')"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert other.stdout == compiled(GUIDE).hash(EXTRA)


@pytest.mark.parametrize(
    "other",
    [
        RuleSpec("external/hashicorp/**", "kv/data/**", escape=True),
        RuleSpec("external/hashicorp/**", "kv/data/x/**"),
        RuleSpec("external/**", "kv/data/**"),
        RuleSpec("external/hashicorp/**", "kv/data/**", exclude=True),
    ],
)
def test_the_hash_changes_with_what_a_rule_federates(other: RuleSpec) -> None:
    assert compiled(other).hash(EXTRA) != compiled(GUIDE).hash(EXTRA)


def test_the_hash_changes_with_the_order_of_rules() -> None:
    one, other = RuleSpec("a/**", "kv/a/**"), RuleSpec("b/**", "kv/**")
    assert compiled(one, other).hash({}) != compiled(other, one).hash({})


def test_the_hash_changes_with_endpoint_and_filters() -> None:
    rules = compiled(GUIDE)
    assert rules.hash(EXTRA) != rules.hash({**EXTRA, "endpoint": "https://other:8200"})
    assert rules.hash(EXTRA) == rules.hash(dict(reversed(list(EXTRA.items()))))


def test_the_hash_ignores_tags_and_overrides() -> None:
    other = RuleSpec(
        GUIDE.local,
        GUIDE.remote,
        tags=TagTransform(format="{key}:{value}"),
        overrides=Overrides(mode=Mode.SYNC, conflict_resolution=ConflictPolicy.MANUAL),
    )
    assert compiled(other).hash(EXTRA) == compiled(GUIDE).hash(EXTRA)


# --- explanations ---------------------------------------------------------------


def test_an_explanation_tells_rule_captures_and_result() -> None:
    said = compiled(("x", "kv/x"), ("{env}/**", "kv/data/**/{env}")).explain_remote(
        "kv/data/a/b/prod"
    )
    assert said.rule == 1
    assert (said.local_pattern, said.remote_pattern) == ("{env}/**", "kv/data/**/{env}")
    assert said.captures == (("**", "a/b"), ("{env}", "prod"))
    assert said.sentence == "prod/a/b <-> kv/data/a/b/prod"


def test_an_explanation_names_the_rule_that_shadows() -> None:
    rules = compiled(("a/**", "kv/data/one/**"), ("a/**", "kv/data/two/**"))
    said = rules.explain_remote("kv/data/two/x")
    assert said.rule == 1
    assert isinstance(said.outcome, Unmapped)
    assert said.outcome.claimed_by == 0
    assert said.sentence.startswith("shadowed: path_mapping[1]")


def test_an_explanation_names_the_exclude() -> None:
    said = compiled(RuleSpec("", "kv/data/tmp/**", exclude=True), GUIDE).explain_local(
        "external/hashicorp/tmp/a"
    )
    assert said.rule == 1
    assert "path_mapping[0] (exclude kv/data/tmp/**) leaves out" in said.sentence


def test_any_text_may_be_asked_about() -> None:
    rules = compiled(GUIDE)
    for text in ("", "../x", "a b", "kv/data/\x00", "\ud800", "external/hashicorp/%2e"):
        assert isinstance(rules.explain_local(text).outcome, Unmapped)
        assert isinstance(rules.explain_remote(text).outcome, Unmapped)
    assert rules.explain_local("a b").sentence.startswith("illegal_path: ' ' at offset 1")
    assert rules.explain_remote("else/where").rule is None
