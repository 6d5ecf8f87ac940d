"""Fetch: one point read for each change, and nothing for what did not change.

Whatever a listing said, the decision uses the token and value of one point read.
A path that the listing lacks is asked by name, without its value: only the
backend's own "gone" is gone. A change of tags alone needs no read at all.
"""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import replace
from typing import Final, TypeVar

from svsync.domain.bases import rolled_back
from svsync.domain.changes import (
    BaseKind,
    Change,
    ChangeKind,
    Entry,
    Fetched,
    HistoricVersion,
    LocalKind,
    Pair,
    RemoteGone,
    RemoteMetadata,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
)
from svsync.domain.federation import HistoryMode
from svsync.domain.runs import Count, SkipReason, Stage
from svsync.domain.values import check_limits
from svsync.services.sync.context import Run

T = TypeVar("T")
R = TypeVar("R")

PIECE_BYTES: Final = 8 * 1024 * 1024
"""Values fetched and committed together, in bytes, about."""
FIRST_PIECE: Final = 64
MOST_PIECE: Final = 1000
WORKERS: Final = 16
"""Reads asked for at once, or more where the configuration allows more on their way: the
call guard bounds them, and one that only waits for its turn costs processor time."""


async def fetch(run: Run, batches: AsyncGenerator[list[Change]]) -> AsyncGenerator[list[Fetched]]:
    """Batches of changes with what was read, in the order they came.

    A batch is cut where its values would take too much memory: into pieces of about
    PIECE_BYTES, by the size of the values before. The first piece is small.
    """
    size = _whole_batches(FIRST_PIECE, run.backend.features.batch_read)
    async with aclosing(batches):
        async for changes in batches:
            at = 0
            while at < len(changes):
                piece = changes[at : at + size]
                at += size
                with run.spending(Stage.FETCH):
                    fetched = await fetch_batch(run, piece)
                yield fetched
                each = max(1, sum(map(_bytes, fetched)) // len(piece))
                size = min(max(1, PIECE_BYTES // each), 4 * size, MOST_PIECE)
                size = _whole_batches(size, run.backend.features.batch_read)


def _whole_batches(size: int, batch: int) -> int:
    """A piece that ends within a batch read costs a call more than it needs."""
    return size - size % batch if size > batch else size


def _bytes(fetched: Fetched) -> int:
    versions = [v.payload.size for v in fetched.history]
    if isinstance(fetched.remote, RemoteValue):
        versions.append(fetched.remote.payload.size)
    return sum(versions)


async def fetch_batch(run: Run, changes: Sequence[Change]) -> list[Fetched]:
    """Read what these changes need, several at once.

    Raises:
        BackendError: what concerns the backend as a whole.
    """
    pieces = _pieces(changes, run.backend.features.batch_read)
    done = await _work_off(pieces, lambda piece: _fetch_piece(run, piece), _workers(run))
    return [fetched for piece in done for fetched in piece]


def _workers(run: Run) -> int:
    most = WORKERS
    for limit in run.spec.rate_limit.values():
        given = limit.get("concurrency") if isinstance(limit, Mapping) else None
        most = max(most, given) if isinstance(given, int) else most
    return most


async def _work_off(items: Iterable[T], work: Callable[[T], Awaitable[R]], workers: int) -> list[R]:
    """Do this work for every item, several at once; the first error ends the rest."""
    waiting = deque(items)
    done: list[R] = []

    async def worker() -> None:
        while waiting:
            done.append(await work(waiting.popleft()))

    tasks = [asyncio.create_task(worker()) for _ in range(min(workers, len(waiting)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done


def _pieces(changes: Sequence[Change], size: int) -> Iterator[list[Change]]:
    """Unlisted paths and mere tags alone, the rest in pieces of one batch read."""
    values = []
    for change in changes:
        if change.kind in (ChangeKind.UNLISTED, ChangeKind.METADATA):
            yield [change]
        else:
            values.append(change)
    for at in range(0, len(values), size):
        yield values[at : at + size]


async def _fetch_piece(run: Run, piece: list[Change]) -> list[Fetched]:
    if len(piece) == 1 and piece[0].kind in (ChangeKind.UNLISTED, ChangeKind.METADATA):
        return [await _ask(run, piece[0])]
    reads = await run.backend.read([change.pair.remote_path for change in piece])
    return [
        await _fetched(run, change, remote) for change, remote in zip(piece, reads, strict=True)
    ]


async def _ask(run: Run, change: Change) -> Fetched:
    """Look a path up by name; its value is read only if it moved."""
    pair, entry = change.pair, change.entry
    settled = is_clean(pair) and not (pair.recheck or pair.push_unfinished or pair.conflict_open)
    if change.kind is ChangeKind.METADATA and entry is not None and entry.tags is not None:
        assert entry.meta_token is not None
        if settled and entry.value_token == pair.base.value_token:
            return Fetched(change, RemoteMetadata(entry.meta_token, entry.tags))
    found = await run.backend.look_up(pair.remote_path)
    if isinstance(found, Entry):
        if found.gone:
            gone = RemoteGone(found.value_token, found.meta_token, found.order, "deleted")
            return Fetched(change, gone)
        if change.kind is ChangeKind.UNLISTED:
            run.report.add(Count.LISTING_MISSED)
        same_value = found.value_token is not None and found.value_token == pair.base.value_token
        told = found.meta_token is not None and found.tags is not None
        if same_value and told and settled:
            assert found.meta_token is not None
            assert found.tags is not None
            return Fetched(change, RemoteMetadata(found.meta_token, found.tags))
        [read] = await run.backend.read([pair.remote_path])
        return await _fetched(run, change, read)
    if change.kind is ChangeKind.UNLISTED and isinstance(found, RemoteValue):
        run.report.add(Count.LISTING_MISSED)
    return await _fetched(run, change, found)


async def _fetched(run: Run, change: Change, remote: RemoteRead) -> Fetched:
    if not isinstance(remote, RemoteValue):
        return Fetched(change, remote)
    run.report.bytes_read += remote.payload.size
    if await _is_behind(run, change, remote):
        return Fetched(change, RemoteUnknown(SkipReason.LAGGING, "a later version is still there"))
    remote = _with_listed_tags(remote, change.entry)
    reason = check_limits(remote.payload.reveal(), run.spec.max_value_bytes)
    if reason is not None:
        return Fetched(change, RemoteUnknown(reason, f"{remote.payload.size} bytes"))
    return Fetched(change, remote, await _history(run, change, remote))


async def _is_behind(run: Run, change: Change, remote: RemoteValue) -> bool:
    """Does the backend give a version from before the one that base is of, while it still has
    that one? Where its answers may lag, a lower number is no rollback by itself."""
    base, features = change.pair.base, run.backend.features
    if not (features.ordered_tokens and features.consistency_window_s):
        return False
    if not rolled_back(base, remote.order):
        return False
    assert base.order is not None
    later = await run.backend.read_history(
        change.pair.remote_path, above=base.order - 1, below=base.order + 1, limit=1
    )
    return bool(later)


def _with_listed_tags(remote: RemoteValue, entry: Entry | None) -> RemoteValue:
    """A batch read may tell no tags: those listed beside this very value are its tags, and
    those of a listing that tells of no value."""
    if remote.tags is not None or entry is None:
        return remote
    if entry.value_token not in (None, remote.value_token):
        return remote
    return replace(remote, tags=entry.tags, meta_token=entry.meta_token)


async def _history(run: Run, change: Change, remote: RemoteValue) -> tuple[HistoricVersion, ...]:
    """Versions between base and this read that still exist, where history is wanted.

    Only where they would become local versions: at a first sync, and where nobody
    wrote locally since base.
    """
    pair = change.pair
    below, above = remote.order, pair.base.order or 0
    features = run.backend.features
    by_default = HistoryMode.FULL if features.history_by_default else HistoryMode.CURRENT
    if (
        (run.spec.history or by_default) is HistoryMode.CURRENT
        or not features.history
        or below is None
        or below - above <= 1
        or pair.conflict_open
        or not (pair.local.kind is LocalKind.NO_ROW or is_clean(pair) or _is_given_up(pair))
    ):
        return ()
    limit = max(0, run.spec.max_versions - 1)
    found = await run.backend.read_history(pair.remote_path, above=above, below=below, limit=limit)
    return tuple(
        version
        for version in found
        if check_limits(version.payload.reveal(), run.spec.max_value_bytes) is None
    )


def _is_given_up(pair: Pair) -> bool:
    """It was gone, and nobody wrote locally since that was settled."""
    return pair.base.kind is BaseKind.ABSENT and pair.local.version == pair.base.settled_version


def is_clean(pair: Pair) -> bool:
    """Nobody wrote locally since base was settled with a value."""
    base, local = pair.base, pair.local
    return (
        base.kind is BaseKind.VALUE
        and local.kind is LocalKind.LIVE
        and local.fingerprint == base.fingerprint
    )
