"""May a secret be deleted at its source? Every doubt is a reason to leave it there."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from svsync.domain.federation import OnRemoteDelete, PathSettings, RemoteChanges, Writes


class Held(StrEnum):
    """Why a secret is not ready; the closed, published list."""

    NOT_EQUAL = "not_equal"
    NOT_LOOKED_AT = "not_looked_at"
    DELETED_WITH_IT = "deleted_with_it"
    WRITTEN_THROUGH = "written_through"
    USED_ELSEWHERE = "used_elsewhere"
    ROTATED = "rotated"
    NOT_READ_HERE = "not_read_here"
    READ_AT_SOURCE = "read_at_source"
    SOURCE_UNKNOWN = "source_unknown"
    LOG_INCOMPLETE = "log_incomplete"
    LOG_OF_ANOTHER = "log_of_another"
    NO_COMMAND = "no_command"


WHY: Final = {
    Held.NOT_EQUAL: "the two sides are not known to be equal (its state is {status})",
    Held.NOT_LOOKED_AT: "its backend was not listed whole of late under its present mapping: run"
    " `svsync run-once --backend {backend}` first",
    Held.DELETED_WITH_IT: "what is deleted there would be deleted here (on_remote_delete:"
    " soft_delete): set retain first",
    Held.WRITTEN_THROUGH: "a write here would make it there again (writes: write_through): set"
    " local first",
    Held.USED_ELSEWHERE: "the backend {elsewhere} maps the same secret there, and would lose it as"
    " well: take it out of that mapping first",
    Held.ROTATED: "it is rotated there, and would be while applications still have the old value:"
    " turn the rotation off first",
    Held.NOT_READ_HERE: "nobody has read it here since {since}",
    Held.READ_AT_SOURCE: "{reader} read it at its source, last at {at}",
    Held.SOURCE_UNKNOWN: "nothing tells whether it is still read at its source: give a Vault's"
    " --audit-log, or see in another store's own log",
    Held.LOG_INCOMPLETE: "the audit log leaves something out: {problem}",
    Held.LOG_OF_ANOTHER: "the audit log tells nothing of svsync's own calls: is it this server's?",
    Held.NO_COMMAND: "svsync knows no command that deletes it there",
}


@dataclass(frozen=True, slots=True)
class Deletion:
    """A command by which a person deletes a secret at its source, word by word.

    `recoverable`: the store keeps what was deleted for a while.
    """

    words: tuple[str, ...]
    recoverable: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of reads at the source.

    Attributes:
        told: something tells of them: a log, or the store itself.
        reader, at: who read it within the idle time, and when; None: nobody did.
        problem: what the log leaves out; empty: nothing.
        foreign: the log tells nothing of svsync's own calls.
        rotates: the store makes new values of it by itself.
        changed: it was changed there since the last full run.
    """

    told: bool = False
    reader: str = ""
    at: datetime | None = None
    problem: str = ""
    foreign: bool = False
    rotates: bool = False
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one secret.

    Attributes:
        equal: base and the local value are the same, and nothing is under way.
        looked_at: its backend was listed whole of late, under the mapping of now.
        settings: of its rule; None where it has none any more.
        read_here: somebody read it, or a copy of it, here within the idle time.
        elsewhere: another backend that maps the same secret of the same store; empty: none.
    """

    equal: bool
    looked_at: bool
    settings: PathSettings | None
    read_here: bool
    source: Source
    command: Deletion | None
    elsewhere: str = ""


def held_by(facts: Facts) -> Iterator[Held]:
    """Every reason for which it is not ready; none: it is."""
    if not facts.equal or facts.source.changed:
        yield Held.NOT_EQUAL
    if not facts.looked_at or facts.settings is None:
        yield Held.NOT_LOOKED_AT
    if facts.settings is not None:
        yield from _held_by_settings(facts.settings)
    if facts.elsewhere:
        yield Held.USED_ELSEWHERE
    if facts.source.rotates:
        yield Held.ROTATED
    if not facts.read_here:
        yield Held.NOT_READ_HERE
    source = facts.source
    if not source.told:
        yield Held.SOURCE_UNKNOWN
    if source.at is not None:
        yield Held.READ_AT_SOURCE
    if source.foreign:
        yield Held.LOG_OF_ANOTHER
    if source.problem:
        yield Held.LOG_INCOMPLETE
    if facts.command is None:
        yield Held.NO_COMMAND


def _held_by_settings(settings: PathSettings) -> Iterator[Held]:
    takes = settings.remote_changes is not RemoteChanges.HOLD
    if takes and settings.on_remote_delete is OnRemoteDelete.SOFT_DELETE:
        yield Held.DELETED_WITH_IT
    if settings.writes is Writes.WRITE_THROUGH:
        yield Held.WRITTEN_THROUGH
