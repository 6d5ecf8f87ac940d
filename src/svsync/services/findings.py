"""What an examination finds: one line each, and what to do."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one thing that was looked at.

    Attributes:
        check: what it was; `backend fed_a` of one of several.
        says: how it is; names and numbers, never a value.
        advice: what to do, empty where there is nothing.
    """

    check: str
    state: State
    says: str
    advice: str = ""


def ok(check: str, says: str) -> Finding:
    return Finding(check, State.OK, says)


def warning(check: str, says: str, advice: str = "") -> Finding:
    return Finding(check, State.WARNING, says, advice)


def wrong(check: str, says: str, advice: str = "") -> Finding:
    return Finding(check, State.WRONG, says, advice)
