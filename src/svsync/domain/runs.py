"""A run's account of itself: what it did, what it skipped and why.

The report counts while the run works, and says at its end whether it was ok,
partial or failed. The quarantine decides how long a secret that fails again and
again is left alone. What may stop a run before its first write is in `guards`.

Everything here is numbers and names; there is no value and no clock.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from svsync.domain.costs import Prices
from svsync.domain.errors import SvsyncError
from svsync.domain.guards import above
from svsync.domain.ids import BackendId, RunId

# --- why something was skipped ----------------------------------------------------


class SkipReason(StrEnum):
    """Why a remote path was not carried over: the closed, published list."""

    # its name
    ILLEGAL_PATH = "illegal_path"
    SHADOWED = "shadowed"
    COLLISION = "collision"
    AMBIGUOUS_SEPARATOR = "ambiguous_separator"
    NAME_NOT_ALLOWED = "name_not_allowed"
    UNMAPPED = "unmapped"
    EXCLUDED = "excluded"
    CLAIMED_BY = "claimed_by"
    # its value
    UNDECODABLE = "undecodable"
    TOO_DEEP = "too_deep"
    VALUE_TOO_LARGE = "value_too_large"
    BAD_METADATA = "bad_metadata"
    # the backend
    DENIED = "denied"
    UNREADABLE = "unreadable"
    UNLISTED = "unlisted"
    LAGGING = "lagging"
    # this side
    LOCAL_LOST = "local_lost"
    LOCAL_UNREADABLE = "local_unreadable"
    QUARANTINED = "quarantined"
    CRASHES_WORKER = "crashes_worker"
    WRITE_IN_PROGRESS = "write_in_progress"
    OVERTAKEN = "overtaken"
    # a push that is not made
    RETIRED_REMOTELY = "retired_remotely"
    NUMBER_WOULD_CHANGE = "number_would_change"
    PUSH_REFUSED = "push_refused"
    PUSH_THROTTLED = "push_throttled"
    ROTATION_IN_PROGRESS = "rotation_in_progress"
    WRITE_OUTCOME_UNKNOWN = "write_outcome_unknown"
    DELETE_NOT_RECOVERABLE = "delete_not_recoverable"
    BLIND_PUSH = "blind_push"
    NOT_OWNED = "not_owned"

    @classmethod
    def of(cls, reason: str) -> "SkipReason":
        """The reason of that name; a word that is not on the list is `unreadable`.

        A third party's backend may give a reason of its own, and one odd word
        must not stop a run.
        """
        try:
            return cls(reason)
        except ValueError:
            return cls.UNREADABLE


INTENDED: Final = frozenset({SkipReason.EXCLUDED, SkipReason.UNMAPPED})
"""Not skipped but not federated: somebody configured it so. Counted by reason
only; such a path makes no run partial."""

FAILURES: Final = frozenset(
    {
        SkipReason.UNDECODABLE,
        SkipReason.TOO_DEEP,
        SkipReason.VALUE_TOO_LARGE,
        SkipReason.BAD_METADATA,
        SkipReason.DENIED,
        SkipReason.UNREADABLE,
        SkipReason.UNLISTED,
        SkipReason.LOCAL_LOST,
        SkipReason.LOCAL_UNREADABLE,
        SkipReason.QUARANTINED,
        SkipReason.CRASHES_WORKER,
        SkipReason.NUMBER_WOULD_CHANGE,
        SkipReason.PUSH_REFUSED,
    }
)
"""Counted against `max_error_ratio`: the secret should have been carried and
could not be. A quarantined one stays a failure, else a backend of which nothing
can be read would turn from failed to partial by being left alone. The rest wait
for a better moment (lagging, overtaken, …) or follow from names and rules."""


# --- the run ----------------------------------------------------------------------


class RunKind(StrEnum):
    FULL = "full"
    TARGETED = "targeted"
    PROBE = "probe"
    DRY = "dry"


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class Trigger(StrEnum):
    SCHEDULE = "schedule"
    API = "api"
    FEED = "feed"
    RUN_ONCE = "run_once"
    PROBE = "probe"


class RunResult(StrEnum):
    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"


class Stage(StrEnum):
    """The parts of a cycle, in order; keys of `stages_ms`, and where an error arose."""

    CONNECT = "connect"
    LIST = "list"
    STAGE = "stage"
    DIFF = "diff"
    FETCH = "fetch"
    DECIDE = "decide"
    SEAL = "seal"
    COMMIT = "commit"
    PUSH = "push"
    EMIT = "emit"


class Count(StrEnum):
    """What a report counts.

    created, updated: local secrets with a new current version; deleted: local
    tombstones made; retained: gone remotely, the local value stays; pushed:
    remote writes and deletes that landed; conflicts: recorded in this run under
    any policy; unchanged: looked at and equal, or standing as it stood;
    retokened: of those, with a moved value token; unlisted: known and missing
    from the listing; listing_missed: of those, there after all when asked by
    name; rolled_back: pulled although its order fell; attached: joined without a
    new version; imported_versions: earlier remote versions taken in;
    fields_dropped: provider-specific metadata that does not travel; metadata_pushed:
    tags or custom metadata alone that were written to the backend; metadata_refused:
    a value landed there, and its tags were not taken.
    """

    LISTED = "listed"
    UNCHANGED = "unchanged"
    RETOKENED = "retokened"
    CREATED = "created"
    UPDATED = "updated"
    METADATA_UPDATED = "metadata_updated"
    PUSHED = "pushed"
    DELETED = "deleted"
    RETAINED = "retained"
    CONFLICTS = "conflicts"
    ROLLED_BACK = "rolled_back"
    UNLISTED = "unlisted"
    LISTING_MISSED = "listing_missed"
    DETACHED = "detached"
    ATTACHED = "attached"
    MOVED = "moved"
    IMPORTED_VERSIONS = "imported_versions"
    FIELDS_DROPPED = "fields_dropped"
    METADATA_PUSHED = "metadata_pushed"
    METADATA_REFUSED = "metadata_refused"


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run failed: a published code, the stage, and a sentence without a value."""

    code: str
    stage: str
    message: str

    @classmethod
    def of(cls, error: SvsyncError, stage: Stage) -> "RunError":
        return cls(code=error.code, stage=stage, message=error.message)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its row has it. `result` is None until it ends; times are UTC-aware."""

    run_id: RunId
    backend_id: BackendId
    kind: RunKind
    trigger: Trigger
    state: RunState
    result: RunResult | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: RunError | None = None

    @property
    def duration_ms(self) -> int | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return round((self.ended_at - self.started_at).total_seconds() * 1000)


# --- the report -------------------------------------------------------------------

MAX_SKIPPED: Final = 10_000
"""Skipped paths that a report names; the rest are counted."""

_OPERATIONS: Final = ("list", "metadata", "read", "write", "delete", "login")

_OF_CHANGES: Final = (
    Count.CREATED,
    Count.UPDATED,
    Count.METADATA_UPDATED,
    Count.PUSHED,
    Count.METADATA_PUSHED,
    Count.DELETED,
    Count.RETAINED,
    Count.CONFLICTS,
    Count.ATTACHED,
)

_EVENT_COUNTS: Final = (
    Count.LISTED,
    Count.UNCHANGED,
    Count.CREATED,
    Count.UPDATED,
    Count.PUSHED,
    Count.DELETED,
    Count.CONFLICTS,
)


@dataclass(frozen=True, slots=True)
class Skipped:
    """One path of the report. `detail` says where and what, never a value."""

    remote_path: str
    reason: SkipReason
    detail: str = ""


@dataclass(slots=True)
class Report:
    """What one run did, counted by the run that owns it; the only mutable record here.

    Attributes:
        calls: outgoing calls by operation, each try.
        throttled: calls that the backend answered with "slow down".
        bytes_read: bytes of values read.
        stages_ms: time spent in each stage, in milliseconds.
        plan: the numbers of the guard that stopped the run.
        out_of_reach: known secrets below folders that could not be listed.
        folders: of the failures, those that are folders of unknown content.
        prices: by which the cost of its calls is estimated; None: they are not billed.
    """

    numbers: Counter[Count] = field(default_factory=Counter)
    reasons: Counter[SkipReason] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    throttled: int = 0
    bytes_read: int = 0
    stages_ms: dict[Stage, float] = field(default_factory=dict)
    plan: Mapping[str, int | float] | None = None
    out_of_reach: int = 0
    folders: int = 0
    prices: Prices | None = None

    def add(self, count: Count, n: int = 1) -> None:
        self.numbers[count] += n

    def call(self, operation: str, n: int = 1) -> None:
        self.calls[operation] += n

    def spend(self, stage: Stage, milliseconds: float) -> None:
        self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + milliseconds

    def skip(
        self, remote_path: str, reason: SkipReason, detail: str = "", *, folder: bool = False
    ) -> None:
        """Count a path that this run leaves as it is; call it once a path.

        A `folder` stands for an unknown number of secrets, so it is reported but does
        not count against `max_error_ratio`.
        """
        self.reasons[reason] += 1
        self.folders += folder and reason in FAILURES
        if reason not in INTENDED and len(self.skipped) < MAX_SKIPPED:
            self.skipped.append(Skipped(remote_path, reason, detail))

    def list_again(self) -> None:
        """The run lists once more: what it said of the first listing is void, what it
        committed stands."""
        for count in (Count.LISTED, Count.UNLISTED, Count.UNCHANGED, Count.LISTING_MISSED):
            del self.numbers[count]
        self.reasons.clear()
        self.skipped.clear()
        self.out_of_reach = self.folders = 0

    def go_on_from(self, counts: Mapping[str, object]) -> None:
        """Another worker began this run: what it committed is counted, what it said of its
        listing comes again."""
        of_listing = (Count.LISTED, Count.UNLISTED, Count.UNCHANGED, Count.LISTING_MISSED)
        for count in Count:
            made = counts.get(count)
            if count not in of_listing and isinstance(made, int):
                self.numbers[count] += made

    def skip_unnamed(self, reason: SkipReason, many: int) -> None:
        """Count more paths of a reason than a report would name."""
        if many > 0:
            self.reasons[reason] += many

    @property
    def quiet(self) -> bool:
        """It changed nothing and brought nothing in: what it called is what a cycle takes."""
        return not any(self.numbers[count] for count in _OF_CHANGES)

    @property
    def skips(self) -> int:
        return sum(n for reason, n in self.reasons.items() if reason not in INTENDED)

    @property
    def failures(self) -> int:
        return sum(n for reason, n in self.reasons.items() if reason in FAILURES) - self.folders

    def result(
        self, error: RunError | None, max_error_ratio: float
    ) -> tuple[RunResult, RunError | None]:
        """How the run ended: failed by `error`, or by too many secrets that failed.

        More than `max_error_ratio` of its secrets, that is of the listed, the unlisted
        and those out of reach, is `too_many_errors`. Partial: something was skipped.
        """
        if error is not None:
            return RunResult.FAILED, error
        seen = self.numbers[Count.LISTED] + self.numbers[Count.UNLISTED]
        secrets = max(seen + self.out_of_reach, self.failures)
        if self.failures and self.failures >= above(max_error_ratio, secrets):
            message = (
                f"{self.failures} of {secrets} secrets failed, more than max_error_ratio"
                f" {max_error_ratio:g} lets through; the report names each with its reason."
            )
            return RunResult.FAILED, RunError("too_many_errors", Stage.EMIT, message)
        return (RunResult.PARTIAL if self.skips else RunResult.OK), None

    def counts(self) -> dict[str, object]:
        """The `counts` of a run, as they are stored and shown."""
        counts: dict[str, object] = {str(count): self.numbers[count] for count in Count}
        counts |= {"skipped": self.skips, "skipped_by_reason": _sorted(self.reasons)}
        counts |= {"throttled": self.throttled, "bytes": self.bytes_read}
        if self.prices is not None:
            counts["estimated_cost"] = self.prices.of_calls_json(self.calls)
        return counts if self.plan is None else counts | {"plan": dict(self.plan)}

    def api_calls(self) -> dict[str, int]:
        """Calls by operation, each operation named also where it was not used."""
        return {operation: self.calls[operation] for operation in _OPERATIONS}

    def to_run_json(self, run: Run) -> dict[str, object]:
        """The run with this report, as the API and `run-once --json` give it."""
        return run_json(
            run,
            counts=self.counts(),
            api_calls=self.api_calls(),
            stages_ms={stage: round(ms) for stage, ms in self.stages_ms.items()},
            skipped=self.skipped,
        )

    def to_event(
        self, run: Run, *, backend_name: str, tenant: str, sequence: int
    ) -> dict[str, object]:
        """`data` of `federation.sync.completed` and, with its error, `.failed`."""
        counts = {str(count): self.numbers[count] for count in _EVENT_COUNTS}
        data: dict[str, object] = {
            "backend_id": run.backend_id,
            "backend_name": backend_name,
            "tenant": tenant,
            "run_id": run.run_id,
            "trigger": str(run.trigger),
            "result": _text(run.result),
            "started_at": _time(run.started_at),
            "duration_ms": run.duration_ms,
            "counts": counts | {"skipped": self.skips},
            "sequence": sequence,
        }
        return data if run.error is None else data | {"error": asdict(run.error)}


def run_json(
    run: Run,
    *,
    counts: Mapping[str, object],
    api_calls: Mapping[str, int],
    stages_ms: Mapping[str, int],
    skipped: Sequence[Skipped],
) -> dict[str, object]:
    """A run as the API gives it, from a live report or from stored rows alike."""
    return {
        "run_id": run.run_id,
        "backend_id": run.backend_id,
        "kind": str(run.kind),
        "trigger": str(run.trigger),
        "state": str(run.state),
        "result": _text(run.result),
        "started_at": _time(run.started_at),
        "ended_at": _time(run.ended_at),
        "duration_ms": run.duration_ms,
        "stages_ms": {str(stage): ms for stage, ms in stages_ms.items()},
        "counts": dict(counts),
        "api_calls": dict(api_calls),
        "skipped": [
            {"remote_path": s.remote_path, "reason": str(s.reason)}
            | ({"detail": s.detail} if s.detail else {})
            for s in skipped
        ],
        "error": None if run.error is None else asdict(run.error),
    }


def _sorted(reasons: Mapping[SkipReason, int]) -> dict[str, int]:
    return {str(reason): reasons[reason] for reason in sorted(reasons)}


def _text(result: RunResult | None) -> str | None:
    return None if result is None else str(result)


def _time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- quarantine -------------------------------------------------------------------

QUARANTINE_AFTER: Final = 3
"""A secret that failed in so many cycles in a row is quarantined."""

_FIRST_DELAY: Final = 15 * 60.0
_LONGEST_DELAY: Final = 24 * 3600.0


def quarantine_delay(failures: int, jitter: float) -> float:
    """Seconds until a secret that failed `failures` cycles in a row is tried again.

    0 below three failures: the next cycle tries it. Then 15 minutes, doubled
    with each further failure, a day at most. `jitter`, from 0 up to 1, shortens
    this by up to a fifth, so that what failed together is not tried together.
    """
    if failures < QUARANTINE_AFTER:
        return 0.0
    doublings = min(failures - QUARANTINE_AFTER, 7)
    return min(_FIRST_DELAY * (1 << doublings), _LONGEST_DELAY) * (1 - jitter / 5)
