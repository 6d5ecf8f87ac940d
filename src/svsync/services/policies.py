"""Policies: made, shown, changed, removed, and bound to identities and groups.

Each change raises the epoch of the tenant's rights in its own transaction, and does so
first: changes of one tenant's policies then come one after another, so what is counted
and looked up below stays true until they are committed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from svsync.domain.bindings import Bound, BoundType
from svsync.domain.errors import ConfigError, NotFoundError, VersionConflictError
from svsync.domain.ids import TenantId
from svsync.domain.patterns import PatternError
from svsync.domain.policies import (
    MAX_RULES,
    Permission,
    PolicyExistsError,
    is_name,
    is_reference,
    new_pattern,
)
from svsync.services.secrets import time_of
from svsync.store import access
from svsync.store import policies as store
from svsync.store.database import Database, Row, Transaction

MOST_POLICIES: Final = 10_000
"""Of one tenant."""
MOST_RULES: Final = 100_000
"""Of all policies of one tenant: who is in enough groups has them all, in every process."""
MOST_BINDINGS: Final = 10_000
"""Of one policy."""
MOST_OF_IDENTITY: Final = 1_000
"""Policies that are bound to one identity or group: they are compiled at its first request."""


@dataclass(frozen=True, slots=True)
class NewRule:
    """A rule as somebody writes it."""

    path_pattern: str
    permissions: Sequence[Permission]


class PolicyChange(TypedDict, total=False):
    """What of a policy becomes another; what is not there stays as it is."""

    name: str
    description: str | None
    rules: Sequence[NewRule]


class Policies:
    """The policies of tenants."""

    def __init__(self, db: Database, *, ids: Callable[[str], str]) -> None:
        """`ids` draws an id with a prefix."""
        self._db = db
        self._ids = ids

    # --- policies -----------------------------------------------------------------

    async def create(
        self,
        tenant: TenantId,
        name: str,
        rules: Sequence[NewRule],
        *,
        description: str | None = None,
        by: str,
    ) -> dict[str, object]:
        """A new policy, bound to nobody.

        Raises:
            ConfigError: names the field: a name, pattern or number that cannot be used.
            PolicyExistsError: the name is taken.
        """
        _check_name(name)
        checked = _checked(rules)
        policy = self._ids("pol")
        async with self._db.transaction(tenant) as tx:
            await access.raise_epoch(tx)
            if await store.count(tx) >= MOST_POLICIES:
                raise ConfigError(
                    f"there are {MOST_POLICIES:,} policies: remove one first",
                    code="too_many_policies",
                )
            if not await store.add(tx, policy, name, description, by):
                raise _taken(name)
            await _set_rules(tx, policy, checked)
            return await _show(tx, policy)

    async def list_policies(
        self, tenant: TenantId, *, limit: int, after: str = ""
    ) -> tuple[list[dict[str, object]], str | None]:
        """Policies by name, behind `after`, and the name to go on behind."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            rows = await store.page(tx, after, limit + 1)
            shown = rows[:limit]
            ruled = _by_policy(await store.rules(tx, [row["policy_id"] for row in shown]))
        found = [_shown(row, ruled.get(row["policy_id"], [])) for row in shown]
        return found, shown[-1]["name"] if len(rows) > limit else None

    async def show(self, tenant: TenantId, policy: str) -> dict[str, object]:
        """By id or name. Raises NotFoundError."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            return await _show(tx, policy)

    async def change(
        self, tenant: TenantId, policy: str, change: PolicyChange, *, rev: int | None = None
    ) -> dict[str, object]:
        """The policy as it is then; `rules` take the place of all those that it had.

        `rev`: the revision that it must be at; None: any.

        Raises:
            NotFoundError: there is none.
            VersionConflictError: it is at another revision.
            ConfigError, PolicyExistsError: as `create`.
        """
        if "name" in change:
            _check_name(change["name"])
        checked = _checked(change["rules"]) if "rules" in change else None
        async with self._db.transaction(tenant) as tx:
            await access.raise_epoch(tx)
            row = await _found(tx, policy)
            _check_revision(row, rev)
            name = change.get("name", row["name"])
            description = change.get("description", row["description"])
            if not await store.change(tx, row["policy_id"], name, description):
                raise _taken(name)
            if checked is not None:
                await _set_rules(tx, row["policy_id"], checked)
            return await _show(tx, row["policy_id"])

    async def delete(self, tenant: TenantId, policy: str, *, rev: int | None = None) -> None:
        """With its bindings. Raises NotFoundError, VersionConflictError: as `change`."""
        async with self._db.transaction(tenant) as tx:
            await access.raise_epoch(tx)
            row = await _found(tx, policy)
            _check_revision(row, rev)
            await store.delete(tx, row["policy_id"])

    # --- bindings -----------------------------------------------------------------

    async def bind(
        self, tenant: TenantId, policy: str, bound: Bound, *, by: str
    ) -> tuple[dict[str, object], bool]:
        """The binding, and whether it is a new one.

        Raises:
            NotFoundError: there is no such policy.
            ConfigError: `too_many_bindings`.
        """
        async with self._db.transaction(tenant) as tx:
            await access.raise_epoch(tx)
            row = await _found(tx, policy)
            number = row["policy_id"]
            made = await store.bind(tx, number, bound, by)
            crowd = await store.crowding(tx, number, bound)
            if made and crowd["of_policy"] > MOST_BINDINGS:
                raise ConfigError(
                    f"the policy is bound {MOST_BINDINGS:,} times: bind it to a group instead",
                    code="too_many_bindings",
                )
            if made and crowd["of_identity"] > MOST_OF_IDENTITY:
                raise ConfigError(
                    f"{bound} has {MOST_OF_IDENTITY:,} policies: put their rules together first",
                    code="too_many_bindings",
                )
            there = await store.binding(tx, number, bound)
            assert there is not None
            return {"policy_id": number, **_binding(there)}, made

    async def unbind(self, tenant: TenantId, policy: str, bound: Bound) -> None:
        """Raises NotFoundError: no such policy, or it is not bound so."""
        async with self._db.transaction(tenant) as tx:
            await access.raise_epoch(tx)
            row = await _found(tx, policy)
            if not await store.unbind(tx, row["policy_id"], bound):
                raise NotFoundError(
                    f"the policy {row['name']} is not bound to {bound}", code="binding_not_found"
                )

    async def list_bindings(
        self, tenant: TenantId, policy: str, *, limit: int, after: str = "/"
    ) -> tuple[list[dict[str, object]], str | None]:
        """Bindings by type and id, behind `after` (`type/id`), and where to go on behind.

        Raises NotFoundError: there is no such policy.
        """
        kind, _, identity = after.partition("/")
        async with self._db.transaction(tenant, read_only=True) as tx:
            row = await _found(tx, policy)
            rows = await store.bindings(tx, row["policy_id"], (kind, identity), limit + 1)
        shown = [_binding(one) for one in rows[:limit]]
        if len(rows) <= limit:
            return shown, None
        return shown, f"{shown[-1]['identity_type']}/{shown[-1]['identity_id']}"


# --- what is checked --------------------------------------------------------------


def _check_name(name: str) -> None:
    if not is_name(name):
        raise ConfigError(
            "is made of letters, digits and . _ -, at most 128, begins with a letter or digit, and"
            " is no policy's id",
            where="name",
        )


def _checked(rules: Sequence[NewRule]) -> list[store.RuleRow]:
    """As they are stored: each permission once, in one order."""
    if len(rules) > MAX_RULES:
        raise ConfigError(f"has more than {MAX_RULES} rules: make two policies", where="rules")
    found: list[store.RuleRow] = []
    for number, rule in enumerate(rules):
        at = f"rules[{number}]"
        try:
            new_pattern(rule.path_pattern)
        except PatternError as problem:
            raise ConfigError(f"{problem}", where=f"{at}.path_pattern") from None
        if not rule.permissions:
            raise ConfigError(
                f"is empty: give it one of {', '.join(Permission)}", where=f"{at}.permissions"
            )
        given = set(rule.permissions)
        found.append((rule.path_pattern, [str(p) for p in Permission if p in given]))
    return found


def _check_revision(row: Row, rev: int | None) -> None:
    if rev is not None and row["rev"] != rev:
        raise VersionConflictError(
            f"the policy {row['name']} is at revision {row['rev']}, not {rev}: look at it again"
        )


async def _set_rules(tx: Transaction, policy: str, rules: Sequence[store.RuleRow]) -> None:
    await store.set_rules(tx, policy, rules)
    if await store.count_rules(tx) > MOST_RULES:
        raise ConfigError(
            f"all policies together have more than {MOST_RULES:,} rules: put some together with"
            " wildcards",
            where="rules",
            code="too_many_policies",
        )


def _taken(name: str) -> PolicyExistsError:
    return PolicyExistsError(f"there is a policy {name} already: choose another name, or change it")


async def _found(tx: Transaction, policy: str) -> Row:
    row = await store.find(tx, policy) if is_reference(policy) else None
    if row is None:
        raise NotFoundError(
            "there is no such policy: name one by its id or its name", code="policy_not_found"
        )
    return row


# --- what is shown ----------------------------------------------------------------


async def _show(tx: Transaction, policy: str) -> dict[str, object]:
    row = await _found(tx, policy)
    ruled = _by_policy(await store.rules(tx, [row["policy_id"]]))
    return _shown(row, ruled.get(row["policy_id"], []))


def _by_policy(rows: Iterable[Row]) -> Mapping[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        rule: dict[str, object] = {
            "path_pattern": row["path_pattern"],
            "permissions": list(row["permissions"]),
        }
        found.setdefault(row["policy_id"], []).append(rule)
    return found


def _shown(row: Row, rules: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {
        "id": row["policy_id"],
        "name": row["name"],
        "description": row["description"],
        "rules": list(rules),
        "bindings": row["bindings"],
        "rev": row["rev"],
        "created_by": row["created_by"],
        "created_at": time_of(row["created_at"]),
        "updated_at": time_of(row["updated_at"]),
    }


def _binding(row: Row) -> dict[str, Any]:
    return {
        "identity_type": str(BoundType(row["identity_type"])),
        "identity_id": row["identity_id"],
        "created_by": row["created_by"],
        "created_at": time_of(row["created_at"]),
    }
