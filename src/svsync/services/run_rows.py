"""Runs of the past, from their rows to the records and objects that are shown."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from svsync.domain.ids import BackendId, RunId
from svsync.domain.runs import (
    Run,
    RunError,
    RunKind,
    RunResult,
    RunState,
    Skipped,
    Trigger,
    run_json,
)
from svsync.store.database import Row


def record_of(backend: BackendId, row: Row, state: RunState) -> Run:
    error = None
    if row["error_code"] is not None:
        error = RunError(row["error_code"], row["error_stage"] or "", row["error_message"] or "")
    result = RunResult.FAILED if state is RunState.FAILED else None
    return Run(
        run_id=RunId(row["run_id"]),
        backend_id=backend,
        kind=RunKind(row["kind"]),
        trigger=Trigger(row["trigger"]),
        state=state,
        result=result,
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        error=error,
    )


def run_of(row: Row, skipped: Sequence[Skipped]) -> dict[str, object]:
    """A run of the past, from its row."""
    record = record_of(BackendId(row["backend_id"]), row, RunState(row["state"]))
    record = replace(record, result=None if row["result"] is None else RunResult(row["result"]))

    def stored(column: str) -> dict[str, Any]:
        return json.loads(row[column]) if row[column] else {}

    return run_json(
        record,
        counts=stored("counts"),
        api_calls=stored("calls"),
        stages_ms=stored("stages_ms"),
        skipped=skipped,
    )
