"""Does what is promised hold, whatever fails? Three processes, real servers, and faults.

`SVSYNC_FAULT_MINUTES=20 pytest tests/acceptance/test_faults.py` goes on for longer,
`SVSYNC_FAULT_SEED` draws a history anew that was told of, and `SVSYNC_FAULT_POSTGRES=debian`
stores it in Debian's PostgreSQL.
"""

import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.fault_estate import open_estate
from tests.acceptance.fault_evidence import Evidence, Got, Written
from tests.acceptance.faults import live
from tests.debian import server_named

MINUTES = float(os.environ.get("SVSYNC_FAULT_MINUTES", "0.5"))
KIND = os.environ.get("SVSYNC_FAULT_POSTGRES", "embedded")
SEED = int(os.environ.get("SVSYNC_FAULT_SEED") or random.SystemRandom().randrange(1_000_000))


async def test_whatever_fails_nothing_is_lost_doubled_or_told_wrongly(state_dir: Path) -> None:
    async with open_estate(state_dir, server_named(KIND)) as estate:
        evidence = await live(estate, MINUTES * 60, SEED)
    findings = evidence.findings()
    assert not findings, "\n".join(
        [
            f"SVSYNC_FAULT_SEED={SEED}",
            evidence.size(),
            *estate.done,
            "found:",
            *findings,
            *evidence.about(findings),
        ]
    )


# --- what is looked for is found ---------------------------------------------------

START = datetime(2026, 11, 23, 10, tzinfo=UTC)


def run(number: int, **changes: Any) -> dict[str, Any]:
    """A run that began in its minute and had ended half a minute later."""
    began = START + timedelta(minutes=number)
    return {
        "run_id": f"run_{number}",
        "backend_id": "fed_a",
        "kind": "full",
        "state": "completed",
        "fence": number,
        "started_at": began,
        "ended_at": began + timedelta(seconds=30),
        **changes,
    }


def version(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "path": "a/x",
        "version": number,
        "origin": "pull",
        "remote_version": str(number),
        "run_id": f"run_{number}",
        "stored_at": START + timedelta(minutes=number, seconds=10),
        **changes,
    }


def event(
    sequence: int, kind: str = "sync.completed", run: str | None = None, **changes: Any
) -> dict[str, Any]:
    return {
        "type": f"federation.{kind}",
        "tenant": "mine",
        "told": "mine",
        "backend": "fed_a",
        "sequence": sequence,
        "run_id": run,
        "paths": ["a/x"],
        **changes,
    }


def got(sequence: int, **changes: Any) -> Got:
    message = Got(f"msg_{sequence}", "{}", "federation.sync.completed", "fed_a", sequence)
    return replace(message, **changes)


def push(**changes: Any) -> dict[str, Any]:
    """The local version 3 went over the remote version 2."""
    return {
        "path": "a/x",
        "push_id": "psh_1",
        "kind": "put",
        "state": "landed",
        "version": 3,
        "expected_order": 2,
        **changes,
    }


def of(path: str, *values: object) -> dict[str, dict[int, object]]:
    """A history."""
    return {path: dict(enumerate(values, 1))}


# a/x was pulled twice, then written here and pushed; b/x is but pulled; c/x was deleted here
# alone; a conflict waits at d/x.
WELL = Evidence(
    runs=[run(1), run(2), run(3, kind="probe", started_at=None, fence=None)],
    versions=[
        version(1),
        version(2),
        version(3, origin="write", remote_version=None, run_id=None),
        version(1, path="b/x"),
    ],
    events=[event(1, run="run_1"), event(2, run="run_2")],
    asked=["run_1"],
    got={"all": [got(1), got(2), got(2)]},
    wanted={},
    endpoints={"all": "mine"},
    told={"fed_a": 2},
    tenants={"a/x": "mine", "o/x": "other"},
    here={"a/x": "three", "b/x": "one", "d/x": "ours"},
    there={"a/x": "three", "b/x": "one", "c/x": "left", "d/x": "theirs"},
    left_there=["c/x"],
    open_conflicts={"d/x": ("ours", "theirs")},
    history_here=of("a/x", "one", "two", "three") | of("b/x", "one"),
    history_there=of("a/x", "one", "two", "three") | of("b/x", "one"),
    only_pulled="b/",
    pushes=[push()],
    wrote_here=[Written("a/x", 3, "three")],
    wrote_there=[Written("a/x", 2, "two")],
    refused=[("a/x", "four")],
)
TWICE = [*WELL.events, event(3, run="run_2")]
FLAP = [*WELL.events, event(3, "backend.recovered")]
DELETE = push(kind="delete", expected_order=3)
GONE = {
    "here": {"b/x": "one", "d/x": "ours"},
    "there": {"b/x": "one", "c/x": "left", "d/x": "theirs"},
}
OF_OTHERS = [event(1, run="run_1", paths=["o/x"]), WELL.events[1]]
TO_OTHERS = [event(1, run="run_1", told="other"), WELL.events[1]]


