"""Static tokens: hashes, found by key, and what each is good for."""

from collections.abc import Sequence

from svsync.store.database import Row, Transaction


async def add(
    tx: Transaction,
    token_id: str,
    hashed: bytes,
    *,
    identity_type: str,
    identity_id: str,
    scopes: Sequence[str],
    created_by: str,
    expires_in: float | None,
) -> Row:
    """Store a token's hash; its `created_at` and `expires_at`, `expires_in` seconds later."""
    row = await tx.fetchrow(
        "access.add", tx.tenant, token_id, hashed, identity_type, identity_id, list(scopes),
        created_by, expires_in,
    )  # fmt: skip
    assert row is not None
    return row


async def find(tx: Transaction, token_id: str) -> Row | None:
    return await tx.fetchrow("access.find", tx.tenant, token_id)


async def used(tx: Transaction, token_id: str) -> None:
    """Today it was."""
    await tx.execute("access.used", tx.tenant, token_id)


async def list_tokens(
    tx: Transaction, before: str | None = None, limit: int | None = None
) -> list[Row]:
    """The newest first, from the one before an id on."""
    return await tx.fetch("access.list", tx.tenant, before, limit)


async def revoke(tx: Transaction, token_id: str) -> bool:
    """False: there is no such token."""
    return await tx.execute("access.revoke", tx.tenant, token_id) == 1


async def raise_epoch(tx: Transaction) -> None:
    """Rights changed: who knew them asks again, from the moment that this is committed."""
    await tx.execute("access.raise_epoch", tx.tenant)


async def rules_of(
    tx: Transaction, identity_type: str, identity_id: str, groups: Sequence[str]
) -> list[Row]:
    return await tx.fetch("access.rules_of", tx.tenant, identity_type, identity_id, list(groups))


async def epoch(tx: Transaction) -> int:
    return int(await tx.fetchval("access.epoch", tx.tenant))
