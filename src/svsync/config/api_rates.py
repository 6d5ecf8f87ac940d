"""Limits of calls to the API, as the file names them: calls a second, or `off`."""

from typing import Any, Final

from svsync.config.document import Node, below, resolve_plain
from svsync.config.kinds import Key, Kind, number, object_schema, read_object
from svsync.domain.limits import ApiRates

_RATE: Final = number(0.01, 1_000_000)


def _read_rate(node: Node) -> float | None:
    if node.value == "off":
        return None
    rate: float = _RATE.read(node)
    return rate


RATE: Final = Kind(
    _read_rate,
    {"anyOf": [_RATE.schema, {"const": "off"}]},
    "calls a second, or `off`",
)

API_RATES: Final = (
    Key("secrets_read", RATE, "Reads and lists of secrets.", default="off"),
    Key("secrets_write", RATE, "Writes, deletes and restores of secrets.", default=100),
    Key("federation", RATE, "Backends, their runs and conflicts, and webhooks.", default=100),
    Key("admin", RATE, "Policies, the audit log, and who one is.", default=100),
)


def _read(node: Node) -> ApiRates:
    given: dict[str, Any] = read_object(_as_mapping(node), API_RATES)
    return ApiRates(**given)


def _as_mapping(node: Node) -> Node:
    """A variable has them as `secrets_write=50,admin=off`."""
    if not isinstance(node.value, list):
        return node
    members = {}
    for item in node.value:
        given = item.value if isinstance(item.value, str) else ""
        name, equals, text = given.partition("=")
        if not equals or name in members:
            raise item.error("must be a list such as secrets_write=50,admin=off")
        value = resolve_plain(text) if text != "off" else text
        members[name] = Node(value, below(node.path, name), item.source, item.line)
    return Node(members, node.path, node.source, node.line)


RATES: Final = Kind(_read, object_schema(API_RATES), "limits by kind of call", split=True)
