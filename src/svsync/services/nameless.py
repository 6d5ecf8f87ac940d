"""What a backend has that no path of svsync can be.

Lists leave it out, and reads cannot name it. Whoever takes a whole subtree along is told.
"""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from svsync.domain.changes import ScopeOutcome
from svsync.domain.errors import BackendUnreachableError, StoreError, SvsyncError
from svsync.domain.ids import TenantId
from svsync.domain.mapping import Mapped, RuleSet
from svsync.domain.rules import Rule
from svsync.domain.runs import SkipReason
from svsync.services.open_backends import OpenBackends
from svsync.services.runs import Backends
from svsync.services.transfer import Nameless
from svsync.store import federation
from svsync.store.database import Database
from svsync.store.federation import StoredBackend

NOT_MEANT: Final = (SkipReason.UNMAPPED, SkipReason.EXCLUDED)
"""Why a name has no path where that is what was configured."""


@dataclass(frozen=True, slots=True)
class Below:
    """What has no path below a prefix. `whole`: every backend could be asked, and told all;
    `away`: why one could not."""

    names: tuple[Nameless, ...]
    whole: bool
    away: BackendUnreachableError | None = None


class NamelessSecrets:
    """Asks the backends of every tenant."""

    def __init__(self, db: Database, backends: Backends, opened: OpenBackends) -> None:
        self._db = db
        self._backends = backends
        self._opened = opened

    async def below(self, tenant: TenantId, prefix: str) -> Below:
        """What backends have where the paths below a prefix are mapped to; a paused one is not
        asked. Raises StoreError: it cannot be known which backends there are."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            every = await federation.list_backends(tx)
        names: list[Nameless] = []
        whole, away = True, None
        for stored in every:
            rules = self._backends.mapping(stored.spec)
            roots = _roots(rules, prefix)
            if not roots or stored.state != "active" or stored.spec.is_standby:
                continue
            try:
                whole &= await self._ask(tenant, stored, rules, roots, names)
            except StoreError:
                raise
            except BackendUnreachableError as error:
                whole, away = False, away or error
            except SvsyncError:  # whoever reads through it is told why
                whole = False
        return Below(tuple(sorted(names, key=lambda one: one.name)), whole, away)

    async def _ask(
        self,
        tenant: TenantId,
        stored: StoredBackend,
        rules: RuleSet,
        roots: tuple[str, ...],
        names: list[Nameless],
    ) -> bool:
        """Add what one backend has; whether it told all."""
        folders = {root[: root.rfind("/") + 1] for root in roots}
        outer = [one for one in sorted(folders) if not _within(one, folders - {one})]
        whole = True
        async with (
            self._opened.use(tenant, stored) as backend,
            aclosing(backend.list_entries(outer, tokens=False)) as pages,
        ):
            async for page in pages:
                whole &= all(scope.outcome is ScopeOutcome.COMPLETE for scope in page.scopes)
                names += [
                    Nameless(name, reason)
                    for name, reason in page.rejected
                    if name.startswith(roots)
                ]
                for entry in page.entries:
                    mapped = rules.to_local(entry.remote_path)
                    if isinstance(mapped, Mapped) or entry.gone or mapped.reason in NOT_MEANT:
                        continue
                    if entry.remote_path.startswith(roots):
                        names.append(Nameless(entry.remote_path, mapped.reason, mapped.detail))
        return whole


def _within(folder: str, others: set[str]) -> bool:
    return any(folder.startswith(other) for other in others)


def _roots(rules: RuleSet, prefix: str) -> tuple[str, ...]:
    """What the names begin with that are mapped to paths below a prefix."""
    found = (_root(rule, prefix) for rule in rules.rules if not rule.spec.exclude)
    return tuple(root for root in found if root is not None)


def _root(rule: Rule, prefix: str) -> str | None:
    if rule.local is None or rule.remote is None:
        return None
    literal = rule.local.literal
    if literal.startswith(prefix):
        return rule.literal
    if not prefix.startswith(literal):
        return None
    # Of other rules the rest of a prefix has no one counterpart.
    return rule.literal + prefix[len(literal) :] if rule.plain else rule.literal
