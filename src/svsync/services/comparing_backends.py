"""What was synced from a backend, compared with what the backend has now.

What a listing lacks is asked for by name, as a run asks: only the backend's own word says
that something is missing there. The audit log tells of each comparison before it is made.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from svsync.domain.changes import (
    Entry,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
    ScopeOutcome,
    Tags,
)
from svsync.domain.errors import ConfigError, NotFoundError, SvsyncError
from svsync.domain.federation import Mode
from svsync.domain.globs import Glob
from svsync.domain.ids import LocalPath, RemotePath, TenantId
from svsync.domain.mapping import Mapped, RuleSet
from svsync.domain.tags import flatten
from svsync.ports import Backend
from svsync.services.comparing import Comparison, Difference, What, differences
from svsync.services.nameless import NOT_MEANT
from svsync.services.open_backends import OpenBackends
from svsync.services.operating import Operating
from svsync.services.runs import Backends
from svsync.services.secrets import MAX_PAGE, Secrets
from svsync.services.transfer import each, ends_all
from svsync.store import federation
from svsync.store.database import Database
from svsync.store.federation import StoredBackend

_AT_ONCE: Final = 500
"""Names of a listing that are compared before more of it is asked for."""


@dataclass(frozen=True, slots=True)
class _Name:
    """One federated secret; `tags` are those that the listing told."""

    local: LocalPath
    remote: RemotePath
    rule: int
    tags: Tags | None = None


class Comparing:
    """Compares what was pulled with what its backend has now."""

    def __init__(
        self,
        db: Database,
        backends: Backends,
        opened: OpenBackends,
        secrets: Secrets,
        operating: Operating,
    ) -> None:
        self._db = db
        self._backends = backends
        self._opened = opened
        self._secrets = secrets
        self._operating = operating

    async def compare(
        self,
        tenant: TenantId,
        backend: str,
        comparison: Comparison,
        *,
        only: Glob | None,
        tell: Callable[[int], None],
    ) -> None:
        """Compare every secret that the backend's rules sync. `tell` is told how many are done.

        Raises:
            NotFoundError: no such backend.
            ConfigError: `not_synced`: it has nothing of its own here.
            BackendError: it cannot be reached, or denies all.
        """
        stored = await self._stored(tenant, backend)
        spec = stored.spec
        if not spec.syncs:
            raise ConfigError(
                f"{spec.id} syncs nothing, so there is no copy to compare: what is read through"
                " it is what it has",
                code="not_synced",
            )
        rules, _ = self._backends.rules(spec)
        seen: set[LocalPath] = set()

        async def compare(names: Sequence[_Name], open_: Backend) -> None:
            size = open_.features.batch_read
            pieces = [names[at : at + size] for at in range(0, len(names), size)]

            async def work(piece: Sequence[_Name]) -> None:
                comparison.differences += await self._compare(tenant, stored, rules, open_, piece)
                comparison.compared += len(piece)
                tell(comparison.compared)

            await each(pieces, work)

        async with self._opened.use(tenant, stored) as open_:
            listing = self._listed(stored, rules, open_, only, comparison)
            async with aclosing(listing):
                async for names in listing:
                    seen.update(one.local for one in names)
                    await compare(names, open_)
            async with aclosing(self._others(tenant, stored, rules, only, seen)) as others:
                async for names in others:
                    await compare(names, open_)

    async def _stored(self, tenant: TenantId, backend: str) -> StoredBackend:
        async with self._db.transaction(tenant, read_only=True) as tx:
            return await federation.get(tx, backend)

    async def _listed(
        self,
        stored: StoredBackend,
        rules: RuleSet,
        open_: Backend,
        only: Glob | None,
        comparison: Comparison,
    ) -> AsyncGenerator[list[_Name]]:
        """What the backend lists of what its rules sync; what cannot be seen is told of."""
        waiting: list[_Name] = []
        async with aclosing(open_.list_entries(rules.list_prefixes(), tokens=False)) as pages:
            async for page in pages:
                comparison.differences += [
                    Difference(name, name, What.NOT_COMPARED, reason=reason)
                    for name, reason in page.rejected
                ]
                comparison.differences += [
                    Difference(
                        scope.prefix, scope.prefix, What.NOT_COMPARED, reason=_unseen(scope.outcome)
                    )
                    for scope in page.scopes
                    if scope.outcome is not ScopeOutcome.COMPLETE
                ]
                for entry in page.entries:
                    waiting += self._name(stored, rules, entry, only, comparison)
                if len(waiting) >= _AT_ONCE:
                    yield waiting
                    waiting = []
        yield waiting

    def _name(
        self,
        stored: StoredBackend,
        rules: RuleSet,
        entry: Entry,
        only: Glob | None,
        comparison: Comparison,
    ) -> list[_Name]:
        mapped = rules.to_local(entry.remote_path)
        if isinstance(mapped, Mapped):
            wanted = _is_synced(stored, rules, mapped) and (only is None or only(mapped.local))
            # A name without a current value is asked for where something is here.
            if wanted and not entry.gone:
                return [_Name(mapped.local, mapped.remote, mapped.rule, entry.tags)]
        elif mapped.reason not in NOT_MEANT and only is None:
            name = entry.remote_path
            comparison.differences.append(
                Difference(name, name, What.NOT_COMPARED, reason=mapped.reason)
            )
        return []

    async def _others(
        self,
        tenant: TenantId,
        stored: StoredBackend,
        rules: RuleSet,
        only: Glob | None,
        seen: set[LocalPath],
    ) -> AsyncGenerator[list[_Name]]:
        """What is here and was not listed."""
        prefixes = {
            rules.local_prefix(n) for n, rule in enumerate(rules.rules) if not rule.spec.exclude
        }
        for prefix in sorted(prefixes):
            if any(prefix != other and prefix.startswith(other) for other in prefixes):
                continue
            cursor = ""
            while cursor is not None:
                page: Any = await self._secrets.list_secrets(
                    tenant, prefix, limit=MAX_PAGE, cursor=cursor
                )
                names = []
                for one in page["secrets"]:
                    path = LocalPath(one["path"])
                    mapped = rules.to_remote(path)
                    if path in seen or not isinstance(mapped, Mapped) or (only and not only(path)):
                        continue
                    if _is_synced(stored, rules, mapped):
                        names.append(_Name(path, mapped.remote, mapped.rule))
                yield names
                cursor = page["next_cursor"]

    async def _compare(
        self,
        tenant: TenantId,
        stored: StoredBackend,
        rules: RuleSet,
        open_: Backend,
        names: Sequence[_Name],
    ) -> list[Difference]:
        backend = stored.spec.id
        noted = (self._operating.note("secret.compare", one.local, backend) for one in names)
        await asyncio.gather(*noted)
        read = await open_.read([one.remote for one in names])
        found: list[Difference] = []
        for one, there in zip(names, read, strict=True):
            found += await self._compare_one(tenant, rules, one, there)
        return found

    async def _compare_one(
        self, tenant: TenantId, rules: RuleSet, one: _Name, there: RemoteRead
    ) -> list[Difference]:
        if isinstance(there, RemoteUnknown):
            return [Difference(one.local, one.remote, What.NOT_COMPARED, reason=there.reason)]
        try:
            found: Any = await self._secrets.get(tenant, one.local)
        except NotFoundError:
            found = None
        except SvsyncError as error:
            if ends_all(error):
                raise
            return [Difference(one.local, one.remote, What.NOT_COMPARED, reason=error.code)]
        if not isinstance(there, RemoteValue):
            return [] if found is None else [Difference(one.local, one.remote, What.MISSING_THERE)]
        if found is None:
            return [Difference(one.local, one.remote, What.MISSING_HERE)]
        about, data = found
        raw = one.tags if there.tags is None else there.tags
        theirs = None if raw is None else flatten(raw, rules.spec(one.rule).tags)
        tags = None if theirs is None else (tuple(about["metadata"]["tags"]), theirs)
        values = (data.decode(), there.payload.data_text().decode())
        return differences(one.local, one.remote, values, tags)


def _is_synced(stored: StoredBackend, rules: RuleSet, mapped: Mapped) -> bool:
    return stored.spec.for_rule(rules.spec(mapped.rule)).mode is Mode.SYNC


def _unseen(outcome: ScopeOutcome) -> str:
    return "denied" if outcome is ScopeOutcome.DENIED else "not_listed"
