"""What each command prints with `--json`, as JSON Schema.

The files of `schemas/` have it, one for each noun, as `http/document` has the API: where the
object is one of the API, they refer to its document. The tests hold whatever a command prints
to its schema, which knows no further fields.
"""

import argparse
import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any, Final

from svsync.cli.arguments import add_command
from svsync.cli.output import Output
from svsync.domain.errors import UsageError

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_OURS: Final = "#/$defs/"
_API: Final = "api."
"""Begins the names of what is the API's; ours may have the same ones."""
_OF_THE_API: Final = ("openapi.json#/components/schemas/", "#/components/schemas/")
_FAILED: Final = {"$ref": f"{_OURS}Failed"}


def add_commands(subparsers: Any) -> None:
    described = add_command(
        subparsers, "schema", "what a command prints with --json, as JSON Schema", schema
    )
    described.add_argument(
        "command_words", metavar="COMMAND", nargs="*",
        help="the command, as `secrets get`; left out, every command",
    )  # fmt: skip


async def schema(args: argparse.Namespace) -> int:
    out: Output = args.out
    words = " ".join(("svsync", *args.command_words))
    try:
        found = schema_of(words) if args.command_words else every_schema()
    except KeyError:
        raise UsageError(
            "there is no such command: give its words without options, as `secrets get`; without"
            " any, every command is told"
        ) from None
    out.document(found)
    return 0


def schema_of(words: str) -> dict[str, Any]:
    """Of one object that the command `svsync …` prints, also where it fails.

    Raises KeyError: there is no such command.
    """
    ends = _ends(words)
    return {"$schema": _DIALECT, "title": f"{words} --json", **ends, "$defs": _reached(ends)}


def every_schema() -> dict[str, Any]:
    """Of an object that has what each command prints under the command's words."""
    commands = {words: _ends(words) for words in sorted(_read()["commands"])}
    return {
        "$schema": _DIALECT,
        "title": "svsync --json",
        "description": "Each property describes what the command of that name prints.",
        "type": "object",
        "properties": commands,
        "additionalProperties": False,
        "$defs": _reached(commands),
    }


def _ends(words: str) -> dict[str, Any]:
    whole = _read()
    done, failed = whole["commands"][words], whole["failed"].get(words)
    return {"anyOf": [one for one in (done, failed, _FAILED) if one]}


def _reached(schema: object) -> dict[str, Any]:
    """What it refers to, and what that does, by name."""
    every, found = _read()["schemas"], dict[str, Any]()
    left = list(_names(schema))
    while left:
        name = left.pop()
        if name not in found:
            found[name] = every[name]
            left += _names(every[name])
    return dict(sorted(found.items()))


def _names(node: object) -> Iterator[str]:
    match node:
        case {"$ref": str(place), **rest}:
            yield place.removeprefix(_OURS).partition("/")[0]
            yield from _names(rest)
        case dict():
            for member in node.values():
                yield from _names(member)
        case list():
            for member in node:
                yield from _names(member)


@cache
def _read() -> dict[str, dict[str, Any]]:
    """All files together; `schemas` has those of the API too.

    Raises ValueError where two have the same command or schema.
    """
    import yaml

    from svsync.http.openapi import document

    whole: dict[str, dict[str, Any]] = {"commands": {}, "failed": {}, "schemas": {}}
    api = json.loads(document())["components"]["schemas"]
    parts = [{"schemas": {f"{_API}{name}": one for name, one in api.items()}}]
    for file in sorted(resources.files("svsync.cli").joinpath("schemas").iterdir(), key=str):
        part = yaml.safe_load(file.read_text("utf-8"))
        # What a command adds something to is an object of the API that is open for it.
        opened = {f"{name}Fields": _opened(api[name]) for name in part.pop("opened", ())}
        parts += [part, {"schemas": opened}]
    for part in parts:
        for kind, named in part.items():
            if twice := whole[kind].keys() & named.keys():
                raise ValueError(f"there is twice what the schemas name {', '.join(sorted(twice))}")
            whole[kind].update(_ours(named))
    return whole


def _opened(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in schema.items() if name != "additionalProperties"}


def _ours(node: Any) -> Any:
    """The same, with references into the API's document as such into ours."""
    match node:
        case dict():
            return {name: _ours(member) for name, member in node.items()}
        case list():
            return [_ours(member) for member in node]
        case str():
            for prefix in _OF_THE_API:
                if node.startswith(prefix):
                    return f"{_OURS}{_API}{node.removeprefix(prefix)}"
    return node
