"""Policies, their rules, and whom they are bound to."""

from collections.abc import Collection, Sequence

from svsync.domain.bindings import Bound
from svsync.store.database import Row, Transaction

RuleRow = tuple[str, Sequence[str]]
"""A rule's pattern and its permissions."""


# --- policies ---------------------------------------------------------------------


async def add(
    tx: Transaction, policy: str, name: str, description: str | None, by: str | None
) -> bool:
    """A policy without rules. False: another one has the name."""
    args = (tx.tenant, policy, name, description, by)
    return await tx.fetchrow("policies.add", *args) is not None


async def set_rules(tx: Transaction, policy: str, rules: Sequence[RuleRow]) -> None:
    """In place of those that it has."""
    patterns = [pattern for pattern, _ in rules]
    permissions = [",".join(given) for _, given in rules]
    await tx.execute("policies.set_rules", tx.tenant, policy, patterns, permissions)


async def find(tx: Transaction, reference: str) -> Row | None:
    """By id or name."""
    return await tx.fetchrow("policies.find", tx.tenant, reference)


async def page(tx: Transaction, after: str, limit: int) -> list[Row]:
    """By name, behind `after`."""
    return await tx.fetch("policies.page", tx.tenant, after, limit)


async def rules(tx: Transaction, policies: Collection[str]) -> list[Row]:
    """The rules of some policies, each policy's in their order."""
    return await tx.fetch("policies.rules", tx.tenant, list(policies))


async def change(tx: Transaction, policy: str, name: str, description: str | None) -> bool:
    """False: another policy has the name."""
    return await tx.execute("policies.change", tx.tenant, policy, name, description) == 1


async def delete(tx: Transaction, policy: str) -> None:
    """With its rules and bindings."""
    await tx.execute("policies.delete", tx.tenant, policy)


async def count(tx: Transaction) -> int:
    return int(await tx.fetchval("policies.count", tx.tenant))


async def count_rules(tx: Transaction) -> int:
    """Of all policies."""
    return int(await tx.fetchval("policies.count_rules", tx.tenant))


# --- bindings ---------------------------------------------------------------------


async def bind(tx: Transaction, policy: str, bound: Bound, by: str | None) -> bool:
    """False: it is bound so already."""
    args = (tx.tenant, policy, str(bound.type), bound.id, by)
    return await tx.fetchrow("policies.bind", *args) is not None


async def binding(tx: Transaction, policy: str, bound: Bound) -> Row | None:
    return await tx.fetchrow("policies.binding", tx.tenant, policy, str(bound.type), bound.id)


async def unbind(tx: Transaction, policy: str, bound: Bound) -> bool:
    """False: it was not bound so."""
    return await tx.execute("policies.unbind", tx.tenant, policy, str(bound.type), bound.id) == 1


async def bindings(tx: Transaction, policy: str, after: tuple[str, str], limit: int) -> list[Row]:
    """By type and id, behind `after`."""
    return await tx.fetch("policies.bindings", tx.tenant, policy, *after, limit)


async def crowding(tx: Transaction, policy: str, bound: Bound) -> Row:
    """`of_policy`: how many it is bound to; `of_identity`: how many policies somebody has."""
    row = await tx.fetchrow("policies.crowding", tx.tenant, policy, str(bound.type), bound.id)
    assert row is not None
    return row


# --- what decides -----------------------------------------------------------------


async def ways(
    tx: Transaction, policy: str, identity: tuple[str, str], groups: Sequence[str]
) -> list[Row]:
    """The bindings by which an identity (its type and id) or its groups have a policy."""
    return await tx.fetch("policies.ways", tx.tenant, policy, *identity, list(groups))


async def near(
    tx: Transaction,
    path: str,
    beside: str,
    identity: tuple[str, str],
    groups: Sequence[str],
    *,
    named: int,
    limit: int,
) -> list[Row]:
    """Rules whose patterns begin as a path does, and behind them those of somebody's whose
    patterns begin with `beside`; `held`: somebody has them; `bound`: `named` of those that
    have them, each as type, space, id."""
    return await tx.fetch(
        "policies.near", tx.tenant, path, *identity, list(groups), named, limit, beside
    )
