"""Conflicts as people meet them: listed, shown side by side, and resolved."""

from collections.abc import Callable
from typing import Final

from svsync.domain.errors import KeyServiceError, NotFoundError, VersionConflictError
from svsync.domain.ids import BackendId, ConflictId, LocalPath, TenantId
from svsync.domain.resolutions import Resolution
from svsync.domain.values import Payload
from svsync.services.conflict_sides import Shown, conflict_json, remote_payload, side_by_side
from svsync.services.resolving import Resolving, Seen, Sides, none_open, resolve
from svsync.services.runs import Backends
from svsync.services.sealing import Sealing
from svsync.services.write_through import OvertakenError, WriteThrough, make_soon
from svsync.store import conflicts as store
from svsync.store import federation
from svsync.store.database import Database

MAX_PAGE: Final = 1000
_TRIES: Final = 5


class Conflicts:
    """Conflicts of every tenant's backends."""

    def __init__(
        self, db: Database, sealing: Sealing, backends: Backends, *, ids: Callable[[str], str]
    ) -> None:
        """`ids` draws a new unique id with a prefix."""
        self._db = db
        self._sealing = sealing
        self._backends = backends
        self._ids = ids
        self._through = WriteThrough(db, backends, ids)

    async def list_conflicts(
        self,
        tenant: TenantId,
        backend: str,
        *,
        closed: bool = False,
        limit: int = MAX_PAGE,
        cursor: str = "",
        may_know: Callable[[str], bool] = lambda path: True,
    ) -> dict[str, object]:
        """Conflicts of a backend, without any value; those that are open, or all.

        `may_know` is asked for each path: a page has fewer conflicts where it says no, and
        goes on all the same.
        """
        limit = min(max(1, limit), MAX_PAGE)
        async with self._db.transaction(tenant, read_only=True) as tx:
            spec = (await federation.get(tx, backend)).spec
            rows = await store.list_conflicts(
                tx, spec.id, closed=closed, after=cursor, limit=limit + 1
            )
        more = rows[limit - 1]["conflict_id"] if len(rows) > limit else None
        shown = [conflict_json(row) for row in rows[:limit] if may_know(row["path"])]
        return {"backend_id": spec.id, "conflicts": shown, "next_cursor": more}

    async def standing(
        self, tenant: TenantId, backend: str, path: LocalPath, *, conflict_id: str | None = None
    ) -> tuple[BackendId, dict[str, object] | None]:
        """One conflict without any value, that of this id, or the path's open or latest one;
        and the backend's id. Raises NotFoundError: there is no such backend."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            spec = (await federation.get(tx, backend)).spec
            wanted = None if conflict_id is None else ConflictId(conflict_id)
            row = await store.get(tx, spec.id, path, wanted)
        return spec.id, None if row is None else conflict_json(row)

    async def show(
        self, tenant: TenantId, backend: str, path: LocalPath, *, conflict_id: str | None = None
    ) -> Shown:
        """Both sides of one conflict: that of this id, or the path's open or latest one.

        Raises:
            NotFoundError: `conflict_not_found`, `backend_not_found`.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            spec = (await federation.get(tx, backend)).spec
            wanted = None if conflict_id is None else ConflictId(conflict_id)
            row = await store.get(tx, spec.id, path, wanted)
            earlier = await store.earlier(tx, spec.id, path)
        if row is None:
            named = "conflict" if conflict_id is None else f"conflict {conflict_id}"
            raise NotFoundError(
                f"there is no {named} of {path} in {spec.id}: `svsync conflicts list --all` shows"
                " those there are",
                code="conflict_not_found",
            )
        return await side_by_side(await self._sealing.for_tenant(tenant), row, earlier)

    async def resolve(
        self,
        tenant: TenantId,
        backend: str,
        path: LocalPath,
        resolution: Resolution,
        *,
        payload: Payload | None = None,
        conflict_id: str | None = None,
        local_version: int | None = None,
        remote_token: str | None = None,
        by: str,
    ) -> dict[str, object]:
        """Settle the open conflict of a path; the answer as the API gives it.

        Args:
            payload: the value of `use_value`, and of that alone.
            conflict_id, local_version, remote_token: what was looked at, as
                `list_conflicts` gives it; None: whatever stands there.

        Raises:
            NotFoundError: `conflict_not_found`: none of this path waits.
            ConflictChangedError: it is not what was looked at any more.
            KeyServiceError: the remote value that is to be taken does not open.
            SvsyncError: `write_in_progress`, `proxied_path_read_only`, or
                `federated_path_read_only` for a value; nothing changed.
        """
        keys = await self._sealing.for_tenant(tenant)
        r = Resolving(
            tenant=tenant,
            backend=backend,
            path=path,
            resolution=resolution,
            payload=payload,
            seen=Seen(conflict_id, local_version, remote_token),
            by=by,
            keys=keys,
            sealer=await keys.reserve(2 * _TRIES),
            ids=self._ids,
        )
        for _ in range(_TRIES):
            sides = await self._sides(r)
            try:
                async with self._db.transaction(tenant) as tx:
                    done = await resolve(tx, self._backends, r, sides)
            except OvertakenError:
                continue
            state = done.state
            if done.push is not None:
                landed = await make_soon(self._through, tenant, done.owner, keys, done.push)
                state = "applied" if landed else "pending"
            return {
                "backend_id": done.owner.spec.id,
                "conflict_id": done.conflict,
                "path": path,
                "kind": done.kind,
                "resolution": str(resolution),
                "version": done.version,
                "write_through": {"state": state, "push_id": done.push},
            }
        raise VersionConflictError(f"{path} changes all the time: try again")

    async def _sides(self, r: Resolving) -> Sides:
        """The remote value, opened before the transaction, in which no key is waited for."""
        async with self._db.transaction(r.tenant, read_only=True) as tx:
            spec = (await federation.get(tx, r.backend)).spec
            row = await store.get(tx, spec.id, r.path, None)
        if row is None or row["state"] != "open":
            raise none_open(r.path, spec.id)
        try:
            return Sides(row["sealed_as"], await remote_payload(r.keys, row))
        except KeyServiceError:
            if r.resolution is Resolution.USE_REMOTE:
                raise
            return Sides(row["sealed_as"], None)
