"""Pushes that nobody will make any more: given up, with the version that waited for them."""

from collections.abc import Sequence

from svsync.domain.pushes import PushState
from svsync.store import pushes
from svsync.store.database import Transaction
from svsync.store.flips import Unfinished
from svsync.store.pushes import EndRow


async def withdraw(tx: Transaction, seen: Sequence[Unfinished], reason: str) -> int:
    """End pushes that were in nobody's hand when they were seen; how many could be. One that
    somebody took in hand since goes on. A late sender can say nothing about the others."""
    hands = {one.push: one.attempts for one in seen}
    rows = await pushes.load(tx, list(hands))
    if not rows:
        return 0
    await pushes.lock_secrets(tx, list(hands))
    ended = await pushes.end(
        tx,
        [
            EndRow(push, attempts, str(PushState.WITHDRAWN), reason, None)
            for push, attempts in hands.items()
        ],
    )
    given_up = [row for row in rows if row["push_id"] in ended]
    made = [(row["pushed_secret"], row["version"]) for row in given_up if row["pending"]]
    await pushes.destroy_pending(tx, made)
    await pushes.raise_revs(tx, [row["pushed_secret"] for row in given_up])
    return len(given_up)
