"""Is each mistake in a mapping or a map one sentence that names its line?"""

from pathlib import Path

import pytest

from svsync.config.copy_mapping import load_copy_mapping
from svsync.config.env_map import load_env_map
from svsync.domain.errors import ConfigError, UsageError
from svsync.domain.ids import RemotePath
from svsync.domain.mapping import Mapped
from svsync.services.env_files import read_variables

GOOD = """\
paths:
  ext/apps/billing/db: environments/production/billing/database
  "ext/apps/old/**": null
  "ext/apps/*/api": {to: "shared/*/api", tags: [api, moved], owner: team:api, max_versions: 3}
  "ext/apps/**": "environments/production/**"
tags: [moved]
owner: team:all
type: json
"""


def written(folder: Path, text: str) -> str:
    file = folder / "file.yaml"
    file.write_text(text)
    return str(file)


def test_first_line_that_matches_decides_and_its_own_labels_win(tmp_path: Path) -> None:
    mapping = load_copy_mapping(written(tmp_path, GOOD))
    found = {}
    for source in ("billing/db", "old/x", "billing/api", "billing/other"):
        mapped = mapping.rules.to_local(RemotePath(f"ext/apps/{source}"))
        if isinstance(mapped, Mapped):
            labels = mapping.labels[mapped.rule]
            found[source] = (mapped.local, labels.tags, labels.owner, labels.max_versions)
    assert found == {
        "billing/db": ("environments/production/billing/database", ("moved",), "team:all", None),
        "billing/api": ("shared/billing/api", ("moved", "api"), "team:api", 3),
        "billing/other": ("environments/production/billing/other", ("moved",), "team:all", None),
    }


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", None, "has no value; give it a mapping"),
        ("- a\n", 1, "must be a mapping"),
        ("tags: [a]\n", 1, "paths: is missing"),
        ("paths:\ntags: [a]\n", 1, "has no value"),
        ("paths: {}\n", 1, "is empty"),
        ("paths:\n  a: b\npath: c\n", 3, "did you mean"),
        ("paths:\n  a: b\n  a: c\n", 3, "stands twice"),
        ("paths:\n  a: 5\n", 2, "quotes"),
        ("paths:\n  a: [b]\n", 2, "must be a path"),
        ("paths:\n  a: {tags: [x]}\n", 2, "has no key to"),
        ("paths:\n  a: {to: b, tagz: [x]}\n", 2, "did you mean tags"),
        ("paths:\n  a: {to: b, max_versions: 0}\n", 2, "from 1 to 10,000"),
        ("paths:\n  a/*: b\n", 2, "same wildcards; * in FROM only"),
        ("paths:\n  a/b: b//c\n", 2, "TO: "),
        ("paths:\n  a/b: b/é\n", 2, "TO: "),
        ("paths:\n  a/../b: c\n", 2, "FROM: "),
        ("paths:\n  a/**: **\n", 2, "needs quotes"),
        ("paths:\n  a/**: b/**\n  a/x: c\n", 3, "never matches"),
        ("paths:\n  a: c/x\n  b/*: c/*\n  d: c/y\n", 4, "leads only to paths"),
        ("paths:\n  a/**: a/new/**\n", 2, "is copied itself"),
        ("paths:\n  a: b\n  b: c\n", 2, "is copied itself"),
        ("paths:\n  a: b\ntags: x\n", 3, "must be a list"),
        ("paths:\n  a: b\nowner: ''\n", 3, "text of one line"),
    ],
)
def test_mistake_in_a_mapping_is_one_sentence_with_its_line(
    tmp_path: Path, text: str, line: int | None, says: str
) -> None:
    name = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load_copy_mapping(name)
    message = raised.value.message
    assert message.startswith(f"{name}:{line}: " if line else f"{name}: ")
    assert says in message
    assert "\n" not in message
    assert "path_mapping" not in message


def test_what_is_left_out_first_may_be_copied_to(tmp_path: Path) -> None:
    text = 'paths:\n  "a/new/**": null\n  "a/**": "a/new/**"\n'
    assert len(load_copy_mapping(written(tmp_path, text)).labels) == 2


def test_thousand_single_paths_are_read_and_more_are_refused(tmp_path: Path) -> None:
    lines = [f"  a/{n}: b/{n}\n" for n in range(1001)]
    text = "".join(("paths:\n", *lines[:1000]))
    assert len(load_copy_mapping(written(tmp_path, text)).labels) == 1000
    with pytest.raises(ConfigError, match="more than 1,000 lines"):
        load_copy_mapping(written(tmp_path, "".join(("paths:\n", *lines))))


# --- the map of `import env` ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", None, "has no value; give it a mapping"),
        ("under: a\n", 1, "variables: is missing"),
        ("variables: {}\n", 1, "is empty"),
        ("variables:\n  A: [a]\n", 2, "must be [SECRET, FIELD]"),
        ("variables:\n  A: [a, b, c, d]\n", 2, "must be [SECRET, FIELD]"),
        ("variables:\n  A: a\n", 2, "not text"),
        ("variables:\n  A: {secret: a}\n", 2, "is missing; add field"),
        ("variables:\n  A: {secret: a, feld: b}\n", 2, "did you mean field"),
        ("variables:\n  A: [a b, c]\n", 2, "cannot be a path"),
        ("variables:\n  A: [a, x]\n  B: [a, x]\n", 3, "is the field that A is, in line 2"),
        ("variables:\n  A: [a, x, kv]\n  B: [a, y, json]\n", 3, "another type than line 2"),
        ("under: a//b\nvariables:\n  A: [a, x]\n", 1, "cannot be a path"),
        (f"under: {'u' * 300}\nvariables:\n  A: [{'a' * 300}, x]\n", 3, "makes a path"),
        ("variables:\n  A: [a, x]\ntag: [b]\n", 3, "did you mean tags"),
    ],
)
def test_mistake_in_a_map_is_one_sentence_with_its_line(
    tmp_path: Path, text: str, line: int | None, says: str
) -> None:
    name = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load_env_map(name)
    message = raised.value.message
    assert message.startswith(f"{name}:{line}: " if line else f"{name}: ")
    assert says in message
    assert "\n" not in message


# --- the variables ------------------------------------------------------------------------


def test_file_is_read_as_its_programs_read_it() -> None:
    data = b"\xef\xbb\xbf# c\r\nexport A='x y' # z\r\n\r\nB=\"1\\n2\"\nC=\nD\nE=a#b\nE=a#b\n"
    found = read_variables(data, "env")
    assert {name: (one.value, one.line, one.twice) for name, one in found.items()} == {
        "A": ("x y", 2, None),
        "B": ("1\n2", 4, None),
        "C": ("", 5, None),
        "D": (None, 6, None),
        "E": ("a#b", 8, None),
    }
    assert "x y" not in repr(found)


def test_value_that_is_set_twice_says_where() -> None:
    found = read_variables(b"A=1\nA=2\nA=2\n", "env")
    assert (found["A"].value, found["A"].line, found["A"].twice) == ("2", 3, 1)


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"A=1\n\n'x\n", 3), (b"A=1\nB=\xff\n", 2), (b"A=1\nB=a\x00b\n", 2), (b'A=1\nB="no end\n', 2)],
)
def test_what_is_no_variable_is_refused_with_its_line(data: bytes, line: int) -> None:
    with pytest.raises(UsageError) as raised:
        read_variables(data, "env")
    assert raised.value.message.startswith(f"env:{line}: ")
