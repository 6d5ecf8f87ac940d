"""Groups of identities: what is known of them where no token's claim says it.

A directory that signs tokens says in each of them what groups its holder is in. A static
token says nothing of it; for such an identity this is all that is known.
"""

from collections.abc import Sequence
from typing import Final

from svsync.domain.access import Identity
from svsync.domain.bindings import group_name
from svsync.domain.errors import UsageError
from svsync.domain.ids import TenantId
from svsync.services.secrets import time_of
from svsync.store import access
from svsync.store import groups as store
from svsync.store.database import Database

MOST_GROUPS: Final = 500
"""Of one identity."""


class Groups:
    """The groups of identities, of every tenant."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def set_groups(
        self, tenant: TenantId, identity: Identity, names: Sequence[str]
    ) -> list[str]:
        """In place of those that were known; none: the identity is in no group.

        Raises:
            UsageError: a name that cannot be used, or too many.
        """
        found = sorted({group_name(name) for name in names})
        if len(found) > MOST_GROUPS:
            raise UsageError(f"an identity is in {MOST_GROUPS} groups at most")
        async with self._db.transaction(tenant) as tx:
            await access.raise_epoch(tx)
            await store.set_groups(tx, identity.id, found)
        return found

    async def list_groups(self, tenant: TenantId) -> list[dict[str, object]]:
        """Identities of which groups are known, by id."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            return [
                {
                    "identity_id": row["identity_id"],
                    "groups": list(row["groups"]),
                    "refreshed_at": time_of(row["refreshed_at"]),
                }
                for row in await store.list_groups(tx)
            ]
