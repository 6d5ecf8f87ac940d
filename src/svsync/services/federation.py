"""Backends: brought in from the file, listed, shown, tested; and their status."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from svsync.config.kinds import SECONDS, shortest
from svsync.domain.audit import Actor, Decision, Entry
from svsync.domain.costs import Terms
from svsync.domain.cycles import rounded_up, slowest
from svsync.domain.errors import ConfigError, MappingError
from svsync.domain.federation import BackendSpec, FileChange, ManagedBy, from_json, to_json
from svsync.domain.ids import BackendId, LocalPath, TenantId
from svsync.domain.mapping import Mapped, RuleSet
from svsync.domain.mapping_lint import overlap
from svsync.domain.quotas import parse_limits
from svsync.observe.logs import get_logger
from svsync.ports import Connection
from svsync.services.backend_status import status_json
from svsync.services.counted_calls import open_counted
from svsync.services.feeds import Listening
from svsync.services.flips import flip, purge_hidden
from svsync.services.recording import Recorder
from svsync.services.runs import Backends
from svsync.store import backends, federation, flips, overview, pairs, queue, tenants
from svsync.store.database import Database, Transaction

IN_BRIEF: Final = (
    "id", "name", "type", "mode", "state", "status", "last_sync_at", "last_success_at",
    "next_sync_at", "staleness_s", "secrets_synced", "conflicts_open", "last_error",
)  # fmt: skip
"""What a list tells of each backend: the heart of its status."""


_Compiled = tuple[BackendSpec, RuleSet, pairs.Mapping]


class Federation:
    """Backends of every tenant."""

    def __init__(self, db: Database, backends: Backends, recorder: Recorder) -> None:
        self._db = db
        self._backends = backends
        self._recorder = recorder

    async def apply(
        self,
        specs: Sequence[BackendSpec],
        *,
        force: Collection[BackendId] = (),
        by: Actor | None = None,
    ) -> list[BackendId]:
        """Bring the file's backends, all there are, into the store; those that changed.

        A change raises the backend's revision and its fence, so a run that works by
        the old configuration loses its next commit. One that vanished from the file
        is paused, never deleted. A backend that is being removed is left to that. All is
        checked before anything of a tenant is changed.

        Args:
            force: backends whose flip from sync to proxy may hide what is here alone.
            by: who brings it in. The audit log tells what that changes, before it is done;
                None: it is not told.

        Raises:
            AuditUnavailableError: it cannot be recorded, so nothing is changed.
            MappingError: a rule that cannot be used, or two backends claim one path.
            ConfigError: a circular credential, or a new interval that is too short for
                the backend's cycles (`interval_unreachable`); a flip of modes that hides
                what is here alone (`unpushed_local_changes`, `hides_local_secrets`).
        """
        compiled = [(spec, *self._backends.rules(spec)) for spec in specs]
        named = [(spec, rules) for spec, rules, _ in compiled]
        beside = await self._made_by_api({spec.id for spec in specs})
        refuse_overlaps(named, beside)
        refuse_circular_credentials([*named, *beside])
        await self._refuse_new_intervals([(spec, mapping.hash) for spec, _, mapping in compiled])
        slugs = await federation.tenants(self._db)
        gone = (await tenants.shredded(self._db)).values()
        for spec in specs:
            if spec.tenant not in slugs:
                get_logger().warning(
                    "backend_passed_over",
                    backend_id=spec.id,
                    tenant=spec.tenant,
                    detail="its tenant was shredded: take it out of the file"
                    if spec.tenant in gone
                    else "there is no such tenant yet: once it is there, start or reload",
                )
        changed: list[BackendId] = []
        for slug in slugs:
            tenant = await federation.tenant(self._db, slug)
            own = [one for one in compiled if one[0].tenant == slug]
            changed += await self._bring_in(tenant, own, force, by)
            if changed:
                await purge_hidden(self._db, tenant)  # with `proxy_purge_after: 0` at once
        return changed

    async def _bring_in(
        self,
        tenant: TenantId,
        own: Sequence[_Compiled],
        force: Collection[BackendId],
        by: Actor | None,
    ) -> list[BackendId]:
        """The same for one tenant."""
        known = [(spec, mapping.hash) for spec, _, mapping in own]
        told: dict[BackendId, FileChange] = {}
        while True:
            async with self._db.transaction(tenant) as tx:
                await federation.lock_file(tx)
                due = await federation.due(tx, known)
                if by is None or due.items() <= told.items():
                    return await self._change(tx, own, due, force)
            # No lock is kept meanwhile, so what is due then is looked at once more.
            for backend, change in due.items():
                if told.get(backend) != change:
                    await self._recorder.record(_entry(tenant, by, backend, change))
            told |= due

    async def _change(
        self,
        tx: Transaction,
        own: Sequence[_Compiled],
        due: Mapping[BackendId, FileChange],
        force: Collection[BackendId],
    ) -> list[BackendId]:
        changed: list[BackendId] = []
        for spec, rules, mapping in own:
            # What stays as it is is not locked: a replica that starts while others work
            # would hold all leases at once, and hold up, or deadlock with, every run.
            if spec.id not in due:
                continue
            # Lease before backend, as a run's end takes them.
            await queue.lock_lease(tx, spec.id)
            before = await federation.find(tx, spec.id)
            await refuse_namesake(tx, spec)
            if await federation.apply(tx, spec, mapping.hash):
                await backends.release(tx, spec.id)  # the file answers for it now
                await queue.raise_fence(tx, spec.id)
                await flip(tx, before, spec, rules, force=spec.id in force)
                await pairs.recheck_all(tx, spec.id)
                changed.append(spec.id)
        for backend, change in due.items():
            if change is FileChange.VANISHED:
                await queue.lock_lease(tx, backend)
                await federation.pause_vanished(tx, backend)
                await queue.raise_fence(tx, backend)
        return changed

    async def _made_by_api(
        self, without: Collection[BackendId]
    ) -> list[tuple[BackendSpec, RuleSet]]:
        """Backends of every tenant that the API made, but for those that the file names now."""
        found = []
        for slug in await federation.tenants(self._db):
            tenant = await federation.tenant(self._db, slug)
            async with self._db.transaction(tenant, read_only=True) as tx:
                stored = [b.spec for b in await federation.list_backends(tx)]
            found += [
                (spec, self._backends.mapping(spec))
                for spec in stored
                if spec.managed_by is ManagedBy.API and spec.id not in without
            ]
        return found

    async def _refuse_new_intervals(self, given: Sequence[tuple[BackendSpec, str]]) -> None:
        """Refuse a changed `sync_interval` or `rate_limit` under which cycles take too long.

        Judged by what full runs called, and only where the last mapping that a full run
        brought in is the one applied now: another mapping makes another number of calls.
        """
        for slug in await federation.tenants(self._db):
            own = [(spec, mapping_hash) for spec, mapping_hash in given if spec.tenant == slug]
            if not own:
                continue
            tenant = await federation.tenant(self._db, slug)
            async with self._db.transaction(tenant, read_only=True) as tx:
                known = {b.spec.id: b for b in await federation.list_backends(tx)}
                for spec, mapping_hash in own:
                    was = known.get(spec.id)
                    if was is None or was.applied_hash != mapping_hash:
                        continue
                    if (was.spec.sync_interval, was.spec.rate_limit) != (
                        spec.sync_interval,
                        spec.rate_limit,
                    ):
                        refuse_unreachable_interval(
                            spec,
                            self._backends.terms(spec),
                            await queue.calls_of_cycles(tx, spec.id),
                        )

    async def list_backends(
        self, tenant: TenantId, *, after: str = "", limit: int | None = None
    ) -> list[dict[str, object]]:
        """Backends with the heart of their status, by id: those behind `after`, at most `limit`
        of them (None: all); one statement, however many there are."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows = await overview.backends(tx, after=after, limit=limit)
        found = [(from_json(row["spec"]), row) for row in rows]
        return [
            {
                "id": spec.id,
                "name": spec.name,
                "type": spec.type,
                "mode": str(spec.mode),
                "state": row["state"],
                **status_json(spec, self._backends.terms(spec), row["state"], row),
            }
            for spec, row in found
        ]

    async def show(self, tenant: TenantId, backend: str) -> dict[str, Any]:
        """The configuration as it is in force; references, never a credential."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            stored = await federation.get(tx, backend)
            hidden = await flips.count_hidden(tx, stored.spec.id)
        shown: dict[str, Any] = json.loads(to_json(stored.spec))
        about = {"state": stored.state, "rev": stored.rev}
        return {**shown, **about, "hidden_copies": hidden, "initial_sync": stored.initial}

    async def spec(self, tenant: TenantId, backend: str) -> BackendSpec:
        async with self._db.transaction(tenant, read_only=True) as tx:
            return (await federation.get(tx, backend)).spec

    async def status(self, tenant: TenantId, backend: str) -> dict[str, object]:
        """One backend's status; one indexed row, no scan."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            stored = await federation.get(tx, backend)
            health = await federation.health(tx, stored.spec.id)
        terms = self._backends.terms(stored.spec)
        return status_json(stored.spec, terms, stored.state, health)

    async def listening(self) -> list[Listening]:
        """Active backends of every tenant that have change feeds."""
        found = []
        for tenant in await federation.active(self._db):
            async with self._db.transaction(tenant, read_only=True) as tx:
                stored = await federation.list_backends(tx)
            found += [
                Listening(tenant, b.spec, self._backends.mapping(b.spec))
                for b in stored
                if b.state == "active" and b.spec.events
            ]
        return found

    async def test(self, tenant: TenantId, backend: str) -> Connection:
        """A real connection test.

        Raises:
            BackendError: unreachable, login refused, or not this kind of backend.
        """
        spec = await self.spec(tenant, backend)
        rules, _ = self._backends.rules(spec)
        async with open_counted(self._db, self._backends, spec, tenant) as opened:
            return await opened.backend.connect(rules.list_prefixes())


