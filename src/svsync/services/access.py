"""Static tokens: made, shown once, listed without their text, verified, revoked.

What is verified is compared in constant time by construction: the hash of what was
given is always made, and always compared, with the stored one or, where there is no
row, with one that nothing has. Whether it expired or was revoked is looked at, and
told, only behind that: whoever is told holds the token.
"""

import hmac
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from svsync.domain.access import (
    NOWHERE,
    SECRET_BYTES,
    Caller,
    Identity,
    IdentityType,
    Origin,
    Scope,
    UnauthenticatedError,
    is_token_id,
    shut,
    token_hash,
    token_name,
    token_text,
)
from svsync.domain.errors import NotFoundError, UsageError
from svsync.domain.ids import TenantId
from svsync.domain.values import SecretValue
from svsync.store import access
from svsync.store.database import Database, Row

_NO_HASH: Final = bytes(32)
"""Compared where there is no row; no text is known that has it."""
_KNOWN: Final = frozenset(map(str, Scope))


@dataclass(frozen=True, slots=True)
class Created:
    """A new token. `text` is nowhere else: who does not keep it makes another one."""

    token_id: str
    text: SecretValue
    about: dict[str, object]


class Access:
    """Who may call, of every tenant."""

    def __init__(
        self, db: Database, *, ids: Callable[[str], str], random: Callable[[int], bytes]
    ) -> None:
        """`ids` draws an id with a prefix, `random` so many unpredictable bytes."""
        self._db = db
        self._ids = ids
        self._random = random

    async def create(
        self,
        tenant: TenantId,
        identity: Identity,
        scopes: Sequence[Scope],
        *,
        expires_in: float | None,
        by: str,
    ) -> Created:
        """Make a token that is good for `scopes`, for so many seconds; None: until revoked.

        Raises:
            UsageError: no scope is given.
        """
        if not scopes:
            raise UsageError("a token without a scope is good for nothing: give it at least one")
        token_id = self._ids("tok")
        text = token_text(tenant, token_id, self._random(SECRET_BYTES))
        named = [str(scope) for scope in dict.fromkeys(scopes)]
        async with self._db.transaction(tenant) as tx:
            row = await access.add(
                tx,
                token_id,
                token_hash(text),
                identity_type=str(identity.type),
                identity_id=identity.id,
                scopes=named,
                created_by=by,
                expires_in=expires_in,
            )
        about: dict[str, object] = {
            "identity_type": str(identity.type),
            "identity_id": identity.id,
            "scopes": named,
            "created_at": _time(row["created_at"]),
            "expires_at": _time(row["expires_at"]),
        }
        return Created(token_id, SecretValue(text), about)

    async def verify(self, text: str) -> Caller:
        """The caller that a token's text vouches for. Raises as `vouch`."""
        caller, _ = await self.vouch(text)
        return caller

    async def vouch(self, text: str, origin: Origin = NOWHERE) -> tuple[Caller, float]:
        """The caller that a token's text vouches for, and for how many seconds it does yet.
        One look-up by key; nothing is recorded.

        Raises:
            UnauthenticatedError: no token's text, unknown, revoked or expired.
            ForbiddenError: `tenant_shut`, `tenant_shredded`: its tenant is not active.
            StoreUnavailableError: nobody can be known now.
        """
        named = token_name(text)
        if named is None:
            raise _unknown()
        tenant, token_id = named
        async with self._db.transaction(tenant) as tx:
            row = await access.find(tx, token_id)
            stored = _NO_HASH if row is None else row["hash"]
            if not hmac.compare_digest(token_hash(text), stored) or row is None:
                raise _unknown()
            if row["revoked"]:
                raise UnauthenticatedError("the token was revoked: ask for another one")
            if row["expired"]:
                raise UnauthenticatedError("the token has expired: ask for another one")
            if row["status"] != "active":
                raise shut(row["status"])
            if row["first_today"]:
                await access.used(tx, token_id)
        lasts = math.inf if row["expires_in"] is None else float(row["expires_in"])
        caller = Caller(
            tenant=tenant,
            slug=row["slug"],
            identity=Identity(IdentityType(row["identity_type"]), row["identity_id"]),
            token_id=token_id,
            # A scope that a newer svsync gave means nothing here.
            scopes=frozenset(Scope(scope) for scope in row["scopes"] if scope in _KNOWN),
            groups=tuple(row["groups"]),
            epoch=row["auth_epoch"],
            expires_at=row["expires_at"],
        )
        return caller, lasts

    async def list_tokens(
        self, tenant: TenantId, *, before: str | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Tokens of a tenant, the newest first, without what they are made of: those made before
        that of an id (None: from the newest on), at most `limit` (None: all)."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            return [_shown(row) for row in await access.list_tokens(tx, before, limit)]

    async def revoke(self, tenant: TenantId, token_id: str) -> None:
        """Let a token count no more, for every request that is verified from now on.

        Raises:
            NotFoundError: there is no such token in this tenant.
        """
        async with self._db.transaction(tenant) as tx:
            known = is_token_id(token_id) and await access.revoke(tx, token_id)
            await access.raise_epoch(tx)
            if not known:
                raise unknown_token()


def unknown_token() -> NotFoundError:
    """What was given may be a token's own text, so it is not repeated."""
    return NotFoundError(
        "there is no such token: `svsync tokens list` shows the ids there are",
        code="token_not_found",
    )


def describe(caller: Caller) -> dict[str, object]:
    """What a caller is told of themselves; never their token's text."""
    return {
        "identity_type": str(caller.identity.type),
        "identity_id": caller.identity.id,
        "tenant": caller.slug,
        "scopes": sorted(map(str, caller.scopes)),
        "groups": list(caller.groups),
        "token_id": caller.token_id,
        "expires_at": _time(caller.expires_at),
    }


def _unknown() -> UnauthenticatedError:
    return UnauthenticatedError("the token is not valid here")


def _shown(row: Row) -> dict[str, Any]:
    return {
        "token_id": row["token_id"],
        "identity_type": row["identity_type"],
        "identity_id": row["identity_id"],
        "scopes": list(row["scopes"]),
        "state": row["state"],
        "created_by": row["created_by"],
        "created_at": _time(row["created_at"]),
        "expires_at": _time(row["expires_at"]),
        "revoked_at": _time(row["revoked_at"]),
        "last_used_on": row["last_used_on"] and row["last_used_on"].isoformat(),
    }


def _time(moment: Any) -> str | None:
    """RFC 3339 in UTC, to the second."""
    if moment is None:
        return None
    assert isinstance(moment, datetime)
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
