"""A configuration document as a tree of values that know where they stand.

YAML is read event by event and never constructed into objects, so that each
value keeps its line, and so that what surprises people is refused instead of
guessed: duplicate keys, aliases (a pattern such as `**` without quotes is
one), tags, and the `yes`, `off` and `12:30` of YAML 1.1. A body of the API
becomes the same tree, without lines.

No message repeats a value: somebody may have pasted a secret there.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from svsync.domain.errors import ConfigError

MAX_BYTES = 1024 * 1024
"""A file of a thousand backends has about 400 kB."""

MAX_DEPTH = 32
MAX_NODES = 200_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place.

    Attributes:
        value: a scalar, a list of nodes, or a mapping of nodes in textual order.
        path: the keys that lead to it, `backends[0].config.endpoint`.
        source: the file or variable it was read from; empty for the API.
        line: its line from 1, None where there are none.
    """

    value: "Scalar | list[Node] | dict[str, Node]" = field(repr=False)
    path: str = ""
    source: str = ""
    line: int | None = None

    @property
    def where(self) -> str:
        """The place as a person finds it: `svsync.yaml:12: backends[0].name`."""
        place = f"{self.source}:{self.line}" if self.source and self.line else self.source
        return ": ".join(part for part in (place, self.path) if part)

    def error(self, message: str, *, code: str | None = None) -> ConfigError:
        return ConfigError(message, where=self.where, code=code)

    def walk(self) -> "Iterator[Node]":
        """This node and all below it, in textual order."""
        yield self
        children: Sequence[Node] = ()
        if isinstance(self.value, dict):
            children = list(self.value.values())
        elif isinstance(self.value, list):
            children = self.value
        for child in children:
            yield from child.walk()


def shown(name: str) -> str:
    """A key as it may be printed: no control characters, not without end."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= 64 else clean[:61] + "..."


def below(path: str, key: str) -> str:
    plain = len(key) <= 64 and _PLAIN_KEY.fullmatch(key)
    step = key if plain else f'["{shown(key)}"]'
    return f"{path}.{step}" if path and not step.startswith("[") else f"{path}{step}"


def read_yaml(data: bytes, source: str, path: str = "") -> Node:
    """The tree of one YAML document; `path` is what its own keys are below.

    Raises:
        ConfigError: one sentence with source and line, whatever the bytes are.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError("is larger than 1 MiB; split it or remove what it repeats", where=source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise ConfigError(
            "is not UTF-8 here; save the file as UTF-8", where=f"{source}:{line}"
        ) from None
    _refuse_control_characters(text, source)
    return _Composer(text, source).compose(path)


def from_json(value: object, path: str = "", depth: int = 0) -> Node:
    """The tree of a JSON value, as the API hands it over."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"is nested deeper than {MAX_DEPTH} levels", where=path)
    if isinstance(value, Mapping):
        return Node(
            {str(k): from_json(v, below(path, str(k)), depth + 1) for k, v in value.items()}, path
        )
    if isinstance(value, (list, tuple)):
        return Node([from_json(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value)], path)
    if value is None or isinstance(value, (str, int, float, bool)):
        return Node(value, path)
    raise ConfigError("is not a JSON value", where=path)


def resolve_plain(text: str) -> Scalar:
    """What text without quotes means: YAML 1.2's core schema, in decimal only."""
    if text.lower() in _CONSTANTS and text in (text.lower(), text.upper(), text.capitalize()):
        return _CONSTANTS[text.lower()]
    if _INTEGER.fullmatch(text):
        # More digits than any limit allows say no more than these do, and
        # Python refuses to convert thousands of them.
        return int(text[:32])
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _refuse_control_characters(text: str, source: str) -> None:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.isprintable():
            continue
        for column, character in enumerate(line.removesuffix("\r"), start=1):
            kind = unicodedata.category(character)
            if character != "\t" and kind in ("Cc", "Zl", "Zp"):
                raise ConfigError(
                    f"holds the control character U+{ord(character):04X} at column {column}; "
                    "remove it",
                    where=f"{source}:{number}",
                )


def _line(event: Any) -> int:
    """Counted from 1."""
    return int(event.start_mark.line) + 1


class _Composer:
    """Builds the tree out of the parser's events, with limits."""

    def __init__(self, text: str, source: str) -> None:
        self._lines = text.split("\n")
        self._source = source
        self._nodes = 0
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)

    def compose(self, path: str) -> Node:
        root = Node(None, path, self._source)
        documents = 0
        while not isinstance(event := self._next(), yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error(event, "starts a second document; keep one")
            elif isinstance(event, (yaml.StreamStartEvent, yaml.DocumentEndEvent)):
                continue
            else:
                root = self._node(event, path, 0)
        return root

    def _next(self) -> Any:
        try:
            return next(self._events)
        except yaml.YAMLError as e:
            # The parser's own text may quote the line, so it is not passed on.
            mark: Any = getattr(e, "problem_mark", None)
            number = min(mark.line + 1 if mark else 1, len(self._lines))
            raise ConfigError(self._explain(number), where=f"{self._source}:{number}") from None

    def _explain(self, number: int) -> str:
        line = self._lines[number - 1]
        indentation = line[: len(line) - len(line.lstrip())]
        if "\t" in indentation:
            return "is indented with a tab; YAML allows spaces only"
        if re.search(r"(^|[:\[,-]\s*)\*", line):
            return 'a text that begins with * needs quotes: "**"'
        if re.search(r"(^|[:\[{,-]\s*)[@`%&!|>]", line):
            return "a text that begins with one of @ ` % & ! | > needs quotes"
        return (
            "is not valid YAML from here on; look for a missing colon, quote or bracket, "
            "or an indentation that fits no line above"
        )

    def _error(self, event: Any, message: str, path: str = "") -> ConfigError:
        return Node(None, path, self._source, _line(event)).error(message)

    def _node(self, event: Any, path: str, depth: int, key_line: int | None = None) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(event, f"holds more than {MAX_NODES:,} values", path)
        if depth > MAX_DEPTH:
            raise self._error(event, f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            raise self._error(
                event,
                "begins with *, which is an alias in YAML and not used here; "
                'put a pattern in quotes ("**"), and write out what repeats',
                path,
            )
        if event.anchor is not None:
            raise self._error(
                event, "begins with &, which is an anchor in YAML and not used here", path
            )
        if event.tag is not None:
            raise self._error(
                event, "begins with !, which is a tag in YAML and not used here", path
            )
        line = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            plain = event.implicit[0]
            value = resolve_plain(event.value) if plain else event.value
            return Node(value, path, self._source, line)
        # A mapping or list begins below its key; the key is where a person looks.
        line = key_line or line
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(inner, f"{path}[{len(items)}]", depth + 1))
            return Node(items, path, self._source, line)
        return Node(self._mapping(path, depth), path, self._source, line)

    def _mapping(self, path: str, depth: int) -> dict[str, Node]:
        members: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                if isinstance(event, yaml.AliasEvent):
                    self._node(event, path, depth)
                raise self._error(event, "has a key that is not a text; keys are names", path)
            self._node(event, path, depth)
            key, line = event.value, _line(event)
            if key in members:
                raise self._error(
                    event,
                    f"stands twice, here and in line {lines[key]}; keep one",
                    below(path, key),
                )
            lines[key] = line
            members[key] = self._node(self._next(), below(path, key), depth + 1, line)
        return members
