"""Pushes: writing to a backend so that a lost answer loses nobody's write.

A push is planned in the transaction of the decision it follows from, marked as sent
in one of its own, made on the condition that the remote side is still what was
decided on (`sending.py`), and settled in a third (`settling.py`). Whoever finds one
whose sender has had its time does not repeat it but asks the backend what became of
it (`healing.py`).

A run makes its pushes under its fence; a write by a person or program makes its own
without one. What keeps them apart is that a path has one unfinished push at most,
and that only the hand that holds it (`attempts`) may say how it ended.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

from svsync.domain.changes import HistoricVersion, Pair
from svsync.domain.decide import PushKind
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import BackendSpec, ConflictPolicy, PathSettings
from svsync.domain.ids import (
    BackendId,
    Fence,
    KeyId,
    LocalPath,
    PushId,
    RemotePath,
    RunId,
    SecretId,
)
from svsync.domain.mapping import Mapped, RuleSet
from svsync.domain.pushes import Landed, PushState, RemoteWrite
from svsync.domain.values import Payload
from svsync.ports import Backend
from svsync.services.sealing import Sealed, TenantKeys
from svsync.store import pairs
from svsync.store import pushes as store
from svsync.store.database import Row, Transaction
from svsync.store.pushes import PushRow

T = TypeVar("T")

CALL_S: Final = 10.0
"""Seconds that a push may take, the look before it included."""
HOLD_S: Final = 15.0
"""Seconds for which a push is its sender's alone: longer than its call may take."""
PLAN_S: Final = 60.0
"""The same for one that is planned and not sent yet."""
AT_ONCE: Final = 8
"""Pushes sent together, and under way at one time: none waits while its time runs out, and
a change of configuration, which takes the fence away, is met by the next few."""


class TransactionMaker(Protocol):
    """Transactions of one tenant; of a run, under its fence."""

    def __call__(self, *, lookups: bool = False) -> AbstractAsyncContextManager[Transaction]: ...


@dataclass(slots=True)
class Sender:
    """Who makes pushes, of which backend, with what.

    Attributes:
        base_pair: endpoint and namespace that this backend's bases speak of.
        time_left: seconds for which this process may still call out. A run's ends
            with its lease: what it sent later could not be told from a late call.
    """

    transaction: TransactionMaker
    spec: BackendSpec
    rules: RuleSet
    base_pair: str
    backend: Backend
    keys: TenantKeys
    now: Callable[[], datetime]
    ids: Callable[[str], str]
    time_left: Callable[[], float]
    run: RunId | None = None

    def settings_of(self, rule: int) -> PathSettings:
        return self.spec.for_rule(self.rules.spec(rule))

    def local_wins(self, rule: int) -> bool:
        """Of a tag or field that changed on both sides."""
        return self.settings_of(rule).conflict_resolution is not ConflictPolicy.BACKEND_WINS


@dataclass(frozen=True, slots=True)
class Push:
    """One push in hand, with the pair it concerns as that stood when it was taken;
    `mapped`: the rules still join its two paths."""

    push_id: PushId
    path: LocalPath
    kind: PushKind
    secret: SecretId
    version: int
    pending: bool
    metadata: dict[str, Any] | None
    expected_token: str | None
    expected_order: int | None
    target: bytes | None
    target_key: KeyId | None
    attempts: int
    sent: bool
    planned_rev: int
    pair: Pair
    mapped: bool
    sealed: Sealed | None
    encoding: str | None

    @property
    def remote_path(self) -> RemotePath:
        return self.pair.remote_path

    @property
    def numbered(self) -> tuple[SecretId, int]:
        return self.secret, self.version

    @property
    def makes_version(self) -> bool:
        """A version of ours becomes current by its landing."""
        return self.pending and self.kind is not PushKind.DELETE

    @property
    def local_tags(self) -> Sequence[str]:
        return self.pair.local.tags if self.metadata is None else self.metadata["tags"]

    @property
    def local_custom(self) -> dict[str, str]:
        text = self.pair.local.custom if self.metadata is None else self.metadata["custom"]
        custom: dict[str, str] = json.loads(text)
        return custom

    def order(self, payload: Payload | None = None) -> RemoteWrite:
        """What the backend is asked for."""
        return RemoteWrite(
            self.push_id,
            self.remote_path,
            self.kind,
            self.expected_token,
            self.expected_order,
            payload,
        )


