"""From deaths to the one path that is to blame."""

from hypothesis import given
from hypothesis import strategies as st

from svsync.domain.ids import RemotePath
from svsync.domain.suspects import Suspicion


def paths(names: str) -> tuple[RemotePath, ...]:
    return tuple(map(RemotePath, names))


def test_one_death_makes_nobody_a_suspect() -> None:
    once = Suspicion().after_death(paths("abcd"), piece=False)
    assert once == Suspicion(paths("abcd"), 1)
    assert once.pieces() == []
    assert once.guilty is None


def test_second_death_with_the_same_paths_in_hand_halves_what_both_had() -> None:
    twice = Suspicion(paths("abcd"), 1).after_death(paths("cdef"), piece=False)
    assert twice == Suspicion(paths("cd"), 2)
    assert twice.pieces() == [paths("c"), paths("d")]


def test_second_death_with_other_paths_in_hand_is_a_first_one() -> None:
    other = Suspicion(paths("ab"), 1).after_death(paths("yz"), piece=False)
    assert other == Suspicion(paths("yz"), 1)


def test_death_with_nothing_in_hand_changes_nothing() -> None:
    before = Suspicion(paths("ab"), 2)
    assert before.after_death((), piece=False) == before


def test_path_that_was_alone_is_guilty_at_once() -> None:
    assert Suspicion().after_death(paths("a"), piece=True).guilty == "a"
    assert Suspicion(paths("ab"), 2).after_death(paths("a"), piece=True).guilty == "a"


def test_only_path_of_a_backend_is_guilty_after_two_deaths() -> None:
    once = Suspicion().after_death(paths("a"), piece=False)
    assert once.guilty is None
    assert once.after_death(paths("a"), piece=False).guilty == "a"


@given(st.integers(2, 4000), st.data())
def test_each_culprit_is_found_in_as_many_deaths_as_there_are_halvings(
    many: int, data: st.DataObject
) -> None:
    names = tuple(RemotePath(str(n)) for n in range(many))
    culprit = names[data.draw(st.integers(0, many - 1))]
    found = Suspicion(names, 2)
    while found.guilty is None:
        [killer] = [piece for piece in found.pieces() if culprit in piece]
        found = found.after_death(killer, piece=True)
    assert found.guilty == culprit
    assert found.deaths - 2 <= many.bit_length()