def here(*values: object) -> dict[str, Any]:
    """Another history of a/x here."""
    return {"history_here": of("a/x", *values) | of("b/x", "one")}


def there(*values: object) -> dict[str, Any]:
    return {"history_there": of("a/x", *values) | of("b/x", "one")}


@pytest.mark.parametrize(
    "also",
    [
        {},
        {"events": [*WELL.events, event(3, "secret.changed")]},  # after all was at rest
        {**here("one", "else", "three"), "kept": {"a/x": ["two"]}},
        {**there("one", "two", None), **GONE, "pushes": [push(), DELETE]},
    ],
)
def test_nothing_is_found_where_all_is_well(also: dict[str, Any]) -> None:
    assert replace(WELL, **also).findings() == []


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ({"runs": [run(1), run(2, fence=1)]}, "had one fence"),
        ({"runs": [run(1), run(2, started_at=START + timedelta(seconds=89))]}, "had ended"),
        ({"runs": [run(1), run(2, fence=0)]}, "had ended"),
        ({"runs": [run(1), run(2, state="running", ended_at=None)]}, "nobody is there"),
        ({"versions": [version(1), version(2, run_id="run_1")]}, "no run that was under way"),
        ({"versions": [version(1), version(3, run_id="run_2")]}, "its versions are [1, 3]"),
        ({"versions": [version(1), version(2, remote_version="1")]}, "came as [1, 1]"),
        ({"events": WELL.events[:1]}, "run_2 (full, completed): 0 events"),
        ({"events": TWICE}, "run_2 (full, completed): 2 events"),
        ({"events": [*WELL.events, event(3, run="run_9")]}, "is no run"),
        ({"events": FLAP}, "['recovered']"),
        ({"events": [event(1, run="run_1"), event(3, run="run_2")]}, "are numbered [1, 3]"),
        ({"asked": ["run_9"]}, "is no run"),
        ({"asked": ["run_4"], "runs": [*WELL.runs, run(4, state="queued")]}, "is queued"),
        ({"asked": ["run_4"], "runs": [*WELL.runs, run(4, state="superseded")]}, "went on"),
        ({"got": {"all": [got(1)]}}, "('fed_a', 2) did not arrive"),
        ({"got": {"all": [got(1), got(2), got(2, id="msg_9")]}}, "came under two ids"),
        ({"got": {"all": [got(1), got(2), got(2, body="[]")]}}, "came with two bodies"),
        ({"wanted": {"all": ["federation.backend.stale"]}}, "was not asked for"),
        ({"told": {"fed_a": 3}, "events": [*WELL.events, event(3)]}, "3) did not arrive"),
        ({"here": {}}, "a/x is not here"),
        ({"there": {}}, "a/x is here alone"),
        ({"here": {"a/x": 2}}, "a/x is another value here"),
        ({"left_there": []}, "c/x is not here"),
        ({"open_conflicts": {}}, "d/x is another value here"),
        ({"open_conflicts": {"d/x": (None, "theirs")}}, "does not show what is here"),
        ({"open_conflicts": {"d/x": ("ours", None)}}, "does not show what is there"),
        ({"endpoints": {"all": "other"}}, "('fed_a', 1) was not asked for"),
        ({"events": TO_OTHERS}, "fed_a 1 tells of the tenant other"),
        ({"events": OF_OTHERS}, "fed_a 1 of mine tells of o/x"),
        ({"got": {"all": [got(1, paths=("o/x",)), got(2)]}}, "all was told of o/x"),
        (here("one", "two"), "what was written here as version 3 is not it"),
        (here("one", "two", "three", "four"), "version 4 was refused, and is there"),
        (there("one", "two", "three", "four"), "version 4 is there by no push that landed"),
        ({"pushes": []}, "version 3 is there by no push that landed"),
        ({"pushes": [push(state="unknown")]}, "psh_1 is unknown still"),
        ({"pushes": [push(expected_order=1)]}, "psh_1 did not land as version 2"),
        (there("one", "two"), "psh_1 did not land as version 3"),
        (there("one", "else", "three"), "what was written there as version 2 is not it"),
        (there("one", None, "three"), "version 2 was deleted there, and nobody did so"),
        ({"history_there": {"a/x": {2: "two"}}}, "there are versions [2] there"),
        (here("one", "else", "three"), "psh_1 went over version 2, which nobody kept"),
        ({"history_there": of("b/x", "zero", "one")}, "b/x: its versions here are not those"),
        ({"said": ["process 1 ended by itself with 1"]}, "ended by itself"),
    ],
)
def test_each_damage_is_found(damage: dict[str, Any], found: str) -> None:
    assert any(found in finding for finding in replace(WELL, **damage).findings())
