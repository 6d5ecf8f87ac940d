"""How many requests without a valid token may come from one address?"""

from svsync.http.identity import Failures


def test_the_limit_is_reached_and_told_with_the_time_to_wait() -> None:
    now = [100.0]
    failures = Failures(lambda: now[0], limit=3, window=10)
    assert [failures.count("a") for _ in range(3)] == [None, None, None]
    now[0] += 4
    assert failures.count("a") == 6
    assert failures.count("b") is None


def test_a_new_window_begins_anew() -> None:
    now = [0.0]
    failures = Failures(lambda: now[0], limit=1, window=10)
    assert failures.count("a") is None
    assert failures.count("a") == 10
    now[0] = 10.0
    assert failures.count("a") is None


def test_the_memory_of_addresses_is_bounded() -> None:
    failures = Failures(lambda: 0.0, limit=1, window=10, room=2)
    for address in ("a", "b", "c"):
        assert failures.count(address) is None
    assert failures.count("c") == 10
    assert failures.count("a") is None  # forgotten, as the one known longest
