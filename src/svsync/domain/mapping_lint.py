"""What can be said of whole sets of rules: do two overlap, can a rule ever match?

Both are questions about the languages of patterns and are answered exactly, with
a path to show for it, except where the text says otherwise.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from svsync.domain.errors import MappingError
from svsync.domain.languages import Budget, UndecidedError, find_path
from svsync.domain.mapping import RuleSet
from svsync.domain.paths import MAX_LOCAL_BYTES
from svsync.domain.patterns import Pattern, PatternError
from svsync.domain.rules import Rule

Side = Literal["local", "remote"]

_SIDES: Final[tuple[Side, ...]] = ("local", "remote")
_LONGEST: Final[dict[Side, int]] = {"local": MAX_LOCAL_BYTES, "remote": 4096}


@dataclass(frozen=True, slots=True)
class LintFinding:
    """A rule that can never match, which side shows it, and what comes before it."""

    rule: int
    side: Side
    covered_by: tuple[int, ...]
    sentence: str


def overlap(left: RuleSet, right: RuleSet) -> str | None:
    """A local path that rules of both sets claim, or None: no path is claimed twice.

    A path counts as claimed where a rule's local pattern matches it and no
    earlier exclude of its set does. An exclude that has a remote side only is
    taken into account for rules that are literal text and one `**` on both
    sides; before any other rule it is not, so that an overlap may be found that
    only it prevents: such an exclude has to be written with its local side.

    Raises:
        MappingError: the rules are so entangled that it cannot be told.
    """
    budget = Budget()
    for one, pattern in _mapped(left):
        for other, other_pattern in _mapped(right):
            if not _may_meet(pattern, other_pattern):
                continue
            excluded = [*_excluded_before(left, one), *_excluded_before(right, other)]
            try:
                found = find_path(
                    [pattern, other_pattern],
                    [exclude for exclude in excluded if _may_meet(exclude, pattern)],
                    budget=budget,
                    max_length=MAX_LOCAL_BYTES,
                )
            except UndecidedError:
                raise MappingError(
                    f"whether this overlaps '{other_pattern.text}' of the other backend cannot "
                    "be told, for the patterns are too entangled; use fewer wildcards",
                    where=f"path_mapping[{one.index}]",
                ) from None
            if found is not None:
                return found
    return None


def lint(rules: RuleSet) -> list[LintFinding]:
    """The rules that can never match, as all they could claim is claimed before.

    A rule that maps never matches when one of its sides is covered, an exclude
    when all of its sides are. A rule of which this cannot be told within the
    budget is not reported.
    """
    found = []
    for rule in rules.rules:
        covers = {
            side: _covering(rules.rules[: rule.index], rule, side)
            for side in _SIDES
            if _pattern(rule, side)
        }
        covered = [side for side, covering in covers.items() if covering]
        if covered and (not rule.spec.exclude or len(covered) == len(covers)):
            side = covered[0]
            earlier = " and ".join(str(rules.rules[index]) for index in covers[side])
            sentence = (
                f"{rule} can never match: every {side} path it could claim is claimed first "
                f"by {earlier}; move it up or remove it"
            )
            found.append(LintFinding(rule.index, side, covers[side], sentence))
    return found


def _mapped(rules: RuleSet) -> Iterator[tuple[Rule, Pattern]]:
    for rule in rules.rules:
        if rule.local and not rule.spec.exclude:
            yield rule, rule.local


def _excluded_before(rules: RuleSet, rule: Rule) -> Iterator[Pattern]:
    """Local patterns of the excludes that come before `rule`."""
    for earlier in rules.rules[: rule.index]:
        if not earlier.spec.exclude:
            continue
        if earlier.local:
            yield earlier.local
        if earlier.remote and rule.replaces_beginning and earlier.separator == rule.separator:
            assert rule.local
            assert rule.remote
            beginning = rule.remote.literal
            if earlier.remote.text.startswith(beginning):
                with suppress(PatternError):  # too long to be written locally
                    rest = earlier.remote.text[len(beginning) :]
                    yield Pattern.parse(rule.local.literal + rest)


def _covering(earlier: Sequence[Rule], rule: Rule, side: Side) -> tuple[int, ...]:
    """The earlier rules that together claim all of this side: one if one does."""
    pattern = _pattern(rule, side)
    assert pattern
    others = [
        (other.index, other_pattern)
        for other in earlier
        if (other_pattern := _pattern(other, side))
        and _may_meet(pattern, other_pattern)
        # Patterns of names with different separators have no segments in common.
        and (side == "local" or other.separator == rule.separator)
    ]
    budget = Budget()
    try:
        for index, other_pattern in others:
            if _is_empty([pattern], [other_pattern], side, budget):
                return (index,)
        if _is_empty([pattern], [other_pattern for _, other_pattern in others], side, budget):
            return tuple(
                index
                for index, other_pattern in others
                if not _is_empty([pattern, other_pattern], [], side, budget)
            )
    except UndecidedError:
        pass
    return ()


def _is_empty(
    wanted: Sequence[Pattern], unwanted: Sequence[Pattern], side: Side, budget: Budget
) -> bool:
    longest = _LONGEST[side]
    return find_path(wanted, unwanted, budget=budget, max_length=longest) is None


def _pattern(rule: Rule, side: Side) -> Pattern | None:
    return rule.local if side == "local" else rule.remote


def _may_meet(one: Pattern, other: Pattern) -> bool:
    return one.literal.startswith(other.literal) or other.literal.startswith(one.literal)
