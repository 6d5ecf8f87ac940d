"""Endpoints of webhooks: made, shown, changed, removed, their secrets rotated, tried.

A signing secret is shown once, when it is made; afterwards it exists sealed, by a key of
its own purpose. Deliveries are made and sent in `services/deliveries.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

from svsync.domain import webhooks as rules
from svsync.domain.errors import ConfigError, NotFoundError, VersionConflictError
from svsync.domain.ids import EndpointId, KeyId, TenantId
from svsync.domain.webhooks import Answer, Failure, SigningSecrets, Subscription
from svsync.services.sealing import Sealed, Sealing
from svsync.store import webhooks as store
from svsync.store.database import Database, Row
from svsync.store.webhooks import SealedSecrets

MOST_ENDPOINTS: Final = 100
"""Of one tenant: each event is judged for each of them."""
MOST_DELIVERIES: Final = 1_000
"""On one page."""
_STATES: Final = ("due", "delivered", "dead")

T = TypeVar("T")


class Sender(Protocol):
    """What carries one message to one receiver."""

    @property
    def timeout(self) -> float:
        """Seconds that one attempt may take."""
        ...

    def check(self, url: str) -> None:
        """Raises ConfigError for an URL that no message may go to."""
        ...

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One attempt; it does not raise for what a receiver does."""
        ...


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What of an endpoint becomes another; None: stays as it is."""

    url: str | None = None
    types: Sequence[str] | None = None
    path_patterns: Sequence[str] | None = None
    only_if_changed: bool | None = None
    active: bool | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where an endpoint is, and what it is told: what somebody was asked about."""

    url: str
    wants: Subscription

    def changed(self, change: EndpointChange) -> "Target":
        """As it is after a change."""
        wants = self.wants
        return Target(
            _or(change.url, self.url),
            Subscription(
                tuple(_or(change.types, wants.types)),
                tuple(_or(change.path_patterns, wants.path_patterns)),
                _or(change.only_if_changed, wants.only_if_changed),
            ),
        )


