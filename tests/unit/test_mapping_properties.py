"""Does the mapping invert, whatever rules and paths are thrown at it?

Paths are drawn over two letters and the characters that make trouble, so that
rules overlap, shadow and collide all the time.
"""

import re
from itertools import product

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from svsync.domain.errors import MappingError
from svsync.domain.federation import RuleSpec
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.languages import Budget, find_path
from svsync.domain.mapping import Mapped, RuleSet, Unmapped
from svsync.domain.mapping_lint import lint, overlap
from svsync.domain.paths import local_problem, remote_problem
from svsync.domain.patterns import Pattern, PatternError
from svsync.domain.runs import SkipReason
from svsync.domain.spelling import Escape, split_name

QUICK = settings(max_examples=100, deadline=None)
THOROUGH = settings(max_examples=200, deadline=None)

PIECES = st.sampled_from(["a", "b", "ab", "-", "*", "a*", "*b", "*a*", "*-*", "{x}", "{y}", "**"])
PATTERNS = st.lists(PIECES, min_size=1, max_size=5).map("/".join)
PATHS = st.lists(st.text(alphabet="ab-", min_size=1, max_size=4), min_size=1, max_size=6).map(
    "/".join
)
HOSTILE = st.text(alphabet="ab/._-x2F5%\\ \x00\u00e9\u0301\ud800", max_size=12)


def parsed(text: str) -> Pattern:
    try:
        return Pattern.parse(text)
    except PatternError:
        assume(False)
        raise


def as_regex(pattern: str) -> re.Pattern[str]:
    """The slow oracle: lazy groups, so that earlier wildcards hold least."""
    wildcards = {"**": r"([^/]+(?:/[^/]+)*?)"}
    parts = re.split(r"(\*\*|\*|\{\w+\})", pattern)
    return re.compile(
        "".join(
            re.escape(part) if number % 2 == 0 else wildcards.get(part, "([^/]+?)")
            for number, part in enumerate(parts)
        )
    )


@st.composite
def rules(draw: st.DrawFn) -> RuleSpec:
    """A rule whose sides hold the same wildcards, in another order where named."""
    shared = draw(st.lists(st.sampled_from(["*", "**", "{x}", "{y}"]), max_size=3))
    assume(all(shared.count(name) < 2 for name in ("{x}", "{y}")))
    sides = []
    for _ in range(2):
        literal = st.sampled_from(["", "", "a/", "b/", "ab/"])
        partial = st.sampled_from(["", "", "a", "-"])
        text = draw(literal)
        for wildcard in draw(st.permutations(shared)):
            whole = wildcard == "**"
            text += wildcard if whole else draw(partial) + wildcard
            text += "/" if whole or draw(st.booleans()) else "-"
        sides.append(text.rstrip("/-") + draw(st.sampled_from(["", "", "/a", "/b"])))
    return RuleSpec(
        sides[0].lstrip("/"),
        sides[1].lstrip("/"),
        exclude=draw(st.integers(0, 5)) == 0,
    )


RULES = st.lists(rules(), min_size=1, max_size=4)


def compiled(specs: list[RuleSpec]) -> RuleSet:
    kept = []
    for spec in specs:  # keep what compiles, so that few draws are thrown away
        try:
            RuleSet.compile([spec])
        except MappingError:
            continue
        kept.append(spec)
    assume(any(not spec.exclude for spec in kept))
    return RuleSet.compile(kept)


def assert_inverts(mapping: RuleSet, remote: str, local: str) -> None:
    there = mapping.to_local(RemotePath(remote))
    if isinstance(there, Mapped):
        assert there.remote == remote
        assert local_problem(there.local) is None
        assert mapping.to_remote(there.local) == there
        assert mapping.in_literal_prefix(remote)
        assert any(remote.startswith(prefix) for prefix in mapping.list_prefixes())
    if local_problem(local) is None:
        back = mapping.to_remote(LocalPath(local))
        if isinstance(back, Mapped):
            assert back.local == local
            assert remote_problem(back.remote) is None
            assert mapping.to_local(back.remote) == back


# --- one pattern ----------------------------------------------------------------


@THOROUGH
@given(text=PATTERNS, path=PATHS)
def test_the_matcher_reads_as_lazy_groups_do(text: str, path: str) -> None:
    expected = as_regex(text).fullmatch(path)
    read = parsed(text).read(path.split("/"))
    assert read == (expected.groups() if expected else None)


@THOROUGH
@given(text=PATTERNS, path=PATHS)
def test_what_was_read_is_written_again(text: str, path: str) -> None:
    pattern = parsed(text)
    for last in (False, True):
        read = pattern.read(path.split("/"), last=last)
        assert read is None or pattern.render(read) == path


