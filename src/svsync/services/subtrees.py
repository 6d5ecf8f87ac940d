"""How far a migration is, folder by folder, for somebody who may list some of its secrets.

It is counted from what the last runs settled and from the audit log; no backend is asked, so of
readers at the source nothing is known. That a value stands at another path as well is told only
where the caller may read both: whoever may not would find out what a value is by writing guesses
to the other one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any, Final

from svsync.config.kinds import SECONDS, shortest
from svsync.domain.access import Caller
from svsync.domain.changes import PairStatus
from svsync.domain.errors import UsageError
from svsync.domain.federation import Mode
from svsync.domain.globs import Glob
from svsync.domain.ids import BackendId, LocalPath
from svsync.domain.policies import Permission, Permissions
from svsync.domain.retirement import Facts, Held, Source, held_by
from svsync.domain.subtrees import Folder, Next, next_step
from svsync.services.authorizing import may_read
from svsync.services.retirement import LATE, settings_of
from svsync.services.runs import Backends
from svsync.services.secrets import time_of
from svsync.services.turns import Turns
from svsync.store import audit, federation, retirement
from svsync.store import subtrees as store
from svsync.store.database import Database, Row, Transaction
from svsync.store.federation import StoredBackend

MOST: Final = 200_000
"""Secrets of one answer."""
MOST_FOLDERS: Final = 1_000
"""Folders of one answer; the rest is left out, and how many they are is told."""
AT_ONCE: Final = 2
"""Answers that one process counts at once: each keeps a connection to the store all the while, and
requests of every kind need one."""
_PAGE: Final = 1_000
"""Secrets that are counted in one go: nothing else is done meanwhile."""
_OF_SOURCE: Final = {Held.SOURCE_UNKNOWN, Held.NO_COMMAND}
"""Doubts that only the source can clear."""
_READERS: Final = (
    "who still reads a secret at its source: `svsync retire plan` asks the source, or reads its"
    " audit log"
)
_ELSEWHERE: Final = (
    "whether another backend maps the same secret of the same store: `svsync retire plan` looks"
)
_UNCOUNTED: Final = (
    "how many secrets are read through: `svsync inventory` counts them at their backend"
)


@dataclass(frozen=True, slots=True)
class _Copies:
    """Pairs whose value stands at a path of no backend too, and those whose copy was read."""

    made: frozenset[LocalPath]
    read: frozenset[LocalPath]


@dataclass(slots=True)
class _Look:
    """What is asked, and what is known of all backends.

    Attributes:
        lately: those that were listed whole a short while ago.
        mapping_of: hash and base pair of one: it is made for those alone that have secrets here.
    """

    permissions: Permissions
    prefix: str
    backends: Mapping[BackendId, StoredBackend]
    lately: frozenset[BackendId]
    mapping_of: Callable[[BackendId], tuple[str, str]]
    copies: _Copies
    folders: dict[str, Folder] = field(default_factory=dict)
    _ready: dict[tuple[object, ...], bool] = field(default_factory=dict)

    def folder_of(self, path: str) -> Folder:
        below, slash, _ = path.removeprefix(self.prefix).partition("/")
        name = f"{self.prefix}{below}/" if slash else self.prefix
        found = self.folders.get(name)
        if found is None:
            found = self.folders[name] = Folder()
        return found

    def is_ready(self, row: Row) -> bool:
        """Does nothing that is known here speak against retiring a pair that is equal and read
        here? It is the same for all pairs of a rule."""
        key = (row["backend_id"], row["rule_ord"], row["mapping_hash"], row["base_pair"])
        if key not in self._ready:
            backend, rule, *mapping = key
            facts = Facts(
                equal=True,
                looked_at=backend in self.lately and self.mapping_of(backend) == tuple(mapping),
                settings=settings_of(self.backends[backend].spec, rule),
                read_here=True,
                source=Source(),
                command=None,
            )
            self._ready[key] = set(held_by(facts)) <= _OF_SOURCE
        return self._ready[key]


class Subtrees:
    """The folders of every tenant."""

    def __init__(self, db: Database, backends: Backends, *, most: int = MOST) -> None:
        """`most`: secrets of one answer."""
        self._db = db
        self._backends = backends
        self._most = most
        self._turns = Turns(AT_ONCE, "migrations are being counted")

    async def look(
        self, caller: Caller, permissions: Permissions, prefix: str, idle: timedelta
    ) -> dict[str, Any]:
        """Each folder right below a folder, with its counts and its next step; secrets right in
        it are told under its own name.

        Args:
            prefix: the folder, with its slash; empty: the root.
            idle: within it an application must have read here.

        Raises:
            UsageError: `too_many_secrets`: too much lies below it.
            OverloadedError: this process counts as many as it takes.
            StoreError.
        """
        with self._turns.one():
            return await self._look(caller, permissions, prefix, idle)

    async def _look(
        self, caller: Caller, permissions: Permissions, prefix: str, idle: timedelta
    ) -> dict[str, Any]:
        async with self._db.transaction(caller.tenant, read_only=True) as tx:
            now = await audit.now(tx)
            stored = {one.spec.id: one for one in await federation.list_backends(tx)}
            look = _Look(
                permissions,
                prefix,
                stored,
                _lately(stored, await retirement.looked_at(tx)),
                cache(partial(self._mapping, stored)),
                await _copies(tx, caller, permissions, prefix, now - idle),
            )
            after, seen, more = "", 0, True
            while more:
                rows = await store.page(tx, after, prefix, now - idle, _PAGE)
                more, seen = len(rows) == _PAGE, seen + len(rows)
                if seen > self._most:
                    raise UsageError(
                        f"prefix: more than {self._most:,} secrets lie below it: name a longer one",
                        code="too_many_secrets",
                    )
                _count(look, rows)
                after = rows[-1]["path"] if rows else after
        through = _read_through(stored, prefix)
        words = shortest(int(idle.total_seconds()), SECONDS)
        folders = []
        for name, found in sorted(look.folders.items())[:MOST_FOLDERS]:
            passes = any(_meet(name, pattern) for pattern in through)
            folders.append(
                _shown(name, found, next_step(name, found, read_through=passes, idle=words))
            )
        return {
            "prefix": prefix,
            "as_of": time_of(now),
            "idle_s": int(idle.total_seconds()),
            "folders": folders,
            "left_out": max(0, len(look.folders) - MOST_FOLDERS),
            "read_through": through,
            "read_at_source": None,
            "unknown": [_READERS, _ELSEWHERE, *([_UNCOUNTED] if through else [])],
        }

    def _mapping(
        self, stored: Mapping[BackendId, StoredBackend], backend: BackendId
    ) -> tuple[str, str]:
        _, mapping = self._backends.rules(stored[backend].spec)
        return mapping.hash, mapping.base_pair


async def _copies(
    tx: Transaction, caller: Caller, permissions: Permissions, prefix: str, since: datetime
) -> _Copies:
    """Those of which the caller may read both sides."""
    found = [
        both
        for both in await store.copies(tx, prefix, MOST)
        if all(may_read(caller, permissions, path) for path in both)
    ]
    reads = await retirement.last_reads(tx, sorted({copy for _, copy in found}), since)
    return _Copies(
        frozenset(path for path, _ in found), frozenset(path for path, at in found if at in reads)
    )


def _count(look: _Look, rows: Sequence[Row]) -> None:
    """Add a page of rows to their folders: those that the caller may list."""
    decide = look.permissions.decide
    for row in rows:
        path, backend = row["path"], row["backend_id"]
        if decide(path, Permission.LIST) is None:
            continue
        folder = look.folder_of(path)
        if backend is None:
            folder.local += 1
            folder.detached += row["detached"]
            continue
        equal = row["equal"]
        copied = equal and path in look.copies.made
        read = row["read"] or (copied and path in look.copies.read)
        folder.backends.add(backend)
        folder.federated += 1
        folder.synced += equal
        folder.copied += copied
        folder.read_here += read
        folder.conflicts += row["status"] == PairStatus.CONFLICT
        if equal and read:
            folder.ready += look.is_ready(row)


def _lately(
    stored: Mapping[BackendId, StoredBackend], looked_at: Mapping[BackendId, Row]
) -> frozenset[BackendId]:
    """Those that were listed whole a short while ago."""
    found = set()
    for backend, one in stored.items():
        ago = looked_at[backend]["seconds_ago"]
        if ago is not None and ago <= LATE * one.spec.sync_interval:
            found.add(backend)
    return frozenset(found)


def _read_through(stored: Mapping[BackendId, StoredBackend], prefix: str) -> list[str]:
    """Local patterns of rules that keep nothing here, and may have paths below a folder."""
    found = set()
    for one in stored.values():
        for rule in one.spec.rules:
            if not rule.exclude and one.spec.for_rule(rule).mode is Mode.PROXY:
                found.add(rule.local)
    return sorted(local for local in found if _meet(prefix, local))


def _meet(folder: str, pattern: str) -> bool:
    begins = Glob(pattern).literal_prefix
    return begins.startswith(folder) or folder.startswith(begins)


def _shown(name: str, folder: Folder, following: Next) -> dict[str, Any]:
    return {
        "folder": name,
        "backend_ids": sorted(folder.backends),
        "secrets": folder.secrets,
        "federated": folder.federated,
        "synced": folder.synced,
        "copied": folder.copied,
        "read_here": folder.read_here,
        "ready": folder.ready,
        "conflicts": folder.conflicts,
        "local": folder.local,
        "detached": folder.detached,
        "next": {
            "step": str(following.step),
            "message": following.message,
            "command": following.command or None,
        },
    }
