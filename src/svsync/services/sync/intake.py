"""List, stage, diff: from what the backend shows to what this run has to look at.

The listing goes into the stage page by page and is never held whole. The diff is
one statement in the database; what it leaves is the run's work list. Nothing is
concluded from a stage that is not the one that was put in.
"""

import hashlib
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

from svsync.domain.changes import (
    Change,
    Entry,
    ListingPage,
    Scope,
    ScopeOutcome,
)
from svsync.domain.errors import (
    DeniedError,
    FenceLostError,
    ListingError,
    StoreError,
    StoreUnavailableError,
)
from svsync.domain.globs import Glob
from svsync.domain.guards import GuardNumbers, check_guards
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.mapping import Mapped
from svsync.domain.runs import Count, SkipReason, Stage
from svsync.services.sync.context import Run, Targets
from svsync.services.sync.pairing import pair_up
from svsync.services.sync.pipeline import AHEAD, ahead
from svsync.services.sync.seed import seed
from svsync.store import pairs, queue, staging, suspects
from svsync.store.database import Row

STAGE_ROWS: Final = 10_000
"""Entries of the listing held in memory before they are copied into the stage."""
IDLE_PAGES: Final = 1_000
"""So many pages of a listing in a row that add nothing end the run."""
MOST_PASSED_OVER: Final = 1_000_000
"""So do so many names in all that nobody asked for: a listing may go round in them."""
BATCH: Final = 500
"""Rows of the work list taken up together, and committed together."""
BATCHES_AT_WORK: Final = 2 * AHEAD + 2
"""Batches that may still be fetched or committed when the next one is taken up."""
_UNSEEN: Final = {
    ScopeOutcome.DENIED: SkipReason.DENIED,
    ScopeOutcome.FAILED: SkipReason.UNLISTED,
}
_PAGE: Final = 5_000
_NOTHING: Final = ListingPage()


async def list_and_stage(run: Run) -> int:
    """Copy the backend's listing into the stage; how many entries there are.

    Raises:
        ListingError: the listing does not end, or no folder of it could be listed.
        DeniedError: no folder of it may be listed.
    """
    async with run.transaction(scratch=True) as tx:
        await staging.clear(tx, run.spec.id, run.claimed.run_id, run.claimed.run_no)
    run.listed_from, run.untold = run.now(), 0
    outcomes: set[ScopeOutcome] = set()
    staged = 0
    async with aclosing(ahead(_pieces(run, outcomes), 1)) as pieces:
        async for entries, scopes in pieces:
            staged += await _stage(run, entries, scopes)
            run.progress(Stage.LIST, staged, None)
    _refuse_blind(run, outcomes)
    run.listed_all = outcomes <= {ScopeOutcome.COMPLETE}
    run.keeps_stage = not run.report.reasons  # else what was rejected would not be told again
    async with run.transaction(scratch=True) as tx:
        await queue.record_staged(tx, run.claimed.run_id, staged, _scope_hash(run))
    run.report.add(Count.LISTED, staged)
    return staged


async def take_over_stage(run: Run) -> int | None:
    """The length of the stage that a stopped worker left complete, under the same mapping;
    None where there is none, or it waited for too long (`queue.start`)."""
    left = run.claimed.left
    if left is None or left.staged is None or left.scope_hash != _scope_hash(run):
        return None
    async with run.transaction(scratch=True) as tx:
        await staging.clear_todo(tx, run.claimed.run_no)
        run.listed_all = not await staging.any_scope(tx, run.claimed.run_id)
    run.keeps_stage = True
    run.report.add(Count.LISTED, left.staged)
    return left.staged


