"""The rows that a local write leaves, each kind in the caller's transaction.

Every write locks its path first (`write_through.look`) and gives numbers that no version
of the secret has had. A version that waits for its backend is pending: its row is there,
sealed, and nobody reads it before its push has landed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from svsync.domain.changes import Base, BaseKind, PairStatus
from svsync.domain.decide import PushKind
from svsync.domain.envelope import Purpose
from svsync.domain.errors import VersionConflictError
from svsync.domain.ids import LocalPath, PushId, SecretId, TenantId
from svsync.domain.values import Payload
from svsync.services.pushes import plan
from svsync.services.sealing import Sealer, TenantKeys
from svsync.services.write_through import OvertakenError, Place, changed
from svsync.store import outbox
from svsync.store import secrets as store
from svsync.store.database import Row, Transaction
from svsync.store.pushes import PushRow
from svsync.store.secrets import Metadata, VersionRow

_STATUS: Final = {
    "not_configured": PairStatus.DIVERGED,
    "pending": PairStatus.PENDING_PUSH,
    "applied": PairStatus.IN_SYNC,
}
"""What a pair is after a write in this state; a pending version changes nothing yet."""


@dataclass(frozen=True, slots=True)
class Put:
    """A local write. None keeps what the secret has, and an empty owner or description takes
    it away; `cas` is the version it must be at (0: it must not exist). With `skip_if_equal`
    an equal value makes no new version. Who writes and may not read what is there is answered
    as if it were another value, whatever it is."""

    payload: Payload
    secret_type: str | None = None
    tags: tuple[str, ...] | None = None
    owner: str | None = None
    description: str | None = None
    custom: Mapping[str, str] | None = None
    max_versions: int | None = None
    cas: int | None = None
    skip_if_equal: bool = False
    may_read: bool = True


@dataclass(frozen=True, slots=True)
class Expected:
    """What the remote side must still be for a push to be made."""

    kind: PushKind
    token: str | None
    order: int | None

    @classmethod
    def base(cls, base: Base) -> "Expected":
        kind = PushKind.PUT if base.kind is BaseKind.VALUE else PushKind.CREATE
        return cls(kind, base.value_token, base.order)


@dataclass(frozen=True, slots=True)
class Wrote:
    """A write as its transaction left it. `state` is empty while it is pending, current
    only once its push has landed; `push` is still to be made; `new`: there was nothing to
    be read at the path."""

    secret: SecretId
    version: int
    state: str = ""
    push: PushId | None = None
    new: bool = False


@dataclass(frozen=True, slots=True)
class Writing:
    """One write under way."""

    tenant: TenantId
    path: LocalPath
    put: Put
    by: str
    origin: str
    keys: TenantKeys
    sealer: Sealer
    fingerprint: bytes

    def equal_state(self, place: Place) -> str:
        """Of a write whose value the backend has: tags that change with it follow later."""
        now, before = merged(place.row, self.put), merged(place.row, Put(self.put.payload))
        same = (now.tags, json.loads(now.custom)) == (before.tags, json.loads(before.custom))
        return "applied" if same else "pending"

    def is_known(self, base: Base) -> bool:
        """Is the value the one that the backend is known to have, and may the answer show it?
        Else it is sent once more: what is sent tells nothing."""
        return self.put.may_read and base.fingerprint == self.fingerprint

    def check(self, place: Place) -> None:
        cas = self.put.cas
        if cas is not None and cas != place.version:
            raise VersionConflictError(
                f"{self.path} is at version {place.version}, not {cas}: read it again"
            )


class WriteRows:
    """Writes local versions, tombstones, and the pushes that go with them."""

    def __init__(self, ids: Callable[[str], str]) -> None:
        """`ids` draws a new unique id with a prefix."""
        self._ids = ids

    async def commit(self, tx: Transaction, w: Writing, place: Place, state: str) -> Wrote:
        """A new current version. The next run looks at the pair, whatever its tokens say."""
        secret, version, metadata = await self._number(tx, w, place)
        if place.row is None:
            if not await store.write_new(tx, secret, w.path, metadata):
                raise OvertakenError
        else:
            await store.write_next(tx, secret, version, metadata)
        await self._seal(tx, w, secret, version)
        await self._claim(tx, w, place, secret, state)
        if place.owner is not None:
            await outbox.add(
                tx,
                place.owner.spec.id,
                [changed(place.owner, w.path, version)],
                event_ids=lambda: self._ids("evt"),
            )
        return Wrote(secret, version, state, new=not place.live)

    async def pend(self, tx: Transaction, w: Writing, place: Place, expected: Expected) -> Wrote:
        """A version that is current once its push has landed, and the push."""
        secret, version, metadata = await self._number(tx, w, place)
        if place.row is None:
            if not await store.write_new(tx, secret, w.path, metadata, pending=True):
                raise OvertakenError
        else:
            await store.reserve_next(tx, secret, version)
        await self._seal(tx, w, secret, version)
        await store.mark_pending(tx, secret, version)
        await self._claim(tx, w, place, secret, "")
        wrote, text = Wrote(secret, version, new=not place.live), json.dumps(asdict(metadata))
        return replace(wrote, push=await self.plan(tx, w, place, expected, wrote, text))

    async def _number(
        self, tx: Transaction, w: Writing, place: Place
    ) -> tuple[SecretId, int, Metadata]:
        """The secret, and a version number that was never given out before."""
        metadata = merged(place.row, w.put)
        if place.row is None:
            [secret] = await store.next_ids(tx, 1)
            return secret, 1, metadata
        return SecretId(place.row["secret_id"]), place.row["last_version"] + 1, metadata

    async def _seal(self, tx: Transaction, w: Writing, secret: SecretId, version: int) -> None:
        data = w.put.payload.data_text()
        sealed = w.sealer.seal(Purpose.VALUE, secret, w.path, version, data)
        row = VersionRow(
            secret_id=secret,
            version=version,
            encoding=str(w.put.payload.encoding),
            key_id=sealed.key_id,
            nonce=sealed.nonce,
            sealed=sealed.sealed,
            fingerprint=w.fingerprint,
            fingerprint_key=w.keys.fingerprint_key,
            origin=w.origin,
            remote_version=None,
            created_at=None,
        )
        await store.add_versions(tx, [row], created_by=w.by, run=None)

    async def _claim(
        self, tx: Transaction, w: Writing, place: Place, secret: SecretId, state: str
    ) -> None:
        # A value that is base's is in sync, unless its tags, or an earlier write, are due.
        equal = None if state == "pending" else w.fingerprint
        known = await store.mark_written(tx, w.path, _STATUS.get(state), equal)
        owner = place.owner
        if not known and owner is not None and owner.writes_through:
            due = state == "pending"
            status = PairStatus.PENDING_PUSH if due else PairStatus.INITIAL
            await store.claim_written(
                tx, owner.spec.id, owner.mapping, owner.remote, w.path, secret, owner.rule, status
            )

    async def plan(
        self,
        tx: Transaction,
        w: Writing,
        place: Place,
        expected: Expected,
        wrote: Wrote,
        metadata: str | None = None,
    ) -> PushId:
        """Write the push of a version down. With `metadata` it is pending until it lands."""
        assert place.owner is not None
        valued = expected.kind is not PushKind.DELETE
        push = PushId(self._ids("psh"))
        row = PushRow(
            push_id=push,
            path=w.path,
            remote_path=place.owner.remote,
            kind=str(expected.kind),
            secret_id=wrote.secret,
            version=wrote.version,
            pending=wrote.state == "",
            metadata=metadata,
            expected_token=expected.token,
            expected_order=expected.order,
            target_fp=w.fingerprint if valued else None,
            target_fp_key=w.keys.fingerprint_key if valued else None,
        )
        await plan(tx, place.owner.spec.id, [row], by=w.by)
        return push

    async def plan_delete(self, tx: Transaction, d: Writing, place: Place, *, state: str) -> PushId:
        """Write the delete of the current version down; as `plan` otherwise."""
        assert place.row is not None
        assert place.pair is not None
        base, row = place.pair.base, place.row
        wrote = Wrote(SecretId(row["secret_id"]), row["current_version"], state)
        expected = Expected(PushKind.DELETE, base.value_token, base.order)
        push = await self.plan(tx, d, place, expected, wrote)
        await store.mark_written(tx, d.path)
        return push

    async def bury(self, tx: Transaction, d: Writing, place: Place, *, propagate: bool) -> None:
        """Make a tombstone; with `propagate` a run may delete the backend's side too."""
        assert place.row is not None
        await store.bury_written(tx, SecretId(place.row["secret_id"]), propagate=propagate)
        status = PairStatus.PENDING_PUSH if propagate else PairStatus.DIVERGED
        await store.mark_written(tx, d.path, status)
        if place.owner is not None:
            event = changed(place.owner, d.path, place.version, deleted=True)
            await outbox.add(tx, place.owner.spec.id, [event], event_ids=lambda: self._ids("evt"))


def merged(row: Row | None, put: Put) -> Metadata:
    """What the secret has, with what this write sets."""
    kept = Metadata()
    if row is not None:
        kept = Metadata(
            row["secret_type"],
            tuple(row["tags"]),
            row["owner"],
            row["description"],
            row["custom"],
            row["max_versions"],
        )
    return replace(
        kept,
        secret_type=put.secret_type or kept.secret_type,
        tags=kept.tags if put.tags is None else tuple(sorted(set(put.tags))),
        owner=kept.owner if put.owner is None else put.owner or None,
        description=kept.description if put.description is None else put.description or None,
        custom=kept.custom if put.custom is None else json.dumps(dict(put.custom)),
        max_versions=kept.max_versions if put.max_versions is None else put.max_versions,
    )
