"""What a run has in hand and whom it suspects, in its own row: read by who comes after."""

from collections.abc import Sequence

from svsync.domain.ids import BackendId, RemotePath, RunId
from svsync.domain.suspects import Suspicion
from svsync.store.database import Row, Transaction


async def inherited(
    tx: Transaction, backend: BackendId, lost: RunId | None
) -> tuple[Suspicion, bool]:
    """What the next run of a backend suspects, and whether it follows on the death of a worker;
    `lost` is the run whose worker died just now."""
    last = await tx.fetchrow("suspects.last_begun", tx.tenant, backend, lost)
    if last is None:
        return Suspicion(), False
    # The other one was ended while nobody ran the backend.
    died = lost is not None or last["error_code"] == "worker_lost"
    return await _inherited(tx, last, died=died), died


async def _inherited(tx: Transaction, last: Row, *, died: bool) -> Suspicion:
    before = Suspicion()
    if last["suspects"]:
        before = Suspicion(tuple(map(RemotePath, last["suspects"])), last["attempts"] - 1)
    if not died:
        return before
    if last["in_hand"]:
        return before.after_death(last["in_hand"], piece=True)
    if last["batch_size"] is None:
        return before
    place = (last["run_no"], last["batch_cursor"], last["batch_size"])
    rows = await tx.fetch("suspects.window", *place)
    return before.after_death([RemotePath(r["remote_path"]) for r in rows], piece=False)


async def take_in_hand(tx: Transaction, run: RunId, paths: Sequence[RemotePath] | None) -> None:
    """Name the paths that are worked on alone; None: those of the batch again."""
    named = None if paths is None else list(paths)
    await tx.execute("suspects.take_in_hand", tx.tenant, run, named)


async def clear(tx: Transaction, run: RunId) -> None:
    await tx.execute("suspects.clear", tx.tenant, run)


async def due(tx: Transaction, backend: BackendId) -> list[RemotePath]:
    """Paths that killed a worker, to be tried again now; the first hundred."""
    rows = await tx.fetch("suspects.due", tx.tenant, backend)
    return [RemotePath(row["remote_path"]) for row in rows]


async def waiting(
    tx: Transaction, backend: BackendId, paths: Sequence[RemotePath]
) -> set[RemotePath]:
    """Those of the paths that killed a worker and are not tried yet."""
    rows = await tx.fetch("suspects.waiting", tx.tenant, backend, list(paths))
    return {RemotePath(row["remote_path"]) for row in rows}
