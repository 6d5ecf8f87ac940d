"""Lists of secrets for somebody who may list only some of them.

What policies give begins with certain strings, so only those ranges of paths are looked
at, and of each path found there it is decided whether it may be shown. A page looks at a
bounded number of secrets: where most of those may not be shown it ends early, and says
where to go on. That place may be a path which the caller may not know of, and is sealed
then; one that was shown stands as it is.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from svsync.domain.access import Call
from svsync.domain.envelope import NONCE_SIZE, Purpose
from svsync.domain.errors import KeyServiceError, UsageError
from svsync.domain.federation import Mode
from svsync.domain.ids import KeyId, LocalPath, SecretId, TenantId
from svsync.domain.paths import MAX_LOCAL_BYTES, local_problem
from svsync.domain.patterns import Pattern
from svsync.domain.policies import Permission, Permissions
from svsync.services.sealing import Sealed, Sealing
from svsync.services.secrets import MAX_PAGE, listed
from svsync.store import federation
from svsync.store import secrets as store
from svsync.store.database import Database, Transaction

LOOKED_AT: Final = 5_000
"""Secrets that one page looks at, of which it may show none."""
_SEALED: Final = "~"
"""What a sealed place begins with, and no path."""
_BEHIND: Final = "\x7f"
"""Behind a string: greater than all that begins with it, for no path holds it."""
_NEXT: Final = "\x01"
"""The least string that is greater than another begins with that and this."""


@dataclass(slots=True)
class _Page:
    """What was found so far; `after`: where looking goes on, `over`: that all was seen."""

    limit: int
    after: str
    shown: list[dict[str, object]] = field(default_factory=list)
    looked: int = 0
    over: bool = False
    more: bool = False


class Listing:
    """Lists of secrets, of every tenant."""

    def __init__(self, db: Database, sealing: Sealing, *, looked_at: int = LOOKED_AT) -> None:
        """`looked_at`: secrets that one page looks at."""
        self._db = db
        self._sealing = sealing
        self._looked_at = looked_at

    async def page(
        self, call: Call, permissions: Permissions, prefix: str, *, limit: int, cursor: str = ""
    ) -> dict[str, object]:
        """Live secrets whose paths begin with a string and that the caller may list, by path.

        `incomplete`: some of what lies there is read through its backend, and not listed.

        Raises:
            UsageError: `bad_cursor`: the cursor is none of this tenant's.
            StoreError, KeyServiceError: the store or its keys cannot be used.
        """
        after = await self._opened(call.tenant, cursor)
        given = list(_narrowed(permissions.prefixes(Permission.LIST), prefix))
        page = _Page(min(max(1, limit), MAX_PAGE), after)
        async with self._db.transaction(call.tenant, read_only=True) as tx:
            incomplete = await _is_incomplete(tx, given)
            while not page.over:
                await self._look(tx, permissions, given, page)
        following = None
        if page.more:
            last = page.shown[-1]["path"] if page.shown else None
            shows_last = last == page.after or len(page.shown) == page.limit
            following = str(last) if shows_last else await self._seal(call.tenant, page.after)
        return {"secrets": page.shown, "next_cursor": following, "incomplete": incomplete}

    async def _look(
        self, tx: Transaction, permissions: Permissions, given: Sequence[str], page: _Page
    ) -> None:
        """Look at some more secrets."""
        # Few at first: most who list may list all that lies there.
        wanted = page.limit + 1 if page.looked == 0 else MAX_PAGE
        size = min(wanted, self._looked_at - page.looked)
        rows = await store.in_ranges(tx, list(_ranges(given, page.after)), size)
        for row in rows:
            if row["live"] and permissions.decide(row["path"], Permission.LIST) is not None:
                if len(page.shown) == page.limit:
                    page.more = page.over = True
                    return
                page.shown.append(listed(row))
            page.after = row["path"]
        page.looked += len(rows)
        if len(rows) < size:
            page.over = True
        elif page.looked >= self._looked_at:
            page.more = page.over = True

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
        end = one + _BEHIND
        if end > after:
            yield (one if one > after else after + _NEXT), end


async def _is_incomplete(tx: Transaction, given: Sequence[str]) -> bool:
    """Is anything that begins with one of these read through a backend?"""
    for stored in await federation.list_backends(tx):
        if stored.state == "deleting" or stored.spec.is_standby:
            continue
        for rule in stored.spec.rules:
            if rule.exclude:
                continue
            proxied = stored.spec.for_rule(rule).mode is Mode.PROXY
            if (proxied or rule.local in stored.initial) and any(
                _meets(Pattern.parse(rule.local).literal, one) for one in given
            ):
                return True
    return False


def _meets(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _bad_cursor() -> UsageError:
    return UsageError("must be the next_cursor of the page before", code="bad_cursor")
