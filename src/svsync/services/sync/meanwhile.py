"""What change feeds name while a full run is under way is brought in at once.

A full run of a large backend takes minutes and holds the lease; the targeted run that a
feed asked for waits for it. So the run looks now and then at what was named, and pulls
new values of secrets that are in sync. Nothing else: no push, no deletion, no conflict,
no new name, no value that went backwards, and nothing where more are named than any guard
lets pass. The notices stay for the targeted run, which finds those equal and does whatever
was left; while they stay they count, so that no sequence of runs adds up to a mass.

A run that follows on the death of a worker, or suspects somebody, looks at nothing: what is
in its hands is to be known if it dies as well.

Two batches of one run are never decided at the same time (`Run.deciding`), and what the
run itself had read before is overtaken then, as by a write over the API.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from svsync.domain.changes import Change, ChangeKind, Pair, PairStatus
from svsync.domain.decide import Effect
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import Mode
from svsync.domain.ids import RemotePath
from svsync.observe.logs import get_logger
from svsync.services.sync.apply import count, judged
from svsync.services.sync.commit import commit
from svsync.services.sync.context import Run
from svsync.services.sync.fetch import fetch_batch, is_clean
from svsync.services.sync.judge import Outcome
from svsync.store import pairs, schedule

LOOK_S: Final = 0.1
MOST: Final = 19
"""Paths named at a time for which that is done: one less than the guards begin to count at."""


@asynccontextmanager
async def looking_meanwhile(run: Run) -> AsyncIterator[None]:
    """Bring in what is named as long as the block works; a dry run brings in nothing."""
    if run.dry or run.claimed.after_death or run.claimed.suspicion.paths:
        yield
        return
    task = asyncio.create_task(_keep_looking(run), name=f"notices of {run.spec.id}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep_looking(run: Run) -> None:
    seen: dict[RemotePath, int] = {}
    try:
        while True:
            await asyncio.sleep(LOOK_S)
            await _look(run, seen)
    except SvsyncError:
        pass  # of store, lease or backend: the run meets it as well, or the notices wait
    except Exception as bug:  # noqa: BLE001 - it only hastens what the waiting run does anyway
        get_logger().error("notices_failed_unexpectedly", backend_id=run.spec.id, exc_info=bug)


async def _look(run: Run, seen: dict[RemotePath, int]) -> None:
    """Bring in what was named; `seen` has what was looked at, with the number of its notice."""
    async with run.transaction(lookups=True, scratch=True) as tx:
        named = await schedule.dirty_if_few(tx, run.spec.id, MOST)
    fresh = [path for path, number in named.items() if seen.get(path) != number]
    if not fresh:
        return
    async with run.deciding:
        failed_in = run.failed_in
        try:
            await _bring_in(run, fresh)
        except SvsyncError:
            run.failed_in = failed_in  # the run itself has not failed
            raise
    seen.update(named)


async def _bring_in(run: Run, named: list[RemotePath]) -> None:
    async with run.transaction(lookups=True, scratch=True) as tx:
        rows = await pairs.load(tx, run.spec.id, named)
    plain = [pair for pair in map(pairs.pair_of, rows.values()) if _is_plain(run, pair)]
    changes = [Change(ChangeKind.CHANGED, pair, None) for pair in plain]
    outcomes = await judged(run, await fetch_batch(run, changes))
    pulls = [o for o in outcomes if _only_pulls(o)]
    run.brought.update(o.pair.remote_path for o in pulls)  # also where no answer comes
    overtaken, _ = await commit(run, pulls)
    for done in pulls:
        if done not in overtaken:
            count(run, done)


def _is_plain(run: Run, pair: Pair) -> bool:
    rests = pair.status is PairStatus.IN_SYNC and not (
        pair.recheck or pair.push_unfinished or pair.conflict_open or pair.failures
    )
    synced = run.settings_of(pair.rule).mode is Mode.SYNC
    return rests and synced and is_clean(pair) and pair.remote_path not in run.leaving


def _only_pulls(o: Outcome) -> bool:
    decision = o.decision
    return (
        decision.effect is Effect.PULL
        and decision.conflict is None
        and decision.push is None
        and decision.skip_reason is None
        and not o.rolled_back
    )
