"""Local writes: put, delete and restore, and how far each goes.

A write to a path that no backend writes through is a new local version, and the pair,
if there is one, is looked at by the next run.

Where it is written through, the side that wins conflicts is written first:

- Under `backend_wins` and `manual` the backend. The version waits, pending, for its
  answer, and is current only then. Refused, it never was: the caller is told that the
  remote side changed, and nothing changed here. Without an answer nobody knows; the
  caller is told the push's id, and what became of it is found out later (`healing.py`).
- Under `local_wins` the local side. The version stands at once, its push is written
  down in the same transaction, and an outage of the backup blocks nobody.

Each write names the row it was made for; one that was overtaken looks again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from svsync.domain.changes import Base, BaseKind, PairStatus, RemoteValue
from svsync.domain.decide import PushKind
from svsync.domain.envelope import Purpose
from svsync.domain.errors import NotFoundError, VersionConflictError
from svsync.domain.ids import BackendId, LocalPath, PushId, SecretId, TenantId
from svsync.domain.values import Encoding, Payload
from svsync.services.ownership import Owner, owner_of, refuse_nameless
from svsync.services.pushes import Sender
from svsync.services.runs import Backends
from svsync.services.sealing import Sealed, Sealing
from svsync.services.secrets import metadata_of, time_of
from svsync.services.write_rows import Expected, Put, WriteRows, Writing, Wrote, merged
from svsync.services.write_through import (
    OvertakenError,
    Place,
    WriteThrough,
    in_progress,
    look,
    make,
    make_soon,
    point_read,
    remote_changed,
)
from svsync.store import secrets as store
from svsync.store.database import Database, Transaction

_TRIES: Final = 5
_NOTHING: Final = Payload.from_fields({})
"""A delete has no value."""


@dataclass(frozen=True, slots=True)
class Written:
    """A write that was done: the answer as the API gives it.

    Attributes:
        version: the one that it made, or met as equal.
        new: there was nothing to be read at the path.
    """

    answer: dict[str, object]
    version: int
    new: bool


class SecretWrites:
    """Writes to the secrets of every tenant, by people and programs."""

    def __init__(
        self, db: Database, sealing: Sealing, backends: Backends, *, ids: Callable[[str], str]
    ) -> None:
        """`ids` draws a new unique id with a prefix."""
        self._db = db
        self._sealing = sealing
        self._backends = backends
        self._through = WriteThrough(db, backends, ids)
        self._rows = WriteRows(ids)

    async def backend_of(self, tenant: TenantId, path: LocalPath) -> BackendId | None:
        """The backend that a write to this path concerns.

        Raises:
            SvsyncError: `federated_path_read_only`, `proxied_path_read_only`.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            owner = await owner_of(tx, self._backends, path)
        return None if owner is None else owner.spec.id

    # --- put ----------------------------------------------------------------------

    async def put(
        self, tenant: TenantId, path: LocalPath, put: Put, *, by: str, origin: str = "write"
    ) -> dict[str, object]:
        """As `write`; the answer alone."""
        return (await self.write(tenant, path, put, by=by, origin=origin)).answer

    async def write(
        self, tenant: TenantId, path: LocalPath, put: Put, *, by: str, origin: str = "write"
    ) -> Written:
        """Write a new version.

        Raises:
            VersionConflictError: `cas` does not match, or others write all the time.
            WriteOutcomeUnknownError: the backend did not say whether it took it.
            BackendError: it was not reached, or denies it; nothing changed.
            SvsyncError: `federated_path_read_only`, `proxied_path_read_only`,
                `write_in_progress`, `remote_changed`, `backend_paused`, or the reason
                why the backend cannot take such a value; nothing changed.
        """
        keys = await self._sealing.for_tenant(tenant)
        sealer = await keys.reserve(_TRIES)
        fingerprint = keys.fingerprint(put.payload)
        writing = Writing(tenant, path, put, by, origin, keys, sealer, fingerprint)
        for _ in range(_TRIES):
            try:
                wrote = await self._put(writing)
            except OvertakenError:
                continue
            answer = await self._answer(tenant, path, wrote)
            return Written(answer, wrote.version, wrote.new)
        raise VersionConflictError(f"{path} is being written by others all the time: try again")

    async def _put(self, w: Writing) -> Wrote:
        async with self._db.transaction(w.tenant) as tx:
            place = await look(tx, self._backends, w.path)
            w.check(place)
            if place.owner is None and place.row is None:
                await refuse_nameless(tx, self._backends, w.path)
            equal = place.live and place.row is not None and place.row["fp"] == w.fingerprint
            if w.put.skip_if_equal and equal:
                return await self._redescribe(tx, w, place)
            if not place.through:
                return await self._rows.commit(tx, w, place, "not_configured")
            assert place.owner is not None
            if place.frozen or place.pair is None:
                return await self._rows.commit(tx, w, place, "pending")
            if place.owner.local_first:
                wrote = await self._local_first(tx, w, place)
            elif place.push is not None:
                raise in_progress(w.path)
            else:
                wrote = None
        if wrote is None:
            return await self._remote_first(w, place.owner, place)
        if wrote.push is not None and await self._soon(w, place.owner, wrote.push):
            return replace(wrote, state="applied")
        return wrote

    async def _local_first(self, tx: Transaction, w: Writing, place: Place) -> Wrote:
        """It stands here at once, with its push written down: the backup gets it now if it
        answers, else later."""
        assert place.pair is not None
        base = place.pair.base
        equal = base.kind is BaseKind.VALUE and w.is_known(base)
        if equal and place.push is None:
            return await self._rows.commit(tx, w, place, w.equal_state(place))
        wrote = await self._rows.commit(tx, w, place, "pending")
        if place.push is not None:
            return wrote  # the path has one on its way: the next run makes this one
        return replace(wrote, push=await self._rows.plan(tx, w, place, Expected.base(base), wrote))

    async def _soon(self, w: Writing, owner: Owner, push: PushId) -> bool:
        return await make_soon(self._through, w.tenant, owner, w.keys, push)

    async def _redescribe(self, tx: Transaction, w: Writing, place: Place) -> Wrote:
        """The value is the one that is there: no new version, but the metadata given."""
        assert place.row is not None
        given = merged(place.row, w.put)
        if given != merged(place.row, Put(w.put.payload)):
            await store.redescribe(tx, SecretId(place.row["secret_id"]), given)
            due = place.through and w.equal_state(place) == "pending"
            await store.mark_written(tx, w.path, PairStatus.PENDING_PUSH if due else None)
        settled = place.pair is not None and place.pair.base.fingerprint == w.fingerprint
        state = "not_configured"
        if place.through:
            state = w.equal_state(place) if settled and place.push is None else "pending"
        return Wrote(SecretId(place.row["secret_id"]), place.version, state)

    async def _remote_first(self, w: Writing, owner: Owner, place: Place) -> Wrote:
        """The backend takes it, or nothing changes here."""
        assert place.pair is not None
        base = place.pair.base
        async with self._through.sender(w.tenant, owner, w.keys) as sender:
            expected = Expected.base(base)
            if base.kind is BaseKind.NONE or w.is_known(base):
                found = await point_read(sender, owner)
                if base.kind is BaseKind.NONE and isinstance(found, RemoteValue):
                    return await self._commit_seen(w, place, "pending")
                if base.kind is BaseKind.NONE:
                    expected = Expected(PushKind.CREATE, found.value_token, found.order)
                elif _stands(sender, base, found):
                    return await self._commit_seen(w, place, w.equal_state(place))
                else:
                    await self._look_again(w)
                    raise remote_changed(w.path, owner.spec.id)
            async with self._db.transaction(w.tenant) as tx:
                wrote = await self._rows.pend(tx, w, await self._same(tx, w, place), expected)
            assert wrote.push is not None
            await make(sender, wrote.push, w.path)
            return replace(wrote, state="applied")

    # --- the transactions of a put ------------------------------------------------

    async def _same(self, tx: Transaction, w: Writing, seen: Place) -> Place:
        """The place again, locked; OvertakenError where it is not what was seen."""
        now = await look(tx, self._backends, w.path)
        if now.rev != seen.rev or now.push is not None or now.owner != seen.owner:
            raise OvertakenError
        if now.pair is None or seen.pair is None or now.pair.base != seen.pair.base:
            raise OvertakenError
        return now

    async def _commit_seen(self, w: Writing, seen: Place, state: str) -> Wrote:
        async with self._db.transaction(w.tenant) as tx:
            return await self._rows.commit(tx, w, await self._same(tx, w, seen), state)

    async def _look_again(self, w: Writing) -> None:
        async with self._db.transaction(w.tenant) as tx:
            await store.mark_written(tx, w.path)

    async def _answer(self, tenant: TenantId, path: LocalPath, wrote: Wrote) -> dict[str, object]:
        async with self._db.transaction(tenant) as tx:
            stored = await store.get(tx, path, wrote.version)
        assert stored is not None
        return {
            "path": path,
            "version": wrote.version,
            "created_at": time_of(stored["created_at"]),
            "secret_type": stored["secret_type"],
            "metadata": metadata_of(stored),
            "write_through": {"state": wrote.state, "push_id": wrote.push},
        }

    # --- restore and delete -------------------------------------------------------

    async def restore(
        self,
        tenant: TenantId,
        path: LocalPath,
        version: int | None = None,
        *,
        by: str,
        cas: int | None = None,
        may_read: bool = True,
    ) -> dict[str, object]:
        """Bring a deleted secret back, or an earlier version of it: a new version with
        its value, which goes the way of any write. Where no version is named, what somebody
        else wrote there meanwhile is not overwritten. `may_read`: as of `Put`.

        Raises:
            NotFoundError: no such secret, or the version cannot be read any more.
            VersionConflictError: the secret is not deleted and no version was named.
            SvsyncError: as `put`.
        """
        async with self._db.transaction(tenant) as tx:
            row = await store.for_write(tx, path)
            if row is None or row["state"] not in ("live", "deleted"):
                raise NotFoundError(f"there is no secret at {path}", code="secret_not_found")
            if version is None and row["state"] == "live":
                raise VersionConflictError(
                    f"{path} is not deleted: name the version to bring back", code="not_deleted"
                )
            wanted = row["current_version"] if version is None else version
            secret = SecretId(row["secret_id"])
            kept = await store.sealed_version(tx, secret, wanted)
        if kept is None:
            raise NotFoundError(
                f"{path} has no version {wanted} that can be read", code="version_not_found"
            )
        keys = await self._sealing.for_tenant(tenant)
        sealed = Sealed(kept["key_id"], kept["nonce"], kept["sealed"])
        data = await keys.open(Purpose.VALUE, secret, path, wanted, sealed)
        expected = 0 if version is None and cas is None else cas
        put = Put(
            Payload.from_data(data, Encoding(kept["encoding"])), cas=expected, may_read=may_read
        )
        return await self.put(tenant, path, put, by=by, origin="restore")

    async def delete(
        self, tenant: TenantId, path: LocalPath, *, by: str, cas: int | None = None
    ) -> dict[str, object]:
        """Make a tombstone; the history stays, and `restore` brings the secret back.

        Where deletes are propagated the backend's side is deleted too, recoverably: by
        this call where the backend wins conflicts, else by its push.

        Raises: as `put`; NotFoundError where there is nothing to delete.
        """
        keys = await self._sealing.for_tenant(tenant)
        sealer = await keys.reserve(0)
        d = Writing(tenant, path, Put(_NOTHING, cas=cas), by, "write", keys, sealer, b"")
        for _ in range(_TRIES):
            try:
                state, push = await self._delete(d)
            except OvertakenError:
                continue
            return {"path": path, "write_through": {"state": state, "push_id": push}}
        raise VersionConflictError(f"{path} is being written by others all the time: try again")

    async def _delete(self, d: Writing) -> tuple[str, PushId | None]:
        async with self._db.transaction(d.tenant) as tx:
            place = await look(tx, self._backends, d.path)
            if not place.live or place.row is None:
                raise NotFoundError(f"there is no secret at {d.path}", code="secret_not_found")
            d.check(place)
            owner, pair = place.owner, place.pair
            if owner is None or not owner.writes_through:
                await self._rows.bury(tx, d, place, propagate=False)
                return "not_configured", None
            if place.push is not None and not (owner.local_first or place.frozen):
                raise in_progress(d.path)
            base = BaseKind.NONE if pair is None else pair.base.kind
            # What was never synced is not what may appear there later: no delete of it. But
            # what is on its way there is.
            synced = base is not BaseKind.NONE or place.puts
            propagate = owner.settings.propagate_deletes and synced
            due = propagate and base is BaseKind.VALUE
            if not due or place.frozen or (owner.local_first and place.push is not None):
                await self._rows.bury(tx, d, place, propagate=propagate)
                return "pending" if propagate or place.frozen else "not_configured", None
            if owner.local_first:
                await self._rows.bury(tx, d, place, propagate=True)
                push = await self._rows.plan_delete(tx, d, place, state="pending")
        if owner.local_first:
            landed = await self._soon(d, owner, push)
            return "applied" if landed else "pending", push
        async with self._through.sender(d.tenant, owner, d.keys) as sender:
            async with self._db.transaction(d.tenant) as tx:
                push = await self._rows.plan_delete(tx, d, await self._same(tx, d, place), state="")
            await make(sender, push, d.path)
        return "applied", push


def _stands(sender: Sender, base: Base, found: object) -> bool:
    """Is the remote side still what base says? A token that never changes proves nothing."""
    if not isinstance(found, RemoteValue) or found.value_token != base.value_token:
        return False
    return bool(found.value_token) or sender.keys.fingerprint(found.payload) == base.fingerprint
