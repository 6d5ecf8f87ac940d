"""Which rules have to bring in what was read through until now."""

from typing import Any

import pytest
from tests.house import backend

from svsync.domain.federation import Mode, Overrides, RuleSpec
from svsync.domain.flips import initial_after

PROXY, SYNC = Overrides(mode=Mode.PROXY), Overrides(mode=Mode.SYNC)


def rules(**modes: Overrides) -> Any:
    """`a_b=PROXY` is a rule for `a/b/**` in that mode, and `all` one for `**`."""
    paths = {name: "**" if name == "all" else name.replace("_", "/") + "/**" for name in modes}
    return backend(
        RuleSpec(paths[name], "kv/" + paths[name], overrides=mode) for name, mode in modes.items()
    )


@pytest.mark.parametrize(
    ("before", "after", "waiting"),
    [
        (rules(a=PROXY), rules(a=SYNC), ["a/**"]),
        (rules(a=SYNC), rules(a=SYNC), []),
        (rules(a=SYNC), rules(a=PROXY), []),
        (rules(a=PROXY, b=SYNC), rules(a=SYNC, b=SYNC), ["a/**"]),
        (rules(a_x=PROXY, a=SYNC), rules(a=SYNC), ["a/**"]),
        (rules(a=PROXY), rules(a_x=SYNC, a=PROXY), ["a/x/**"]),
        (rules(a_x=SYNC, a=PROXY), rules(a_x=SYNC, a=PROXY), []),
        (rules(a_x=PROXY, a=SYNC), rules(a_x=SYNC, a=SYNC), ["a/x/**"]),
        (rules(a=PROXY), rules(all=SYNC), ["**"]),
        (rules(a=PROXY), rules(b=SYNC), []),
    ],
)
def test_paths_that_were_read_through_wait_to_be_brought_in(
    before: Any, after: Any, waiting: list[str]
) -> None:
    assert list(initial_after(before, after, ())) == waiting


def test_backend_that_is_new_waits_for_nothing() -> None:
    assert initial_after(None, rules(a=SYNC), ()) == ()


def test_rule_that_waits_goes_on_waiting_under_another_pattern() -> None:
    assert initial_after(rules(a=SYNC), rules(a=SYNC), ["a/**"]) == ("a/**",)
    assert initial_after(rules(a=SYNC), rules(all=SYNC), ["a/**"]) == ("**",)
    assert initial_after(rules(a=SYNC), rules(a=PROXY), ["a/**"]) == ()
