"""Kinds of values, and the rows of the tables that say which key takes which.

A `Kind` reads one value, describes itself to JSON Schema and to people; a `Key`
is one row: name, kind, sentence. What the loader accepts, what an editor
completes and what the reference page says all come from these rows.
"""

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from svsync.config import literals, references
from svsync.config.document import Node, below, resolve_plain
from svsync.domain.errors import ConfigError

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key takes.

    Attributes:
        read: the checked value of a node; raises ConfigError.
        schema: the same in JSON Schema.
        words: the same for people, as the reference page prints it.
        split: a variable's text is a comma-separated list.
        plain: a variable's text is read as YAML reads text without quotes.
    """

    read: Callable[[Node], Any]
    schema: Schema
    words: str
    split: bool = False
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """One row of a table.

    Attributes:
        default: as a person would write it in the file; None: not given.
        default_words: what not given means, where that is not `default`.
        variable: the environment variable that overrides it (top level only).
        file_only: the API refuses it.
        keys: the rows of the object it takes, for the reference page.
    """

    name: str
    kind: Kind
    sentence: str
    default: Any = None
    default_words: str = ""
    required: bool = False
    variable: str = ""
    file_only: bool = False
    keys: "tuple[Key, ...]" = field(default=())

    def read_default(self) -> Any:
        return None if self.default is None else self.kind.read(Node(self.default, self.name))


# --- objects ----------------------------------------------------------------------


def read_object(node: Node, keys: Sequence[Key], *, api: bool = False) -> dict[str, Any]:
    """The given keys of a mapping, checked; what is not given is not there.

    Raises:
        ConfigError: not a mapping, an unknown, missing or unusable key, or one
            that `api` may not use (code `file_only_setting`).
    """
    members = mapping_of(node)
    rows = {key.name: key for key in keys}
    values = {}
    for name, member in members.items():
        row = rows.get(name)
        if row is None:
            raise unknown_key(member, name, rows)
        if api and row.file_only:
            raise member.error(
                "is for the operator's configuration file only; leave it out",
                code="file_only_setting",
            )
        values[name] = row.kind.read(member)
    for row in keys:
        if row.required and row.name not in values:
            raise Node(None, below(node.path, row.name), node.source, node.line).error(
                f"is missing; add {row.name}: {row.kind.words}"
            )
    return values


def unknown_key(member: Node, name: str, known: Mapping[str, object]) -> ConfigError:
    if literals.names_credential(name):
        return literals.literal(member)
    nearest = difflib.get_close_matches(name.lower().replace("-", "_"), known, 1, 0.6)
    if nearest:
        return member.error(f"is an unknown key; did you mean {nearest[0]}?")
    return member.error(f"is an unknown key; known here: {', '.join(sorted(known))}")


def mapping_of(node: Node) -> dict[str, Node]:
    if isinstance(node.value, dict):
        return node.value
    raise wrong_type(node, "a mapping of keys to values")


def list_of(node: Node) -> list[Node]:
    if isinstance(node.value, list):
        return node.value
    raise wrong_type(node, "a list")


def wrong_type(node: Node, wanted: str, *, hint: str = "") -> ConfigError:
    """What was wanted and what kind of thing stands there; never the thing.

    `hint` is what to do where a scalar would do as text.
    """
    match node.value:
        case None:
            return node.error(f"has no value; give it {wanted} or remove the key")
        case bool():
            given = "true or false" + hint
        case int() | float():
            given = "a number" + hint
        case str():
            given = "text"
        case list():
            given = "a list"
        case _:
            given = "a mapping"
    return node.error(f"must be {wanted}, not {given}")


# --- scalars ----------------------------------------------------------------------


def text_of(node: Node, wanted: str = "text") -> str:
    if not isinstance(node.value, str):
        raise wrong_type(node, wanted, hint="; put it in quotes")
    if not node.value.replace("\n", "").isprintable():
        raise node.error("holds a control character; remove it")
    return node.value


def text(pattern: str, words: str, *, max_length: int = 512) -> Kind:
    compiled = re.compile(pattern)

    def read(node: Node) -> str:
        value = text_of(node, words)
        if len(value) > max_length or not compiled.fullmatch(value):
            raise node.error(f"must be {words}")
        return value

    return Kind(
        read, {"type": "string", "pattern": f"^({pattern})$", "maxLength": max_length}, words
    )


def _read_boolean(node: Node) -> bool:
    if isinstance(node.value, bool):
        return node.value
    raise wrong_type(node, "true or false")


BOOLEAN = Kind(_read_boolean, {"type": "boolean"}, "`true` or `false`", plain=True)


def integer(low: int, high: int) -> Kind:
    words = f"a whole number from {low:,} to {high:,}"

    def read(node: Node) -> int:
        if isinstance(node.value, bool) or not isinstance(node.value, int):
            raise wrong_type(node, words)
        if not low <= node.value <= high:
            raise node.error(f"must be {words}")
        return node.value

    return Kind(read, {"type": "integer", "minimum": low, "maximum": high}, words, plain=True)


def number(low: float, high: float) -> Kind:
    words = f"a number from {low:g} to {high:g}"

    def read(node: Node) -> float:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise wrong_type(node, words)
        if not low <= node.value <= high:  # NaN is in no range
            raise node.error(f"must be {words}")
        return float(node.value)

    return Kind(read, {"type": "number", "minimum": low, "maximum": high}, words, plain=True)


def _measured(
    units: Mapping[str, int], low: int, high: int, bare: str, example: str, noun: str
) -> Kind:
    pattern = re.compile(f"([0-9]{{1,12}})({'|'.join(units)})")
    span = f"{shortest(low, units)} to {shortest(high, units)}"
    words = f"a {noun} from {span}, such as {example} (a bare number is {bare})"

    def read(node: Node) -> int:
        value = node.value
        if isinstance(value, str) and (match := pattern.fullmatch(value)):
            value = int(match[1]) * units[match[2]]
        elif isinstance(value, bool) or not isinstance(value, int):
            raise (
                node.error(f"must be {words}")
                if isinstance(value, str)
                else wrong_type(node, words)
            )
        if not low <= value <= high:
            raise node.error(f"must be {words}")
        return value

    schema = {
        "anyOf": [
            {"type": "integer", "minimum": low, "maximum": high},
            {"type": "string", "pattern": f"^{pattern.pattern}$"},
        ]
    }
    return Kind(read, schema, words, plain=True)


SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def duration(low: int, high: int) -> Kind:
    """Seconds."""
    return _measured(SECONDS, low, high, "seconds", "15m", "duration")


def size(low: int, high: int) -> Kind:
    """Bytes."""
    return _measured(BYTES, low, high, "bytes", "1MiB", "size")


def shortest(amount: int, units: Mapping[str, int]) -> str:
    """`900` seconds as `15m`: the largest unit that divides it."""
    if amount == 0:
        return "0"
    unit = max((u for u in units if amount % units[u] == 0), key=lambda u: units[u])
    return f"{amount // units[unit]}{unit}"


def choice(kind: type[StrEnum] | Sequence[str]) -> Kind:
    """One of an enumeration, as its member, or one of some words, as text."""
    options: dict[str, str] = {str(option): option for option in kind}
    words = " or ".join((", ".join(list(options)[:-1]), list(options)[-1])).removeprefix(" or ")

    def read(node: Node) -> str:
        if isinstance(node.value, str) and node.value in options:
            return options[node.value]
        if isinstance(node.value, str):
            raise node.error(f"must be {words}")
        raise wrong_type(node, words)

    return Kind(read, {"enum": list(options)}, words)


def sequence(item: Kind, words: str, *, max_items: int = 1000) -> Kind:
    def read(node: Node) -> tuple[Any, ...]:
        items = list_of(node)
        if len(items) > max_items:
            raise node.error(f"has more than {max_items:,} items")
        return tuple(item.read(member) for member in items)

    return Kind(read, {"type": "array", "items": item.schema}, words, split=True)


def table(item: Kind, words: str) -> Kind:
    """A mapping whose keys are the user's own names."""

    def read(node: Node) -> dict[str, Any]:
        return {name: item.read(member) for name, member in mapping_of(node).items()}

    return Kind(read, {"type": "object", "additionalProperties": item.schema}, words)


