"""Are two values compared member by member, and is nothing of them told?"""

import pytest

from svsync.domain.comparison import Shape, Verdict, compare

SAME, DIFFERENT, UNKNOWN = Verdict.SAME, Verdict.DIFFERENT, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ("1.10", "1.1", SAME),
        ("1e2", "100", SAME),
        ('"\\u00e4"', '"ä"', SAME),
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', SAME),
        ("[1, 2]", "[2, 1]", DIFFERENT),
        ('"1"', "1", DIFFERENT),
        ("null", '""', DIFFERENT),
        ("true", "false", DIFFERENT),
    ],
)
def test_members_are_equal_as_fingerprints_are(ours: str, theirs: str, verdict: Verdict) -> None:
    [field] = compare(f'{{"k": {ours}}}'.encode(), f'{{"k": {theirs}}}'.encode())
    assert (field.name, field.verdict) == ("k", verdict)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ('"ä\\n"', Shape("string", 3)),
        ('""', Shape("string", 0)),
        ("-1.50", Shape("number", 5)),
        ('{"a": "x"}', Shape("object", 10)),
        ("[ ]", Shape("array", 3)),
        ("false", Shape("boolean", 5)),
        ("null", Shape("null", 4)),
    ],
)
def test_type_and_size_of_a_member_are_told(text: str, shape: Shape) -> None:
    [field] = compare(f'{{"k": {text} }}'.encode(), None)
    assert (field.local, field.remote) == (shape, None)


def test_members_of_the_local_side_come_first_and_one_sided_ones_say_so() -> None:
    found = compare(b'{"b": 1, "a": 1}', b'{"c": 1, "a": 1}')
    assert [(f.name, f.verdict) for f in found] == [
        ("b", Verdict.ONLY_LOCAL), ("a", SAME), ("c", Verdict.ONLY_REMOTE),
    ]  # fmt: skip


def test_nothing_is_known_to_be_on_one_side_only_where_the_other_cannot_be_read() -> None:
    assert [f.verdict for f in compare(b'{"a": 1}', None, readable=False)] == [UNKNOWN]


def test_two_sides_without_a_value_have_no_members() -> None:
    assert compare(None, None) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("9007199254740993", "9007199254740992", False),
        ("-0.50e1", "-5", True),
        ("0.1", "0.1000000000000000000001", False),
        ("1e-999", "0", False),
        ("-0", "0.000e7", True),
        ("100", "1E2", True),
        ("12", "21", False),
        ("1", '"1"', False),
        ("1", "true", False),
        (f"1e-{'9' * 5000}", f"1e-{'9' * 5000}", True),
        (f"1e-{'9' * 5000}", "0", False),
        ('{"a":[1,2.0],"b":null}', '{"b":null,"a":[1.0,2]}', True),
        ('{"a":[1,9007199254740993]}', '{"a":[1,9007199254740992]}', False),
    ],
)
def test_numbers_are_compared_by_what_they_are_where_that_is_asked(
    one: str, other: str, same: bool
) -> None:
    sides = (f'{{"v":{one}}}'.encode(), f'{{ "v":{other}}}'.encode())
    [told] = compare(*sides, exact=True)
    assert (told.verdict is Verdict.SAME) == same
