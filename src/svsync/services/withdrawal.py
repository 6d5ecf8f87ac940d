"""Pushes that nobody will make any more: given up, with the version that waited for them."""

from collections.abc import Sequence

from svsync.domain.ids import PushId
from svsync.domain.pushes import PushState
from svsync.store import pushes
from svsync.store.database import Transaction
from svsync.store.pushes import EndRow


async def withdraw(tx: Transaction, ids: Sequence[PushId], reason: str) -> None:
    """End pushes that are in nobody's hand. A late sender can say nothing about them."""
    rows = await pushes.load(tx, ids)
    if not rows:
        return
    await pushes.lock_secrets(tx, ids)
    ended = await pushes.end(
        tx,
        [
            EndRow(row["push_id"], row["attempts"], str(PushState.WITHDRAWN), reason, None)
            for row in rows
        ],
    )
    given_up = [row for row in rows if row["push_id"] in ended]
    made = [(row["pushed_secret"], row["version"]) for row in given_up if row["pending"]]
    await pushes.destroy_pending(tx, made)
    await pushes.raise_revs(tx, [row["pushed_secret"] for row in given_up])
