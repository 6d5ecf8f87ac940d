"""The cycle: list, stage, diff, fetch, decide, seal, commit, emit; in this order."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from svsync.domain.changes import Fetched
from svsync.domain.errors import GuardError, ProtocolError
from svsync.domain.federation import transforms_of, transforms_text
from svsync.domain.guards import GuardNumbers, check_guards
from svsync.domain.pushes import PushState
from svsync.domain.runs import Stage
from svsync.services.healing import heal
from svsync.services.sync.apply import apply, count_landed
from svsync.services.sync.context import Run, Targets
from svsync.services.sync.fetch import fetch
from svsync.services.sync.intake import (
    changes,
    diff,
    list_and_stage,
    mark_denied,
    name_paths,
    take_over_stage,
)
from svsync.services.sync.meanwhile import looking_meanwhile
from svsync.services.sync.pipeline import ahead
from svsync.services.sync.poison import isolate
from svsync.services.sync.preview import preview
from svsync.services.sync.remap import remap, retag
from svsync.services.sync.standby import stand_by
from svsync.store import federation
from svsync.store.federation import StoredBackend
from svsync.store.staging import StageLostError

_STAGINGS: Final = 3
_NOTHING: Final = GuardNumbers(known=0)


async def cycle(run: Run, stored: StoredBackend, targets: Targets | None) -> None:
    """One pass over one backend: full, or of the paths named.

    Raises:
        GuardError: a guard stopped the run before its first write.
        BackendError, StoreError, FenceLostError: nothing half-done is left behind.
    """
    with run.spending(Stage.CONNECT):
        await connect(run, stored)
        if run.spec.is_standby:
            await stand_by(run)
            return
    if not run.dry:
        await ask_after_pushes(run)
    with run.spending(Stage.CONNECT):
        if stored.applied_tags != transforms_text(run.spec):
            await retag(run, transforms_of(stored.applied_tags or "[]"))
        if stored.applied_hash != run.mapping.hash:
            await remap(run)
        await isolate(run)
    for attempt in range(_STAGINGS):
        try:
            if targets is not None:
                await _pass(run, targets)
                return
            async with looking_meanwhile(run):
                await _pass(run, None)
            return
        except GuardError:
            # The stage that another worker left is older than what that one wrote there.
            if run.claimed.left is None:
                raise
            run.claimed = replace(run.claimed, left=None)
            run.report.list_again()
        except StageLostError:
            if attempt == _STAGINGS - 1:
                raise
            run.claimed = replace(run.claimed, left=None)
            run.report.list_again()


async def _pass(run: Run, targets: Targets | None) -> None:
    run.todo = await take_in(run, targets)
    async with aclosing(_fetched(run)) as fetched:
        await apply(run, fetched)


def _fetched(run: Run) -> AsyncGenerator[list[Fetched]]:
    """Batches of the work list, read ahead of what is committed; one by one where one of
    them may kill the worker, so that it is known which."""
    if run.pieces:
        return fetch(run, changes(run, run.todo))
    return ahead(fetch(run, ahead(changes(run, run.todo))))


async def connect(run: Run, stored: StoredBackend) -> None:
    """Sign in; another store behind the same endpoint ends the run at once."""
    connection = await run.backend.connect(run.rules.list_prefixes(), probe=False)
    run.connection = connection
    if not connection.identity:
        return
    if stored.identity is None:
        if run.dry:
            return
        async with run.transaction() as tx:
            await federation.set_identity(tx, run.spec.id, connection.identity)
    elif stored.identity != connection.identity:
        raise ProtocolError(
            f"another store answers at the endpoint of {run.spec.id} than before: if that is"
            " meant, give this backend a new id, or its mapping would be taken for deletions",
            operation="connect",
            code="backend_identity_changed",
        )


async def ask_after_pushes(run: Run) -> None:
    """What earlier runs and writes left open comes first: nothing is decided about a
    path before it is known what became of its push."""
    with run.spending(Stage.PUSH):
        for made in await heal(run.sender):
            if made.state is PushState.LANDED:
                count_landed(run, made)


async def take_in(run: Run, targets: Targets | None) -> int:
    """The length of the work list, once the guards let it pass."""
    if targets is not None:
        with run.spending(Stage.DIFF):
            todo, worst, pushes = await name_paths(run, targets)
        await preview(run, todo, worst, named=True, pushes=pushes)
        return todo
    staged = await take_over_stage(run)
    if staged is None:
        with run.spending(Stage.LIST):
            staged = await list_and_stage(run)
    with run.spending(Stage.DIFF):
        todo, numbers = await diff(run, staged)
        check_guards(numbers, run.spec.guard, run.allow)
    worst = replace(
        _NOTHING,
        known=numbers.known,
        overwrites=numbers.overwrites + numbers.changed,
        brought=numbers.brought,
    )
    await preview(run, todo, worst, named=False, pushes=numbers.overwrites)
    async with run.deciding:
        await mark_denied(run)
    return todo