async def _pieces(
    run: Run, outcomes: set[ScopeOutcome]
) -> AsyncGenerator[tuple[list[Entry], list[Scope]]]:
    """The listing in pieces to be staged, one made while the one before is copied."""
    entries: list[Entry] = []
    scopes: list[Scope] = []
    names, others, passed_over, idle = 0, 0, 0, 0
    listing = run.backend.list_entries(run.rules.list_prefixes(), tokens=not run.first)
    async with aclosing(listing):
        async for page in listing:
            for name, reason in page.rejected:
                run.skip(name, SkipReason.of(reason))
            entries.extend(page.entries)
            scopes.extend(page.scopes)
            outcomes.update(scope.outcome for scope in page.scopes)
            names += len(page.entries)
            told = sum(entry.value_token is not None or entry.gone for entry in page.entries)
            run.untold = (run.untold or 0) + len(page.entries) - told
            others += len(page.rejected) + len(page.scopes)
            passed_over += page.passed_over
            idle = 0 if page != _NOTHING else idle + 1
            _refuse_endless(run, max(names, others), passed_over, idle)
            if len(entries) >= STAGE_ROWS:
                yield entries, scopes
                entries, scopes = [], []
    yield entries, scopes


def _refuse_endless(run: Run, names: int, passed_over: int, idle: int) -> None:
    if passed_over > MOST_PASSED_OVER:
        raise ListingError(
            f"the listing gave more than {MOST_PASSED_OVER:,} names that the mapping does not"
            " ask for: give what is federated a store of its own",
            operation="list",
            code="listing_unbounded",
        )
    if idle >= IDLE_PAGES:
        raise ListingError(
            f"the listing gave {idle} pages in a row that hold nothing, so it does not end:"
            " whatever answers at the endpoint is not this kind of backend",
            operation="list",
            code="listing_unbounded",
        )
    if names > run.spec.max_secrets:
        raise ListingError(
            f"the listing has more than max_secrets = {run.spec.max_secrets} names: raise it,"
            " or narrow the mapping",
            operation="list",
            code="listing_unbounded",
        )


def _refuse_blind(run: Run, outcomes: set[ScopeOutcome]) -> None:
    """A listing of which nothing could be listed is none."""
    if not outcomes or ScopeOutcome.COMPLETE in outcomes:
        return
    where = ", ".join(run.rules.list_prefixes())
    below = f"below {where}" if where else "of what it holds"
    if outcomes == {ScopeOutcome.DENIED}:
        raise DeniedError(
            f"the credential of {run.spec.id} may list nothing {below}: `svsync backends"
            f" test {run.spec.id}` shows the policy lines it lacks",
            operation="list",
        )
    raise ListingError(
        f"nothing {below} could be listed: look at `svsync backends test {run.spec.id}`",
        operation="list",
    )


async def _stage(run: Run, entries: list[Entry], scopes: list[Scope]) -> int:
    """Copy a piece of the listing, with the scopes that ended badly."""
    bad = [scope for scope in scopes if scope.outcome is not ScopeOutcome.COMPLETE]
    with run.spending(Stage.STAGE):
        arrived = await _copy_or_halve(run, entries)
        if bad:
            async with run.transaction(scratch=True) as tx:
                await staging.add_scopes(tx, run.claimed.run_id, bad)
    return arrived


async def _copy_or_halve(run: Run, entries: list[Entry]) -> int:
    """COPY; where the database refuses it, halve until the one entry that it refuses is
    alone, and skip that one: an odd name stops no other."""
    if not entries:
        return 0
    try:
        async with run.transaction(scratch=True) as tx:
            return await staging.add_entries(tx, run.claimed.run_no, entries)
    except (FenceLostError, StoreUnavailableError):
        raise
    except StoreError:
        if len(entries) == 1:
            run.skip(ascii(entries[0].remote_path), SkipReason.NAME_NOT_ALLOWED)
            return 0
        middle = len(entries) // 2
        first = await _copy_or_halve(run, entries[:middle])
        return first + await _copy_or_halve(run, entries[middle:])


def _scope_hash(run: Run) -> str:
    """Ties a stage to the mapping it was listed under."""
    text = "\n".join((run.mapping.hash, run.mapping.base_pair, *run.rules.list_prefixes()))
    return hashlib.sha256(text.encode()).hexdigest()


