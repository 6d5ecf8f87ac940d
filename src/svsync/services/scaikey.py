"""Signing in with ScaiKey: a verified token becomes a caller.

What a token says of groups is kept for when nobody says it (a static token of the same
identity). A token that is older than what is kept changes nothing, so two tokens that
disagree do not take turns.

The first person whose verified e-mail address is that of BOOTSTRAP_SUPER_ADMIN becomes
super_admin of the default tenant: once, and while there is none.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from svsync.domain.access import (
    NOWHERE,
    Caller,
    IdentityType,
    Origin,
    Scope,
    UnauthenticatedError,
    shut,
    token_hash,
)
from svsync.domain.audit import Decision, Entry
from svsync.domain.ids import TenantId
from svsync.domain.scaikey import DEFAULT_TENANT, Claims, Terms, claims_of, is_same_address
from svsync.observe.logs import get_logger
from svsync.services.authority import Voucher
from svsync.services.recording import Recorder
from svsync.store import access, scaikey
from svsync.store.database import Database, Row

STATIC: Final = "svt_"
"""What every static token begins with, and no other."""
_BOOTSTRAP: Final = "bootstrap"
VOUCHED_S: Final = 60.0
"""Seconds until an issuer is asked again whether it still vouches: a signing key that it took
back moves no epoch here."""


class Issuer(Protocol):
    """Who signs tokens."""

    async def payload_of(self, text: str) -> bytes:
        """The claims of a token, as they were signed.

        Raises:
            UnauthenticatedError: the issuer has not signed it, or that cannot be told now.
        """
        ...


class SignIn:
    """Vouches for tokens of ScaiKey, of every tenant."""

    def __init__(
        self,
        db: Database,
        recorder: Recorder,
        issuer: Issuer,
        terms: Terms,
        *,
        bootstrap: str | None,
        now: Callable[[], float],
    ) -> None:
        """
        Args:
            bootstrap: the address of who becomes super_admin; None: nobody does.
            now: seconds since 1970.
        """
        self._db = db
        self._recorder = recorder
        self._issuer = issuer
        self._terms = terms
        self._bootstrap = bootstrap
        self._now = now

    async def vouch(self, text: str, origin: Origin = NOWHERE) -> tuple[Caller, float]:
        """The caller that a token vouches for, and for how many seconds it does yet.

        Raises:
            UnauthenticatedError: it does not count, or names a tenant that is not there.
            ForbiddenError: `tenant_shut`, `tenant_shredded`: its tenant is not active.
            StoreUnavailableError: nobody can be known now, or what its sign-in changes could
                not be recorded.
        """
        payload = await self._issuer.payload_of(text)
        now = self._now()
        claims = claims_of(payload, self._terms, now)
        tenant = await scaikey.tenant_of(self._db, claims.tenant)
        if tenant is None:
            raise UnauthenticatedError(
                f"the token is not valid here: its claim {self._terms.tenant} names no tenant"
            )
        async with self._db.transaction(tenant, read_only=True) as tx:
            row = await scaikey.find(tx, claims.identity.id)
        if row["status"] != "active":
            raise shut(row["status"])
        if _tells_news(claims, row) or self._may_become_super_admin(claims, row):
            row = await self._take_over(tenant, claims, origin)
        groups = claims.groups if claims.groups is not None else tuple(row["groups"] or ())
        caller = Caller(
            tenant=tenant,
            slug=row["slug"],
            identity=claims.identity,
            token_id=f"jwt_{token_hash(text).hex()[:32]}",
            scopes=claims.scopes | ({Scope.ADMIN} if row["super_admin"] else set()),
            groups=groups,
            epoch=row["auth_epoch"],
            expires_at=claims.expires_at,
        )
        return caller, min(VOUCHED_S, max(0.0, claims.expires_at.timestamp() - now))

    async def tell_of_bootstrap(self) -> None:
        """Warn where BOOTSTRAP_SUPER_ADMIN stays set and nothing can come of it any more."""
        if self._bootstrap is None:
            return
        tenant = await scaikey.tenant_of(self._db, DEFAULT_TENANT)
        if tenant is None:
            return
        async with self._db.transaction(tenant, read_only=True) as tx:
            taken = await scaikey.has_super_admin(tx)
        if taken:
            get_logger().warning(
                "bootstrap_is_over",
                setting="BOOTSTRAP_SUPER_ADMIN",
                detail="there is a super_admin already, so the setting does nothing: unset it",
            )

    def _may_become_super_admin(self, claims: Claims, row: Row) -> bool:
        return (
            self._bootstrap is not None
            and not row["taken"]
            and row["slug"] == DEFAULT_TENANT
            and claims.identity.type is IdentityType.USER
            and claims.email is not None
            and is_same_address(claims.email, self._bootstrap)
        )

    async def _take_over(self, tenant: TenantId, claims: Claims, origin: Origin) -> Row:
        """Take over what a token says of its holder's groups, and make super_admin who is to
        be; what stands then.

        Whoever else signs in waits meanwhile: the tenant's row is locked. What changes is
        recorded before it is committed, so it is not there unless it is in the audit log.
        """
        identity = claims.identity.id
        async with self._db.transaction(tenant) as tx:
            await access.raise_epoch(tx)
            row = await scaikey.find(tx, identity)
            if _tells_news(claims, row):
                groups = claims.groups or ()
                await scaikey.tell_groups(tx, identity, groups, claims.issued_at)
                await self._record(tenant, claims, origin, "identity.groups", {"groups": groups})
            if self._may_become_super_admin(claims, row):
                await scaikey.promote(tx, identity, _BOOTSTRAP)
                about = {"by": _BOOTSTRAP}
                await self._record(tenant, claims, origin, "super_admin.promote", about)
                get_logger().warning("super_admin_made", identity_id=identity)
            return await scaikey.find(tx, identity)

    async def _record(
        self,
        tenant: TenantId,
        claims: Claims,
        origin: Origin,
        action: str,
        detail: Mapping[str, object],
    ) -> None:
        identity = claims.identity
        said = json.dumps(detail, ensure_ascii=False, separators=(",", ":"))
        await self._recorder.record(
            Entry(
                tenant,
                identity.type,
                identity.id,
                action,
                Decision.ALLOW,
                request_id=origin.request_id,
                source_ip=origin.source_ip,
                detail=said,
            )
        )


def _tells_news(claims: Claims, row: Row) -> bool:
    """Does a token say of groups what is not known, and later than what is?"""
    if claims.groups is None or list(claims.groups) == list(row["groups"] or ()):
        return False
    return row["refreshed_at"] is None or row["refreshed_at"] < claims.issued_at


class Vouching:
    """Vouches for every token: static ones and, where there is a ScaiKey, its own."""

    def __init__(self, static: Voucher, scaikey: Voucher | None) -> None:
        self._static = static
        self._scaikey = scaikey

    async def vouch(self, text: str, origin: Origin = NOWHERE) -> tuple[Caller, float]:
        """Raises: as that of the two whose token it is."""
        if self._scaikey is None or text.startswith(STATIC):
            return await self._static.vouch(text, origin)
        return await self._scaikey.vouch(text, origin)
