"""What is read through, listed one folder at a time: names, and never a value.

Only where a rule replaces the beginning of a path by another is a local folder one of the
backend's. What lies below any other rule is not listed, and the answer says so. A store whose
names have no folders has one listing, of all of it, whatever its rules are: what of that lies
in a folder here is picked out.
"""

import asyncio
from bisect import bisect_left
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Final

from svsync.domain.changes import Entry, Folder, PairStatus, ScopeOutcome, shown_version
from svsync.domain.errors import BackendUnreachableError, StoreUnavailableError, SvsyncError
from svsync.domain.ids import BackendId, LocalPath, TenantId
from svsync.domain.mapping import Mapped, RuleSet
from svsync.domain.paths import local_problem
from svsync.domain.policies import Permission, Permissions
from svsync.domain.tags import flatten, merge_fields
from svsync.services.open_backends import OpenBackends
from svsync.services.proxied_paths import Compiled, Owners

PROXIED: Final = "proxied"
"""The status of a path that is read through by its rule's mode."""
BEHIND: Final = "\x7f"
"""Behind a string: greater than all that begins with it, for no path holds it."""


@dataclass(slots=True)
class ProxiedFolder:
    """What is read through in one local folder, as far as somebody may list it.

    Attributes:
        secrets: those that stand in it, by path, as a list shows them; what a backend's
            listing does not tell is None.
        folders: those in it, in order, each ending with `/`. There may be nothing in one
            that they may list.
        incomplete: a backend could not be asked, or did not tell all.
        calls: folders of backends that were asked for.
        failed: backends that could not be asked at all.
    """

    secrets: dict[str, dict[str, object]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    incomplete: bool = False
    calls: int = 0
    failed: set[BackendId] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Whole:
    """All that a store without folders lists, as its rules map it.

    Attributes:
        complete: it told all.
        paths: local ones, in order.
        entries: of each, with the number of its rule.
    """

    complete: bool
    paths: tuple[LocalPath, ...]
    entries: Mapping[LocalPath, tuple[int, Entry]]

    @classmethod
    def of(cls, said: Folder, rules: RuleSet) -> "Whole":
        entries: dict[LocalPath, tuple[int, Entry]] = {}
        for entry in said.entries:
            mapped = rules.to_local(entry.remote_path)
            if isinstance(mapped, Mapped) and not entry.gone:
                entries[mapped.local] = mapped.rule, entry
        complete = said.scope.outcome is ScopeOutcome.COMPLETE
        return cls(complete, tuple(sorted(entries)), entries)


Known = MutableMapping[BackendId, Whole]
"""Stores without folders that were listed, for as long as one list is made."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One folder of one backend that stands for a local one; the whole of a flat store."""

    compiled: Compiled
    rule: int
    remote: str

    @property
    def flat(self) -> bool:
        return self.compiled.rules.flat


class ProxiedFolders:
    """Folders of what is read through, of every tenant."""

    def __init__(
        self,
        open: OpenBackends,
        tell_away: Callable[[TenantId, BackendId], Awaitable[None]],
        *,
        patience: float,
    ) -> None:
        """`tell_away` is told of a backend that cannot be reached; `patience` is how many
        seconds one may take for a folder."""
        self._open = open
        self._tell_away = tell_away
        self.patience = patience

    async def look(
        self,
        tenant: TenantId,
        owners: Owners,
        permissions: Permissions,
        folder: str,
        *,
        given: Sequence[str] | None = None,
        unasked: Collection[BackendId] = (),
        known: Known | None = None,
    ) -> ProxiedFolder:
        """What is read through in one local folder (ends with `/`, or empty), as far as
        somebody with these may list it. Who asks was recorded before.

        Args:
            given: beginnings of the paths that matter, in order, none that of another; None:
                those of all that they may list.
            unasked: backends that are not asked, as if they could not be.
            known: what was listed before and is not asked for again; added to.

        Raises StoreUnavailableError: what opens a backend cannot be looked up.
        """
        found = ProxiedFolder()
        known = {} if known is None else known
        if given is None:
            given = permissions.prefixes(Permission.LIST)
        for asked in _folders_of(owners, given, folder, found):
            backend = asked.compiled.stored.spec.id
            if asked.compiled.stored.state != "active" or backend in {*unasked, *found.failed}:
                found.incomplete = True
                continue
            try:
                if backend not in known:
                    found.calls += 1
                    said = await self._ask(tenant, asked)
                    if not asked.flat:
                        _take(asked, permissions, folder, said, found)
                        continue
                    known[backend] = Whole.of(said, asked.compiled.rules)
                _pick(asked, permissions, folder, known[backend], found)
            except StoreUnavailableError:
                raise
            except (SvsyncError, TimeoutError) as problem:
                found.incomplete = True
                found.failed.add(backend)
                if isinstance(problem, BackendUnreachableError | TimeoutError):
                    await self._tell_away(tenant, backend)
        return found

    async def _ask(self, tenant: TenantId, asked: Asked) -> Folder:
        async with asyncio.timeout(self.patience):
            async with self._open.use(tenant, asked.compiled.stored) as backend:
                return await backend.list_folder(asked.remote)


def through_roots(owners: Owners, given: Sequence[str]) -> list[str]:
    """Of beginnings of paths, in order and none that of another, those below which something
    may be read through."""
    locals_ = [
        compiled.rules.local_prefix(number)
        for compiled in owners.owners
        for number, rule in enumerate(compiled.rules.rules)
        if not rule.spec.exclude and compiled.reads_through_rule(number)
    ]
    return sorted({one for local in locals_ for one in _meeting(given, local)})


def _folders_of(
    owners: Owners, given: Sequence[str], folder: str, found: ProxiedFolder
) -> Iterator[Asked]:
    """Whom to ask for a local folder; what nobody need be asked for is put in at once."""
    here = _meeting(given, folder)
    for compiled in owners.owners:
        for number, rule in enumerate(compiled.rules.rules):
            if rule.spec.exclude or not compiled.reads_through_rule(number):
                continue
            local = compiled.rules.local_prefix(number)
            if not _meeting(here, local):
                continue
            if local.startswith(folder) and "/" in local[len(folder) :]:
                found.folders.add(local[: local.index("/", len(folder)) + 1])
            elif compiled.rules.flat:
                if local.startswith(folder) or folder.startswith(local):
                    yield Asked(compiled, number, "")
            elif local.startswith(folder) and local != folder:
                found.incomplete = True
            elif folder.startswith(local):
                if not (rule.replaces_beginning and rule.separator == "/"):
                    found.incomplete = True
                    continue
                yield Asked(compiled, number, rule.literal + folder[len(local) :])


def _take(
    asked: Asked, permissions: Permissions, folder: str, said: Folder, found: ProxiedFolder
) -> None:
    """Put in what a backend said of its folder: what maps into the local one, by the rule
    that it was asked for, and may be listed."""
    found.incomplete |= said.scope.outcome is not ScopeOutcome.COMPLETE
    for path in said.folders:
        local = folder + path[len(asked.remote) :]
        if local_problem(local.removesuffix("/")) is None:
            found.folders.add(local)
    rules = asked.compiled.rules
    for entry in said.entries:
        mapped = rules.to_local(entry.remote_path)
        if entry.gone or not isinstance(mapped, Mapped) or mapped.rule != asked.rule:
            continue
        if permissions.decide(mapped.local, Permission.LIST) is not None:
            found.secrets[mapped.local] = _shown(mapped.local, asked, entry)


def _pick(
    asked: Asked, permissions: Permissions, folder: str, whole: Whole, found: ProxiedFolder
) -> None:
    """Put in what of a flat store stands in the local folder, by the rule that it was asked
    for, and may be listed; and the folders in it."""
    found.incomplete |= not whole.complete
    at, end = (bisect_left(whole.paths, text) for text in (folder, folder + BEHIND))
    while at < end:
        path = whole.paths[at]
        below = path.find("/", len(folder))
        if below >= 0:
            found.folders.add(path[: below + 1])
            at = bisect_left(whole.paths, path[: below + 1] + BEHIND)
            continue
        rule, entry = whole.entries[path]
        if rule == asked.rule and permissions.decide(path, Permission.LIST) is not None:
            found.secrets[path] = _shown(path, asked, entry)
        at += 1


def _shown(path: LocalPath, asked: Asked, entry: Entry) -> dict[str, object]:
    tags = entry.tags or {}
    transform = asked.compiled.rules.spec(asked.rule).tags
    initial = asked.rule in asked.compiled.initial
    return {
        "path": path,
        "version": shown_version(entry.order),
        "secret_type": None,
        "metadata": {
            "tags": list(flatten(tags, transform)),
            "owner": None,
            "description": None,
            "custom": merge_fields({}, {}, tags, local_wins=False),
        },
        "updated_at": None,
        "status": str(PairStatus.INITIAL) if initial else PROXIED,
    }


def _meeting(given: Sequence[str], text: str) -> Sequence[str]:
    """Of strings in order, none the beginning of another, those that begin with a text or that
    it begins with."""
    first = bisect_left(given, text)
    # Whatever stands between it and its beginning would begin with that, too.
    if first and text.startswith(given[first - 1]):
        return given[first - 1 : first]
    return given[first : bisect_left(given, text + BEHIND)]