async def diff(run: Run, staged: int) -> tuple[int, GuardNumbers]:
    """Write the work list; its length, and the numbers for the guards."""
    claimed = run.claimed
    async with run.deciding, run.transaction(scratch=True) as tx:
        counts = await staging.diff(
            tx, run.spec.id, claimed.run_id, claimed.run_no, staged, run.push_rules, run.leaving,
            listed_from=run.listed_from,
        )  # fmt: skip
        blinded, unseen = staging.Blinded([], {}, 0), []
        if not run.listed_all:
            blinded = await staging.blinded(tx, run.spec.id, claimed.run_id, claimed.run_no)
            unseen = await staging.unseen(tx, claimed.run_id)
        waiting = await staging.quarantined(tx, run.spec.id, claimed.run_id)
        await queue.record_todo(tx, claimed.run_id, counts.todo)
    seeds = await seed(run, counts.todo)
    if seeds:
        async with run.transaction(scratch=True) as tx:
            await queue.record_todo(tx, claimed.run_id, counts.todo + seeds)
    _report_unseen(run, blinded, unseen)
    for path, reason in waiting.named:
        run.skip(path, SkipReason.QUARANTINED, reason)
    run.report.skip_unnamed(SkipReason.QUARANTINED, waiting.many - len(waiting.named))
    run.report.add(Count.UNLISTED, counts.unlisted)
    run.report.out_of_reach = sum(blinded.many.values())
    left_out = blinded.based + waiting.based
    run.report.add(Count.UNCHANGED, max(0, counts.known - counts.touched - left_out))
    return counts.todo + seeds, GuardNumbers(
        known=max(0, counts.known - left_out),
        listed=staged,
        unlisted=counts.unlisted,
        listed_gone=counts.listed_gone,
        backwards=counts.backwards,
        changed=counts.changed,
        remote_deletes=counts.remote_deletes,
        overwrites=counts.pushes + seeds,
        brought=len(run.brought),
    )


async def mark_denied(run: Run) -> None:
    """Known pairs below denied folders say so from now on; the guards let the run pass."""
    if run.dry or run.listed_all:
        return
    async with run.transaction() as tx:
        await staging.mark_blinded(tx, run.spec.id, run.claimed.run_id, run.claimed.run_no)


def _report_unseen(
    run: Run, blinded: staging.Blinded, unseen: Sequence[tuple[str, ScopeOutcome, str]]
) -> None:
    """Known pairs below folders that could not be listed; and such folders of which
    nothing is known yet, each for what may be below it."""
    for path, outcome, reason in blinded.named:
        run.skip(path, _UNSEEN[outcome], reason)
    for outcome, many in blinded.many.items():
        named = sum(scope is outcome for _, scope, _ in blinded.named)
        run.report.skip_unnamed(_UNSEEN[outcome], many - named)
    known = sorted(path for path, _, _ in blinded.named)
    for prefix, outcome, reason in unseen:
        at = bisect_left(known, prefix)
        if at == len(known) or not known[at].startswith(prefix):
            run.report.skip(prefix, _UNSEEN[outcome], reason, folder=True)


async def name_paths(run: Run, targets: Targets) -> tuple[int, GuardNumbers, int]:
    """A targeted run's work list: the paths named, each to be asked by name; the
    numbers for the guards, were each of them gone or overwritten; and how many are
    written to the backend for certain.

    A glob stands for the paths already known; an unknown path is found by its
    literal name. What no rule federates is skipped and reported, unless it is a change
    feed that named it.
    """
    async with run.transaction(scratch=True) as tx:
        await staging.clear(tx, run.spec.id, run.claimed.run_id, run.claimed.run_no)
    named = 0
    async for paths in _named(run, targets):
        async with run.transaction(scratch=True) as tx:
            deadly = await suspects.waiting(tx, run.spec.id, paths)
            safe = [path for path in paths if path not in deadly]
            await staging.add_named(tx, run.spec.id, run.claimed.run_no, named + 1, safe)
        for path in sorted(deadly):
            run.skip(path, SkipReason.QUARANTINED, str(SkipReason.CRASHES_WORKER))
        named += len(safe)
    async with run.transaction(scratch=True) as tx:
        counts = await staging.guard_counts(
            tx, run.spec.id, run.claimed.run_no, run.push_rules, run.leaving
        )
        await queue.record_todo(tx, run.claimed.run_id, named)
    run.report.add(Count.LISTED, named)
    numbers = GuardNumbers(
        known=counts.known,
        unlisted=counts.touched,
        backwards=counts.touched,
        remote_deletes=counts.remote_deletes,
        overwrites=counts.touched,
    )
    check_guards(
        GuardNumbers(known=counts.known, remote_deletes=counts.remote_deletes),
        run.spec.guard,
        run.allow,
    )
    return named, numbers, counts.pushes


