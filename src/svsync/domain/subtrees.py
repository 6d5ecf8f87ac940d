"""How far the migration of a folder is, and what comes next; by what svsync itself knows.

Who still reads a secret at its source is told by the source alone, so no folder is ever said to
be ready: the last step is always to ask there.
"""

import shlex
from dataclasses import dataclass, field
from enum import StrEnum

from svsync.domain.ids import BackendId


class Step(StrEnum):
    """What comes next in a folder; the closed, published list."""

    SYNCHRONISE = "synchronise"
    RESOLVE = "resolve"
    WAIT_FOR_RUN = "wait_for_run"
    MOVE_READERS = "move_readers"
    CHECK_SOURCE = "check_source"
    DONE = "done"


@dataclass(slots=True)
class Folder:
    """Secrets below one folder, counted.

    Attributes:
        federated: those that a backend owns and that are kept here; of these:
        synced: both sides are known to be equal.
        copied: synced, and a path of no backend has the same value.
        read_here: an application read it, or its copy, here of late.
        ready: nothing that is known here speaks against retiring it at its source.
        conflicts: a person has to decide.
        local: live secrets of no backend; of these:
        detached: they were federated under an earlier mapping.
    """

    backends: set[BackendId] = field(default_factory=set)
    federated: int = 0
    synced: int = 0
    copied: int = 0
    read_here: int = 0
    ready: int = 0
    conflicts: int = 0
    local: int = 0
    detached: int = 0

    @property
    def secrets(self) -> int:
        return self.federated + self.local


@dataclass(frozen=True, slots=True)
class Next:
    """A step, one sentence on it, and a command that takes it; empty: there is none."""

    step: Step
    message: str
    command: str = ""


def next_step(name: str, folder: Folder, *, read_through: bool, idle: str) -> Next:
    """The first thing that is not done yet.

    Args:
        name: of the folder, with its slash; empty: the root.
        read_through: a rule in proxy mode has paths below it.
        idle: the time within which somebody must have read here, as a person writes it.
    """
    if not folder.federated and read_through:
        return Next(
            Step.SYNCHRONISE,
            "What a backend has here is read through: set `mode: sync` for its rule, so that it is"
            " kept here.",
        )
    if not folder.federated:
        return Next(Step.DONE, "No backend has anything here any more.")
    one = min(folder.backends)
    if folder.conflicts:
        return Next(
            Step.RESOLVE,
            f"{folder.conflicts:,} are in conflict: decide which side counts.",
            f"svsync conflicts list --backend {one}",
        )
    unsettled = folder.federated - folder.synced
    if unsettled:
        return Next(
            Step.WAIT_FOR_RUN,
            f"{unsettled:,} are not known to be equal on both sides: run the backend, and look at"
            " the state of those that stay so.",
            f"svsync run-once --backend {one}",
        )
    unread = folder.federated - folder.read_here
    if unread:
        return Next(
            Step.MOVE_READERS,
            f"{unread:,} were read by no application here within {idle}: point those that need"
            " them at svsync.",
        )
    return Next(
        Step.CHECK_SOURCE,
        "All are read here: ask the source who still reads there, and what else speaks against"
        " retiring them.",
        f"svsync retire plan {shlex.quote(name + '**')} --idle {idle}",
    )
