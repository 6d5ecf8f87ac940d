"""What must hold after any faults whatever: pure functions over what was left behind.

Each looks at rows as a superuser sees them, or at what receivers got, and gives one
sentence for each thing that is not as it should be. No sentence holds a value.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]

CLOSING = ("federation.sync.completed", "federation.sync.failed")
ENDED = ("completed", "failed")


@dataclass(frozen=True)
class Got:
    """One message as a receiver got it."""

    id: str
    body: str
    type: str
    backend: str
    sequence: int


@dataclass(frozen=True)
class Evidence:
    """All that is looked at.

    Attributes:
        runs: rows of `runs`.
        versions: rows of `versions`, each with the `path` of its secret.
        events: `type`, `backend`, `sequence` and `run_id` of each event, in their order.
        asked: ids of runs that a POST was answered 202 with.
        got: what each receiver got, by its name, in the order of arrival.
        wanted: the types that it asked for; none: all.
        here, there: the values by local path, as svsync reads them and as the backends do.
        said: what the processes said that they should not have.
    """

    runs: Sequence[Row] = ()
    versions: Sequence[Row] = ()
    events: Sequence[Row] = ()
    asked: Sequence[str] = ()
    got: Mapping[str, Sequence[Got]] | None = None
    wanted: Mapping[str, Sequence[str]] | None = None
    here: Mapping[str, object] | None = None
    there: Mapping[str, object] | None = None
    said: Sequence[str] = ()

    def size(self) -> str:
        """How much there was to look at."""
        messages = sum(map(len, (self.got or {}).values()))
        return (
            f"{len(self.runs)} runs, {len(self.asked)} asked for, {len(self.versions)} versions,"
            f" {len(self.events)} events, {messages} messages"
        )

    def findings(self) -> list[str]:
        """Everything that does not hold."""
        return [*self.said, *(found for look in LOOKS for found in look(self))]


def side_by_side(evidence: Evidence) -> Iterable[str]:
    """One backend is run by one worker: by the fences of its runs, and by their times."""
    for backend, runs in _by("backend_id", evidence.runs).items():
        worked = sorted((r for r in runs if r["started_at"] is not None), key=lambda r: r["fence"])
        for before, after in pairwise(worked):
            if before["fence"] == after["fence"]:
                yield f"{backend}: {before['run_id']} and {after['run_id']} had one fence"
            elif before["ended_at"] is None or after["started_at"] < before["ended_at"]:
                yield f"{backend}: {after['run_id']} began before {before['run_id']} had ended"


def written_late(evidence: Evidence) -> Iterable[str]:
    """What a run stored was stored before it had ended: nobody writes after a takeover."""
    ended: dict[str, datetime | None] = {r["run_id"]: r["ended_at"] for r in evidence.runs}
    for version in evidence.versions:
        end = ended.get(version["run_id"])
        if end is None or version["stored_at"] > end:
            yield f"{version['path']} version {version['version']} is of no run that was under way"


def not_closed_once(evidence: Evidence) -> Iterable[str]:
    """Every cycle ends in exactly one event; what was superseded, and a probe, in none."""
    told = Counter(e["run_id"] for e in evidence.events if e["type"] in CLOSING)
    kinds = {
        run["run_id"]: run["kind"] in ("full", "targeted") and run["state"] in ENDED
        for run in evidence.runs
    }
    for run in evidence.runs:
        due = int(kinds[run["run_id"]])
        if told[run["run_id"]] != due:
            yield f"{run['run_id']} ({run['kind']}, {run['state']}): {told[run['run_id']]} events"
    for unknown in told.keys() - kinds.keys():
        yield f"an event closes {unknown}, which is no run"


def at_work_still(evidence: Evidence) -> Iterable[str]:
    """Nothing is left running; of what waits, only what is to come."""
    for run in evidence.runs:
        if run["state"] == "running":
            yield f"{run['run_id']} is running, and nobody is there"


def asked_in_vain(evidence: Evidence) -> Iterable[str]:
    """A run that was promised has ended, or another one of its kind did that inherited it."""
    runs = {run["run_id"]: run for run in evidence.runs}
    for asked in dict.fromkeys(evidence.asked):
        run = runs.get(asked)
        if run is None:
            yield f"{asked} was answered 202 and is no run"
        elif run["state"] == "superseded":
            heirs = [
                other
                for other in evidence.runs
                if (other["backend_id"], other["kind"]) == (run["backend_id"], run["kind"])
                and other["state"] in ENDED
                and other["ended_at"] > run["ended_at"]
            ]
            if not heirs:
                yield f"{asked} was superseded, and nobody went on with it"
        elif run["state"] not in ENDED:
            yield f"{asked} was answered 202 and is {run['state']}"


def lost_or_doubled(evidence: Evidence) -> Iterable[str]:
    """Versions are numbered without gaps, and each remote one came once, in its order."""
    for path, versions in _by("path", evidence.versions).items():
        ordered = sorted(versions, key=lambda v: v["version"])
        if [v["version"] for v in ordered] != list(range(1, len(ordered) + 1)):
            yield f"{path}: its versions are {[v['version'] for v in ordered]}"
        remote = [int(v["remote_version"]) for v in ordered if v["origin"] == "pull"]
        if any(after <= before for before, after in pairwise(remote)):
            yield f"{path}: its remote versions came as {remote}"


def not_equal(evidence: Evidence) -> Iterable[str]:
    """What a backend has is what is read here."""
    here, there = evidence.here or {}, evidence.there or {}
    for path in sorted(here.keys() | there.keys()):
        if path not in here:
            yield f"{path} is not here"
        elif path not in there:
            yield f"{path} is here alone"
        elif here[path] != there[path]:
            yield f"{path} is another value here"


def told_out_of_turn(evidence: Evidence) -> Iterable[str]:
    """A backend is told of as unreachable, then as recovered, and so on."""
    turns = ["federation.backend.unreachable", "federation.backend.recovered"]
    for backend, events in _by("backend", evidence.events).items():
        told = [e["type"] for e in events if e["type"] in turns]
        if told != (turns * len(told))[: len(told)]:
            yield f"{backend}: {[kind.rpartition('.')[2] for kind in told]}"


def numbered_wrongly(evidence: Evidence) -> Iterable[str]:
    """A backend's events are numbered from 1 on."""
    for backend, events in _by("backend", evidence.events).items():
        numbers = sorted(e["sequence"] for e in events)
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"{backend}: events are numbered {numbers}"