@dataclass(frozen=True, slots=True)
class Made:
    """How one push ended, or did not.

    Attributes:
        state: landed, refused, withdrawn (surely not made), or unknown.
        reason: REMOTE_CHANGED or a skip reason, empty where it landed.
        error: what the backend raised, should it concern the backend as a whole.
        foreign: versions that somebody wrote between what was expected and ours.
        again_s: seconds after which the backend asks to come again, where it throttled.
    """

    push: Push
    state: PushState
    landed: Landed | None = None
    reason: str = ""
    detail: str = ""
    error: SvsyncError | None = None
    foreign: tuple[HistoricVersion, ...] = ()
    again_s: float | None = None

    @property
    def took_tags(self) -> bool:
        return self.landed is not None and self.landed.tags is not None


# --- plan -------------------------------------------------------------------------


async def plan(
    tx: Transaction,
    backend: BackendId,
    rows: Sequence[PushRow],
    *,
    by: str,
    run: RunId | None = None,
    fence: Fence | None = None,
) -> None:
    """Write pushes down, in the transaction of the decision they follow from."""
    await store.plan(tx, backend, rows, fence=fence, run=run, by=by, seconds=PLAN_S)


# --- take in hand -----------------------------------------------------------------


async def take_up(sender: Sender, tx: Transaction, ids: Sequence[PushId]) -> list[Push]:
    """The pushes with the pairs they concern, without those whose pair is no more, or
    is one of another store than the one that answers now."""
    rows = await store.load(tx, ids)
    states = await pairs.load(tx, sender.spec.id, [r["remote_path"] for r in rows])
    here = {path: row for path, row in states.items() if row["base_pair"] == sender.base_pair}
    return [
        _push_of(row, pairs.pair_of(here[row["remote_path"]]), sender.rules)
        for row in rows
        if row["remote_path"] in here
    ]


def _push_of(row: Row, pair: Pair, rules: RuleSet) -> Push:
    """With the pair under the number that its rule has now: a push may be made before the
    run that maps the pairs anew."""
    now = rules.to_remote(pair.local_path)
    mapped = isinstance(now, Mapped) and now.remote == pair.remote_path
    if isinstance(now, Mapped):
        pair = replace(pair, rule=now.rule)
    sealed = None
    if row["sealed"] is not None:
        sealed = Sealed(row["key_id"], row["nonce"], row["sealed"])
    return Push(
        push_id=PushId(row["push_id"]),
        path=LocalPath(row["path"]),
        kind=PushKind(row["kind"]),
        secret=SecretId(row["pushed_secret"]),
        version=row["version"],
        pending=row["pending"],
        metadata=None if row["metadata"] is None else json.loads(row["metadata"]),
        expected_token=row["expected_token"],
        expected_order=row["expected_order"],
        target=row["target_fp"],
        target_key=row["target_fp_key"],
        attempts=row["attempts"],
        sent=row["sent_at"] is not None,
        planned_rev=row["planned_rev"],
        pair=pair,
        mapped=mapped,
        sealed=sealed,
        encoding=row["encoding"],
    )


# --- several at once, and not for ever --------------------------------------------


async def at_once(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of all, in order, a few at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with room:
            return await work()

    tasks = [asyncio.create_task(one(work)) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def within(seconds: float, work: Awaitable[T]) -> T | None:
    """The result, or None when it took too long and was cancelled.

    A task with a bounded wait: a timeout inside a task that is itself being cancelled
    does not tell the two apart before Python 3.11.4.
    """
    task = asyncio.ensure_future(work)
    done = set[asyncio.Future[T]]()
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not done:  # also where whoever waits is cancelled just as it ends
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    return task.result() if done else None
