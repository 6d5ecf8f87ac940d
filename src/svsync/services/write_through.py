"""What a local write needs to know of its path, and how it reaches the backend.

A person's or program's write holds no lease. What keeps it apart from a run, and from
another write, is the row it was made for (`row_rev`) and that a path has one
unfinished push at most.
"""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from svsync.domain.changes import Pair, RemoteGone, RemoteUnknown, RemoteValue
from svsync.domain.decide import PushKind
from svsync.domain.errors import (
    BackendUnreachableError,
    ConfigError,
    DeniedError,
    SvsyncError,
    ThrottledError,
    WriteOutcomeUnknownError,
)
from svsync.domain.ids import LocalPath, PushId, TenantId
from svsync.domain.pushes import REMOTE_CHANGED, PushState
from svsync.domain.runs import SkipReason
from svsync.services.counted_calls import open_counted
from svsync.services.ownership import Owner, owner_of
from svsync.services.pushes import (
    CALL_S,
    Made,
    Sender,
    TransactionMaker,
    take_up,
    within,
)
from svsync.services.runs import Backends
from svsync.services.sealing import TenantKeys
from svsync.services.sending import deliver
from svsync.services.settling import settle
from svsync.store import federation, pairs, pushes
from svsync.store import secrets as store
from svsync.store.database import Database, Row, Transaction
from svsync.store.outbox import Event

BACKUP_S = 5.0
"""Seconds that a write under `local_wins` waits for its backup; it stands already."""
_AGAIN_S = 1.0
"""Seconds after which to write again, where a backend that throttles names none."""


class OvertakenError(Exception):
    """The row moved between the look and the write: look again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a write goes: the row that is there, its pair, and what is going on there.

    `pair` is that of a path which is written through, also where it was never settled.
    """

    owner: Owner | None
    row: Row | None
    pair: Pair | None
    push: Row | None

    @property
    def through(self) -> bool:
        return self.owner is not None and self.owner.writes_through

    @property
    def frozen(self) -> bool:
        """A conflict waits for a person: writes go on here, and nothing goes there."""
        return self.pair is not None and self.pair.conflict_open

    @property
    def puts(self) -> bool:
        """A value of this path is on its way to the backend."""
        return self.push is not None and self.push["kind"] in (PushKind.PUT, PushKind.CREATE)

    @property
    def live(self) -> bool:
        return self.row is not None and self.row["state"] == "live"

    @property
    def version(self) -> int:
        """The version that `cas` speaks of; 0 where there is nothing to read."""
        return int(self.row["current_version"]) if self.row is not None and self.live else 0

    @property
    def rev(self) -> int | None:
        return None if self.row is None else int(self.row["row_rev"])


async def look(tx: Transaction, backends: Backends, path: LocalPath) -> Place:
    """Look at a path, and lock its row. Its backend is neither configured otherwise nor
    removed until the transaction ends.

    Raises:
        OvertakenError: its backend, or its row, is not as it was when the look began.
        SvsyncError: it takes no local write (`owner_of`), or a version of it is
            pending (`write_in_progress`), whatever is configured by now.
    """
    owner = await owner_of(tx, backends, path)
    if owner is not None and await federation.stand_by(tx, owner.spec.id) != owner.stored.rev:
        raise OvertakenError
    if owner is not None and owner.writes_through:
        await _leave_old_mapping(tx, owner)
    row = await store.for_write(tx, path)
    if row is not None and row["state"] == "hidden":
        raise OvertakenError  # a flip to proxy mode overtook the look at its owner
    push = await pushes.unfinished_at(tx, path)
    if push is not None and push["pending"]:
        raise in_progress(path)
    pair = None
    if owner is not None and owner.writes_through:
        pair = await _pair(tx, owner, path)
    return Place(owner, row, pair, push)


