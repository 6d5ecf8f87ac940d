"""Event Grid's other way in: a token of Microsoft Entra ID in place of a feed's secret.

Nothing in such a token names a tenant of svsync, so that is had from the backend which the
path names: the one whose entry under `events` pins the directory, audience and application
that the token has. Ids of backends are their tenant's, so two tenants may have the same; where
the token fits both, it opens neither.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from svsync.domain.access import Caller, Identity, IdentityType, UnauthenticatedError, token_hash
from svsync.domain.entra import ALGORITHM, Pin, check_claims, pin_of
from svsync.domain.feeds import EVENT_GRID
from svsync.domain.ids import BackendId, TenantId
from svsync.domain.scaikey import header_of, not_valid
from svsync.observe.logs import get_logger
from svsync.services.feed_secrets import Sender, not_known
from svsync.store import feed_tokens as store
from svsync.store.database import Database, Row


class Directories(Protocol):
    """Who signs tokens."""

    async def payload_of(self, directory: str, text: str) -> bytes:
        """The claims of a token, as a directory has signed them.

        Raises UnauthenticatedError: it has not, or that cannot be told now.
        """
        ...


class FeedTokens:
    """Vouches for Event Grid, for every tenant."""

    def __init__(self, db: Database, directories: Directories, *, now: Callable[[], float]) -> None:
        """`now` gives seconds since 1970."""
        self._db = db
        self._directories = directories
        self._now = now

    async def vouch(self, text: str, backend: str) -> Sender:
        """Who a token vouches for, as a sender to this backend.

        Raises:
            UnauthenticatedError: nobody, or nobody knows; in the same words for all.
            StoreUnavailableError: nobody can be known now.
        """
        try:
            if header_of(text).algorithm != ALGORITHM:
                raise not_valid()
        except UnauthenticatedError:
            raise not_known() from None
        found: list[Row] = []
        refused: _SignedError | None = None
        for row, spec in await store.find(self._db, BackendId(backend)):
            try:
                await self._check(text, _pins(spec.events))
            except _SignedError as problem:
                refused = problem
            except UnauthenticatedError:
                continue
            else:
                found.append(row)
        if len(found) != 1:
            # By then it is known whether a directory of ours has signed it: nobody else can
            # fill the log so.
            if found:
                get_logger().warning("feed_token_fits_two", backend_id=backend)
            elif refused is not None:
                get_logger().warning(
                    "feed_token_refused", backend_id=backend, detail=refused.message
                )
            raise not_known()
        return _sender(found[0], BackendId(backend), text)

    async def _check(self, text: str, pins: Iterable[Pin]) -> None:
        """Raises UnauthenticatedError: it fits none of the pins."""
        problem: UnauthenticatedError = not_valid()
        for pin in pins:
            try:
                payload = await self._directories.payload_of(pin.directory, text)
            except UnauthenticatedError:
                continue
            try:
                check_claims(payload, pin, self._now())
            except UnauthenticatedError as refused:
                problem = _SignedError(refused.message)
            else:
                return
        raise problem


class _SignedError(UnauthenticatedError):
    """A directory of ours has signed it, and yet it does not fit."""


def _pins(events: Iterable[Mapping[str, object]]) -> Iterable[Pin]:
    named = [pin_of(entry) for entry in events if entry.get("feed") == EVENT_GRID]
    return [pin for pin in named if pin is not None]


def _sender(row: Row, backend: BackendId, text: str) -> Sender:
    caller = Caller(
        tenant=TenantId(row["tenant_id"]),
        slug=row["slug"],
        identity=Identity(IdentityType.FEED, f"feed:entra.{backend}"),
        token_id=f"jwt_{token_hash(text).hex()[:32]}",
        scopes=frozenset(),
        epoch=row["auth_epoch"],
    )
    return Sender(caller, backend, EVENT_GRID)
