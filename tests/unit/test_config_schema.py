"""One table, four readers: the loader, the editor's schema, the reference page, the example."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from svsync.cli.opening import compiled
from svsync.config import schema
from svsync.config.anchors import ANCHOR
from svsync.config.api_rates import API_RATES
from svsync.config.backend_keys import (
    BACKEND,
    CALL_BUDGET,
    GUARD,
    LIMIT,
    RATE_LIMIT,
    RULE,
    TAGS,
    TRANSFORM,
)
from svsync.config.backend_types import TYPES
from svsync.config.feed_types import FEEDS
from svsync.config.key_services import ACCESS
from svsync.config.kinds import Key
from svsync.config.load import load
from svsync.config.model import ROWS
from svsync.domain.federation import BackendSpec, Guard, TagTransform
from svsync.domain.ids import BackendId

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "svsync.example.yaml"
PAGE = ROOT / "docs" / "reference" / "configuration.md"
REMAKE = "run: python -m svsync.config.schema"

validator = jsonschema.Draft202012Validator(schema.json_schema())


def with_nested(keys: tuple[Key, ...]) -> Iterator[Key]:
    for key in keys:
        yield key
        yield from with_nested(key.keys)


def every_key() -> list[Key]:
    tables = [tuple(ROWS.values()), *(known.keys + known.filters for known in TYPES.values())]
    return [
        key for keys in tables + [keys for _, keys in FEEDS.values()] for key in with_nested(keys)
    ]


def test_the_published_schema_is_that_of_the_code() -> None:
    published = (ROOT / "config" / "svsync.schema.json").read_text()
    assert published == schema.schema_text(), f"{REMAKE} > config/svsync.schema.json"


def test_the_reference_page_is_that_of_the_code() -> None:
    assert PAGE.read_text() == schema.reference_page(), f"{REMAKE} --markdown > {PAGE.name}"


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.json_schema())


def test_every_key_is_documented_with_its_sentence() -> None:
    page = PAGE.read_text()
    for key in every_key():
        assert f"| `{key.name}` |" in page
        assert key.sentence.replace("|", "\\|") in page
    for row in ROWS.values():
        assert f"| `{row.variable}` |" in page


def test_every_key_is_in_the_schema() -> None:
    def names(node: Any) -> Iterator[str]:
        if isinstance(node, Mapping):
            yield from node.get("properties", {})
            for member in node.values():
                yield from names(member)
        elif isinstance(node, list):
            for member in node:
                yield from names(member)

    assert {key.name for key in every_key()} <= set(names(schema.json_schema()))


def test_every_sentence_ends_as_one() -> None:
    assert [key.name for key in every_key() if not key.sentence.endswith(".")] == []


def test_the_example_validates_and_loads() -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    assert list(validator.iter_errors(document)) == []
    settings = load(str(EXAMPLE), {})
    assert {spec.type for spec in settings.backends} == set(TYPES)
    assert len(settings.backends) == 4


def with_all_given(example: str) -> str:
    """The example as if every setting in it were given: those that are commented out are taken
    in, also in place of the same one in the line before."""
    lines: list[str] = []
    for line in example.splitlines():
        taken = re.sub(r"^( *)#(?=[a-z_]+:|- |  )", r"\1", line)
        key = re.match(r" *[a-z_]+:", taken)
        if taken != line and key and lines[-1].startswith(key[0]):
            lines.pop()
        lines.append(taken)
    return "\n".join(lines)


def test_the_example_with_every_setting_given_loads_too(tmp_path: Path) -> None:
    whole = tmp_path / "svsync.yaml"
    whole.write_text(with_all_given(EXAMPLE.read_text()))
    assert list(validator.iter_errors(yaml.safe_load(whole.read_text()))) == []
    settings = load(str(whole), {})
    compiled(settings)
    assert settings.database_url is not None
    assert len(settings.backends) > 4


def test_the_example_shows_every_setting_of_every_table() -> None:
    """Given in its place; what another one there excludes is at least named in a comment."""
    text = EXAMPLE.read_text()
    document = yaml.safe_load(with_all_given(text))
    backends = document["backends"]
    by_type = {name: [b for b in backends if b["type"] == name] for name in TYPES}
    rules = [
        rule for b in backends if isinstance(b["path_mapping"], list) for rule in b["path_mapping"]
    ]
    transforms = [rule["transform"] for rule in rules if "transform" in rule]
    rates = [b["rate_limit"] for b in backends if "rate_limit" in b]
    tables: list[tuple[str, Iterable[Key], list[dict[str, Any]]]] = [
        ("top level", ROWS.values(), [document]),
        ("api_rate_limits", API_RATES, [document["api_rate_limits"]]),
        ("audit_anchors", ANCHOR, document["audit_anchors"]),
        ("kms_access", ACCESS, [document["kms_access"], document["kms_access_secondary"]]),
        ("backends", BACKEND, backends),
        ("path_mapping", RULE, rules),
        ("transform", TRANSFORM, transforms),
        ("transform.tags", TAGS, [one["tags"] for one in transforms]),
        ("guard", GUARD, [b["guard"] for b in backends if "guard" in b]),
        ("rate_limit", RATE_LIMIT, rates),
        ("one limit", LIMIT, [one for r in rates for one in r.values() if isinstance(one, dict)]),
        ("call_budget", CALL_BUDGET, [b["call_budget"] for b in backends if "call_budget" in b]),
    ]
    for name, known in TYPES.items():
        mine = by_type[name]
        tables.append((f"config of {name}", known.keys, [b["config"] for b in mine]))
        tables.append((f"filters of {name}", known.filters, [b.get("filters", {}) for b in mine]))
    feeds = [feed for b in backends for feed in b.get("events", ())]
    for name, (_, keys) in FEEDS.items():
        told = [feed for feed in feeds if feed["feed"] == name]
        assert told, f"config/svsync.example.yaml shows no feed {name}"
        tables.append((f"feed {name}", keys, told))
    named = " ".join(re.findall(r"# .*", text))
    lacking = [
        f"{where}: {key.name}"
        for where, keys, given in tables
        for key in keys
        if not any(key.name in one for one in given) and f"`{key.name}`" not in named
    ]
    assert lacking == [], "explain them in config/svsync.example.yaml"


def test_each_setting_of_the_example_is_explained() -> None:
    """By a comment behind it, or by one that stands before its group."""
    lines = EXAMPLE.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#?[a-z_]+:", line):
            before = number
            while re.match(r"#?[a-z_]+:| |#  ", lines[before]):
                before -= 1
            assert lines[before].startswith("# "), line


def test_the_example_names_the_schema_for_editors() -> None:
    first = EXAMPLE.read_text().split("\n", 1)[0]
    assert first == "# yaml-language-server: $schema=./svsync.schema.json"


@pytest.mark.parametrize(
    "change",
    [
        {"log_levle": "info"},
        {"log_level": "INFO"},
        {"kms_grace": "1y"},
        {"backends": [{"name": "a"}]},
        {"backends": {}},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(change: Mapping[str, Any]) -> None:
    assert not validator.is_valid(yaml.safe_load(EXAMPLE.read_text()) | change)


def test_the_schema_knows_the_keys_of_each_type() -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    document["backends"][1]["config"]["endpoint"] = "https://vault.internal"
    assert not validator.is_valid(document)


def test_documented_defaults_are_accepted_by_schema_and_kind() -> None:
    for key in every_key():
        if key.default is not None:
            jsonschema.validate(key.default, dict(key.kind.schema))
            assert key.read_default() is not None or key.default == "off"


def test_documented_defaults_of_a_backend_are_those_of_the_domain() -> None:
    spec = BackendSpec(BackendId("x"), "x", "x", ())
    for key in BACKEND:
        if key.default is not None and hasattr(spec, key.name):
            assert getattr(spec, key.name) == key.read_default(), key.name
        elif not key.required and hasattr(spec, key.name) and key.name not in ("id", "guard"):
            assert not getattr(spec, key.name), key.name
    for key in GUARD:
        assert getattr(Guard(), key.name) == key.read_default()
    for key in TAGS:
        assert getattr(TagTransform(), key.name) == key.read_default()


def test_the_module_prints_schema_or_page(capsys: pytest.CaptureFixture[str]) -> None:
    schema.main([])
    assert json.loads(capsys.readouterr().out) == schema.json_schema()
    schema.main(["--markdown"])
    assert capsys.readouterr().out == schema.reference_page()