async def _leave_old_mapping(tx: Transaction, owner: Owner) -> None:
    """A pair that is made under a mapping which no run has applied yet: should the mapping
    of before come back, pairs are mapped anew again all the same. Before any secret is
    locked, as whoever applies a configuration does."""
    if owner.stored.applied_hash not in (None, owner.mapping.hash):
        await federation.forget_applied(tx, owner.spec.id)


async def _pair(tx: Transaction, owner: Owner, path: LocalPath) -> Pair | None:
    """The path's pair. None where another one owns either path: no push then."""
    backend = owner.spec.id
    known = (await pairs.load(tx, backend, [owner.remote])).get(owner.remote)
    if known is not None:
        # Pairs of before a change of the mapping wait for a run to map them anew.
        stands = known["path"] == path and known["base_pair"] == owner.mapping.base_pair
        return replace(pairs.pair_of(known), rule=owner.rule) if stands else None
    row = (await pairs.load_new(tx, backend, owner.mapping.base_pair, [(owner.remote, path)]))[
        owner.remote
    ]
    if row["claimed_by"] is not None:
        return None
    return Pair(owner.remote, path, owner.rule, local=pairs.local_of(row))


def in_progress(path: LocalPath) -> SvsyncError:
    return SvsyncError(
        f"a write to {path} waits for its backend's answer: try again in a moment",
        code="write_in_progress",
    )


# --- the backend ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriteThrough:
    """Opens backends for writes without a lease."""

    db: Database
    backends: Backends
    ids: Callable[[str], str]

    @asynccontextmanager
    async def sender(
        self, tenant: TenantId, owner: Owner, keys: TenantKeys
    ) -> AsyncIterator[Sender]:
        """Who makes the push of one write.

        Raises:
            ConfigError: `backend_paused`: nothing goes to a paused backend.
            BackendError: it cannot be reached, or refuses the login.
        """
        if owner.stored.state != "active":
            raise ConfigError(
                f"the backend {owner.spec.id} is {owner.stored.state}, and writes to this path go"
                " there first: resume it, or write when it is back",
                code="backend_paused",
            )
        async with open_counted(self.db, self.backends, owner.spec, tenant) as opened:
            yield Sender(
                transaction=self.transactions(tenant),
                spec=owner.spec,
                rules=owner.rules,
                base_pair=owner.mapping.base_pair,
                backend=opened.backend,
                keys=keys,
                now=lambda: datetime.now(UTC),
                ids=self.ids,
                time_left=lambda: math.inf,
            )

    def transactions(self, tenant: TenantId) -> TransactionMaker:
        def make(*, lookups: bool = False) -> object:
            return self.db.transaction(tenant)

        return make  # type: ignore[return-value]


async def point_read(sender: Sender, owner: Owner) -> RemoteValue | RemoteGone:
    """What the backend says of the path now.

    Raises:
        BackendUnreachableError: no answer in time.
        DeniedError: it does not let us read the name.
        SvsyncError: it holds something that cannot be read; writing over it would
            destroy what nobody has seen.
    """
    reads = await within(CALL_S, sender.backend.read([owner.remote]))
    if reads is None:
        raise BackendUnreachableError(
            f"{owner.spec.id} does not answer in time; nothing was written", operation="read"
        )
    [read] = reads
    if not isinstance(read, RemoteUnknown):
        return read
    if read.reason == "denied":
        raise DeniedError(
            f"{owner.spec.id} does not let svsync read {owner.remote}; nothing was written",
            operation="read",
            path=owner.remote,
        )
    raise SvsyncError(
        f"{owner.remote} cannot be read in {owner.spec.id} ({read.reason}); nothing was written",
        code="remote_unreadable",
    )