def _entry(tenant: TenantId, by: Actor, backend: BackendId, change: FileChange) -> Entry:
    about = {"managed_by": str(ManagedBy.FILE)}
    if change is FileChange.VANISHED:
        about["reason"] = "the file names it no more"
    detail = json.dumps(about)
    return Entry(tenant, *by, change, Decision.ALLOW, backend_id=backend, detail=detail)


def refuse_overlaps(
    compiled: Sequence[tuple[BackendSpec, RuleSet]],
    beside: Sequence[tuple[BackendSpec, RuleSet]] = (),
) -> None:
    """Two backends of one tenant may not claim one local path.

    `beside`: those of which it is known already that they do not among themselves.
    """
    for at, (spec, rules) in enumerate(compiled):
        for other, others in [*beside, *compiled[:at]]:
            if other.tenant != spec.tenant or _stands_for(spec, other):
                continue
            witness = overlap(others, rules)
            if witness is not None:
                raise MappingError(
                    f"the backends {other.id} and {spec.id} both claim {witness}: narrow one of"
                    " them, or exclude the path in it",
                    code="mapping_overlap",
                )


def _stands_for(spec: BackendSpec, other: BackendSpec) -> bool:
    return other.id == spec.extra.get("standby_for") or spec.id == other.extra.get("standby_for")


