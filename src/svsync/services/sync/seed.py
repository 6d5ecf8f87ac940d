"""Seeding: what was here before the mapping is written to the backend too, if it was told to.

A mapping never exports what it finds, unless `seed_remote` says so. Then live secrets
under its written-through rules that no pair joins, and that the listing does not show,
are put on the work list and asked for by name, like any other path. The table creates
them there only where the backend has no trace of the name.
"""

from typing import Final

from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.mapping import Mapped
from svsync.services.sync.context import Run
from svsync.store import pairs, staging

_PAGE: Final = 5_000


async def seed(run: Run, todo: int) -> int:
    """Append what is to be seeded to the work list, which has `todo` rows; how many."""
    rules = run.push_rules.seed
    seeded = 0
    for prefix in sorted({run.rules.local_prefix(rule) for rule in rules}):
        after = LocalPath("")
        while True:
            async with run.transaction(scratch=True) as tx:
                rows = await pairs.unjoined(tx, after, prefix, _PAGE)
                wanted = _wanted(run, rules, [LocalPath(row["path"]) for row in rows])
                seeded += await staging.add_unlisted(
                    tx, run.claimed.run_no, todo + seeded + 1, wanted
                )
            if len(rows) < _PAGE:
                break
            after = LocalPath(rows[-1]["path"])
    return seeded


def _wanted(run: Run, rules: list[int], paths: list[LocalPath]) -> list[RemotePath]:
    mapped = [run.rules.to_remote(path) for path in paths]
    return [m.remote for m in mapped if isinstance(m, Mapped) and m.rule in rules]
