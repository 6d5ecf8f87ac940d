"""Secrets of change feeds that arrive over HTTP: made, listed, revoked, and vouched by.

A feed of a backend may have several at a time, so that a sender is given a new one before
the old one is revoked. Each is looked up anew for each request and remembered nowhere, so a
revocation holds from the next request on.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from svsync.domain.access import (
    SECRET_BYTES,
    Caller,
    Identity,
    IdentityType,
    UnauthenticatedError,
    shut,
    token_hash,
)
from svsync.domain.errors import ConfigError, NotFoundError
from svsync.domain.feeds import HTTP_FEEDS, is_secret_id, secret_name, secret_text
from svsync.domain.ids import BackendId, TenantId
from svsync.services.secrets import time_of
from svsync.store import federation
from svsync.store import feed_secrets as store
from svsync.store.database import Database, Row

MOST_SECRETS: Final = 10
"""Of one feed of one backend."""
_NO_HASH: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Sender:
    """Whoever holds a feed's secret, or a token in its place.

    Attributes:
        caller: an identity of the type `feed`, without any scope.
        backend: whose changes it may tell of, by this feed alone.
    """

    caller: Caller
    backend: BackendId
    feed: str


class FeedSecrets:
    """Who may tell of changes, of every tenant."""

    def __init__(
        self, db: Database, *, ids: Callable[[str], str], random: Callable[[int], bytes]
    ) -> None:
        """`ids` draws an id with a prefix, `random` so many unpredictable bytes."""
        self._db = db
        self._ids = ids
        self._random = random

    async def create(
        self, tenant: TenantId, backend: str, feed: str, *, by: str
    ) -> dict[str, object]:
        """A new secret, with its text: here, and never again.

        Raises:
            NotFoundError: there is no such backend.
            ConfigError: `where` is `feed`: no such feed arrives over HTTP, or the backend
                does not name it; or `too_many_feed_secrets`.
        """
        if feed not in HTTP_FEEDS:
            raise ConfigError(f"must be a feed over HTTP: {' or '.join(HTTP_FEEDS)}", where="feed")
        secret_id = self._ids("fds")
        text = secret_text(tenant, secret_id, self._random(SECRET_BYTES))
        async with self._db.transaction(tenant) as tx:
            spec = (await federation.get(tx, backend)).spec
            if all(entry.get("feed") != feed for entry in spec.events):
                raise ConfigError(
                    f"is not among the events of the backend {spec.id}: add `{{feed: {feed}}}`"
                    " there first",
                    where="feed",
                )
            made = await store.add(tx, secret_id, spec.id, feed, token_hash(text), by)
            if made is None:
                raise NotFoundError("there is no such backend", code="backend_not_found")
            if await store.count(tx, spec.id, feed) > MOST_SECRETS:
                raise ConfigError(
                    f"the feed has {MOST_SECRETS} secrets: revoke one that is not used any more",
                    code="too_many_feed_secrets",
                )
        return {
            "id": secret_id,
            "backend_id": spec.id,
            "feed": feed,
            "path": f"/v1/events/{feed}/{spec.id}",
            "created_by": by,
            "created_at": time_of(made["created_at"]),
            "secret": text,
        }

    async def list_secrets(
        self, tenant: TenantId, backend: str | None = None
    ) -> list[dict[str, object]]:
        """Those of a backend, or of all, oldest first, without what they are made of.

        Raises NotFoundError: there is no such backend.
        """
        async with self._db.transaction(tenant, read_only=True) as tx:
            named = None if backend is None else (await federation.get(tx, backend)).spec.id
            return [_shown(row) for row in await store.list_secrets(tx, named)]

    async def revoke(self, tenant: TenantId, secret_id: str, backend: str | None = None) -> None:
        """Let a secret count no more, for every request that begins from now on.

        Raises NotFoundError: there is none, or no such backend.
        """
        async with self._db.transaction(tenant) as tx:
            named = None if backend is None else (await federation.get(tx, backend)).spec.id
            if not (is_secret_id(secret_id) and await store.remove(tx, secret_id, named)):
                # What was given may be the secret's own text, so it is not repeated.
                raise NotFoundError(
                    "there is no such secret of a feed: list those there are",
                    code="feed_secret_not_found",
                )

    async def vouch(self, text: str) -> Sender:
        """Who a secret's text vouches for. One look-up by key.

        Raises:
            UnauthenticatedError: no secret's text, unknown, or revoked.
            ForbiddenError: `tenant_shut`, `tenant_shredded`: its tenant is not active.
            StoreUnavailableError: nobody can be known now.
        """
        named = secret_name(text)
        if named is None:
            raise not_known()
        tenant, secret_id = named
        async with self._db.transaction(tenant) as tx:
            row = await store.find(tx, secret_id)
            stored = _NO_HASH if row is None else row["hash"]
            if not hmac.compare_digest(token_hash(text), stored) or row is None:
                raise not_known()
            if row["status"] != "active":
                raise shut(row["status"])
            if row["first_today"]:
                await store.used(tx, secret_id)
        caller = Caller(
            tenant=tenant,
            slug=row["slug"],
            identity=Identity(IdentityType.FEED, f"feed:{secret_id}"),
            token_id=secret_id,
            scopes=frozenset(),
            epoch=row["auth_epoch"],
        )
        return Sender(caller, BackendId(row["backend_id"]), row["feed"])


def not_known() -> UnauthenticatedError:
    """What is said of whoever no secret and no token vouches for."""
    return UnauthenticatedError(
        "the secret of the feed, or the token in its place, is not valid here"
    )


def _shown(row: Row) -> dict[str, object]:
    return {
        "id": row["secret_id"],
        "backend_id": row["backend_id"],
        "feed": row["feed"],
        "created_by": row["created_by"],
        "created_at": time_of(row["created_at"]),
        "last_used_on": row["last_used_on"] and row["last_used_on"].isoformat(),
    }