async def _named(run: Run, targets: Targets) -> AsyncIterator[list[RemotePath]]:
    """Each path once: the literal names first, then what no glob before has matched."""
    literals = {glob.text: glob for glob in targets.globs if glob.is_literal}
    named: set[RemotePath] = set()
    for name in literals:
        mapped = run.rules.to_remote(LocalPath(name))
        if isinstance(mapped, Mapped):
            named.add(mapped.remote)
        else:
            run.skip(name, SkipReason.of(str(mapped.reason)), mapped.detail)
    for path in targets.remotes:
        if isinstance(run.rules.to_local(path), Mapped):
            named.add(path)
    ordered = sorted(named)
    for at in range(0, len(ordered), _PAGE):
        yield ordered[at : at + _PAGE]
    before = list(literals.values())
    for glob in targets.globs:
        if not glob.is_literal:
            async for paths in _known_matching(run, glob, before):
                yield [path for path in paths if path not in named]
            before.append(glob)


async def _known_matching(
    run: Run, glob: Glob, before: Sequence[Glob]
) -> AsyncIterator[list[RemotePath]]:
    after = LocalPath("")
    while True:
        async with run.transaction(scratch=True) as tx:
            rows = await pairs.active_below(tx, run.spec.id, after, glob.literal_prefix, _PAGE)
        yield [
            RemotePath(row["remote_path"])
            for row in rows
            if glob(row["path"]) and not any(earlier(row["path"]) for earlier in before)
        ]
        if len(rows) < _PAGE:
            return
        after = rows[-1]["path"]


async def changes(run: Run, todo: int, *, known_only: bool = False) -> AsyncGenerator[list[Change]]:
    """The work list in batches, each change with its pair as it stands now.

    With `known_only` names that no pair knows are left out, unmapped and unreported.

    Raises:
        StageLostError: the work list is not the one that was written.
    """
    claimed = run.claimed
    alone = {path for piece in run.pieces for path in piece}
    for piece in run.pieces:
        with run.spending(Stage.DIFF):
            async with run.transaction(lookups=True) as tx:
                await suspects.take_in_hand(tx, claimed.run_id, piece)
                rows = await staging.page_of(tx, run.spec.id, claimed.run_no, piece)
        yield await pair_up(run, _due(run, rows, known_only=known_only))
    if alone:
        async with run.transaction() as tx:
            await suspects.take_in_hand(tx, claimed.run_id, None)
    for at in range(0, todo, BATCH):
        behind = max(0, at - BATCHES_AT_WORK * BATCH)
        with run.spending(Stage.DIFF):
            async with run.transaction(lookups=True, scratch=True) as tx:
                await queue.advance(tx, claimed.run_id, behind, at + BATCH - behind)
                rows = await staging.page(tx, run.spec.id, claimed.run_no, at, BATCH, todo)
        others = [row for row in rows if row["remote_path"] not in alone]
        yield await pair_up(run, _due(run, others, known_only=known_only))


def _due(run: Run, rows: Sequence[Row], *, known_only: bool) -> list[Row]:
    """Rows of the work list without those that leave, or are settled already."""
    staying = [row for row in rows if row["remote_path"] not in run.leaving]
    equal = sum(row["kind"] == "equal" for row in staying)
    if equal:  # compared already, before the guards let the run pass
        run.report.add(Count.UNCHANGED, 0 if known_only else equal)
        staying = [row for row in staying if row["kind"] != "equal"]
    if known_only:
        staying = [row for row in staying if row["path"] is not None]
    return staying
