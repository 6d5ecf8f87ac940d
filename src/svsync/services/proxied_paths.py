"""Which paths are read through, to which backend: remembered until a backend changes.

The number that a tenant's backends have together (`tenants.federation_epoch`) rises with
each change of any of them, in the transaction that changes it, and every read learns it
with what it looks up. So whatever is remembered here is compared with what stands at the
moment of the read, and asked for anew where that moved: no read that begins after a
change was answered goes by what was before it, on any replica.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from svsync.domain.federation import Mode, TagTransform
from svsync.domain.ids import BackendId, LocalPath, RemotePath, TenantId
from svsync.domain.mapping import Mapped, RuleSet
from svsync.services.runs import Backends
from svsync.store import federation
from svsync.store.database import Database
from svsync.store.federation import StoredBackend

_PATHS: Final = 10_000
"""Paths of a tenant whose owner is remembered."""
_TENANTS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Through:
    """The way to one path in one backend.

    Attributes:
        initial: its rule syncs, and has not brought in yet what was read through before.
        standbys: the ways there while this one's backend is unreachable, in their order.
    """

    stored: StoredBackend
    remote: RemotePath
    mode: Mode
    tags: TagTransform
    initial: bool = False
    standbys: tuple["Through", ...] = ()

    @property
    def backend(self) -> BackendId:
        return self.stored.spec.id


@dataclass(frozen=True, slots=True)
class Compiled:
    """One backend with its rules; `modes` and `initial` by the number of a rule."""

    stored: StoredBackend
    rules: RuleSet
    modes: tuple[Mode, ...]
    initial: frozenset[int]

    @classmethod
    def of(cls, stored: StoredBackend, rules: RuleSet) -> "Compiled":
        spec = stored.spec
        return cls(
            stored,
            rules,
            tuple(spec.for_rule(rule).mode for rule in spec.rules),
            frozenset(n for n, rule in enumerate(spec.rules) if rule.local in stored.initial),
        )

    def reads_through_rule(self, number: int) -> bool:
        return self.modes[number] is Mode.PROXY or number in self.initial

    def way(self, path: LocalPath) -> tuple[int, Through] | None:
        """The number of the rule that federates a path, and where that leads."""
        mapped = self.rules.to_remote(path)
        if not isinstance(mapped, Mapped):
            return None
        n = mapped.rule
        transform = self.rules.spec(n).tags
        mode = self.modes[n]
        initial = mode is Mode.SYNC and n in self.initial
        return n, Through(self.stored, mapped.remote, mode, transform, initial)


@dataclass(slots=True)
class Owners:
    """The backends of one tenant as they were under `epoch`, or a moment later.

    Attributes:
        outdated: a later epoch was seen, so nobody is to be asked by these.
    """

    epoch: int
    owners: tuple[Compiled, ...]
    standbys: Mapping[BackendId, tuple[Compiled, ...]]
    outdated: bool = False
    _known: dict[LocalPath, Through | None] = field(default_factory=dict)

    def through(self, path: LocalPath) -> Through | None:
        """How a path is read that is not here; None: it is not."""
        if path in self._known:
            return self._known[path]
        if len(self._known) >= _PATHS:
            self._known.clear()
        found = self._known[path] = self._look(path)
        return found

    def _look(self, path: LocalPath) -> Through | None:
        for one in self.owners:
            way = one.way(path)
            if way is None:
                continue
            found = way[1]
            if found.mode is Mode.SYNC and not found.initial:
                return None
            return Through(
                found.stored, found.remote, found.mode, found.tags, found.initial,
                tuple(self._standbys(one, path)),
            )  # fmt: skip
        return None

    def _standbys(self, owner: Compiled, path: LocalPath) -> list[Through]:
        ways = [one.way(path) for one in self.standbys.get(owner.stored.spec.id, ())]
        return [way[1] for way in ways if way is not None]


class ProxiedPaths:
    """The owners of paths, of every tenant."""

    def __init__(self, db: Database, backends: Backends) -> None:
        self._db = db
        self._backends = backends
        self._owners: OrderedDict[TenantId, Owners] = OrderedDict()
        self._loading: dict[TenantId, asyncio.Lock] = {}

    def at_hand(self, tenant: TenantId) -> Owners | None:
        """The owners that are remembered; good for an answer only where their epoch stands as
        that is recorded."""
        known = self._owners.get(tenant)
        return None if known is None or known.outdated else known

    def learn(self, tenant: TenantId, epoch: int) -> None:
        """An epoch that stood a moment ago. Owners of one before it are at hand no more: a
        backend that was removed is not asked for each path that it once had."""
        known = self._owners.get(tenant)
        if known is not None and known.epoch < epoch:
            known.outdated = True

    def forget(self, tenant: TenantId) -> None:
        """Of a tenant that was shredded nothing is read through any more."""
        self._owners.pop(tenant, None)

    async def owners(self, tenant: TenantId, epoch: int | None = None) -> Owners:
        """The owners that stand under an epoch which was read a moment ago, or later ones;
        without an epoch, those that stand now.

        Raises StoreUnavailableError: they cannot be looked up.
        """
        known = self._owners.get(tenant)
        if known is None or known.epoch != epoch:
            async with self._loading.setdefault(tenant, asyncio.Lock()):
                known = self._owners.get(tenant)  # somebody else may have asked meanwhile
                if known is None or known.epoch != epoch:
                    known = self._owners[tenant] = await self._load(tenant, known)
        self._owners.move_to_end(tenant)
        if len(self._owners) > _TENANTS:
            gone, _ = self._owners.popitem(last=False)
            self._loading.pop(gone, None)
        return known

    async def _load(self, tenant: TenantId, before: Owners | None) -> Owners:
        async with self._db.transaction(tenant, read_only=True) as tx:
            # First: what changed since is then known under an epoch that is over.
            epoch = await federation.epoch(tx)
            if before is not None and before.epoch == epoch:
                return before
            found = await federation.list_backends(tx)
        known = {} if before is None else {one.stored.spec.id: one for one in _all(before)}
        owners: list[Compiled] = []
        standbys: dict[BackendId, list[Compiled]] = {}
        types = {stored.spec.id: stored.spec.type for stored in found}
        for stored in found:
            if stored.state == "deleting":
                continue
            compiled = Compiled.of(stored, self._rules(stored, known.get(stored.spec.id)))
            if not stored.spec.is_standby:
                owners.append(compiled)
                continue
            of = BackendId(str(stored.spec.extra["standby_for"]))
            if stored.state == "active" and types.get(of) == stored.spec.type:
                standbys.setdefault(of, []).append(compiled)
        return Owners(epoch, tuple(owners), {of: tuple(all) for of, all in standbys.items()})

    def _rules(self, stored: StoredBackend, before: Compiled | None) -> RuleSet:
        if before is not None and before.stored.spec == stored.spec:
            return before.rules
        return self._backends.mapping(stored.spec)


def _all(owners: Owners) -> list[Compiled]:
    return [*owners.owners, *(one for some in owners.standbys.values() for one in some)]
