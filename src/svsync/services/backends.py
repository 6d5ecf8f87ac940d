"""Backends that callers make and change, each within what they may do themselves.

Whoever makes one lends it their own rights (`backend_rights`). What they were asked about is
bound to the backend, which is compared with it each time that it is opened. A new one is
tried before it is stored, and no transaction is open while it is; what it was compared with
may have changed by then, so that is looked at again.
"""

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from svsync.config.backend_document import describe
from svsync.config.backends import Policy, backend_from_api
from svsync.domain.access import Call
from svsync.domain.authorisations import Authorised, authorised_of
from svsync.domain.errors import (
    ConfigError,
    StoreUnavailableError,
    SvsyncError,
    VersionConflictError,
)
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.domain.ids import BackendId, TenantId
from svsync.domain.mapping import RuleSet
from svsync.domain.policies import Permission, Permissions
from svsync.services.authorizing import Authorizing
from svsync.services.backend_rights import BackendRights, lends_more
from svsync.services.backend_trials import try_backend
from svsync.services.federation import (
    refuse_circular_credentials,
    refuse_namesake,
    refuse_overlaps,
    refuse_unreachable_interval,
)
from svsync.services.flips import flip, purge_after, purge_hidden
from svsync.services.removal import Removal, Removed
from svsync.services.runs import Backends
from svsync.store import backends as store
from svsync.store import federation, pairs, queue
from svsync.store.database import Database, Transaction
from svsync.store.federation import StoredBackend
from svsync.store.pairs import Mapping as PairMapping

_TRIES: Final = 5
Compiled = tuple[BackendSpec, RuleSet, PairMapping]


class _OvertakenError(Exception):
    """Backends of this tenant changed since this was looked at."""


