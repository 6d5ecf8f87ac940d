"""One mapping rule, compiled: what a backend's names can hold, and its two patterns.

Everything that can be said of a rule by itself is checked here, when it is
configured, and refused in one sentence; what depends on a path is decided in
`mapping.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from svsync.domain.errors import MappingError
from svsync.domain.federation import RuleSpec
from svsync.domain.paths import LOCAL_ALPHABET, PathProblem, local_problem, remote_problem
from svsync.domain.patterns import Pattern, PatternError
from svsync.domain.spelling import Escape, split_name


@dataclass(frozen=True, slots=True)
class RemoteNames:
    """What a backend declares of its names; the fields are those of `ports.Features`."""

    separator: str | None = "/"
    segment: re.Pattern[str] | None = None
    max_bytes: int = 4096
    case_sensitive: bool = True

    def problem(self, name: str) -> PathProblem | None:
        """What keeps `name` from being one of this backend's names."""
        return remote_problem(
            name, separator=self.separator, segment=self.segment, max_bytes=self.max_bytes
        )

    def include_local_paths(self) -> bool:
        """Whether every local path is a legal name as it stands, but for its length.

        `segment` describes which characters a segment holds, so a text of all
        of them, begun and ended by each of them, stands for every text.
        """
        sample = LOCAL_ALPHABET * 8
        return self.separator == "/" and (
            self.segment is None
            or all(self.segment.fullmatch(char + sample + char) for char in LOCAL_ALPHABET)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule. An exclude rule may lack a side; any other has both.

    Attributes:
        order: for each remote slot in turn, where the same slot stands locally.
        separator: what stands between the segments of its remote names; None
            where they are whole names of a flat store.
        literal: what its remote names start with, as the backend sees them.
        replaces_beginning: both patterns are literal text and one `**`, and no
            escape changes what that holds.
        plain: the same where also every local path is a legal name, so that a
            name which is legal locally is so remotely.
    """

    index: int
    spec: RuleSpec
    local: Pattern | None
    remote: Pattern | None
    order: tuple[int, ...]
    separator: str | None
    escape: Escape | None
    literal: str
    replaces_beginning: bool
    plain: bool

    @classmethod
    def compile(cls, index: int, spec: RuleSpec, names: RemoteNames) -> "Rule":
        """Check and compile one rule. Raises MappingError."""
        where = f"path_mapping[{index}]"
        if not spec.exclude and not (spec.local and spec.remote):
            missing = "remote" if spec.local else "local"
            raise MappingError(f"the rule has no {missing} side; give it one", where=where)
        if spec.exclude and not (spec.local or spec.remote):
            raise MappingError("exclude needs a local or a remote pattern", where=where)
        _check_separator(spec, names, where)
        separator = spec.separator or names.separator
        local = _parse(spec.local, "/", f"{where}.local") if spec.local else None
        remote = _parse(spec.remote, separator, f"{where}.remote") if spec.remote else None
        escape = Escape.for_segment(names.segment) if spec.escape else None
        if spec.escape and escape is None:
            raise MappingError(
                "this backend's names lack the characters an escape is written with; "
                "leave transform.escape out",
                where=where,
            )
        replaces_beginning = (
            (local is not None and local.whole_tail)
            and (remote is not None and remote.whole_tail)
            and escape is None
        )
        rule = cls(
            index=index,
            spec=spec,
            local=local,
            remote=remote,
            order=()
            if spec.exclude or not (local and remote)
            else _pair_slots(local, remote, where),
            separator=separator,
            escape=escape,
            literal=remote.literal.replace("/", separator or "/") if remote else "",
            replaces_beginning=replaces_beginning,
            plain=replaces_beginning
            and separator == "/"
            and spec.remote.isascii()
            and names.include_local_paths(),
        )
        rule._check_sample(names, where)
        return rule

    def __str__(self) -> str:
        sides = " <-> ".join(side for side in (self.spec.local, self.spec.remote) if side)
        return f"path_mapping[{self.index}] ({'exclude ' * self.spec.exclude}{sides})"

    def read_local(self, local: str) -> tuple[str, ...] | None:
        """What the local pattern's slots hold in this path; None: no match."""
        pattern = self.local
        if pattern is None or not local.startswith(pattern.literal):
            return None
        if pattern.whole_tail:
            return (local[len(pattern.literal) :],)
        return pattern.read(local.split("/"))

    def read_remote(self, remote: str) -> tuple[str, ...] | None:
        """What the remote pattern's slots hold in this path; None: no match."""
        pattern = self.remote
        if pattern is None or not remote.startswith(self.literal):
            return None
        if pattern.whole_tail and self.separator == "/":
            return (remote[len(self.literal) :],)
        return pattern.read(remote.split(self.separator) if self.separator else [remote])

    def reads_one_way(self, local: str, held: tuple[str, ...]) -> bool:
        """Whether `held` is the only way to read this path by the local pattern."""
        pattern = self.local
        return pattern is not None and pattern.is_read_one_way(local.split("/"), held)

    def captures(self, held: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Each slot of the local pattern with what it holds."""
        return tuple(zip(self.local.slots if self.local else (), held, strict=True))

    def locally(self, held: Sequence[str]) -> tuple[str, ...] | None:
        """Captures in local spelling and order, from those of the remote pattern.

        None: one holds what looks like an escape and is none that svsync writes.
        """
        by_position = {}
        for position, text in zip(self.order, held, strict=True):
            spelled = self.escape.to_local(text) if self.escape else text
            if spelled is None:
                return None
            by_position[position] = spelled
        return tuple(by_position[position] for position in range(len(held)))

    def remotely(self, held: Sequence[str]) -> tuple[str, ...] | None:
        """Captures in remote spelling and order, from those of the local pattern."""
        captures = []
        for position in self.order:
            spelled = self.escape.to_remote(held[position]) if self.escape else held[position]
            if spelled is None:
                return None
            captures.append(spelled)
        return tuple(captures)

    def write_local(self, held: Sequence[str]) -> str:
        """The local path in which the slots hold these captures."""
        assert self.local is not None
        return self.local.render(held)

    def write_remote(self, held: Sequence[str]) -> str | None:
        """The remote path, or None where the separator would be ambiguous in it."""
        assert self.remote is not None
        path = self.remote.render(held)
        if self.separator in (None, "/"):
            return path
        name = path.replace("/", self.separator)
        return name if split_name(name, self.separator) == path.split("/") else None

    def comes_apart(self, remote: str) -> bool:
        """Whether this name can be split at the separator in one way only."""
        return self.separator in (None, "/") or split_name(remote, self.separator) is not None

    def _check_sample(self, names: RemoteNames, where: str) -> None:
        """Refuse a side of which no path could be legal: even the simplest is not."""
        filler = next(char for char in LOCAL_ALPHABET if char not in (self.separator or ""))
        if self.local and (
            problem := local_problem(self.local.render([filler] * len(self.local.slots)))
        ):
            raise MappingError(
                f"no local path can look like this: {problem.detail}", where=f"{where}.local"
            )
        if self.remote:
            sample = self.write_remote([filler] * len(self.remote.slots))
            if sample is None:
                raise MappingError(
                    f"the text beside the separator '{self.separator}' makes every name "
                    "ambiguous; change the text or the separator",
                    where=f"{where}.remote",
                )
            if problem := names.problem(sample):
                raise MappingError(
                    f"no name of this backend can look like this: {problem.detail}",
                    where=f"{where}.remote",
                )


def _parse(text: str, separator: str | None, where: str) -> Pattern:
    try:
        return Pattern.parse(text if separator in (None, "/") else text.replace(separator, "/"))
    except PatternError as error:
        raise MappingError(str(error), where=where) from None


def _check_separator(spec: RuleSpec, names: RemoteNames, where: str) -> None:
    separator = spec.separator
    if separator is None:
        if names.separator is None and "/" in spec.remote:
            raise MappingError(
                "this backend's names hold no '/'; set transform.separator, for example '--'",
                where=f"{where}.remote",
            )
        return
    where = f"{where}.transform.separator"
    if names.separator is not None:
        raise MappingError(
            f"this backend's names have '{names.separator}' already; leave the separator out",
            where=where,
        )
    if not separator or set(separator) & set("/*{}"):
        raise MappingError(
            "the separator is one or more characters other than '/', '*', '{' and '}'",
            where=where,
        )
    if problem := names.problem(f"a{separator}a"):
        raise MappingError(f"the separator cannot be used: {problem.detail}", where=where)


def _pair_slots(local: Pattern, remote: Pattern, where: str) -> tuple[int, ...]:
    differing = {
        side: sorted(set(one.slots) - set(other.slots))
        for side, one, other in (("local", local, remote), ("remote", remote, local))
    }
    if any(differing.values()):
        named = " and ".join(
            f"{', '.join(slots)} on the {side} side only"
            for side, slots in differing.items()
            if slots
        )
        raise MappingError(f"both sides must hold the same wildcards; {named}", where=where)
    return tuple(local.slots.index(slot) for slot in remote.slots)
