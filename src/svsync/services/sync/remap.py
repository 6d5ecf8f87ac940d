"""A changed mapping is no data operation: pairs that left it are detached, and stay.

Rules, filters, endpoint and namespace have one hash. When it differs from the one
under which the last full run attached its pairs, every active pair is mapped anew
before anything else, also those of runs that broke off: what falls out of scope, or
moves to another local path, is detached with its secret untouched. Nothing is deleted
on either side.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Final

from svsync.domain.federation import TagTransform, transforms_text
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.mapping import Mapped
from svsync.domain.runs import Count, SkipReason
from svsync.domain.tags import flatten
from svsync.services.sync.context import PLAN_LIMIT, Planned, Run
from svsync.store import federation, pairs, secrets

_PAGE: Final = 5_000

Leaving = tuple[RemotePath, LocalPath, LocalPath | None]
"""A pair that leaves: remote path, local path, and where it moves to, if anywhere."""


async def remap(run: Run) -> None:
    """Detach what left the mapping; keep the rest under its rule's new number.

    Until a full run has ended well under this mapping, none counts as applied: should
    the one before come back meanwhile, pairs are mapped anew again.
    """
    if not run.dry:
        async with run.transaction() as tx:
            await federation.forget_applied(tx, run.spec.id)
    async for leaving, kept in _mapped_anew(run):
        if run.dry:
            _count(run, leaving)
            run.renumbered.update(kept)
            continue
        async with run.transaction() as tx:
            await pairs.lock_secrets(tx, [local for _, local, _ in leaving])
            gone = await pairs.detach(tx, run.spec.id, [(remote, to) for remote, _, to in leaving])
            await pairs.renumber(tx, run.spec.id, run.mapping, kept)
        _count(run, [one for one in leaving if one[0] in gone])
        for remote in {one[0] for one in leaving} - gone:
            run.blocked = True
            run.leaving.add(remote)
            run.skip(remote, SkipReason.WRITE_IN_PROGRESS)
    if not run.dry:
        async with run.transaction() as tx:
            await pairs.recheck_all(tx, run.spec.id)


async def retag(run: Run, before: Sequence[TagTransform]) -> None:
    """A changed `transform.tags` rewrites tag strings from the raw tags kept in base.

    `before` are the transforms, by rule, under which they were last written. The
    backend is not called; strings that people added stay. Doing it twice does nothing.
    """
    after = RemotePath("")
    while True:
        async with run.transaction() as tx:
            rows = await pairs.tagged(tx, run.spec.id, after, _PAGE)
            results = run.rules.map_batch([RemotePath(row["remote_path"]) for row in rows])
            changed = []
            for row, result in zip(rows, results, strict=True):
                if not isinstance(result, Mapped) or row["rule_ord"] >= len(before):
                    continue
                raw = pairs.tags_of(row["remote_tags"]) or {}
                old = set(flatten(raw, before[row["rule_ord"]]))
                new = flatten(raw, run.rules.spec(result.rule).tags)
                tags = sorted((set(row["tags"]) - old).union(new))
                if tags != row["tags"]:
                    changed.append((row["secret_id"], json.dumps(tags), row["custom"]))
            if not run.dry:
                await secrets.describe(tx, changed)
        run.report.add(Count.METADATA_UPDATED, len(changed))
        if len(rows) < _PAGE:
            break
        after = rows[-1]["remote_path"]
    if not run.dry:
        async with run.transaction() as tx:
            await federation.set_transforms(tx, run.spec.id, transforms_text(run.spec))


async def _mapped_anew(
    run: Run,
) -> AsyncIterator[tuple[list[Leaving], list[tuple[RemotePath, int]]]]:
    """Every active pair, a page at a time: those that leave, those that stay."""
    after = RemotePath("")
    while True:
        async with run.transaction(scratch=True) as tx:
            rows = await pairs.active(tx, run.spec.id, after, _PAGE)
        leaving: list[Leaving] = []
        kept: list[tuple[RemotePath, int]] = []
        results = run.rules.map_batch([RemotePath(row["remote_path"]) for row in rows])
        for row, result in zip(rows, results, strict=True):
            if not isinstance(result, Mapped):
                leaving.append((row["remote_path"], row["path"], None))
            elif result.local != row["path"]:
                leaving.append((row["remote_path"], row["path"], result.local))
            elif row["base_pair"] != run.mapping.base_pair:
                leaving.append((row["remote_path"], row["path"], None))
            else:
                kept.append((row["remote_path"], result.rule))
        yield leaving, kept
        if len(rows) < _PAGE:
            return
        after = rows[-1]["remote_path"]


def _count(run: Run, leaving: list[Leaving]) -> None:
    run.report.add(Count.DETACHED, len(leaving))
    run.report.add(Count.MOVED, sum(to is not None for _, _, to in leaving))
    for remote, local, to in leaving if run.dry else ():
        run.leaving.add(remote)
        if len(run.plan) < PLAN_LIMIT:
            detail = f"moves to {to}" if to else "left the mapping, stays as an ordinary secret"
            run.plan.append(Planned(local, remote, "detach", detail, to))