def record(keys: tuple[Key, ...], words: str) -> Kind:
    """A mapping of known keys."""
    return Kind(lambda node: read_object(node, keys), object_schema(keys), words)


def object_schema(keys: Sequence[Key]) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: key_schema(key) for key in keys},
    }
    required = [key.name for key in keys if key.required]
    return schema | ({"required": required} if required else {})


def key_schema(key: Key) -> dict[str, Any]:
    schema = {"description": key.sentence, **key.kind.schema}
    return schema if key.default is None else {**schema, "default": key.default}


# --- names and addresses ------------------------------------------------------------


def _read_reference(node: Node) -> str:
    if isinstance(node.value, (dict, list)):
        raise literals.literal(node)
    try:
        return str(references.Reference.parse(text_of(node, "a reference")))
    except ConfigError as e:
        raise e if e.where else node.error(e.message) from None


REFERENCE = Kind(
    _read_reference,
    {"type": "string", "pattern": references.PATTERN, "maxLength": 4096},
    "a reference: a ScaiVault path, `env:NAME` or `file:/path`",
)

FILE_PATH = text(r"/[^\x00-\x1f\x7f]*", "an absolute file path", max_length=4096)
TENANT = text(r"[a-z0-9][a-z0-9-]*", "a tenant's slug (a-z, 0-9, -)", max_length=63)
ANY_TEXT = text(r"[^\x00-\x1f\x7f]*", "text", max_length=4096)