class Webhooks:
    """The endpoints of tenants, as people and programs look after them."""

    def __init__(
        self,
        db: Database,
        sealing: Sealing,
        sender: Sender,
        *,
        ids: Callable[[str], str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`ids` makes an id of a prefix; `now` is the time that messages are signed with."""
        self._db = db
        self._sealing = sealing
        self._sender = sender
        self._ids = ids
        self._now = now

    async def create(
        self, tenant: TenantId, url: str, wants: Subscription, *, by: str | None = None
    ) -> dict[str, object]:
        """A new endpoint, with its secret: here, and never again.

        Raises:
            ConfigError: names the field: a target, type or pattern that cannot be used.
        """
        wants.check()
        self._sender.check(url)
        endpoint = EndpointId(self._ids("whk"))
        secrets = SigningSecrets(rules.make_secret(self._sealing.random))
        keys = await self._sealing.for_tenant(tenant)
        sealed = await keys.seal_webhook(endpoint, secrets.to_bytes())
        async with self._db.transaction(tenant) as tx:
            if len(await store.list_endpoints(tx)) >= MOST_ENDPOINTS:
                raise ConfigError(
                    f"there are {MOST_ENDPOINTS} endpoints: remove one first",
                    code="too_many_endpoints",
                )
            await store.add(tx, endpoint, url, wants, _stored(sealed), by)
            row = _found(await store.get(tx, endpoint), endpoint)
        return {**_shown(row), "secret": secrets.current}

    async def list_endpoints(self, tenant: TenantId) -> list[dict[str, object]]:
        """All endpoints, oldest first, without their secrets."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            return [_shown(row) for row in await store.list_endpoints(tx)]

    async def show(self, tenant: TenantId, endpoint: str) -> dict[str, object]:
        """Raises NotFoundError."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            return _shown(_found(await store.get(tx, endpoint), endpoint))

    async def target(self, tenant: TenantId, endpoint: str) -> Target:
        """Raises NotFoundError."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            return _target(_found(await store.get(tx, endpoint), endpoint))

    def check(self, target: Target) -> None:
        """Raises ConfigError: names the field: a target, type or pattern that cannot be used."""
        target.wants.check()
        self._sender.check(target.url)

    async def update(
        self,
        tenant: TenantId,
        endpoint: str,
        change: EndpointChange,
        *,
        seen: Target | None = None,
        rev: int | None = None,
    ) -> dict[str, object]:
        """The endpoint as it is then. What is due to one that is disabled is dead.

        Args:
            seen: what it must be yet, because somebody was asked about that; None: anything.
            rev: the revision that it must be at; None: any.

        Raises:
            NotFoundError: there is none.
            ConfigError: as `create`.
            VersionConflictError: it is not as it was seen, or at another revision.
        """
        if change.url is not None:
            self._sender.check(change.url)
        async with self._db.transaction(tenant) as tx:
            row = _found(await store.lock(tx, endpoint), endpoint)
            _check_revision(row, rev)
            was = _target(row)
            if seen is not None and seen != was:
                raise VersionConflictError(
                    f"the endpoint {endpoint} was changed meanwhile: look at it, and try again"
                )
            now = was.changed(change)
            now.wants.check()
            active = _or(change.active, row["state"] == "active")
            stays = active == (row["state"] == "active")
            await store.change(
                tx,
                row["endpoint_id"],
                now.url,
                now.wants,
                state="active" if active else "disabled",
                reason=row["reason"] if stays else None if active else "by_request",
            )
            if not active:
                await store.bury(tx, row["endpoint_id"], Failure.ENDPOINT_DISABLED)
            return _shown(_found(await store.get(tx, endpoint), endpoint))

    async def delete(self, tenant: TenantId, endpoint: str, *, rev: int | None = None) -> None:
        """With all its deliveries; `rev` as of `update`.

        Raises NotFoundError, VersionConflictError.
        """
        async with self._db.transaction(tenant) as tx:
            _check_revision(_found(await store.lock(tx, endpoint), endpoint), rev)
            await store.remove(tx, endpoint)

    async def rotate_secret(
        self, tenant: TenantId, endpoint: str, *, at_once: bool = False
    ) -> dict[str, object]:
        """A new secret, shown once. The one before signs as well for a day, unless `at_once`.

        Raises NotFoundError.
        """
        keys = await self._sealing.for_tenant(tenant)
        new = rules.make_secret(self._sealing.random)
        async with self._db.transaction(tenant, read_only=True) as tx:
            row = _found(await store.get(tx, endpoint), endpoint)
        stored = False
        while not stored:
            seen, known = row, row["endpoint_id"]
            old = SigningSecrets.from_bytes(await keys.open_webhook(known, _sealed(seen)))
            secrets = old.rotated(new, keep=not at_once)
            sealed = await keys.seal_webhook(known, secrets.to_bytes())
            async with self._db.transaction(tenant) as tx:
                row = _found(await store.lock(tx, endpoint), endpoint)
                stored = row["nonce"] == seen["nonce"]  # else they were sealed anew meanwhile
                if stored:
                    await store.set_secrets(tx, known, _stored(sealed))
                    row = _found(await store.get(tx, endpoint), endpoint)
        until = row["rotated_at"] + timedelta(seconds=rules.OVERLAP_S)
        return {
            "id": row["endpoint_id"],
            "secret": new,
            "previous_valid_until": None if at_once else _time(until),
        }

    async def send_test(self, tenant: TenantId, endpoint: str) -> dict[str, object]:
        """Send one message now, once, also where the endpoint is disabled; what came of it.
        It is no event, so it is neither repeated nor kept. Raises NotFoundError."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            row = _found(await store.get(tx, endpoint), endpoint)
        secrets = await open_secrets(self._sealing, tenant, row)
        now = self._now()
        message = rules.message_id(self._ids("evt"), row["endpoint_id"])
        body = rules.body_of(rules.TEST_TYPE, now, f'{{"endpoint_id": "{row["endpoint_id"]}"}}')
        headers = rules.signed_headers(message, int(now.timestamp()), body, secrets)
        started = monotonic()
        answer = await self._sender.send(row["url"], headers, body)
        return {
            "id": row["endpoint_id"],
            "webhook_id": message,
            "delivered": answer.error is None,
            "status_code": answer.status,
            "error_code": answer.error,
            "duration_ms": round((monotonic() - started) * 1000),
        }

    async def deliveries(
        self,
        tenant: TenantId,
        endpoint: str,
        *,
        state: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """An endpoint's deliveries, newest first; `cursor` is the `next_cursor` of the page
        before. `state`: due, delivered or dead.

        Raises:
            NotFoundError: there is no such endpoint.
            ConfigError: names the field.
        """
        if state is not None and state not in _STATES:
            raise ConfigError(f"is one of {', '.join(_STATES)}", where="state")
        if not 1 <= limit <= MOST_DELIVERIES:
            raise ConfigError(f"is a number from 1 to {MOST_DELIVERIES}", where="limit")
        async with self._db.transaction(tenant, read_only=True) as tx:
            found = _found(await store.get(tx, endpoint), endpoint)
            rows = await store.deliveries(tx, endpoint, state, cursor, limit + 1)
        page = rows[:limit]
        return {
            "deliveries": [_shown_delivery(found["endpoint_id"], row) for row in page],
            "next_cursor": page[-1]["event_id"] if len(rows) > limit else None,
        }

    async def replay(self, tenant: TenantId, endpoint: str, *, event: str | None = None) -> int:
        """Send what is dead once more, as if it were new and under the same `webhook-id`; with
        `event` that one, also where it was delivered. How many are due now.

        Raises:
            NotFoundError: no such endpoint, or it was never told of such an event.
            ConfigError: the endpoint is disabled.
        """
        async with self._db.transaction(tenant) as tx:
            row = _found(await store.lock(tx, endpoint), endpoint)
            if row["state"] != "active":
                raise ConfigError(
                    f"the endpoint {endpoint} is disabled: enable it first",
                    code="endpoint_disabled",
                )
            many = await store.replay(tx, row["endpoint_id"], event, give_up_s=rules.GIVE_UP_S)
        if event is not None and not many:
            raise NotFoundError(
                f"no delivery of {event} to {endpoint} has ended: `svsync webhooks deliveries`"
                " shows those there are",
                code="delivery_not_found",
            )
        return many


async def open_secrets(sealing: Sealing, tenant: TenantId, row: Row) -> list[str]:
    """The secrets of an endpoint's row that are valid now; the current one is the first."""
    keys = await sealing.for_tenant(tenant)
    text = await keys.open_webhook(row["endpoint_id"], _sealed(row))
    secrets = SigningSecrets.from_bytes(text)
    if secrets.previous is None or not row["rotating"]:
        return [secrets.current]
    return [secrets.current, secrets.previous]


def _or(given: T | None, stored: T) -> T:
    return stored if given is None else given


def _found(row: Row | None, endpoint: str) -> Row:
    if row is None:
        raise _no_endpoint(endpoint)
    return row


def _check_revision(row: Row, rev: int | None) -> None:
    if rev is not None and row["rev"] != rev:
        raise VersionConflictError(
            f"the endpoint {row['endpoint_id']} is at revision {row['rev']}, not {rev}: look at it"
            " again"
        )


def _target(row: Row) -> Target:
    return Target(
        row["url"],
        Subscription(tuple(row["types"]), tuple(row["path_patterns"]), row["only_if_changed"]),
    )


def _no_endpoint(endpoint: str) -> NotFoundError:
    return NotFoundError(
        f"there is no endpoint {endpoint!r}: `svsync webhooks list` shows those there are",
        code="webhook_not_found",
    )


def _sealed(row: Row) -> Sealed:
    return Sealed(KeyId(row["key_id"]), row["nonce"], row["sealed"])


def _stored(sealed: Sealed) -> SealedSecrets:
    return SealedSecrets(sealed.key_id, sealed.nonce, sealed.sealed)


def _shown(row: Row) -> dict[str, object]:
    """An endpoint as the API and `--json` give it."""
    return {
        "id": row["endpoint_id"],
        "url": row["url"],
        "types": list(row["types"]),
        "path_patterns": list(row["path_patterns"]),
        "only_if_changed": row["only_if_changed"],
        "state": row["state"],
        "reason": row["reason"],
        "failures": row["failures"],
        "failing_since": _time(row["failing_since"]),
        "held_until": _time(row["held_until"]),
        "due": row["due"],
        "created_by": row["created_by"],
        "created_at": _time(row["created_at"]),
        "rev": row["rev"],
    }


def _shown_delivery(endpoint: EndpointId, row: Row) -> dict[str, object]:
    return {
        "event_id": row["event_id"],
        "webhook_id": rules.message_id(row["event_id"], endpoint),
        "type": row["type"],
        "backend_id": row["backend_id"],
        "sequence": row["sequence"],
        "state": row["state"],
        "attempts": row["attempts"],
        "next_at": _time(row["next_at"]) if row["state"] == "due" else None,
        "status_code": row["status_code"],
        "error_code": row["error_code"],
        "created_at": _time(row["created_at"]),
        "ended_at": _time(row["ended_at"]),
    }


def _time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