class ManagedBackends:
    """Makes, changes, removes and tests backends for callers, of every tenant."""

    def __init__(
        self,
        db: Database,
        backends: Backends,
        authorizing: Authorizing,
        policy: Policy,
        *,
        random: Callable[[int], bytes],
    ) -> None:
        """`policy`: what the operator allows; `random` draws so many random bytes."""
        self._db = db
        self._backends = backends
        self._authorizing = authorizing
        self._rights = BackendRights(authorizing)
        self._policy = policy
        self._random = random

    async def prepare(
        self, call: Call, permissions: Permissions, body: Mapping[str, object]
    ) -> Compiled:
        """A backend that a caller may make, which is recorded; nothing is made yet.

        Raises:
            ConfigError: `where` names what cannot be used.
            ForbiddenError: the caller may not use the credential, or not write all that the
                mapping covers.
        """
        new = BackendId("fed_" + base64.b32encode(self._random(8)).decode().lower()[:12])
        spec = self._read(call, body, new)
        compiled = await self._compile(spec)
        await self._rights.lend(call, permissions, spec, compiled[1], "federation.create")
        return compiled

    async def create(
        self, call: Call, prepared: Compiled, *, require_healthy: bool = False
    ) -> dict[str, object]:
        """A new backend, once it was tried; the answer as the API gives it.

        Raises:
            ConfigError: `mapping_overlap`, `circular_credential`, `backend_exists`,
                `hides_local_secrets`, `backend_not_healthy`; `where` may name a field.
        """
        spec = prepared[0]
        await self._look(call.tenant, prepared, new=True)
        trial = await try_backend(self._db, self._backends, spec, call.tenant, stored=False)
        if require_healthy and trial.status != "healthy":
            raise ConfigError(
                f"the backend is {trial.status}, so it was not made:"
                f" {'; '.join(trial.warnings) or 'a part of its mapping is denied'}",
                code="backend_not_healthy",
            )

        async def add(tx: Transaction) -> None:
            await self._store(tx, call, prepared, None, force=False, asked=True)
            await federation.probe_ended(tx, spec.id, trial.status, trial.latency_ms)

        await self._settle(call.tenant, prepared, add, new=True)
        return {"id": spec.id, "name": spec.name, **trial.to_json()}

    async def change(
        self,
        call: Call,
        permissions: Permissions,
        backend: str,
        patch: Mapping[str, object],
        *,
        rev: int | None = None,
    ) -> None:
        """Merge a change into a backend's configuration, as RFC 7396 does.

        Args:
            patch: beside the keys of a backend `force: true`, for a flip to proxy that hides
                what is here alone.
            rev: the revision that it must have; None: any.

        Raises:
            NotFoundError: there is no such backend.
            VersionConflictError: it is at another revision.
            ConfigError: as `prepare` and `create`, and `managed_by_file`, `backend_removed`,
                `unpushed_local_changes`, `interval_unreachable`.
            ForbiddenError: as `prepare`, for a change that needs it (`lends_more`); and `delete`
                is not given on all that the mapping covers, for one that destroys copies.
        """
        action = "federation.update"
        try:
            stored, bound = await self._changeable(call.tenant, backend, rev)
        except SvsyncError:
            await self._authorizing.note(call, action, backend=backend)
            raise
        given = dict(patch)
        force = given.pop("force", False)
        if not isinstance(force, bool):
            raise ConfigError("must be true or false", where="force")
        spec = self._merged(call, stored, given)
        compiled = await self._compile(spec)
        asked = force or bound != authorised_of(spec) or lends_more(stored.spec, spec)
        if force or purge_after(spec) < purge_after(stored.spec):
            # It destroys copies that would have stayed: under either mapping.
            for rules in (self._backends.mapping(stored.spec), compiled[1]):
                await self._rights.require_over(
                    call, permissions, Permission.DELETE, spec, rules, action
                )
        if asked:
            await self._rights.lend(call, permissions, spec, compiled[1], action)
        else:
            await self._rights.note(call, action, spec, changed=sorted(given))
        await self._refuse_interval(call.tenant, stored, compiled)

        async def put(tx: Transaction) -> None:
            await self._store(tx, call, compiled, stored, force=force, asked=asked)

        await self._settle(call.tenant, compiled, put, new=False)
        await purge_hidden(self._db, call.tenant)

    async def remove(
        self,
        call: Call,
        permissions: Permissions,
        removal: Removal,
        backend: str,
        *,
        purge: bool,
        rev: int | None = None,
    ) -> Removed:
        """Remove a backend. With `purge`, which destroys local copies, the caller must be
        allowed to delete all that its mapping covers. A copy of an earlier mapping that they
        may not delete is kept.

        Raises: as `Removal.remove`, and ForbiddenError.
        """
        action = "federation.delete"
        try:
            async with self._db.transaction(call.tenant, read_only=True) as tx:
                spec = (await federation.get(tx, backend)).spec
        except SvsyncError:
            await self._authorizing.note(call, action, backend=backend)
            raise
        if purge:
            rules = self._backends.mapping(spec)
            await self._rights.require_over(
                call, permissions, Permission.DELETE, spec, rules, action
            )
        await self._rights.note(call, action, spec, purge=purge)
        return await removal.remove(
            call.tenant,
            backend,
            purge=purge,
            may_delete=lambda path: permissions.decide(path, Permission.DELETE) is not None,
            rev=rev,
        )

    async def test(self, tenant: TenantId, backend: str) -> dict[str, object]:
        """A real connection; the answer as the API gives it.

        Raises:
            NotFoundError: there is no such backend.
            ConfigError: `authorisation_changed`, or a rule that this store cannot serve.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            spec = (await federation.get(tx, backend)).spec
        trial = await try_backend(self._db, self._backends, spec, tenant, stored=True)
        latency = trial.latency_ms
        return {
            "id": spec.id,
            "name": spec.name,
            **trial.to_json(),
            "version": trial.version or None,
            "identity": trial.identity or None,
            "latency_ms": None if latency is None else round(latency, 1),
        }

    # --- what is asked for --------------------------------------------------------

    def _read(self, call: Call, body: Mapping[str, object], new: BackendId) -> BackendSpec:
        slug = call.caller.slug
        return backend_from_api(body, tenant=slug, new_id=new, policy=self._policy)

    def _merged(
        self, call: Call, stored: StoredBackend, patch: Mapping[str, object]
    ) -> BackendSpec:
        document = describe(stored.spec)
        for name in ("id", "tenant"):
            if name in patch and patch[name] != document[name]:
                raise ConfigError("cannot be changed: leave it out", where=name)
        if "write_through" in patch and "writes" not in patch:
            del document["writes"]  # another word for the same
        merged = merge(document, patch)
        assert isinstance(merged, dict)
        return self._read(call, merged, stored.spec.id)

    async def _compile(self, spec: BackendSpec) -> Compiled:
        return (spec, *await asyncio.to_thread(self._backends.rules, spec))

    async def _changeable(
        self, tenant: TenantId, backend: str, rev: int | None
    ) -> tuple[StoredBackend, Authorised | None]:
        """The backend as it is, with what it is authorised for."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            stored = await federation.get(tx, backend)
            bound = await store.bound(tx, stored.spec.id)
        _check_changeable(stored, rev)
        return stored, bound

    # --- does it fit? -------------------------------------------------------------

    async def _look(self, tenant: TenantId, compiled: Compiled, *, new: bool) -> int:
        """Compare it with the other backends; the epoch at which it fits them."""
        spec, rules, _ = compiled
        async with self._db.transaction(tenant, read_only=True) as tx:
            epoch = await federation.epoch(tx)  # first: what changes since is told by it
            stored = await federation.list_backends(tx)
            await _refuse_taken(tx, spec, new=new)
        others = [one.spec for one in stored if one.spec.id != spec.id]
        _refuse_unfit_standby(spec, others)

        def compare() -> None:
            beside = [(other, self._backends.mapping(other)) for other in others]
            refuse_overlaps([(spec, rules)], beside)
            refuse_circular_credentials([(spec, rules), *beside])

        await asyncio.to_thread(compare)
        return epoch

    async def _refuse_interval(
        self, tenant: TenantId, stored: StoredBackend, compiled: Compiled
    ) -> None:
        """Refuse a changed interval or limit under which cycles take too long, where the last
        full run tells how many calls this mapping makes."""
        spec, _, mapping = compiled
        was = stored.spec
        paced = (was.sync_interval, was.rate_limit) != (spec.sync_interval, spec.rate_limit)
        if not paced or stored.applied_hash != mapping.hash:
            return
        async with self._db.transaction(tenant, read_only=True) as tx:
            calls = await queue.calls_of_cycles(tx, spec.id)
        refuse_unreachable_interval(spec, self._backends.terms(spec), calls)

    # --- storing it ---------------------------------------------------------------

    async def _settle(
        self,
        tenant: TenantId,
        compiled: Compiled,
        change: Callable[[Transaction], Any],
        *,
        new: bool,
    ) -> None:
        """Make a change while nothing that it was compared with has changed."""
        for _ in range(_TRIES):
            epoch = await self._look(tenant, compiled, new=new)
            try:
                async with self._db.transaction(tenant) as tx:
                    await federation.lock_file(tx)  # one change of backends at a time
                    if await federation.epoch(tx) != epoch:
                        raise _OvertakenError
                    await _refuse_taken(tx, compiled[0], new=new)
                    await change(tx)
            except _OvertakenError:
                continue
            return
        raise StoreUnavailableError("backends are being changed all the time: try again")

    async def _store(
        self,
        tx: Transaction,
        call: Call,
        compiled: Compiled,
        before: StoredBackend | None,
        *,
        force: bool,
        asked: bool,
    ) -> None:
        """The configuration, what it was authorised for, and what a flip does to copies."""
        spec, rules, mapping = compiled
        await queue.lock_lease(tx, spec.id)  # lease before backend, as a run's end takes them
        was = await federation.find(tx, spec.id)
        if before is not None:
            if was is None or was.rev != before.rev:
                raise VersionConflictError(
                    f"the backend {spec.id} was changed meanwhile: look at it, and try again"
                )
            _check_changeable(was, None)
        if await federation.apply(tx, spec, mapping.hash):
            await queue.raise_fence(tx, spec.id)
            await flip(tx, was, spec, rules, force=force)
            await pairs.recheck_all(tx, spec.id)
        if asked:
            await store.bind(tx, spec.id, authorised_of(spec), call.caller.identity.id)


