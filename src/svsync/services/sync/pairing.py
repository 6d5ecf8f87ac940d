"""Rows of the work list as changes: each with its pair as it stands now."""

from collections.abc import Sequence
from dataclasses import replace

from svsync.domain.changes import Change, ChangeKind, Entry, Pair
from svsync.domain.federation import Mode
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.mapping import Mapped, Unmapped
from svsync.domain.runs import SkipReason
from svsync.services.sync.context import Run
from svsync.store import pairs
from svsync.store.database import Row


async def pair_up(run: Run, rows: Sequence[Row]) -> list[Change]:
    """Known pairs as they are, new names mapped."""
    known: dict[RemotePath, Change] = {}
    fresh: dict[RemotePath, Row] = {}
    for row in rows:
        if row["path"] is None:
            fresh[row["remote_path"]] = row
        else:
            pair = pairs.pair_of(row)
            if run.renumbered:  # a dry run: the stored number is still that of the rules before
                pair = replace(pair, rule=run.renumbered.get(pair.remote_path, pair.rule))
            if _is_proxied(run, pair.remote_path, pair.rule):
                continue
            known[pair.remote_path] = Change(_kind(row["kind"]), pair, _entry(row), row["n"])
    return [*known.values(), *await _map_new(run, fresh)]


async def _map_new(run: Run, fresh: dict[RemotePath, Row]) -> list[Change]:
    mapped: list[Mapped] = []
    for remote, result in zip(fresh, run.rules.map_batch(fresh), strict=True):
        if isinstance(result, Unmapped):
            run.skip(remote, SkipReason.of(str(result.reason)), result.detail)
        elif not _is_proxied(run, remote, result.rule):
            mapped.append(result)
    if not mapped:
        return []
    async with run.transaction(lookups=True, scratch=True) as tx:
        wanted = [(m.remote, m.local) for m in mapped]
        states = await pairs.load_new(tx, run.spec.id, run.mapping.base_pair, wanted)
    changes = []
    for m in mapped:
        row = states[m.remote]
        if row["claimed_by"] is not None and (
            row["claimed_by"] != run.spec.id or row["claimed_remote"] != m.remote
        ):
            run.skip(m.remote, SkipReason.CLAIMED_BY, row["claimed_by"])
            continue
        pair = _new_pair(m.remote, m.local, m.rule, row)
        work = fresh[m.remote]
        entry = None if work["kind"] == "named" else _entry(work)
        changes.append(Change(ChangeKind.NEW, pair, entry))
    return changes


def _new_pair(remote: RemotePath, local: LocalPath, rule: int, row: Row) -> Pair:
    """What a row of `pairs.load_new` says of two paths that no active pair joins."""
    return Pair(
        remote,
        local,
        rule,
        pairs.base_of(row),
        pairs.local_of(row),
        push_unfinished=row["push_unfinished"],
    )


def _is_proxied(run: Run, remote: RemotePath, rule: int) -> bool:
    """What is read through its backend is not stored, also by a backend that syncs others."""
    proxied = run.settings_of(rule).mode is Mode.PROXY
    if proxied:
        run.skip(remote, SkipReason.UNMAPPED, "its rule is in proxy mode")
    return proxied


async def reload(run: Run, paths: Sequence[tuple[RemotePath, LocalPath, int]]) -> list[Change]:
    """Pairs whose local row moved under a decision, read again."""
    async with run.transaction(lookups=True, scratch=True) as tx:
        states = await pairs.load(tx, run.spec.id, [remote for remote, _, _ in paths])
        missing = [(remote, local) for remote, local, _ in paths if remote not in states]
        unknown = await pairs.load_new(tx, run.spec.id, run.mapping.base_pair, missing)
    again = []
    for remote, local, rule in paths:
        if remote in states:
            pair = pairs.pair_of(states[remote])
        else:
            row = unknown[remote]
            pair = _new_pair(remote, local, rule, row)
        again.append(Change(ChangeKind.CHANGED, pair, None))
    return again


def _kind(word: str) -> ChangeKind:
    """A named path is looked at whatever its tokens say, so it counts as changed."""
    return ChangeKind.CHANGED if word == "named" else ChangeKind(word)


def _entry(row: Row) -> Entry | None:
    if row["kind"] in ("unlisted", "named"):
        return None
    return Entry(
        remote_path=row["remote_path"],
        value_token=row["value_token"],
        meta_token=row["meta_token"],
        order=row["ord"],
        gone=row["gone"],
        tags=pairs.tags_of(row["tags"]),
    )