async def refuse_namesake(tx: Transaction, spec: BackendSpec) -> None:
    """What a person or a route names may be one backend alone."""
    if (other := await backends.namesake(tx, spec.id, spec.name)) is not None:
        raise ConfigError(
            f"the backend {other} would be taken for {spec.id}: give this one an id and a name"
            " that no other has as its id or name",
            code="backend_exists",
        )


def refuse_unreachable_interval(
    spec: BackendSpec, terms: Terms, cycles: Sequence[Mapping[str, int]]
) -> None:
    """A cycle may not need longer for its calls than the interval between two of them.

    Args:
        terms: the provider's quotas, where `rate_limit` is silent.
        cycles: calls by operation of full runs that completed; the quickest counts, for
            it is nearest to what a cycle costs in which nothing has changed.
    """
    limits = parse_limits(spec.rate_limit, terms.limits)
    found = [(*slowest(made, limits), made) for made in cycles]
    if not found:
        return
    seconds, operation, made = min(found, key=lambda one: one[0])
    if operation is None or seconds <= spec.sync_interval:
        return
    raise ConfigError(
        f"the backend {spec.id} cannot keep a sync_interval of"
        f" {shortest(spec.sync_interval, SECONDS)}: the quickest of its last full runs made"
        f" {made.get(operation, 0):,} {operation} calls, which take {math.ceil(seconds):,}s at"
        f" rate_limit.{operation}.per_second {limits[operation].per_second:g}; set sync_interval"
        f" to {shortest(rounded_up(seconds), SECONDS)} or more, or raise that limit",
        code="interval_unreachable",
    )


def refuse_circular_credentials(compiled: Sequence[tuple[BackendSpec, RuleSet]]) -> None:
    """A backend's credential may not come out of what it opens, directly or through others.

    Such a backend could not sign in before its first sync, and a change of the remote
    secret would decide which credential svsync presents.
    """
    serves: dict[BackendId, BackendId] = {}
    for spec, _ in compiled:
        path = credential_path(spec)
        if path is None:
            continue
        for other, rules in compiled:
            if other.tenant == spec.tenant and isinstance(rules.to_remote(path), Mapped):
                serves[spec.id] = other.id
    for start in serves:
        seen, at = [start], serves.get(start)
        while at is not None and at not in seen:
            seen.append(at)
            at = serves.get(at)
        if at == start:
            chain = " → ".join([*seen, start])
            raise ConfigError(
                f"the credential of {start} would come out of the stores it opens ({chain}): keep"
                " it at a path that none of them federates",
                code="circular_credential",
            )


def credential_path(spec: BackendSpec) -> LocalPath | None:
    """Where in ScaiVault a backend's credential stands; None for `env:` and `file:`."""
    for key in ("auth_config_path", "credentials_path"):
        given = spec.config.get(key)
        if isinstance(given, str) and not given.startswith(("env:", "file:")):
            return LocalPath(given)
    return None
