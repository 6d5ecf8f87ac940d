"""The map file of `import env`: which variable is which field of which secret.

under: environments/production/billing     # what the secrets' paths begin with
variables:
  STRIPE_SECRET_KEY: {secret: stripe, field: secret_key, type: api_key}
  SALESFORCE_CLIENT_ID: [salesforce, client_id, json]      # the same, in short
  SENTRY_DSN: null                          # stays in the environment
tags: [billing, "{secret}", production]     # {secret}: the secret's name below `under`
owner: team:billing
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from svsync.config.document import Node
from svsync.config.kinds import Key, Kind, read_object, text, text_of, wrong_type
from svsync.config.placed_labels import AS_IT_STANDS, LABEL_KEYS, TYPE, read_lines
from svsync.domain.ids import LocalPath
from svsync.domain.paths import local_problem

DEFAULT_TYPE: Final = "json"
_FIELD: Final = text(r".+", "a field's name of at most 256 characters", max_length=256)
_SHORT: Final = ("secret", "field", "type")
NAME: Final = "{secret}"


@dataclass(frozen=True, slots=True)
class Grouped:
    """One secret and its variables.

    Attributes:
        fields: the name of each field, by that of its variable, in the order of the file.
    """

    path: LocalPath
    secret_type: str
    fields: Mapping[str, str]
    tags: tuple[str, ...]
    owner: str | None
    description: str | None
    max_versions: int | None


@dataclass(frozen=True, slots=True)
class EnvMap:
    """`left` are the variables that the file says are to stay where they are."""

    secrets: tuple[Grouped, ...]
    left: frozenset[str]


def _read_path(node: Node) -> str:
    given = text_of(node, "a path").removesuffix("/")
    if problem := local_problem(given):
        raise node.error(f"cannot be a path: {problem.detail}")
    return given


_PATH: Final = Kind(_read_path, {"type": "string"}, "a path")
_ENTRY: Final = (
    Key("secret", _PATH, "The secret, below `under`.", required=True),
    Key("field", _FIELD, "The field that it is.", required=True),
    Key("type", TYPE, "The label of the secret.", default=DEFAULT_TYPE),
)
_KEYS: Final = (
    Key("variables", AS_IT_STANDS, "What each variable is.", required=True),
    Key("under", _PATH, "What paths begin with."),
    *LABEL_KEYS,
)


def load_env_map(name: str) -> EnvMap:
    """The map of a file.

    Raises:
        ConfigError: one sentence with the line and the key.
    """
    whole, _, given = read_lines(name, _KEYS, "variables", "NAME: [SECRET, FIELD, TYPE]")
    groups: dict[str, dict[str, tuple[dict[str, Any], Node]]] = {}
    left = set()
    for variable, node in given.items():
        if node.value is None:
            left.add(variable)
            continue
        entry = _entry(node)
        group = groups.setdefault(entry["secret"], {})
        _refuse_contradiction(group, entry, node)
        group[variable] = (entry, node)
    secrets = tuple(_grouped(whole, secret, group) for secret, group in groups.items())
    return EnvMap(secrets, frozenset(left))


def _entry(node: Node) -> dict[str, Any]:
    """What a variable is; in short it is a list, as guides print it."""
    if isinstance(node.value, list):
        if len(node.value) not in (2, 3):
            raise node.error("must be [SECRET, FIELD] or [SECRET, FIELD, TYPE]")
        named = dict(zip(_SHORT, node.value, strict=False))
        node = Node(named, node.path, node.source, node.line)
    elif not isinstance(node.value, dict):
        raise wrong_type(node, "[SECRET, FIELD, TYPE], or null for what stays in the environment")
    return read_object(node, _ENTRY)


def _refuse_contradiction(
    group: Mapping[str, tuple[dict[str, Any], Node]], entry: dict[str, Any], node: Node
) -> None:
    for other, (known, before) in group.items():
        if known["field"] == entry["field"]:
            raise node.error(f"is the field that {other} is, in line {before.line}; name another")
        both = {kind["type"] for kind in (known, entry) if "type" in kind}
        if len(both) > 1:
            raise node.error(f"gives its secret another type than line {before.line}; keep one")


def _grouped(
    whole: Mapping[str, Any], secret: str, group: Mapping[str, tuple[dict[str, Any], Node]]
) -> Grouped:
    entries = [entry for entry, _ in group.values()]
    [node, *_] = [node for _, node in group.values()]
    path = f"{whole['under']}/{secret}" if "under" in whole else secret
    if problem := local_problem(path):
        raise node.error(f"makes a path that cannot be one: {problem.detail}")
    return Grouped(
        LocalPath(path),
        next((entry["type"] for entry in entries if "type" in entry), DEFAULT_TYPE),
        {variable: entry["field"] for variable, (entry, _) in group.items()},
        tuple(sorted({tag.replace(NAME, secret) for tag in whole.get("tags", ())})),
        whole.get("owner"),
        whole.get("description"),
        whole.get("max_versions"),
    )
