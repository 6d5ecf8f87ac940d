"""Does what is promised hold, whatever fails? Three processes, real servers, and faults.

`SVSYNC_FAULT_MINUTES=20 pytest tests/acceptance/test_faults.py` goes on for longer, and
`SVSYNC_FAULT_SEED` draws a history anew that was told of.
"""

import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.fault_estate import open_estate
from tests.acceptance.fault_evidence import Evidence, Got
from tests.acceptance.faults import live

MINUTES = float(os.environ.get("SVSYNC_FAULT_MINUTES", "0.5"))
SEED = int(os.environ.get("SVSYNC_FAULT_SEED") or random.SystemRandom().randrange(1_000_000))


async def test_whatever_fails_nothing_is_lost_doubled_or_told_wrongly(state_dir: Path) -> None:
    async with open_estate(state_dir) as estate:
        evidence = await live(estate, MINUTES * 60, SEED)
    findings = evidence.findings()
    assert not findings, "\n".join(
        [f"SVSYNC_FAULT_SEED={SEED}", evidence.size(), *estate.done, "found:", *findings]
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


def event(sequence: int, kind: str = "sync.completed", run: str | None = None) -> dict[str, Any]:
    kind = f"federation.{kind}"
    return {"type": kind, "backend": "fed_a", "sequence": sequence, "run_id": run}


def got(sequence: int, **changes: Any) -> Got:
    message = Got(f"msg_{sequence}", "{}", "federation.sync.completed", "fed_a", sequence)
    return replace(message, **changes)


WELL = Evidence(
    runs=[run(1), run(2), run(3, kind="probe", started_at=None, fence=None)],
    versions=[version(1), version(2)],
    events=[event(1, run="run_1"), event(2, run="run_2")],
    asked=["run_1"],
    got={"all": [got(1), got(2), got(2)]},
    wanted={},
    here={"a/x": 1},
    there={"a/x": 1},
)
TWICE = [*WELL.events, event(3, run="run_2")]
FLAP = [*WELL.events, event(3, "backend.recovered")]


def test_nothing_is_found_where_all_is_well() -> None:
    assert WELL.findings() == []


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
        ({"here": {}}, "a/x is not here"),
        ({"there": {}}, "a/x is here alone"),
        ({"here": {"a/x": 2}}, "a/x is another value here"),
        ({"said": ["process 1 ended by itself with 1"]}, "ended by itself"),
    ],
)
def test_each_damage_is_found(damage: dict[str, Any], found: str) -> None:
    assert any(found in finding for finding in replace(WELL, **damage).findings())
