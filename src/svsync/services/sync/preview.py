"""Looking before the first write, where the numbers alone cannot tell a guard.

A moved token says that a value may differ, a name that is asked for may be gone; a
store without tokens says nothing at all. Where so many are due that a guard would
stop the run if all of them were what they may be, their values are read and compared
before any is written. What is found equal there and has no token that moved is done
with, so such a store's values are read once a cycle, not twice.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from svsync.domain.bases import rolled_back
from svsync.domain.changes import (
    BaseKind,
    Change,
    ChangeKind,
    Fetched,
    LocalKind,
    Pair,
    PairStatus,
    RemoteGone,
    RemoteValue,
)
from svsync.domain.errors import GuardError
from svsync.domain.guards import GuardNumbers, check_guards
from svsync.services.sync.context import Run
from svsync.services.sync.fetch import fetch, is_clean
from svsync.services.sync.intake import changes
from svsync.store import staging


async def preview(run: Run, todo: int, worst: GuardNumbers, *, named: bool, pushes: int) -> None:
    """Read what may trip a guard, if all of it were to; then ask the guards again.

    Args:
        worst: the numbers, were each path what it may be.
        named: a targeted run: every known path of its list is looked at, not only
            those whose token moved.
        pushes: writes to the backend that are due already; part of `worst`.

    Raises:
        GuardError: a guard stopped the run; nothing was written.
    """
    try:
        check_guards(worst, run.spec.guard, run.allow)
    except GuardError:
        pass
    else:
        return
    gone = backwards = 0
    overwrites = pushes
    # `fetch` cuts by bytes, so that large values are never held by the batch here either.
    async with aclosing(fetch(run, _wanted(run, todo, named=named))) as pieces:
        async for piece in pieces:
            equal = []
            for one in piece:
                base, remote = one.change.pair.base, one.remote
                if isinstance(remote, RemoteGone):
                    gone += named
                elif isinstance(remote, RemoteValue):
                    backwards += named and rolled_back(base, remote.order)
                    if run.keys.fingerprint(remote.payload) != base.fingerprint:
                        overwrites += not _is_due(run, one.change.pair)
                    elif _is_settled(one, remote):
                        equal.append(one.change.n)
            if equal:
                async with run.transaction(scratch=True) as tx:
                    await staging.mark_equal(tx, run.claimed.run_no, equal)
    found = GuardNumbers(
        known=worst.known,
        unlisted=gone,
        backwards=backwards,
        overwrites=overwrites,
        brought=len(run.brought),
    )
    check_guards(found, run.spec.guard, run.allow)


async def _wanted(run: Run, todo: int, *, named: bool) -> AsyncGenerator[list[Change]]:
    """Known pairs with a value to compare with, in the order of the work list."""
    async for batch in changes(run, todo, known_only=True):
        yield [
            change
            for change in batch
            if change.pair.base.kind is BaseKind.VALUE
            and (named or change.kind is ChangeKind.CHANGED)
        ]


def _is_due(run: Run, pair: Pair) -> bool:
    """Is a push of it counted already? Of two sides that moved one is overwritten at most."""
    wrote = pair.local.kind is LocalKind.LIVE and pair.local.fingerprint != pair.base.fingerprint
    return wrote and pair.rule in run.push_rules.write


def _is_settled(one: Fetched, remote: RemoteValue) -> bool:
    """Would the table find nothing to do, and nothing to write?"""
    pair = one.change.pair
    return (
        is_clean(pair)
        and pair.status is PairStatus.IN_SYNC
        and not (pair.recheck or pair.failures)
        and remote.value_token == pair.base.value_token
        and remote.meta_token in (None, pair.base.meta_token)
    )
