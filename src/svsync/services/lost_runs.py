"""The end of a run that cannot tell it itself: its event, and the failure in its status."""

from collections.abc import Callable

from svsync.domain.federation import BackendSpec
from svsync.domain.runs import Report, RunKind, RunState
from svsync.domain.runs import Run as RunRecord
from svsync.observe.meter import Meter
from svsync.services.run_rows import record_of
from svsync.store import federation, outbox
from svsync.store.database import Row, Transaction
from svsync.store.outbox import Event


async def tell_lost(
    tx: Transaction, spec: BackendSpec, row: Row, *, ids: Callable[[str], str]
) -> None:
    """In the transaction that ended the run; a dry run or a probe is no cycle and tells nothing."""
    record = record_of(spec.id, row, RunState.FAILED)
    if record.kind in (RunKind.DRY, RunKind.PROBE):
        return
    await federation.run_lost(tx, spec.id, record.run_id, row["error_code"])
    data = Report().to_event(record, backend_name=spec.name, tenant=spec.tenant, sequence=0)
    event = Event("federation.sync.failed", data)
    await outbox.add(tx, spec.id, [event], event_ids=lambda: ids("evt"))


def measure(meter: Meter, spec: BackendSpec, record: RunRecord, report: Report) -> None:
    """Whoever ends a cycle counts it, a lost one too; a dry run or a probe is no cycle."""
    if record.kind in (RunKind.FULL, RunKind.TARGETED):
        counts = {str(count): n for count, n in report.numbers.items()}
        meter.run_ended(
            spec.tenant, spec.id, spec.type, str(record.result),
            (record.duration_ms or 0) / 1000, counts | {"skipped": report.skips},
        )  # fmt: skip
