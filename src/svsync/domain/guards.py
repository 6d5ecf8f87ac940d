"""The guards: what stops a run before its first write.

A mass of deletions, overwrites or values that went backwards is more often a
mistake (an emptied mount, a restored snapshot, a wrong endpoint) than a wish. So
the numbers are looked at first, and a person lets such a run through by name.
"""

import math
from dataclasses import asdict, dataclass
from typing import Final

from svsync.domain.errors import GuardError
from svsync.domain.federation import Guard

_LEAST_DELETES: Final = 3
_LEAST_OVERWRITES: Final = 20
_LEAST_REGRESSIONS: Final = 5


@dataclass(frozen=True, slots=True)
class GuardNumbers:
    """What a run is about to do, counted before its first write.

    Attributes:
        known: attached pairs whose base is a value; the whole of each ratio.
        listed: names the listing gave; None for a run that does not list.
        unlisted: known pairs that a complete listing lacks, not yet asked by name.
        listed_gone: known pairs that are listed as gone.
        remote_deletes: deletes about to be made in the backend.
        ordered: known pairs that were listed with an ordered token; None: all known.
        backwards: of those, the ones whose order fell.
        changed: known pairs whose value token moved and whose value was not looked
            at yet: as many are overwritten at most.
        overwrites: pushes and pulls over an existing value, and seeding pushes, by
            fingerprint: a moved token over an equal value is none.
        brought: values that change feeds named and that the run has brought in already;
            each is an overwrite like the others.
    """

    known: int
    listed: int | None = None
    unlisted: int = 0
    listed_gone: int = 0
    remote_deletes: int = 0
    ordered: int | None = None
    backwards: int = 0
    changed: int = 0
    overwrites: int = 0
    brought: int = 0

    @property
    def plan(self) -> dict[str, int]:
        """The numbers for a report."""
        return {name: n for name, n in asdict(self).items() if n is not None}


@dataclass(frozen=True, slots=True)
class Allow:
    """The guards that one run was told to pass by."""

    mass_delete: bool = False
    mass_overwrite: bool = False
    regression: bool = False


def check_guards(numbers: GuardNumbers, guard: Guard, allow: Allow) -> None:
    """Stop a run that would do more than its guards let through.

    Deletion: the known secrets that look deleted, and apart from them the
    remote deletes about to be made, may each be no more than `max_delete_count`,
    no more than `max_delete_ratio` of the known (three are always let through),
    and never all of two or more. An empty listing where two or more are known is
    a mass deletion whatever its scopes say. Regression and overwriting: more
    than their ratio, once they are at least 5 and 20.

    Raises:
        GuardError: `mass_delete_guard`, `mass_regression_guard` or
            `mass_overwrite_guard`, the first of them that holds, with the plan.
    """
    known = numbers.known
    missing = numbers.unlisted + numbers.listed_gone
    if not allow.mass_delete:
        if numbers.listed == 0 and known >= 2:
            message = f"The listing is empty, but {known} secrets are known."
            raise _stopped(message, "mass_delete_guard", "--allow-mass-delete", numbers)
        for count, what in (
            (missing, "look deleted in the backend"),
            (numbers.remote_deletes, "are about to be deleted in the backend"),
        ):
            if _too_many_deletes(count, known, guard):
                message = f"{count} of {known} known secrets {what}."
                raise _stopped(message, "mass_delete_guard", "--allow-mass-delete", numbers)
    ordered = known if numbers.ordered is None else numbers.ordered
    if not allow.regression and numbers.backwards >= max(
        _LEAST_REGRESSIONS, above(guard.max_regress_ratio, ordered)
    ):
        message = f"{numbers.backwards} of {ordered} secrets went back to an earlier version."
        raise _stopped(message, "mass_regression_guard", "--allow-regression", numbers)
    overwrites = numbers.overwrites + numbers.brought
    if not allow.mass_overwrite and _too_many_overwrites(overwrites, known, guard):
        message = f"{overwrites} values, with {known} known, are about to be overwritten."
        raise _stopped(message, "mass_overwrite_guard", "--allow-mass-overwrite", numbers)


def _too_many_deletes(count: int, known: int, guard: Guard) -> bool:
    return (
        count > guard.max_delete_count
        or count >= max(_LEAST_DELETES + 1, above(guard.max_delete_ratio, known))
        or count >= max(2, known)
    )


def _too_many_overwrites(count: int, known: int, guard: Guard) -> bool:
    return count >= max(_LEAST_OVERWRITES, above(guard.max_overwrite_ratio, known))


def above(ratio: float, whole: int) -> int:
    """The smallest count that is more than this part of the whole.

    The small addend keeps 29 of 100 from being more than 0.29 of it.
    """
    return math.floor(ratio * whole + 1e-9) + 1


def _stopped(message: str, code: str, flag: str, numbers: GuardNumbers) -> GuardError:
    changed = "No secret was changed"
    if numbers.brought:
        changed = (
            f"{numbers.brought} that a change feed named were brought in, no other was changed"
        )
    advice = f"{changed}. Look at `svsync plan`; if this is meant, run once with {flag}."
    return GuardError(f"{message} {advice}", code=code, plan=numbers.plan)
