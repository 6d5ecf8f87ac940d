"""Is a backend still what was authorised? Asked each time that one is opened."""

from svsync.domain.authorisations import authorised_of
from svsync.domain.errors import ConfigError
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.domain.ids import TenantId
from svsync.store import backends as store
from svsync.store.database import Database


class Authorisations:
    """What backends of every tenant were authorised for."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def check(self, spec: BackendSpec, tenant: TenantId) -> None:
        """Nothing for a backend of the operator's file.

        Raises:
            ConfigError: `authorisation_changed`: it is not what somebody was asked about.
        """
        if spec.managed_by is ManagedBy.FILE:
            return
        async with self._db.transaction(tenant, read_only=True) as tx:
            bound = await store.bound(tx, spec.id)
        if bound != authorised_of(spec):
            raise ConfigError(
                f"the backend {spec.id} is not as it was authorised: have somebody who may use"
                " its credential set its endpoint, credential and mapping again",
                code="authorisation_changed",
            )