def delivered_wrongly(evidence: Evidence) -> Iterable[str]:
    """Each event arrives, and again only as the same message under the same id."""
    for name, messages in (evidence.got or {}).items():
        bodies: dict[str, set[str]] = defaultdict(set)
        ids: dict[tuple[str, int], set[str]] = defaultdict(set)
        for message in messages:
            bodies[message.id].add(message.body)
            ids[message.backend, message.sequence].add(message.id)
        yield from (
            f"{name}: {i} came with two bodies" for i, all_ in bodies.items() if len(all_) > 1
        )
        yield from (
            f"{name}: {event} came under two ids" for event, all_ in ids.items() if len(all_) > 1
        )
        types = (evidence.wanted or {}).get(name) or None
        due = {
            (e["backend"], e["sequence"])
            for e in evidence.events
            if types is None or e["type"] in types
        }
        yield from (f"{name}: {event} did not arrive" for event in sorted(due - ids.keys()))
        yield from (f"{name}: {event} was not asked for" for event in sorted(ids.keys() - due))


LOOKS: tuple[Callable[[Evidence], Iterable[str]], ...] = (
    side_by_side,
    written_late,
    not_closed_once,
    at_work_still,
    asked_in_vain,
    lost_or_doubled,
    not_equal,
    told_out_of_turn,
    numbered_wrongly,
    delivered_wrongly,
)


def _by(column: str, rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return found
