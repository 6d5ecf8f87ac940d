"""The stage of a run (what the backend lists) and its work list (what changed).

Both are unlogged: a crash of the server empties them. So the run's own row, which
is logged, holds how many rows there are to be, and nothing is concluded from a
stage or a list that holds another number.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from svsync.domain.changes import Entry, Scope, ScopeOutcome
from svsync.domain.errors import StoreError
from svsync.domain.ids import BackendId, RemotePath, RunId
from svsync.store.columns import columns
from svsync.store.database import Row, Transaction
from svsync.store.pairs import tags_text

_STAGE = ("run_no", "remote_path", "value_token", "meta_token", "ord", "gone", "tags")


class StageLostError(StoreError):
    """The run's stage no longer holds what was put in; the run stages again."""

    code = "stage_lost"


@dataclass(frozen=True, slots=True)
class PushRules:
    """Numbers of the rules that are written through, that propagate deletes, that seed."""

    write: list[int]
    delete: list[int]
    seed: list[int]


@dataclass(frozen=True, slots=True)
class GuardCounts:
    """Counted in the work list before anything is fetched or asked."""

    known: int
    unlisted: int
    listed_gone: int
    changed: int
    touched: int
    backwards: int
    pushes: int
    remote_deletes: int
    todo: int


async def clear(tx: Transaction, backend: BackendId, run: RunId, run_no: int) -> None:
    """Drop this run's own work rows and those that dead runs left behind."""
    await tx.execute("staging.clear_all", tx.tenant, run, run_no, backend)


async def clear_todo(tx: Transaction, run_no: int) -> None:
    await tx.execute("staging.clear_todo", run_no)


async def any_scope(tx: Transaction, run: RunId) -> bool:
    """Did a folder of this run's listing end badly?"""
    return bool(await tx.fetchval("staging.any_scope", tx.tenant, run))


async def drop(tx: Transaction, run: RunId, run_no: int) -> None:
    """Drop one run's work rows."""
    await tx.execute("staging.clear", tx.tenant, run, run_no)


async def add_entries(tx: Transaction, run_no: int, entries: Iterable[Entry]) -> int:
    """COPY a piece of the listing in; the number of rows that arrived."""
    return await tx.copy(
        "stage",
        _STAGE,
        (
            (
                run_no,
                e.remote_path,
                e.value_token,
                e.meta_token,
                e.order,
                e.gone,
                tags_text(e.tags),
            )
            for e in entries
        ),
    )


async def add_scopes(tx: Transaction, run: RunId, scopes: Sequence[Scope]) -> None:
    if scopes:
        rows = [(s.prefix, str(s.outcome), s.reason) for s in scopes]
        await tx.execute("staging.add_scopes", tx.tenant, run, *columns(rows, 3))


async def diff(
    tx: Transaction,
    backend: BackendId,
    run: RunId,
    run_no: int,
    staged: int,
    rules: PushRules,
    leaving: Collection[RemotePath] = (),
    *,
    listed_from: datetime | None = None,
) -> GuardCounts:
    """Compare the stage with what is known and write the run's work list.

    `leaving` are pairs that a dry run would detach first; they are not counted. A pair that
    was settled since `listed_from` may be newer than the listing: it did not go backwards.

    Raises:
        StageLostError: the stage does not hold `staged` rows.
    """
    # Counted in the transaction that compares: a stage that is whole here stays whole,
    # because a crash ends the transaction, and nobody else deletes under this fence.
    if await tx.fetchval("staging.count", run_no) != staged:
        raise StageLostError("the staged listing was lost in the database; the run lists again")
    made = await tx.execute("staging.diff", tx.tenant, run, run_no, backend)
    counts = await guard_counts(tx, backend, run_no, rules, leaving, listed_from=listed_from)
    if counts.todo != made:
        raise StageLostError("the run's work list was lost in the database; the run lists again")
    return counts