async def make(sender: Sender, push: PushId, path: LocalPath) -> Made:
    """Make one push and wait for its end; how it ended when it landed.

    Raises:
        WriteOutcomeUnknownError: nobody knows, and it is found out later.
        ThrottledError: `push_throttled`; nothing was written.
        BackendError: the backend was not reached; nothing was written.
        SvsyncError: the backend refused it: `remote_changed`, or the skip reason.
    """
    made = await deliver(sender, [push])
    if not made:
        raise unknown(push, path)
    [ended] = made
    match ended.state:
        case PushState.LANDED:
            return ended
        case PushState.UNKNOWN:
            raise unknown(push, path)
        case PushState.WITHDRAWN if ended.error is not None:
            raise ended.error
        case PushState.WITHDRAWN if ended.reason == SkipReason.PUSH_THROTTLED:
            raise ThrottledError(
                f"{sender.spec.id} asks for fewer calls; nothing was written: try again",
                operation="write",
                retry_after=ended.again_s or _AGAIN_S,
                code=SkipReason.PUSH_THROTTLED,
                sent=False,
            )
        case PushState.WITHDRAWN if ended.reason != "local_unreadable":
            raise BackendUnreachableError(
                f"{sender.spec.id} does not answer in time; nothing was written", operation="write"
            )
    if ended.reason == REMOTE_CHANGED:
        raise remote_changed(path, sender.spec.id)
    if ended.reason == "denied":
        raise DeniedError(
            f"{sender.spec.id} does not let svsync write {ended.push.remote_path}; nothing was"
            " written",
            operation="write",
            path=ended.push.remote_path,
        )
    detail = f": {ended.detail}" if ended.detail else ""
    raise SvsyncError(
        f"{sender.spec.id} cannot take this write of {path} ({ended.reason}{detail}); nothing was"
        " written",
        code=ended.reason,
    )


async def make_soon(
    through: WriteThrough, tenant: TenantId, owner: Owner, keys: TenantKeys, push: PushId
) -> bool:
    """Make the push of a write that stands already, if the backend answers soon: did it
    land? Else it stays written down, and a run makes or asks for it; where the backend
    takes no more than so many writes of a name, a later run writes the latest value."""

    async def work() -> list[Made]:
        async with through.sender(tenant, owner, keys) as sender:
            if await _came_too_soon(sender, push):
                return []
            return await deliver(sender, [push])

    try:
        made = await within(BACKUP_S, work())
    except SvsyncError:
        return False
    return bool(made) and all(m.state is PushState.LANDED for m in made or ())


async def _came_too_soon(sender: Sender, push: PushId) -> bool:
    """Withdraw a push that follows on the last one of its name too closely."""
    seconds = sender.backend.features.push_interval_s
    if not seconds:
        return False
    async with sender.transaction(lookups=True) as tx:
        held = await take_up(sender, tx, [push])
        soon = await pushes.recent(tx, sender.spec.id, [p.path for p in held], seconds)
    throttled = [
        Made(p, PushState.WITHDRAWN, reason=SkipReason.PUSH_THROTTLED)
        for p in held
        if p.path in soon and p.kind in (PushKind.PUT, PushKind.CREATE)
    ]
    await settle(sender, throttled)
    return bool(throttled)


def remote_changed(path: LocalPath, backend: str) -> SvsyncError:
    return SvsyncError(
        f"{path} was changed in {backend} since it was last synced: the next run brings that in;"
        " read it, and write again",
        code=REMOTE_CHANGED,
    )


def unknown(push: PushId, path: LocalPath) -> WriteOutcomeUnknownError:
    return WriteOutcomeUnknownError(
        f"the backend did not say whether it took the write of {path} ({push}); the next run"
        " finds out: read the secret before you write again",
        push_id=push,
    )


def changed(owner: Owner, path: LocalPath, version: int, *, deleted: bool = False) -> Event:
    """So that applications reload what they read."""
    return Event(
        "federation.secret.changed",
        {
            "backend_id": owner.spec.id,
            "backend_name": owner.spec.name,
            "tenant": owner.spec.tenant,
            "run_id": None,
            "secrets": [{"path": path, "version": version, "deleted": deleted}],
        },
    )
