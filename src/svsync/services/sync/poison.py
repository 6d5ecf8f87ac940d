"""Secrets that kill the worker which takes them up: isolated, then quarantined."""

from svsync.domain.changes import PairStatus
from svsync.domain.ids import RemotePath
from svsync.domain.mapping import Mapped
from svsync.domain.runs import QUARANTINE_AFTER, SkipReason, quarantine_delay
from svsync.services.sync.context import Run
from svsync.store import pairs, suspects
from svsync.store.pairs import SkipRow


async def isolate(run: Run) -> None:
    """Quarantine who is found guilty, and set aside who is to be taken up alone.

    A dry run writes nothing, so it passes what it inherited on.
    """
    guilty = run.claimed.suspicion.guilty
    if guilty is not None and not run.dry:
        await _quarantine(run, guilty)
    async with run.transaction(lookups=True) as tx:
        again = await suspects.due(tx, run.spec.id)
    run.pieces = [[path] for path in again]
    alone = set(again)
    for piece in run.claimed.suspicion.pieces():
        run.pieces.append([path for path in piece if path not in alone])


async def _quarantine(run: Run, guilty: RemotePath) -> None:
    """Each time that it kills a worker it waits longer. Who left the mapping is forgotten."""
    mapped = run.rules.to_local(guilty)
    async with run.transaction(lookups=True) as tx:
        known = (await pairs.load(tx, run.spec.id, [guilty])).get(guilty)
        place = None
        if known is not None:
            place = known["path"], known["rule_ord"], known["failures"]
        elif isinstance(mapped, Mapped):
            place = mapped.local, mapped.rule, 0
        if place is not None:
            path, rule, before = place
            failures = max(QUARANTINE_AFTER, before + 1)
            row = SkipRow(
                remote_path=guilty,
                path=path,
                rule=rule,
                status=str(PairStatus.QUARANTINED),
                failures=failures,
                retry_s=quarantine_delay(failures, run.random()),
                reason=str(SkipReason.CRASHES_WORKER),
            )
            await pairs.skip(tx, run.spec.id, run.mapping, [row])
        await suspects.clear(tx, run.claimed.run_id)