@QUICK
@given(text=PATTERNS, data=st.data())
def test_one_way_to_read_is_told_exactly(text: str, data: st.DataObject) -> None:
    pattern = parsed(text)
    assume(len(pattern.slots) <= 3)
    word = st.text(alphabet="ab-", min_size=1, max_size=3)
    path = pattern.render([data.draw(word) for _ in pattern.slots])
    segments = path.split("/")
    ends = [(i, j) for i in range(len(path)) for j in range(i + 1, len(path) + 1)]
    parts = {path[i:j] for i, j in ends}
    choices = [
        parts if slot.startswith("**") else {part for part in parts if "/" not in part}
        for slot in pattern.slots
    ]
    readings = [held for held in product(*choices) if pattern.render(held) == path]
    whole = [held for held in readings if all("" not in one.split("/") for one in held)]
    read = pattern.read(segments)
    assert read in whole
    assert read is not None
    assert pattern.is_read_one_way(segments, read) == (len(whole) == 1)


def test_a_pattern_made_to_backtrack_costs_its_length_times_the_paths() -> None:
    pattern = Pattern.parse("/".join(["**/*a*a*a*b"] * 40))
    segments = ["a" * 200] * 2000
    assert pattern.read(segments) is None
    assert pattern.read(segments, last=True) is None


# --- rule sets ------------------------------------------------------------------


@THOROUGH
@given(specs=RULES, remote=PATHS, local=PATHS)
def test_to_remote_undoes_to_local_for_every_federated_path(
    specs: list[RuleSpec], remote: str, local: str
) -> None:
    assert_inverts(compiled(specs), remote, local)


@THOROUGH
@given(specs=st.lists(rules(), min_size=1, max_size=3), data=st.data())
def test_paths_made_from_the_rules_invert_as_well(
    specs: list[RuleSpec], data: st.DataObject
) -> None:
    mapping = compiled(specs)
    rule = data.draw(st.sampled_from([rule for rule in mapping.rules if not rule.spec.exclude]))
    assert rule.local is not None
    word = st.text(alphabet="ab-", min_size=1, max_size=3)
    words = st.lists(word, min_size=1, max_size=3).map("/".join)
    held = [data.draw(words if slot.startswith("**") else word) for slot in rule.local.slots]
    remote = rule.write_remote(rule.remotely(held) or ())
    assert remote is not None
    assert_inverts(mapping, remote, rule.write_local(held))


@THOROUGH
@given(
    sides=st.sampled_from([("x/**", "**"), ("x/*/y/**", "a/**/*"), ("x/**/a", "a-b/**")]),
    name=st.text(alphabet="ab-", min_size=1, max_size=9),
    path=PATHS,
)
def test_a_separator_inverts_or_is_refused(sides: tuple[str, str], name: str, path: str) -> None:
    mapping = RuleSet.compile([RuleSpec(*sides, separator="--")], separator=None)
    for remote in (name, f"a--{name}", f"a-b--{name}"):
        there = mapping.to_local(RemotePath(remote))
        if isinstance(there, Mapped):
            assert mapping.to_remote(there.local) == there
    for local in (f"x/{path}", f"x/a/y/{path}", f"x/{path}/a"):
        back = mapping.to_remote(LocalPath(local))
        if isinstance(back, Mapped):
            assert "/" not in back.remote
            assert mapping.to_local(back.remote) == back


@THOROUGH
@given(
    sides=st.sampled_from([("e/**", "kv/**"), ("e/*/**", "kv/**/*"), ("e/*", "kv/*")]),
    text=HOSTILE,
)
def test_an_escape_inverts_and_lets_nothing_hostile_through(
    sides: tuple[str, str], text: str
) -> None:
    mapping = RuleSet.compile([RuleSpec(*sides, escape=True)])
    assert_inverts(mapping, f"kv/{text}", f"e/{text}")
    there = mapping.to_local(RemotePath(f"kv/{text}"))
    if sides[1] == "kv/**" and not remote_problem(f"kv/{text}"):
        assert isinstance(there, Mapped)  # whatever is legal remotely can be spelled


@QUICK
@given(tails=st.lists(HOSTILE, max_size=20))
def test_the_short_way_and_the_long_way_agree(tails: list[str]) -> None:
    # A limit on segments that none of these reaches bars the short way.
    remotes = [RemotePath(f"kv/{tail}") for tail in [*tails, "a", "a/b", "a.b/-"]]
    short = RuleSet.compile([RuleSpec("ext/**", "kv/**")])
    long = RuleSet.compile([RuleSpec("ext/**", "kv/**")], segment=r"[^/]{1,300}")
    assert short.rules[0].plain
    assert not long.rules[0].plain
    assert short.map_batch(remotes) == long.map_batch(remotes)
    assert short.map_batch(remotes) == [short.to_local(remote) for remote in remotes]


