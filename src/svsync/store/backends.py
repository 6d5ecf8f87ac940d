"""Backends that are made through the API: what they were authorised for, and the states of
their secrets."""

from collections.abc import Sequence

from svsync.domain.authorisations import Authorised
from svsync.domain.ids import BackendId
from svsync.store.columns import columns
from svsync.store.database import Row, Transaction


async def bind(tx: Transaction, backend: BackendId, what: Authorised, by: str) -> None:
    """Remember what somebody authorised a stored backend for, in place of what was before."""
    await tx.execute(
        "backends.bind", tx.tenant, backend, what.credential, what.origin, what.mapping, by
    )


async def bound(tx: Transaction, backend: BackendId) -> Authorised | None:
    """What a backend is authorised for."""
    row = await tx.fetchrow("backends.bound", tx.tenant, backend)
    if row is None:
        return None
    return Authorised(row["credential"], row["origin"], row["mapping"])


async def release(tx: Transaction, backend: BackendId) -> None:
    """Forget it: the operator's file answers for the backend."""
    await tx.execute("backends.release", tx.tenant, backend)


async def namesake(tx: Transaction, backend: BackendId, name: str) -> BackendId | None:
    """Another backend that would be taken for one of this id and name."""
    found = await tx.fetchval("backends.namesake", tx.tenant, backend, name)
    return None if found is None else BackendId(found)


async def states(
    tx: Transaction,
    backend: BackendId,
    after: tuple[str, str],
    state: str | None,
    ranges: Sequence[tuple[str, str]],
    limit: int,
) -> list[Row]:
    """Pairs behind these paths, in one state or in any but `detached`, without any value. Their
    local ones lie in these ranges (from, inclusive, and to, exclusive), which are in order and
    do not overlap."""
    if not ranges:
        return []
    found = (tx.tenant, backend, *after, state, *columns(ranges, 2), limit)
    return await tx.fetch("backends.states", *found)