async def guard_counts(
    tx: Transaction,
    backend: BackendId,
    run_no: int,
    rules: PushRules,
    leaving: Collection[RemotePath] = (),
    *,
    listed_from: datetime | None = None,
) -> GuardCounts:
    """Count the work list for the guards; arguments as those of `diff`."""
    row = await tx.fetchrow(
        "staging.guard_numbers", tx.tenant, backend, run_no, list(leaving), rules.write,
        rules.delete, listed_from,
    )  # fmt: skip
    assert row is not None
    return GuardCounts(**dict(row))


async def add_unlisted(
    tx: Transaction, run_no: int, first: int, paths: Sequence[RemotePath]
) -> int:
    """Append paths that the listing does not hold, numbered from `first`; how many."""
    if not paths:
        return 0
    return await tx.execute("staging.add_unlisted", run_no, first, list(paths))


async def add_named(
    tx: Transaction, backend: BackendId, run_no: int, first: int, paths: Sequence[RemotePath]
) -> None:
    """Append paths to a targeted run's work list, numbered from `first`."""
    numbers = list(range(first, first + len(paths)))
    await tx.execute("staging.add_named", run_no, tx.tenant, backend, numbers, list(paths))


async def mark_equal(tx: Transaction, run_no: int, places: Sequence[int]) -> None:
    """These places of the work list are settled: nothing is to be read or written."""
    await tx.execute("staging.mark_equal", run_no, list(places))


async def page(
    tx: Transaction, backend: BackendId, run_no: int, after: int, size: int, total: int
) -> list[Row]:
    """The next `size` rows of the work list, each with its pair as it stands now.

    Raises:
        StageLostError: fewer rows than the run recorded.
    """
    rows = await tx.fetch("staging.page", tx.tenant, backend, run_no, after, size, None)
    if len(rows) != min(size, max(0, total - after)):
        raise StageLostError("the run's work list was lost in the database; the run lists again")
    return rows


async def page_of(
    tx: Transaction, backend: BackendId, run_no: int, paths: Sequence[RemotePath]
) -> list[Row]:
    """The rows of some paths, those that are in the work list, each with its pair."""
    return await tx.fetch("staging.page", tx.tenant, backend, run_no, 0, 2**31 - 1, list(paths))


@dataclass(frozen=True, slots=True)
class Blinded:
    """Known pairs below folders that could not be listed: 10,001 of them, the first of
    each folder, how many there are of each outcome, and how many have a value as base."""

    named: list[tuple[RemotePath, ScopeOutcome, str]]
    many: dict[ScopeOutcome, int]
    based: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Pairs that wait for their next try: the first 10,001 with their reason, all, and
    how many of these have a value as base."""

    named: list[tuple[RemotePath, str]]
    many: int
    based: int


async def blinded(tx: Transaction, backend: BackendId, run: RunId, run_no: int) -> Blinded:
    rows = await tx.fetch("staging.blinded", tx.tenant, run, run_no, backend)
    return Blinded(
        sorted((r["remote_path"], ScopeOutcome(r["outcome"]), r["reason"]) for r in rows),
        {ScopeOutcome(r["outcome"]): r["many"] for r in rows},
        rows[0]["based"] if rows else 0,
    )


async def unseen(tx: Transaction, run: RunId) -> list[tuple[str, ScopeOutcome, str]]:
    """Folders that this run could not list, with the reason, at most 10,001 of them."""
    rows = await tx.fetch("staging.unseen", tx.tenant, run)
    return [(r["prefix"], ScopeOutcome(r["outcome"]), r["reason"]) for r in rows]


async def quarantined(tx: Transaction, backend: BackendId, run: RunId) -> Waiting:
    rows = await tx.fetch("staging.quarantined", tx.tenant, backend, run)
    named = [(r["remote_path"], r["reason"] or "") for r in rows]
    return Waiting(named, rows[0]["many"], rows[0]["based"]) if rows else Waiting([], 0, 0)


async def mark_blinded(tx: Transaction, backend: BackendId, run: RunId, run_no: int) -> None:
    """Known pairs below denied folders are denied, and due as soon as they are not."""
    await tx.execute("staging.mark_blinded", tx.tenant, run, run_no, backend)
