"""Is what each command prints with `--json` described, and told to whoever asks?"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]
from tests import printed
from tests.docs.cli_page import commands

from svsync.cli.main import build_parser, main
from svsync.cli.schema import _read, every_schema, schema_of

COMMANDS = [f"svsync {' '.join(words)}" for words, _, _ in commands(build_parser())]


def test_each_command_has_a_schema_and_nothing_else_has() -> None:
    assert sorted(_read()["commands"]) == sorted(COMMANDS)
    assert _read()["failed"].keys() <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS)
def test_it_is_one_that_stands_by_itself(words: str) -> None:
    schema = schema_of(words)
    Draft202012Validator.check_schema(schema)
    there = {f"#/$defs/{name}" for name in schema["$defs"]}
    assert {place for place in _places(schema) if place.count("/") == 2} <= there
    assert not {place for place in _places(schema) if not place.startswith("#/$defs/")}


def test_no_object_of_a_command_has_fields_that_are_not_described() -> None:
    own = {name: one for name, one in _read()["schemas"].items() if not name.startswith("api.")}
    for name, schema in [*_read()["commands"].items(), *_read()["failed"].items(), *own.items()]:
        for where, node in _objects(schema):
            closed = "additionalProperties" in node or "unevaluatedProperties" in node
            assert closed or name.endswith("Fields") or name == "AnySchema", (name, where)


def test_every_schema_of_the_files_is_used() -> None:
    used = every_schema()["$defs"].keys()
    assert {name for name in _read()["schemas"] if not name.startswith("api.")} <= used


def test_one_command_and_all_of_them_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "secrets", "get"]) == 0
    assert json.loads(capsys.readouterr().out) == schema_of("svsync secrets get")
    assert main(["schema"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == every_schema()
    assert sorted(told["properties"]) == sorted(COMMANDS)
    assert main(["schema", "secrets", "forget"]) == 2
    assert "there is no such command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "code", "out"),
    [
        (["config", "check"], 0, {"file": None, "backends": [], "more": 1}),
        (["config", "check"], 0, {"file": None}),
        (["config", "check"], 1, {"error": {"code": "internal", "stack": "…"}}),
        (["plan", "--backend", "fed_a"], 3, {"run_id": None}),
        (["copy", "--mapping", "f"], 1, {"counts": {}, "error": {"code": "denied"}}),
    ],
)
def test_the_tests_refuse_what_is_not_described(args: list[str], code: int, out: Any) -> None:
    with pytest.raises(ValidationError):
        printed.check([*args, "--json"], code, json.dumps(out))


def _places(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for member in node.values():
            yield from _places(member)
    if isinstance(node, list):
        for member in node:
            yield from _places(member)


def _objects(node: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema with named members, and where it stands."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield where, node
        for name, member in node.items():
            yield from _objects(member, f"{where}/{name}")
    if isinstance(node, list):
        for number, member in enumerate(node):
            yield from _objects(member, f"{where}/{number}")
