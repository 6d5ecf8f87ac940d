"""A story that says something nobody checks is refused, with the place and the reason."""

import pytest
from tests.scenarios.story import StoryError, by_path, paths_of, payload_of, read_story, word_of

GOOD = """
story: Who, what, why.
steps:
  - run: {}
  - expect: {}
"""


def test_a_story_is_read_in_order() -> None:
    story = read_story("a_story", GOOD)
    assert [(step.number, step.verb) for step in story.steps] == [(1, "run"), (2, "expect")]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("stori: x", "there is no 'stori'"),
        (GOOD + "backed: {}", "there is no 'backed'"),
        (GOOD + "  - run: {reports: {}}", "step 3, run: there is no 'reports'"),
        (GOOD + "  - there: {write: {kv/a: x}}", "step 3, there: there is no 'write'"),
        (GOOD + "  - weather: {meanwhile: {write: {}}}", "step 3, weather: there is no 'write'"),
        (GOOD + "  - {run: {}, expect: {}}", "step 3: is one of"),
        (GOOD + "  - here: {put: {ext/a: x}, delete: ext/a}", "step 3, here: holds one of"),
        (GOOD + "  - here: {delete: ext/a, tags: [x]}", "step 3, here: there is no 'tags'"),
        (GOOD + "  - here: {delete: ext/a, fails: x, answers: {}}", "what fails has no answer"),
        (GOOD + "  - time: tomorrow", "step 3, time: there is no 'tomorrow'"),
        (GOOD + "  - run: {report: {a: 1, a: 2}}", "a stands twice"),
        (GOOD + "  - run: [", "a_story: "),
        ("story: x\nsteps: []", "steps is a list of steps"),
        ("story: x\nsteps: [{run: {}}]", "expects nothing"),
        ("story: x", "lacks steps"),
        ("- x", "is a mapping"),
    ],
)
def test_what_is_no_story_is_refused(wrong: str, says: str) -> None:
    with pytest.raises(StoryError) as refused:
        read_story("a_story", wrong)
    assert says in str(refused.value)


def test_a_range_stands_for_its_paths_and_numbers_their_values() -> None:
    assert paths_of(["kv/a", "kv/s{9..11}"]) == ["kv/a", "kv/s9", "kv/s10", "kv/s11"]
    assert by_path({"kv/s{1..2}": "v-{n}", "kv/b": "{n}"}) == [
        ("kv/s1", "v-1"), ("kv/s2", "v-2"), ("kv/b", "{n}"),
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["old", '{"user":"u","port":1.10}'])
def test_a_value_is_shown_as_it_was_written(word: str) -> None:
    assert word_of(payload_of(word).data_text()) == word


@pytest.mark.parametrize("word", ["deleted", "gone", "absent", "-", "", ["x"]])
def test_a_value_never_reads_like_a_state(word: object) -> None:
    with pytest.raises(StoryError):
        payload_of(word)
