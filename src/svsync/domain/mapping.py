"""The path mapping: ordered rules that translate a remote path into a local one and back.

Rules are tried in order and the first that matches decides, on either side.
That alone does not invert: a remote path may land on a local path that an
earlier rule claims, or that the same rule gives to another remote path as well.
So each direction asks the other side too, and a path is federated only where
both agree:

    to_local(r) is l   exactly when   to_remote(l) is r

What does not agree is skipped with its reason: `excluded` or `shadowed` where
another rule claims the counterpart, `collision` where the same rule gives one
counterpart to several paths. A collision skips all of the remote paths that
could claim the local one, whether or not the others exist: no answer depends on
what else there is, so no path changes its counterpart because another appeared.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from svsync.domain.errors import MappingError
from svsync.domain.federation import RuleSpec
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.paths import PathProblem, foreign_character, local_problem
from svsync.domain.rules import RemoteNames, Rule
from svsync.domain.runs import SkipReason

Captures = tuple[tuple[str, str], ...]
"""(`*`, `*2`, `**` or `{name}`, what it holds), in the order of one side's pattern."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A federated path: its two names, and the rule (index from 0) that pairs them.

    `captures` are in local spelling and in the order of the local pattern.
    """

    local: LocalPath
    remote: RemotePath
    rule: int
    captures: Captures


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A path that is not federated.

    Attributes:
        reason: from the published list; `unmapped` lies outside every rule.
        detail: the sentence for people.
        rule: the rule that matches this path, if one does.
        claimed_by: the other rule that claims its counterpart, if one does.
        problem: character and position, where the path itself cannot be used.
    """

    reason: SkipReason
    detail: str
    rule: int | None = None
    claimed_by: int | None = None
    problem: PathProblem | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the mapping makes of one path, and why; `svsync map test` prints it.

    `captures` are as read on the side that was asked. `rule` is the first that
    matches there; without one, the patterns are empty.
    """

    side: Literal["local", "remote"]
    path: str
    rule: int | None
    local_pattern: str
    remote_pattern: str
    captures: Captures
    outcome: Mapped | Unmapped

    @property
    def sentence(self) -> str:
        """The result or the reason, in one line for people."""
        if isinstance(self.outcome, Unmapped):
            return f"{self.outcome.reason}: {self.outcome.detail}"
        return f"{self.outcome.local} <-> {self.outcome.remote}"


_OUTSIDE: Final = Unmapped(SkipReason.UNMAPPED, "no rule of the mapping matches this path")


class RuleSet:
    """The compiled rules of one backend, in their order; immutable."""

    __slots__ = ("_literals", "_names", "rules")

    def __init__(self, rules: tuple[Rule, ...], names: RemoteNames) -> None:
        self.rules = rules
        self._names = names
        self._literals = tuple(rule.literal for rule in rules if not rule.spec.exclude)

    @classmethod
    def compile(
        cls,
        rules: Sequence[RuleSpec],
        *,
        separator: str | None = "/",
        segment: str | None = None,
        case_sensitive: bool = True,
        max_name: int = 4096,
    ) -> "RuleSet":
        """Compile rules for a backend with these features (see `ports.Features`).

        Raises:
            MappingError: `where` names the rule (`path_mapping[2].remote`), the
                message says what is wrong with it and what to do.
        """
        names = RemoteNames(
            separator, re.compile(segment) if segment else None, max_name, case_sensitive
        )
        compiled = tuple(Rule.compile(index, spec, names) for index, spec in enumerate(rules))
        if not case_sensitive:
            _check_case(compiled)
        return cls(compiled, names)

    @property
    def flat(self) -> bool:
        """Whether the store's names have no folders."""
        return self._names.separator is None

    def spec(self, rule: int) -> RuleSpec:
        """The rule of that index as it was configured."""
        return self.rules[rule].spec

    def local_prefix(self, rule: int) -> str:
        """What every local path of the rule starts with."""
        pattern = self.rules[rule].local
        return pattern.literal if pattern is not None else ""

    def to_local(self, remote: RemotePath) -> Mapped | Unmapped:
        """The local path of a remote one, or why it has none."""
        claim = self._claim_remote(remote)
        if claim is None:
            return _OUTSIDE
        rule, held = claim
        if rule.spec.exclude:
            return _excluded(rule)
        if rule.plain and (mapped := self._replace_beginning(rule, remote, held[0])):
            return mapped
        if problem := self._names.problem(remote):
            return _unusable(rule, problem)
        if not rule.comes_apart(remote):
            return _ambiguous(rule)
        spelled = rule.locally(held)
        if spelled is None:
            return _misspelled(rule)
        local = rule.write_local(spelled)
        if problem := local_problem(local):
            return _unusable(rule, foreign_character(remote, len(rule.literal)) or problem)
        claim = self._claim_local(local)
        assert claim is not None  # the rule's own pattern matches what it wrote
        owner, read = claim
        if owner is not rule:
            return _claimed(rule, owner, local)
        if not rule.reads_one_way(local, read):
            return _collides(rule, local)
        return Mapped(LocalPath(local), remote, rule.index, rule.captures(spelled))

    def to_remote(self, local: LocalPath) -> Mapped | Unmapped:
        """The remote path of a local one, or why it has none."""
        claim = self._claim_local(local)
        if claim is None:
            return _OUTSIDE
        rule, held = claim
        if rule.spec.exclude:
            return _excluded(rule)
        if not rule.reads_one_way(local, held):
            return _collides(rule, local)
        spelled = rule.remotely(held)
        if spelled is None:
            return _misspelled(rule)
        remote = rule.write_remote(spelled)
        if remote is None:
            return _ambiguous(rule)
        if problem := self._names.problem(remote):
            return _unusable(rule, problem)
        claim = self._claim_remote(remote)
        assert claim is not None  # the rule's own pattern matches what it wrote
        owner, read = claim
        if owner is not rule:
            return _claimed(rule, owner, remote)
        if read != spelled:
            return _collides(rule, remote)
        return Mapped(local, RemotePath(remote), rule.index, rule.captures(held))

    def map_batch(self, remotes: Iterable[RemotePath]) -> list[Mapped | Unmapped]:
        """`to_local` of each, in order."""
        to_local = self.to_local
        return [to_local(remote) for remote in remotes]

    def remote_key(self, remote: RemotePath) -> str:
        """Equal for two names exactly when the backend takes them for one."""
        return remote if self._names.case_sensitive else remote.casefold()

    def list_prefixes(self) -> tuple[str, ...]:
        """Folders to list so that every federated name is seen, none within another.

        Each ends with `/`, or is empty for the whole store. Excludes are not
        taken into account: what they leave out may lie anywhere below.
        """
        folders = {
            rule.literal[: rule.literal.rfind("/") + 1]
            for rule in self.rules
            if not rule.spec.exclude
        }
        return tuple(
            folder
            for folder in sorted(folders)
            if not any(folder.startswith(other) for other in folders - {folder})
        )

    def in_literal_prefix(self, remote: str) -> bool:
        """Whether the path starts with the literal beginning of some rule.

        The last check before a request leaves: whatever went wrong before it, no
        path outside what the operator named is asked for.
        """
        return remote.startswith(self._literals)

    def hash(self, extra: Mapping[str, object]) -> str:
        """Identifies which paths are federated and how: SHA-256 in hex.

        Args:
            extra: what else decides that (filters, endpoint, namespace), as
                values that JSON can hold.

        Overrides and `transform.tags` are left out: a change of these attaches
        or detaches nothing.
        """
        rules = [
            [spec.local, spec.remote, spec.exclude, spec.separator, spec.escape]
            for spec in (rule.spec for rule in self.rules)
        ]
        text = json.dumps(
            {"form": 1, "rules": rules, "extra": extra},
            sort_keys=True,
            separators=(",", ":"),
            default=dict,  # a read-only view of a mapping is one as well
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def explain_local(self, path: str) -> Explanation:
        """What becomes of a local path; any text may be asked about."""
        if problem := local_problem(path):
            outcome = Unmapped(problem.code, problem.detail, problem=problem)
            return _explanation("local", path, None, outcome)
        return _explanation("local", path, self._claim_local(path), self.to_remote(LocalPath(path)))

    def explain_remote(self, path: str) -> Explanation:
        """What becomes of a remote path; any text may be asked about."""
        return _explanation(
            "remote", path, self._claim_remote(path), self.to_local(RemotePath(path))
        )

    def _claim_local(self, local: str) -> tuple[Rule, tuple[str, ...]] | None:
        for rule in self.rules:
            held = rule.read_local(local)
            if held is not None:
                return rule, held
        return None

    def _claim_remote(self, remote: str) -> tuple[Rule, tuple[str, ...]] | None:
        for rule in self.rules:
            held = rule.read_remote(remote)
            if held is not None:
                return rule, held
        return None

    def _replace_beginning(self, rule: Rule, remote: RemotePath, tail: str) -> Mapped | None:
        """The pair under a plain rule; None: the long way round finds out why not."""
        local = rule.spec.local[:-2] + tail
        if local_problem(local) or len(remote) > self._names.max_bytes:
            return None
        for earlier in self.rules[: rule.index]:
            if earlier.read_local(local) is not None:
                return None
        return Mapped(LocalPath(local), remote, rule.index, (("**", tail),))


def _check_case(rules: Sequence[Rule]) -> None:
    """Refuse two rules that differ where the backend sees no difference."""
    seen: dict[str, Rule] = {}
    for rule in rules:
        twin = seen.setdefault(rule.spec.remote.casefold(), rule)
        if twin.spec.remote != rule.spec.remote:
            raise MappingError(
                f"this differs from {twin} in case only, and this backend ignores case",
                where=f"path_mapping[{rule.index}].remote",
            )


def _excluded(rule: Rule) -> Unmapped:
    return Unmapped(SkipReason.EXCLUDED, f"{rule} leaves it out", rule.index)


def _unusable(rule: Rule, problem: PathProblem) -> Unmapped:
    return Unmapped(problem.code, problem.detail, rule.index, problem=problem)


def _ambiguous(rule: Rule) -> Unmapped:
    return Unmapped(
        SkipReason.AMBIGUOUS_SEPARATOR,
        f"'{rule.separator}' stands inside or beside a segment, so that the name "
        "could be taken apart in more than one way",
        rule.index,
    )


def _misspelled(rule: Rule) -> Unmapped:
    return Unmapped(
        SkipReason.ILLEGAL_PATH,
        f"it holds what looks like an escape of {rule} and is none that would be written",
        rule.index,
    )


def _claimed(rule: Rule, owner: Rule, counterpart: str) -> Unmapped:
    if owner.spec.exclude:
        detail = f"{rule} maps it to '{counterpart}', which {owner} leaves out"
        return Unmapped(SkipReason.EXCLUDED, detail, rule.index, owner.index)
    detail = f"{rule} maps it to '{counterpart}', which {owner} claims first"
    return Unmapped(SkipReason.SHADOWED, detail, rule.index, owner.index)


def _collides(rule: Rule, path: str) -> Unmapped:
    return Unmapped(
        SkipReason.COLLISION,
        f"'{path}' can be read in more than one way by {rule}, so several paths map to it",
        rule.index,
    )


def _explanation(
    side: Literal["local", "remote"],
    path: str,
    claim: tuple[Rule, tuple[str, ...]] | None,
    outcome: Mapped | Unmapped,
) -> Explanation:
    if claim is None:
        return Explanation(side, path, None, "", "", (), outcome)
    rule, held = claim
    pattern = rule.local if side == "local" else rule.remote
    return Explanation(
        side=side,
        path=path,
        rule=rule.index,
        local_pattern=rule.spec.local,
        remote_pattern=rule.spec.remote,
        captures=tuple(zip(pattern.slots if pattern else (), held, strict=True)),
        outcome=outcome,
    )
