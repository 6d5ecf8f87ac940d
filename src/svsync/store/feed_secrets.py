"""Secrets of change feeds that arrive over HTTP: hashes, found by key."""

from svsync.domain.ids import BackendId
from svsync.store.database import Row, Transaction


async def add(
    tx: Transaction, secret_id: str, backend: BackendId, feed: str, hashed: bytes, by: str
) -> Row | None:
    """Store a secret's hash; its `created_at`. None: the backend has gone."""
    return await tx.fetchrow("feed_secrets.add", tx.tenant, secret_id, backend, feed, hashed, by)


async def find(tx: Transaction, secret_id: str) -> Row | None:
    return await tx.fetchrow("feed_secrets.find", tx.tenant, secret_id)


async def used(tx: Transaction, secret_id: str) -> None:
    """Today it was."""
    await tx.execute("feed_secrets.used", tx.tenant, secret_id)


async def list_secrets(tx: Transaction, backend: BackendId | None) -> list[Row]:
    """Those of a backend, or of all."""
    return await tx.fetch("feed_secrets.list", tx.tenant, backend)


async def count(tx: Transaction, backend: BackendId, feed: str) -> int:
    return int(await tx.fetchval("feed_secrets.count", tx.tenant, backend, feed))


async def remove(tx: Transaction, secret_id: str, backend: BackendId | None) -> bool:
    """False: there is none, or it is another backend's."""
    return await tx.execute("feed_secrets.remove", tx.tenant, secret_id, backend) == 1
