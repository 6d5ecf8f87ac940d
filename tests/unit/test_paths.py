"""What is a legal path, and does the problem name the character and its place?"""

import pytest

from svsync.domain.errors import SvsyncError
from svsync.domain.paths import (
    LOCAL_ALPHABET,
    IllegalPath,
    encode_segments,
    foreign_character,
    local_problem,
    parse_local,
    remote_problem,
)
from svsync.domain.runs import SkipReason


@pytest.mark.parametrize("text", ["a", "external/hashicorp/db-1", "a.b/_c/-", "...", ".hidden/x.."])
def test_a_legal_local_path_is_taken_as_it_is(text: str) -> None:
    assert parse_local(text) == text


@pytest.mark.parametrize(
    ("text", "character", "position"),
    [
        ("", "", 0),
        ("/a", "", 0),
        ("a/", "", 2),
        ("a//b", "", 2),
        ("a/./b", ".", 2),
        ("a/..", "..", 2),
        ("..", "..", 0),
        ("a/b c", " ", 3),
        ("a/b\n", "U+000A", 3),
        ("a\x00b", "U+0000", 1),
        ("a\\b", "\\", 1),
        ("a%2fb", "%", 1),
        ("kv/p\u0430ss", "\u0430", 4),
        ("a\ud800", "U+D800", 1),
        ("a\u200bb", "U+200B", 1),
        ("\u0661", "\u0661", 0),
    ],
)
def test_an_illegal_local_path_is_refused_with_character_and_position(
    text: str, character: str, position: int
) -> None:
    problem = local_problem(text)
    assert problem is not None
    assert (problem.character, problem.position) == (character, position)
    assert problem.code is SkipReason.ILLEGAL_PATH
    problem.detail.encode()  # a report can always hold it


def test_the_exception_carries_the_problem_and_the_published_code() -> None:
    with pytest.raises(IllegalPath, match="' ' at offset 1") as caught:
        parse_local("a b")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, SvsyncError)
    assert caught.value.code == "illegal_path"
    assert caught.value.problem.position == 1


def test_a_look_alike_letter_is_told_by_its_code_point() -> None:
    problem = local_problem("p\u0430ss")
    assert problem is not None
    assert "U+0430" in problem.detail


def test_a_local_path_has_at_most_512_bytes() -> None:
    assert local_problem("a" * 512) is None
    problem = local_problem("a" * 513)
    assert problem is not None
    assert problem.detail == "the local path is 513 bytes long; at most 512 are allowed"


@pytest.mark.parametrize(
    "text",
    ["kv/data/we ird/a?b#c", "kv/data/100%", "%25", "kv/data/\u00e9", "a+=@b", "...", "~", "a%2x"],
)
def test_an_unusual_remote_path_is_legal(text: str) -> None:
    assert remote_problem(text) is None


@pytest.mark.parametrize(
    ("text", "character", "position"),
    [
        ("", "", 0),
        ("kv//a", "", 3),
        ("kv/data/", "", 8),
        ("/kv", "", 0),
        ("kv/./a", ".", 3),
        ("kv/data/../../sys/raw/x", "..", 8),
        ("a\x00", "U+0000", 1),
        ("a\x7f", "U+007F", 1),
        ("a\x85", "U+0085", 1),
        ("a\r\nb", "U+000D", 1),
        ("a\\..\\b", "\\", 1),
        ("a/%2e%2E", "%2e", 2),
        ("a%2Fb", "%2F", 1),
        ("a%2fb", "%2f", 1),
        ("a%5Cb", "%5C", 1),
        ("e\u0301", "e", 0),
        ("ab\u212b", "\u212b", 2),
        ("a\udcff", "U+DCFF", 1),
    ],
)
def test_a_remote_path_that_could_leave_its_folder_is_refused(
    text: str, character: str, position: int
) -> None:
    problem = remote_problem(text)
    assert problem is not None
    assert (problem.character, problem.position) == (character, position)
    assert problem.code is SkipReason.ILLEGAL_PATH


def test_a_name_outside_the_backends_alphabet_is_told_apart_from_an_illegal_one() -> None:
    problem = remote_problem("prod--d_b", separator=None, segment="[0-9A-Za-z-]+")
    assert problem is not None
    assert problem.code is SkipReason.NAME_NOT_ALLOWED
    assert (problem.character, problem.position) == ("_", 7)


def test_the_position_counts_from_the_beginning_of_the_whole_path() -> None:
    problem = remote_problem("ab/c d", segment="[a-z]+")
    assert problem is not None
    assert problem.position == 4


def test_a_flat_store_has_no_slash() -> None:
    problem = remote_problem("a/b", separator=None)
    assert problem is not None
    assert problem.code is SkipReason.NAME_NOT_ALLOWED


def test_a_name_is_measured_in_bytes() -> None:
    assert remote_problem("\u00e9" * 5, max_bytes=10) is None
    problem = remote_problem("\u00e9" * 5, max_bytes=9)
    assert problem is not None
    assert problem.code is SkipReason.NAME_NOT_ALLOWED


def test_each_segment_is_percent_encoded_whole() -> None:
    assert encode_segments("kv/data/we ird/a?b#c") == "kv/data/we%20ird/a%3Fb%23c"
    assert encode_segments("a%20b/\u00e9:~;") == "a%2520b/%C3%A9%3A~%3B"


def test_the_local_alphabet_is_what_a_local_path_takes() -> None:
    assert local_problem(LOCAL_ALPHABET) is None
    taken = [char for char in map(chr, range(0x250)) if local_problem(f"a{char}") is None]
    assert sorted(taken) == sorted(LOCAL_ALPHABET)


def test_a_foreign_character_is_looked_for_behind_the_start() -> None:
    problem = foreign_character("a b c", 2)
    assert problem is not None
    assert problem.position == 3
    assert foreign_character("a b", 2) is None