@QUICK
@given(specs=RULES, paths=st.lists(PATHS, max_size=30))
def test_no_two_remote_paths_share_a_local_one(specs: list[RuleSpec], paths: list[str]) -> None:
    mapping = compiled(specs)
    remotes = [RemotePath(path) for path in dict.fromkeys(paths)]
    locals_ = [one.local for one in mapping.map_batch(remotes) if isinstance(one, Mapped)]
    assert len(locals_) == len(set(locals_))


@QUICK
@given(specs=RULES, path=PATHS)
def test_what_an_exclude_matches_first_is_never_federated(specs: list[RuleSpec], path: str) -> None:
    mapping = compiled(specs)
    said = mapping.explain_remote(path)
    if said.rule is not None and mapping.spec(said.rule).exclude:
        assert isinstance(said.outcome, Unmapped)
        assert said.outcome.reason is SkipReason.EXCLUDED


# --- spelling -------------------------------------------------------------------


@THOROUGH
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12))
def test_any_text_survives_an_escape(text: str) -> None:
    escape = Escape.for_segment(None)
    assert escape is not None
    spelled = escape.to_local(text)
    assert spelled is not None
    assert escape.to_remote(spelled) == text


@THOROUGH
@given(text=st.text(alphabet="a-_.x25FD", max_size=14))
def test_what_has_a_spelling_on_the_other_side_comes_back(text: str) -> None:
    escape = Escape.for_segment(re.compile("[0-9A-Za-z-]+"))
    assert escape is not None
    there = escape.to_remote(text)
    assert there is None or escape.to_local(there) == text
    back = escape.to_local(text)
    assert back is None or escape.to_remote(back) == text


@THOROUGH
@given(
    name=st.text(alphabet="ab-", max_size=9), separator=st.sampled_from(["-", "--", "aba", "ab"])
)
def test_a_name_is_split_exactly_when_there_is_one_way(name: str, separator: str) -> None:
    places = [at for at in range(len(name)) if name.startswith(separator, at)]
    ways = set()
    for chosen in product([False, True], repeat=len(places)):
        at, pieces = 0, []
        for place, taken in zip(places, chosen, strict=True):
            if taken and place >= at:
                pieces.append(name[at:place])
                at = place + len(separator)
        pieces.append(name[at:])
        if all(pieces) and not any(separator in piece for piece in pieces):
            ways.add(tuple(pieces))
    split = split_name(name, separator)
    if split is not None:
        assert ways == {tuple(split)}
    if len(ways) > 1:
        assert split is None


# --- languages ------------------------------------------------------------------

SMALL = [
    "/".join(path) for size in (1, 2, 3) for path in product(["a", "b", "ab", "ba"], repeat=size)
]


@THOROUGH
@given(wanted=st.lists(PATTERNS, min_size=1, max_size=2), unwanted=st.lists(PATTERNS, max_size=2))
def test_a_path_is_found_exactly_when_there_is_one(wanted: list[str], unwanted: list[str]) -> None:
    yes, no = [parsed(text) for text in wanted], [parsed(text) for text in unwanted]
    found = find_path(yes, no, budget=Budget(), max_length=512)

    def fits(path: str) -> bool:
        segments = path.split("/")
        return all(one.read(segments) is not None for one in yes) and not any(
            one.read(segments) is not None for one in no
        )

    if found is None:
        assert not any(map(fits, SMALL))
    else:
        assert fits(found)
        assert local_problem(found) is None


@QUICK
@given(
    left=st.lists(rules(), min_size=1, max_size=3), right=st.lists(rules(), min_size=1, max_size=3)
)
def test_sets_that_do_not_overlap_federate_no_common_path(
    left: list[RuleSpec], right: list[RuleSpec]
) -> None:
    one, other = compiled(left), compiled(right)
    if overlap(one, other) is None:
        for path in map(LocalPath, SMALL):
            assert not (
                isinstance(one.to_remote(path), Mapped)
                and isinstance(other.to_remote(path), Mapped)
            )


@QUICK
@given(specs=RULES)
def test_a_rule_that_lint_finds_never_federates_anything(specs: list[RuleSpec]) -> None:
    mapping = compiled(specs)
    dead = {finding.rule for finding in lint(mapping)}
    outcomes = [
        *map(mapping.to_local, map(RemotePath, SMALL)),
        *map(mapping.to_remote, map(LocalPath, SMALL)),
    ]
    assert not any(isinstance(one, Mapped) and one.rule in dead for one in outcomes)
