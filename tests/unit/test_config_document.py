"""A file that is not what it should be is refused in one sentence, with its line."""

import pytest

from svsync.config.document import MAX_BYTES, Node, from_json, read_yaml, resolve_plain
from svsync.domain.errors import ConfigError

CANARY = "c4n4ry"


def refusal(text: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "svsync.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert CANARY not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


BOMB = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a:\n\tb: c4n4ry", "svsync.yaml:2: is indented with a tab"),
        (b"local: **\n", "svsync.yaml:1: a text that begins with * needs quotes"),
        (b"a: 1\nb: *c4n4ry", "svsync.yaml:2: b: begins with *, which is an alias"),
        (BOMB, "svsync.yaml:1: a: begins with &, which is an anchor"),
        (b"a: !!python/object:os.system c4n4ry", "svsync.yaml:1: a: begins with !, which is a tag"),
        (b"a: 1\nb: 2\na: c4n4ry", "svsync.yaml:3: a: stands twice, here and in line 1"),
        (b"a:\n  b: 1\n  b: 2", "svsync.yaml:3: a.b: stands twice, here and in line 2"),
        (b"a: 1\nb: \x00c4n4ry", "svsync.yaml:2: holds the control character U+0000 at column 4"),
        (b"a: 1\n\x1b[31m: 1", "svsync.yaml:2: holds the control character U+001B at column 1"),
        ("a: \u2028".encode(), "svsync.yaml:1: holds the control character U+2028"),
        (b"a: 1\nb: \xff", "svsync.yaml:2: is not UTF-8"),
        ("a: 1".encode("utf-16"), "is not UTF-8"),
        (b"a: [" + b"[" * 40_000, "svsync.yaml:1: is nested deeper than 32 levels"),
        (b"{a: " * 40_000, "svsync.yaml:1: is nested deeper than 32 levels"),
        (b"a: {b: c4n4ry", "is not valid YAML from here on"),
        (b"a: 'c4n4ry", "is not valid YAML from here on"),
        (b"a: 'it's c4n4ry'", "svsync.yaml:1: is not valid YAML from here on"),
        (b"a: @c4n4ry", "svsync.yaml:1: a text that begins with one of @"),
        (b"? [c4n4ry]\n: 1", "svsync.yaml:1: has a key that is not a text"),
        (b"a: 1\n---\nb: c4n4ry", "svsync.yaml:2: starts a second document"),
        (b"#" * (MAX_BYTES + 1), "svsync.yaml: is larger than 1 MiB"),
        (b"a: [" + b"1," * 250_000 + b"]", "holds more than 200,000 values"),
    ],
)
def test_a_broken_document_is_refused_with_line_and_remedy(text: bytes, expected: str) -> None:
    assert expected in refusal(text)


def test_each_value_knows_its_line_and_path() -> None:
    root = read_yaml(b"a: 1\nb:\n  - x: 'y'\n  - {z: w}\n", "f.yaml")
    assert [(n.path, n.line) for n in root.walk()] == [
        ("", 1),
        ("a", 1),
        ("b", 2),
        ("b[0]", 3),
        ("b[0].x", 3),
        ("b[1]", 4),
        ("b[1].z", 4),
    ]


def test_keys_keep_their_textual_order_and_their_text() -> None:
    root = read_yaml(b'{"b/**": "1", "a/**": "2", 10: x, true: y}', "f.yaml")
    assert isinstance(root.value, dict)
    assert list(root.value) == ["b/**", "a/**", "10", "true"]
    assert root.value["b/**"].where == 'f.yaml:1: ["b/**"]'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("tRue", "tRue"),
        ("~", None),
        ("", None),
        ("off", "off"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("-7", -7),
        ("1e3", 1000.0),
        ("1e400", float("inf")),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
    ],
)
def test_plain_text_is_read_without_the_surprises_of_yaml_1_1(text: str, value: object) -> None:
    read = resolve_plain(text)
    assert read == value
    assert type(read) is type(value)


def test_an_endless_number_is_read_as_too_large_and_not_refused_by_python() -> None:
    read = resolve_plain("9" * 10_000)
    assert isinstance(read, int)
    assert read > 10**30


def test_quoted_text_stays_text() -> None:
    root = read_yaml(b"a: 'true'\nb: \"5\"\nc: |\n  x\n", "f.yaml")
    assert [n.value for n in root.walk()][1:] == ["true", "5", "x\n"]


def test_a_json_body_becomes_the_same_tree_without_lines() -> None:
    root = from_json({"a": [{"b": None}]})
    assert [(n.path, n.where) for n in root.walk()][-1] == ("a[0].b", "a[0].b")


def test_a_json_body_nested_without_end_is_refused() -> None:
    body: object = "x"
    for _ in range(100):
        body = [body]
    with pytest.raises(ConfigError, match="nested deeper than 32"):
        from_json(body)


def test_a_node_does_not_show_its_value() -> None:
    assert CANARY not in repr(read_yaml(b"a: c4n4ry", "f.yaml"))
    assert CANARY not in repr(Node(CANARY))
