"""What must hold after any faults whatever: pure functions over what was left behind.

Each looks at rows as a superuser sees them, or at what receivers got, and gives one
sentence for each thing that is not as it should be. No sentence holds a value.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]
Versions = Mapping[str, Mapping[int, object]]
"""Values by path and number; None where a version is deleted."""

FREE = ("landed", "refused", "withdrawn")
"""States of pushes that have come to their end."""
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
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """A value, and the number that its writer was told it has."""

    path: str
    version: int
    value: object


@dataclass(frozen=True)
class Evidence:
    """All that is looked at.

    Attributes:
        runs: rows of `runs`.
        versions: rows of `versions`, each with the `path` of its secret.
        events: `type`, `tenant`, `backend`, `sequence`, `run_id` and `paths` of each event, in
            their order, and the tenant that it told of (`told`).
        asked: ids of runs that a POST was answered 202 with.
        got: what each receiver got, by its name, in the order of arrival.
        wanted: the types that it asked for; none: all.
        endpoints: whose each receiver is.
        told: up to which of each backend's events all must have arrived.
        tenants: whose each path is.
        here, there: the values by local path, as svsync reads them and as the backends do.
        left_there: paths that are deleted here alone.
        open_conflicts: both sides as a conflict that waits shows them; None: deleted.
        history_here, history_there: every version that can be read; there also the deleted.
        kept: remote values that conflicts keep, by path.
        only_pulled: how paths begin that nobody writes here.
        pushes: rows of `pushes`, the oldest first.
        pairs: how each path and its pair stand.
        wrote_here, wrote_there: what was answered as done on either side.
        refused: paths and values that were refused here.
        said: what the processes said that they should not have.
    """

    runs: Sequence[Row] = ()
    versions: Sequence[Row] = ()
    events: Sequence[Row] = ()
    asked: Sequence[str] = ()
    got: Mapping[str, Sequence[Got]] | None = None
    wanted: Mapping[str, Sequence[str]] | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)
    here: Mapping[str, object] = field(default_factory=dict)
    there: Mapping[str, object] = field(default_factory=dict)
    left_there: Collection[str] = ()
    open_conflicts: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    history_here: Versions = field(default_factory=dict)
    history_there: Versions = field(default_factory=dict)
    kept: Mapping[str, Sequence[object]] = field(default_factory=dict)
    only_pulled: str = ""
    pushes: Sequence[Row] = ()
    pairs: Sequence[Row] = ()
    wrote_here: Sequence[Written] = ()
    wrote_there: Sequence[Written] = ()
    refused: Sequence[tuple[str, object]] = ()
    said: Sequence[str] = ()

    def size(self) -> str:
        """How much there was to look at."""
        messages = sum(map(len, (self.got or {}).values()))
        return (
            f"{len(self.runs)} runs, {len(self.asked)} asked for, {len(self.versions)} versions,"
            f" {len(self.events)} events, {messages} messages, {len(self.pushes)} pushes,"
            f" {len(self.wrote_here)} writes here and {len(self.wrote_there)} there,"
            f" {len(self.refused)} refused, {sum(map(len, self.kept.values()))} conflicts,"
            f" {len(self.open_conflicts)} of them open"
        )

    def findings(self) -> list[str]:
        """Everything that does not hold."""
        return [*self.said, *(found for look in LOOKS for found in look(self))]

    def about(self, findings: Sequence[str]) -> list[str]:
        """How the paths stand of which something was found, for whoever looks into it: this
        history does not come again."""
        lines = []
        for pair in self.pairs:
            path = pair["path"]
            if any(path in finding for finding in findings):
                pushes = [dict(p) for p in self.pushes if p["path"] == path][-8:]
                there = self.history_there.get(path, {})
                deleted = sorted(number for number, value in there.items() if value is None)
                lines += [f"{path}: {dict(pair)}", *(f"  {push}" for push in pushes)]
                lines.append(f"  there up to version {max(there, default=0)}, deleted: {deleted}")
        return lines


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
        if version["run_id"] is None and version["origin"] != "pull":
            continue  # somebody wrote it here
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
    """What a backend has is what is read here; where a conflict waits it shows both."""
    here, there = evidence.here, evidence.there
    for path in sorted((here.keys() | there.keys()) - evidence.open_conflicts.keys()):
        if path not in here and path not in evidence.left_there:
            yield f"{path} is not here"
        elif path not in there:
            yield f"{path} is here alone"
        elif path in here and here[path] != there[path]:
            yield f"{path} is another value here"
    for path, (ours, theirs) in evidence.open_conflicts.items():
        if ours != here.get(path):
            yield f"{path}: its conflict does not show what is here"
        if theirs != there.get(path):
            yield f"{path}: its conflict does not show what is there"


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
    """Each event arrives, of whoever is asked for, and again only as the same message under
    the same id."""
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
        asked = {
            (e["backend"], e["sequence"])
            for e in evidence.events
            if e["tenant"] == evidence.endpoints[name] and (types is None or e["type"] in types)
        }
        due = {(b, number) for b, number in asked if number <= evidence.told.get(b, 0)}
        yield from (f"{name}: {event} did not arrive" for event in sorted(due - ids.keys()))
        yield from (f"{name}: {event} was not asked for" for event in sorted(ids.keys() - asked))


def told_to_another_tenant(evidence: Evidence) -> Iterable[str]:
    """An event speaks of its own tenant and its secrets, and is told to nobody else."""
    for event in evidence.events:
        tenant, name = event["tenant"], f"{event['backend']} {event['sequence']}"
        if event["told"] != tenant:
            yield f"{name} tells of the tenant {event['told']}"
        yield from (f"{name} of {tenant} tells of {path}" for path in _foreign(evidence, event))
    for name, messages in (evidence.got or {}).items():
        for message in messages:
            told = {"tenant": evidence.endpoints[name], "paths": message.paths}
            yield from (f"{name} was told of {path}" for path in _foreign(evidence, told))


def _foreign(evidence: Evidence, told: Row) -> list[str]:
    return [p for p in told["paths"] if evidence.tenants.get(p, told["tenant"]) != told["tenant"]]


def forgotten_here(evidence: Evidence) -> Iterable[str]:
    """A write that was answered as done has its number, for ever; one that was refused is
    no version."""
    for wrote in evidence.wrote_here:
        found = evidence.history_here.get(wrote.path, {})
        if found.get(wrote.version) != wrote.value:
            yield f"{wrote.path}: what was written here as version {wrote.version} is not it"
    refused = {(path, _told(value)) for path, value in evidence.refused}
    for path, versions in evidence.history_here.items():
        for number, value in versions.items():
            if (path, _told(value)) in refused:
                yield f"{path}: version {number} was refused, and is there"


def forgotten_there(evidence: Evidence) -> Iterable[str]:
    """A backend's versions go on one by one, and what somebody wrote there stays, deleted by
    nothing but a push on the condition that it is what it deletes."""
    deleted = {(p["path"], p["expected_order"]) for p in _landed(evidence) if not _valued(p)}
    for path, numbers in evidence.history_there.items():
        if sorted(numbers) != list(range(1, len(numbers) + 1)):
            yield f"{path}: there are versions {sorted(numbers)} there"
        for number, value in numbers.items():
            if value is None and (path, number) not in deleted:
                yield f"{path}: version {number} was deleted there, and nobody did so"
    for wrote in evidence.wrote_there:
        found = evidence.history_there.get(wrote.path, {}).get(wrote.version, wrote)
        if found not in (wrote.value, None):
            yield f"{wrote.path}: what was written there as version {wrote.version} is not it"


def not_as_pushed(evidence: Evidence) -> Iterable[str]:
    """Every push has come to its end. One that landed is there, under the number after the
    one it expected; what is there and was written here alone came by one that landed."""
    landed = set()
    for push in evidence.pushes:
        if push["state"] not in FREE:
            yield f"{push['path']}: {push['push_id']} is {push['state']} still"
    for push in _landed(evidence):
        if _valued(push):
            path, number = push["path"], (push["expected_order"] or 0) + 1
            landed.add((path, number))
            found = evidence.history_there.get(path, {}).get(number, push)
            if found not in (evidence.history_here.get(path, {}).get(push["version"]), None):
                yield f"{path}: {push['push_id']} did not land as version {number}"
    ours = [*((w.path, w.value) for w in evidence.wrote_here), *evidence.refused]
    own = {(path, _told(value)) for path, value in ours}
    for path, numbers in evidence.history_there.items():
        for number, value in numbers.items():
            if (path, _told(value)) in own and (path, number) not in landed:
                yield f"{path}: version {number} is there by no push that landed"


def not_kept(evidence: Evidence) -> Iterable[str]:
    """What somebody wrote to a backend and a push went over, or deleted, is kept here; what
    nobody went over came here, each version, where it is but pulled."""
    theirs = {(w.path, w.version): w.value for w in evidence.wrote_there}
    kept = {(path, _told(value)) for path, values in evidence.kept.items() for value in values}
    for path, versions in evidence.history_here.items():
        kept |= {(path, _told(value)) for value in versions.values()}
    for push in _landed(evidence):
        at = push["path"], push["expected_order"]
        went_over = push["kind"] in ("put", "delete") and at in theirs
        if went_over and (push["path"], _told(theirs[at])) not in kept:
            yield f"{at[0]}: {push['push_id']} went over version {at[1]}, which nobody kept"
    for path, rows in _by("path", evidence.versions).items():
        if path.startswith(evidence.only_pulled):
            opened = evidence.history_here.get(path, {})
            came = {int(v["remote_version"]): opened.get(v["version"]) for v in rows}
            if came != evidence.history_there.get(path):
                yield f"{path}: its versions here are not those that were there"


def _told(value: object) -> str:
    """A value as a key."""
    return json.dumps(value, sort_keys=True)


def _landed(evidence: Evidence) -> list[Row]:
    return [push for push in evidence.pushes if push["state"] == "landed"]


def _valued(push: Row) -> bool:
    """Does it make a version there?"""
    return push["kind"] in ("put", "create")


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
    told_to_another_tenant,
    forgotten_here,
    forgotten_there,
    not_as_pushed,
    not_kept,
)


def _by(column: str, rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return found