def _read_address(node: Node) -> str:
    value = text_of(node, "host:port")
    host, _, port = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535 or not _is_host(bare, host):
        raise node.error("must be host:port, such as 127.0.0.1:9464 or [::1]:9464")
    return value


def _is_host(bare: str, written: str) -> bool:
    if written.startswith("["):
        return _is_ip(bare, ipaddress.IPv6Address)
    return HOST_NAME.fullmatch(bare) is not None


def _is_ip(value: str, kind: Callable[[str], object]) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True


HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)

ADDRESS = Kind(
    _read_address, {"type": "string", "pattern": r"^.+:[0-9]{1,5}$"}, "an address, host:port"
)


def _read_network(node: Node) -> str:
    value = text_of(node, "an address range")
    if not _is_ip(value, ipaddress.ip_network):
        raise node.error("must be an address or a range such as 10.0.0.0/8, without host bits")
    return str(ipaddress.ip_network(value))


NETWORK = Kind(_read_network, {"type": "string"}, "an address or a range (CIDR)")


def _read_host_or_network(node: Node) -> str:
    value = text_of(node, "a host name or an address range")
    if _is_ip(value, ipaddress.ip_network):
        return str(ipaddress.ip_network(value))
    if not HOST_NAME.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
        raise node.error("must be a host name, an address, or a range such as 10.0.0.0/8")
    return value.lower()


HOST_OR_NETWORK = Kind(_read_host_or_network, {"type": "string"}, "a host name or a range (CIDR)")


# --- variables ----------------------------------------------------------------------


def node_of_variable(key: Key, variable: str, raw: str) -> Node:
    """A variable's text as the node that the key's kind reads."""
    if key.kind.split:
        parts = [part.strip() for part in raw.split(",") if part.strip()]
        return Node([Node(part, "", variable) for part in parts], "", variable)
    return Node(resolve_plain(raw) if key.kind.plain else raw, "", variable)