def _check_changeable(stored: StoredBackend, rev: int | None) -> None:
    spec = stored.spec
    if spec.managed_by is ManagedBy.FILE:
        raise ConfigError(
            f"the backend {spec.id} is the configuration file's: change it there",
            code="managed_by_file",
        )
    if stored.state == "deleting":
        raise ConfigError(
            f"the backend {spec.id} is being removed: remove it again to go on with that",
            code="backend_removed",
        )
    if rev is not None and stored.rev != rev:
        raise VersionConflictError(f"the backend {spec.id} is at revision {stored.rev}, not {rev}")


async def _refuse_taken(tx: Transaction, spec: BackendSpec, *, new: bool) -> None:
    await refuse_namesake(tx, spec)
    if new and await federation.find(tx, spec.id) is not None:
        raise ConfigError(
            f"there is a backend {spec.id}: change that, or leave the id out for one of its own",
            code="backend_exists",
        )


def _refuse_unfit_standby(spec: BackendSpec, others: Sequence[BackendSpec]) -> None:
    if not spec.is_standby:
        return
    owners = [other for other in others if other.id == spec.extra["standby_for"]]
    if not owners or owners[0].type != spec.type or owners[0].is_standby:
        raise ConfigError(
            "must name a backend of the same type that is no standby itself", where="standby_for"
        )


def merge(document: object, patch: object) -> object:
    """RFC 7396: what a merge patch makes of a document."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
