"""Policies: what an identity may do on which paths.

A policy is a list of rules, each a pattern of local paths with permissions; policies are
bound to service accounts, users and groups. What no rule allows is denied, and no rule
denies, so their order decides nothing but which one is named.

The rules of an identity are compiled to a tree over the literal segments that patterns
begin with: a path is walked once, and only patterns that share its beginning are tried.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

from svsync.domain.errors import SvsyncError
from svsync.domain.languages import Budget, find_path
from svsync.domain.paths import LOCAL_ALPHABET
from svsync.domain.patterns import Pattern, PatternError

MAX_RULES: Final = 200
"""Rules of one policy."""
NAME: Final = r"(?!pol_[0-9a-f]{32}\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""What a policy's name is made of. None looks like an id, so either says which is meant."""
_NAME: Final = re.compile(NAME)
_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LETTERS: Final = frozenset(LOCAL_ALPHABET)


class PolicyExistsError(SvsyncError):
    """Another policy of the tenant has this name."""

    code = "policy_exists"


class Permission(StrEnum):
    """What a rule allows on the paths of its pattern.

    `reveal`: to see the values of a conflict; `use`: to name the path as the credential of
    a backend, which shows what that credential can read.
    """

    READ = "read"
    WRITE = "write"
    LIST = "list"
    DELETE = "delete"
    REVEAL = "reveal"
    USE = "use"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, with where it stands.

    Attributes:
        policy: the name of its policy.
        ord: its place in the policy, from 0 on.
    """

    policy_id: str
    policy: str
    ord: int
    pattern: Pattern
    permissions: frozenset[Permission]

    def describe(self) -> dict[str, object]:
        """How people are told of it."""
        return {
            "policy_id": self.policy_id,
            "policy": self.policy,
            "rule": self.ord,
            "path_pattern": self.pattern.text,
            "permissions": sorted(map(str, self.permissions)),
        }


@lru_cache(maxsize=65_536)
def pattern_of(text: str) -> Pattern:
    """The pattern of a rule. Raises PatternError."""
    return Pattern.parse(text)


def new_pattern(text: str) -> Pattern:
    """The pattern of a rule that is to be made. Raises PatternError also for one that no
    local path can match."""
    pattern = pattern_of(text)
    for piece in pattern.pieces():
        if piece is not None and not _LETTERS.issuperset("".join(piece.literals)):
            raise PatternError(
                "no path can match it: paths are made of letters, digits, '.', '_' and '-'"
            )
    return pattern


def is_name(text: str) -> bool:
    """Whether a new policy may be called so."""
    return _NAME.fullmatch(text) is not None


def is_reference(text: str) -> bool:
    """Whether it could be a policy's id or name."""
    return _REFERENCE.fullmatch(text) is not None


@dataclass(slots=True)
class _Node:
    below: dict[str, "_Node"] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)


class Permissions:
    """All rules that are bound to one identity."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._root = _Node()
        for rule in rules:
            node = self._root
            for segment in literal_segments(rule.pattern):
                node = node.below.setdefault(segment, _Node())
            node.rules.append(rule)

    @property
    def rules(self) -> Sequence[Rule]:
        """In the order in which they were given."""
        return self._rules

    def decide(self, path: str, permission: Permission) -> Rule | None:
        """The rule that allows it; None: nothing does."""
        segments = path.split("/")
        for rule in self._met(segments):
            if permission in rule.permissions and rule.pattern.read(segments) is not None:
                return rule
        return None

    def _met(self, segments: Sequence[str]) -> Iterator[Rule]:
        """The rules whose literal beginning is the path's, shortest first."""
        node = self._root
        yield from node.rules
        for segment in segments:
            following = node.below.get(segment)
            if following is None:
                return
            node = following
            yield from node.rules

    def patterns(self, permission: Permission) -> list[Pattern]:
        """The patterns of all rules with a permission."""
        return [rule.pattern for rule in self._rules if permission in rule.permissions]

    def prefixes(self, permission: Permission) -> list[str]:
        """Strings, in order and none the beginning of another, one of which every path
        begins with that the permission is given on."""
        kept: list[str] = []
        for literal in sorted({pattern.literal for pattern in self.patterns(permission)}):
            if not kept or not literal.startswith(kept[-1]):
                kept.append(literal)
        return kept

    def uncovered(self, wanted: Pattern, permission: Permission, budget: Budget) -> str | None:
        """A path that a pattern matches and the permission is not given on; None: it is given
        on the whole of the pattern.

        Raises:
            UndecidedError: the budget does not suffice.
        """
        given = [p for p in self.patterns(permission) if _may_meet(p.literal, wanted.literal)]
        return find_path([wanted], given, budget=budget, max_length=512)


def literal_segments(pattern: Pattern) -> tuple[str, ...]:
    """The segments without a wildcard that a pattern begins with."""
    found: list[str] = []
    for piece in pattern.pieces():
        if piece is None or len(piece.literals) > 1:
            break
        found.append(piece.literals[0])
    return tuple(found)


def _may_meet(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


class Everything(Permissions):
    """The permissions of the scope `admin`: all, on every path of the tenant."""

    def __init__(self) -> None:
        every = Pattern.parse("**")
        super().__init__([Rule("", "admin", 0, every, frozenset(Permission))])


ADMIN: Final = Everything()
