"""The file of `copy` and `verify`: which secrets are copied where, and what they get there.

    paths:                       # in their order; the first that matches decides
      external/hashicorp/apps/billing/db: environments/production/billing/database
      "external/hashicorp/apps/old/**": null        # is left where it is
      "external/hashicorp/apps/*/api": {to: "environments/production/*/api", tags: [api]}
    tags: [migrated-from-vault]
    owner: team:billing
    max_versions: 10

Both sides are local paths, with the wildcards of a path mapping. A path is copied where
the rules lead to one place and back, as those of a backend do.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from svsync.config.document import Node
from svsync.config.kinds import Key, read_object, text_of, wrong_type
from svsync.config.placed_labels import AS_IT_STANDS, LABEL_KEYS, TYPE, read_lines
from svsync.domain.errors import ConfigError, MappingError
from svsync.domain.federation import RuleSpec
from svsync.domain.languages import Budget, UndecidedError, find_path
from svsync.domain.mapping import RuleSet
from svsync.domain.mapping_lint import lint
from svsync.domain.paths import MAX_LOCAL_BYTES
from svsync.domain.patterns import Pattern

_INDEX: Final = re.compile(r"path_mapping\[(\d+)\](?:\.(local|remote))?")
_SIDES: Final = {"local": "TO", "remote": "FROM"}
_MOST_LINES: Final = 1_000
_NEVER: Final = {
    "local": "leads only to paths that lines before it lead to; move it up or remove it",
    "remote": "never matches, for lines before it take all that it could; move it up or remove it",
}


@dataclass(frozen=True, slots=True)
class Labels:
    """What a secret is given beside its value. None: as its source has it.

    Attributes:
        tags: added to those of its source.
        max_versions: how many versions are kept of it; None: as svsync does by default.
    """

    tags: tuple[str, ...] = ()
    owner: str | None = None
    description: str | None = None
    secret_type: str | None = None
    max_versions: int | None = None


@dataclass(frozen=True, slots=True)
class CopyMapping:
    """`rules` lead from sources (their remote side) to copies (their local side); `labels`
    are those of each rule."""

    rules: RuleSet
    labels: tuple[Labels, ...]


_KEYS: Final = (*LABEL_KEYS, Key("type", TYPE, "Its label."))
_FILE: Final = (Key("paths", AS_IT_STANDS, "FROM: TO, in order.", required=True), *_KEYS)


def load_copy_mapping(name: str) -> CopyMapping:
    """The mapping of a file.

    Raises:
        ConfigError: one sentence with the line and the key.
    """
    whole, paths, given = read_lines(name, _FILE, "paths", "FROM: TO")
    if len(given) > _MOST_LINES:
        raise paths.error(f"has more than {_MOST_LINES:,} lines; use wildcards, or several files")
    nodes = list(given.values())
    specs, labels = [], []
    for source, node in given.items():
        spec, own = _rule(source, node)
        specs.append(spec)
        labels.append(_labels(whole, own))
    try:
        rules = RuleSet.compile(specs)
    except MappingError as error:
        raise _located(nodes, error) from None
    for finding in lint(rules):
        raise nodes[finding.rule].error(_NEVER[finding.side])
    _refuse_circles(rules, nodes)
    return CopyMapping(rules, tuple(labels))


def _rule(source: str, node: Node) -> tuple[RuleSpec, Mapping[str, Any]]:
    """One line of `paths`, and what it gives its copies."""
    own: Mapping[str, Any] = {}
    to: Node | None = node
    if isinstance(node.value, dict):
        held = dict(node.value)
        to = held.pop("to", None)
        if to is None:
            raise node.error("has no key to; add to: PATH, or to: null to leave it where it is")
        own = read_object(Node(held, node.path, node.source, node.line), _KEYS)
    assert to is not None
    if to.value is None:
        return RuleSpec("", source, exclude=True), own
    if isinstance(to.value, list):
        raise wrong_type(to, "a path")
    return RuleSpec(text_of(to, "a path"), source), own


def _labels(whole: Mapping[str, Any], own: Mapping[str, Any]) -> Labels:
    return Labels(
        tags=tuple(dict.fromkeys((*whole.get("tags", ()), *own.get("tags", ())))),
        owner=own.get("owner", whole.get("owner")),
        description=own.get("description", whole.get("description")),
        secret_type=own.get("type", whole.get("type")),
        max_versions=own.get("max_versions", whole.get("max_versions")),
    )


def _located(nodes: list[Node], error: MappingError) -> ConfigError:
    """What is wrong with a rule, in the words of this file, where a person finds it."""
    message = error.message.removeprefix(f"{error.where}: ")
    message = message.replace("on the local side", "in TO").replace("on the remote side", "in FROM")
    message = message.replace("no name of this backend", "no path").replace("local path", "path")
    found = _INDEX.match(error.where)
    if found is None:
        return ConfigError(message, where=nodes[0].source)
    side = _SIDES.get(found[2] or "")
    node = nodes[int(found[1])]
    return node.error(f"{side}: {message}" if side else message)


def _refuse_circles(rules: RuleSet, nodes: list[Node]) -> None:
    """A copy must be no source: else the next run copies the copies."""
    mapped = [rule for rule in rules.rules if not rule.spec.exclude]
    for other in mapped:
        before = rules.rules[: other.index]
        left_out = [one.remote for one in before if one.spec.exclude and one.remote]
        for rule in mapped:
            assert rule.local is not None
            assert other.remote is not None
            if found := _common(rule.local, other.remote, left_out):
                raise nodes[rule.index].error(
                    f"leads to what is copied itself, as {found}: copy to another place, or leave"
                    " that out by a line of its own"
                )


def _common(one: Pattern, other: Pattern, left_out: Sequence[Pattern]) -> str | None:
    """A path that both match, and none of those that are left out."""
    if not (one.literal.startswith(other.literal) or other.literal.startswith(one.literal)):
        return None
    try:
        return find_path([one, other], left_out, budget=Budget(), max_length=MAX_LOCAL_BYTES)
    except UndecidedError:
        return other.text  # too entangled to be told
