"""Is the next step of a folder the first that is not done yet?"""

import pytest

from svsync.domain.ids import BackendId
from svsync.domain.subtrees import Folder, Step, next_step

A = BackendId("fed_a")
ALL = {"federated": 9, "synced": 9, "read_here": 9}


@pytest.mark.parametrize(
    ("counts", "through", "step", "command"),
    [
        ({}, True, Step.SYNCHRONISE, ""),
        ({"local": 4}, True, Step.SYNCHRONISE, ""),
        ({"local": 4}, False, Step.DONE, ""),
        (
            {**ALL, "synced": 8, "conflicts": 1}, False, Step.RESOLVE,
            "svsync conflicts list --backend fed_a",
        ),
        (
            {**ALL, "synced": 8, "read_here": 0}, False, Step.WAIT_FOR_RUN,
            "svsync run-once --backend fed_a",
        ),
        ({**ALL, "read_here": 8}, True, Step.MOVE_READERS, ""),
        (ALL, False, Step.CHECK_SOURCE, "svsync retire plan 'ext/it/**' --idle 7d"),
        ({**ALL, "ready": 9}, False, Step.CHECK_SOURCE, "svsync retire plan 'ext/it/**' --idle 7d"),
    ],
)  # fmt: skip
def test_the_next_step_is_the_first_that_is_not_done(
    counts: dict[str, int], through: bool, step: Step, command: str
) -> None:
    folder = Folder(backends={A} if "federated" in counts else set(), **counts)
    found = next_step("ext/it/", folder, read_through=through, idle="7d")
    assert (found.step, found.command) == (step, command)
    assert found.message.endswith(".")


def test_a_step_says_how_many_it_is_about() -> None:
    folder = Folder(backends={A}, federated=2_000, synced=800, read_here=2_000)
    found = next_step("ext/", folder, read_through=False, idle="7d")
    assert found.message.startswith("1,200 ")
