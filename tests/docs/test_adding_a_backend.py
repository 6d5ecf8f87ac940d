"""The tutorial is cut out of the example, and both keep to what svsync gives to others."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from tests.example import PACKAGE, RIGHTS

from svsync.config.load import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/adding-a-backend.md").read_text("utf-8")
README = (PACKAGE / "README.md").read_text("utf-8")
SOURCES = sorted((PACKAGE / "src").rglob("*.py"))
PUBLIC = ("svsync.ports", "svsync.domain", "svsync.network", "svsync_redis")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_each_piece_of_code_on_the_page_is_cut_out_of_the_example() -> None:
    files = [*SOURCES, ROOT / "tests/conformance/test_example.py", PACKAGE / "pyproject.toml"]
    texts = [file.read_text("utf-8") for file in files]
    shown = [*blocks(PAGE, "python"), *blocks(PAGE, "toml")]
    assert len(shown) > 8
    for block in shown:
        assert any(block in text for text in texts), block


def test_example_imports_what_the_page_gives_to_plugins_and_no_more() -> None:
    for module in PUBLIC[:3]:
        assert f"`{module}`" in PAGE
    own = {name for file in SOURCES for name in imports(file) if name.startswith("svsync")}
    assert "svsync.ports" in own
    assert not {name for name in own if not name.startswith(PUBLIC)}


@pytest.mark.parametrize("name", ["conformance", "conformance_writes"])
def test_suite_is_in_the_wheel_and_needs_pytest_alone(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/svsync"]
    needed = imports(ROOT / f"src/svsync/testing/{name}.py")
    own = ("svsync.ports", "svsync.domain", "svsync.testing")
    others = {module.partition(".")[0] for module in needed if not module.startswith(own)}
    assert others - sys.stdlib_module_names == {"pytest"}


def test_configuration_of_the_examples_readme_loads(tmp_path: Path) -> None:
    [example] = blocks(README, "yaml")
    file = tmp_path / "svsync.yaml"
    file.write_text(example)
    settings = load(str(file), {"HOME": str(tmp_path)})
    assert [(spec.id, spec.type) for spec in settings.backends] == [("fed_redis", "redis-hash")]
    assert settings.allowed_plugins == ("redis-hash",)


def test_rights_of_the_examples_readme_are_those_that_its_tests_give() -> None:
    told = set(re.findall(r"(?<![\w|])\+[a-z]+", " ".join(blocks(README, "text"))))
    assert told == set(RIGHTS)


def test_each_link_of_the_examples_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    assert links
    for target in links:
        assert (PACKAGE / target).resolve().exists(), target
