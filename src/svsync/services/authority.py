"""Who calls and what they may, remembered for as long as nothing changed.

What is remembered carries the epoch of its tenant's rights. Whoever answers by it compares
that with the epoch that stands when the answer is recorded, and asks anew where it moved:
so a revoked token, and a policy that was taken away, count for every request that begins
after the change was answered, on every replica. What was asked of the database after a
request began needs no such comparison.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from svsync.domain.access import NOWHERE, Caller, Origin, token_hash
from svsync.domain.policies import ADMIN, Permission, Permissions, Rule, pattern_of
from svsync.store import access as store
from svsync.store.database import Database, Row

KEPT_S: Final = 300.0
"""Seconds for which a caller is remembered at most; less where who vouches says so. Whatever
changes here meanwhile moves the epoch."""
_TOKENS: Final = 50_000
_IDENTITIES: Final = 10_000
_MANY: Final = 500
"""Rules that take milliseconds to compile."""


@dataclass(frozen=True, slots=True)
class Rights:
    """A caller with all that policies give them.

    Attributes:
        until: monotonic seconds from which on they have to be asked for anew.
    """

    caller: Caller
    permissions: Permissions
    until: float


@dataclass(slots=True)
class Known:
    """A token that was verified here, for whoever keeps it at hand.

    Attributes:
        rights: None: it is to be verified anew.
    """

    rights: Rights | None = None

    def at(self, now: float) -> Rights | None:
        """The rights, where they are still to be believed; good for an answer only where their
        caller's epoch is still the tenant's when the answer is recorded."""
        rights = self.rights
        return None if rights is None or rights.until <= now else rights


class Voucher(Protocol):
    async def vouch(self, text: str, origin: Origin = NOWHERE) -> tuple[Caller, float]:
        """The caller that a token vouches for, and for how many seconds it does yet. What is
        recorded of that tells of `origin`.

        Raises:
            UnauthenticatedError, ForbiddenError: it does not count.
        """
        ...


class Authority:
    """Verifies tokens and compiles policies, for every tenant."""

    def __init__(self, db: Database, voucher: Voucher, *, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._db = db
        self._voucher = voucher
        self._clock = clock
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._compiled: OrderedDict[tuple[object, ...], tuple[int, Permissions]] = OrderedDict()

    def known(self, token: bytes) -> Known | None:
        """What is remembered of a token, by its hash."""
        return self._known.get(token)

    def recall(self, token: bytes) -> Rights | None:
        """Its rights, good as those of `Known.at` are."""
        known = self._known.get(token)
        return None if known is None else known.at(self._clock())

    async def verify(self, text: str, origin: Origin = NOWHERE) -> Rights:
        """The same, asked of the database now; `origin`: where the token came from.

        Raises:
            UnauthenticatedError, ForbiddenError: the token does not count.
            StoreUnavailableError: nobody can be known now.
        """
        began = self._clock()
        caller, seconds = await self._voucher.vouch(text, origin)
        permissions = await self.permissions(caller)
        rights = Rights(caller, permissions, began + min(seconds, KEPT_S))
        token = token_hash(text)
        known = self._known.setdefault(token, Known())
        known.rights = rights
        self._known.move_to_end(token)  # so the first ones are those to be verified next anyway
        if len(self._known) > _TOKENS:
            self._known.popitem(last=False)[1].rights = None
        return rights

    async def permissions(self, caller: Caller) -> Permissions:
        """What policies give a caller who was verified just now."""
        if caller.is_admin:
            return ADMIN
        key = (caller.tenant, caller.identity, caller.groups)
        known = self._compiled.get(key)
        if known is not None and known[0] == caller.epoch:
            self._compiled.move_to_end(key)
            return known[1]
        async with self._db.transaction(caller.tenant, read_only=True) as tx:
            # First: rules that changed since are then known under an epoch that is over.
            epoch = await store.epoch(tx)
            rows = await store.rules_of(
                tx, str(caller.identity.type), caller.identity.id, caller.groups
            )
        # Many are compiled elsewhere, so that other tenants' reads go on meanwhile.
        made = await asyncio.to_thread(compiled, rows) if len(rows) > _MANY else compiled(rows)
        self._compiled[key] = epoch, made
        if len(self._compiled) > _IDENTITIES:
            self._compiled.popitem(last=False)
        return made

    def drop(self, token: bytes) -> None:
        """Forget a token, by its hash, of whose rights it was learnt that they do not stand."""
        known = self._known.pop(token, None)
        if known is not None:
            known.rights = None


def compiled(rows: list[Row]) -> Permissions:
    """The rules of some policies, as the database has them."""
    known = frozenset(map(str, Permission))
    return Permissions(
        [
            Rule(
                row["policy_id"],
                row["name"],
                row["ord"],
                pattern_of(row["path_pattern"]),
                # A permission that a newer svsync knows means nothing here.
                frozenset(Permission(p) for p in row["permissions"] if p in known),
            )
            for row in rows
        ]
    )
