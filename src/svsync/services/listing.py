"""Lists of secrets for somebody who may list only some of them.

What policies give begins with certain strings, so only those ranges of paths are looked
at, and of each path found there it is decided whether it may be shown. A page looks at a
bounded number of secrets: where most of those may not be shown it ends early, and says
where to go on. That place may be a path which the caller may not know of, and is sealed
then; one that was shown stands as it is.

What is read through is joined by path, as its backends list it now: no transaction is open
while one is asked. What cannot be had of it makes the page incomplete, and never a failure.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from svsync.domain.changes import PairStatus
from svsync.domain.envelope import NONCE_SIZE, Purpose
from svsync.domain.errors import KeyServiceError, UsageError
from svsync.domain.ids import KeyId, LocalPath, SecretId, TenantId
from svsync.domain.paths import MAX_LOCAL_BYTES, local_problem
from svsync.domain.policies import Permission, Permissions
from svsync.services.proxied_folders import BEHIND
from svsync.services.proxied_walk import Listed, ProxiedWalk
from svsync.services.proxying import Proxying
from svsync.services.sealing import Sealed, Sealing
from svsync.services.secrets import MAX_PAGE, listed
from svsync.store import federation
from svsync.store import secrets as store
from svsync.store.database import Database, Row, Transaction

LOOKED_AT: Final = 5_000
"""Secrets that one page looks at, of which it may show none."""
_SEALED: Final = "~"
"""What a sealed place begins with, and no path."""
_NEXT: Final = "\x01"
"""The least string that is greater than another begins with that and this."""


@dataclass(slots=True)
class _Page:
    """What was found so far; `after`: all up to this was seen, `more`: there may be more."""

    limit: int
    after: str
    shown: list[Listed] = field(default_factory=list)
    more: bool = False


class _Stored:
    """The secrets of every state that are stored in some ranges of paths, in order.

    Attributes:
        stopped: no more are looked at, and all up to this was seen; None: it did not stop.
        epochs: the numbers that the tenant's backends had together meanwhile.
    """

    def __init__(
        self, db: Database, tenant: TenantId, given: Sequence[str], after: str, most: int
    ) -> None:
        self._db = db
        self._tenant = tenant
        self._given = given
        self._after = after
        self._left = most
        self._rows: list[Row] = []
        self._all = False
        self.stopped: str | None = None
        self.epochs: set[int] = set()

    async def least(self, wanted: int) -> Row | None:
        """The first that was not taken; `wanted`: as many are likely to be asked for."""
        if not self._rows and not self._all and self.stopped is None:
            await self._fetch(min(wanted, self._left))
        return self._rows[-1] if self._rows else None

    def take(self) -> None:
        self._rows.pop()
        if not self._rows and not self._left and not self._all:
            self.stopped = self._after

    async def _fetch(self, size: int) -> None:
        ranges = list(_ranges(self._given, self._after))

        async def look(tx: Transaction) -> tuple[int, list[Row]]:
            return await federation.epoch(tx), await store.in_ranges(tx, ranges, size)

        epoch, rows = await self._db.read(self._tenant, look)
        self.epochs.add(epoch)
        self._all = len(rows) < size
        self._left -= len(rows)
        if rows:
            self._after = rows[-1]["path"]
        self._rows = rows[::-1]


class Listing:
    """Lists of secrets, of every tenant."""

    def __init__(
        self, db: Database, sealing: Sealing, proxying: Proxying, *, looked_at: int = LOOKED_AT
    ) -> None:
        """`looked_at`: stored secrets that one page looks at."""
        self._db = db
        self._sealing = sealing
        self._proxying = proxying
        self._looked_at = looked_at

    async def page(
        self,
        tenant: TenantId,
        permissions: Permissions,
        prefix: str,
        *,
        limit: int,
        cursor: str = "",
    ) -> dict[str, object]:
        """Live secrets whose paths begin with a string and that the caller may list, by path;
        what is read through among them. Who asks was recorded before.

        `incomplete`: some of what lies in this part of the list may be missing, for a backend
        did not tell it, or was configured anew meanwhile.

        Raises:
            UsageError: `bad_cursor`: the cursor is none of this tenant's.
            StoreError, KeyServiceError: the store or its keys cannot be used.
        """
        after = await self._opened(tenant, cursor)
        given = list(_narrowed(permissions.prefixes(Permission.LIST), prefix))
        page = _Page(min(max(1, limit), MAX_PAGE), after)
        stored = _Stored(self._db, tenant, given, after, self._looked_at)
        # Before what is stored is looked at: what is hidden for being read through is so under
        # this epoch, or another one was met meanwhile.
        walk = await self._proxying.walk(tenant, permissions, given, after)
        await _join(page, permissions, stored, walk)
        following = None
        if page.more:
            last = page.shown[-1]["path"] if page.shown else None
            shows_last = last == page.after or len(page.shown) == page.limit
            following = str(last) if shows_last else await self._seal(tenant, page.after)
        incomplete = walk.incomplete or bool(stored.epochs - {walk.epoch})
        return {"secrets": page.shown, "next_cursor": following, "incomplete": incomplete}

    # --- a place to go on that nobody may know ------------------------------------

    async def _seal(self, tenant: TenantId, path: str) -> str:
        keys = await self._sealing.for_tenant(tenant)
        sealer = await keys.reserve(1)
        # Of one length, so that it does not tell that of the path.
        plaintext = path.ljust(MAX_LOCAL_BYTES).encode()
        sealed = sealer.seal(Purpose.CURSOR, SecretId(0), LocalPath(""), 0, plaintext)
        raw = int(sealed.key_id).to_bytes(4) + sealed.nonce + sealed.sealed
        return _SEALED + base64.urlsafe_b64encode(raw).decode().rstrip("=")

    async def _opened(self, tenant: TenantId, cursor: str) -> str:
        if not cursor.startswith(_SEALED):
            if cursor and local_problem(cursor):
                raise _bad_cursor()
            return cursor
        text = cursor.removeprefix(_SEALED)
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            raise _bad_cursor() from None
        key, nonce, sealed = raw[:4], raw[4 : 4 + NONCE_SIZE], raw[4 + NONCE_SIZE :]
        if int.from_bytes(key) >= 2**31:
            raise _bad_cursor()
        keys = await self._sealing.for_tenant(tenant)
        try:
            plaintext = await keys.open(
                Purpose.CURSOR, SecretId(0), LocalPath(""), 0,
                Sealed(KeyId(int.from_bytes(key)), nonce, sealed),
            )  # fmt: skip
        except KeyServiceError:
            raise _bad_cursor() from None
        return plaintext.decode().rstrip()


async def _join(page: _Page, permissions: Permissions, stored: _Stored, walk: ProxiedWalk) -> None:
    """Fill a page from what is stored and what is read through, by path."""
    wanted = page.limit + 1  # few at first: most who list may list all that lies there
    while True:
        row = await stored.least(wanted)
        wanted = MAX_PAGE
        if len(page.shown) == page.limit and not walk.over:
            page.more = True  # whether there is more need not be asked of a backend now
            return
        entry = await walk.least(stored.stopped if row is None else row["path"])
        if walk.stopped is not None:
            page.after, page.more = max(page.after, walk.stopped), True
            return
        first = row if entry is None else entry
        if first is None:
            if stored.stopped is not None:
                page.after, page.more = max(page.after, stored.stopped), True
            return
        path = str(first["path"])
        here = row if row is not None and row["path"] == path else None
        found = _found(permissions, here, entry)
        if found is not None:
            if len(page.shown) == page.limit:
                page.more = True
                return
            page.shown.append(found)
        page.after = path
        if here is not None:
            stored.take()
        if entry is not None:
            walk.take()


def _found(
    permissions: Permissions, row: Row | None, entry: Mapping[str, object] | None
) -> Listed | None:
    """What is shown of one path, as a read of it would find it: what is here, before what is
    read through."""
    if row is not None and row["state"] == "live":
        shown = permissions.decide(row["path"], Permission.LIST) is not None
        return listed(row) if shown else None
    if entry is None:
        return None
    # What was deleted here is not to come in again before the table decided so.
    deleted = row is not None and row["state"] == "deleted"
    return None if deleted and entry["status"] == PairStatus.INITIAL else dict(entry)


def may_list(permissions: Permissions, prefix: str) -> bool:
    """Could any path that begins with a string be listed by somebody with these?"""
    return any(True for _ in _narrowed(permissions.prefixes(Permission.LIST), prefix))


def _narrowed(given: Sequence[str], prefix: str) -> Iterator[str]:
    """Of strings in order, none the beginning of another, what lies below a prefix."""
    for one in given:
        if prefix.startswith(one):
            yield prefix
        elif one.startswith(prefix):
            yield one


def _ranges(given: Sequence[str], after: str) -> Iterator[tuple[str, str]]:
    """The ranges of paths that begin with one of these and are greater than `after`."""
    for one in given:
        end = one + BEHIND
        if end > after:
            yield (one if one > after else after + _NEXT), end


def _bad_cursor() -> UsageError:
    return UsageError("must be the next_cursor of the page before", code="bad_cursor")
