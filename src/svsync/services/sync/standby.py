"""A backend that stands in for another: its runs look whether it answers, and no more.

The other one owns the paths. Whatever pairs a standby had before it became one are let
go of; their secrets stay.
"""

from typing import Final

from svsync.domain.ids import RemotePath
from svsync.services.sync.context import Run
from svsync.store import pairs

_PAGE: Final = 1_000


async def stand_by(run: Run) -> None:
    """Detach what is attached, but for pairs whose push is not settled; a dry run does not."""
    after = RemotePath("")
    while not run.dry:
        async with run.transaction() as tx:
            rows = await pairs.active(tx, run.spec.id, after, _PAGE)
            await pairs.lock_secrets(tx, [row["path"] for row in rows])
            await pairs.detach(tx, run.spec.id, [(row["remote_path"], None) for row in rows])
        if len(rows) < _PAGE:
            return
        after = rows[-1]["remote_path"]
