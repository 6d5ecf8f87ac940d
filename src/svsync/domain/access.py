"""Who calls, and what they may: identities, scopes, and the text of a static token.

A token's text is `svt_<tenant>_<id>_<secret>`: the number of its tenant and its own id,
by which its row is found by key, and 256 random bits. Only the SHA-256 of the whole text
is stored, so it is bound to both, and nobody who reads the store can call.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from svsync.domain.audit import Decision, Entry
from svsync.domain.errors import SvsyncError, UsageError
from svsync.domain.ids import TenantId
from svsync.domain.tenants import SHREDDED

SECRET_BYTES: Final = 32
_MAX_TENANT: Final = 2**31 - 1
_TEXT: Final = re.compile(r"svt_([1-9][0-9]{0,9})_([0-9a-f]{32})_[0-9a-f]{64}")
_TOKEN_ID: Final = re.compile(r"tok_[0-9a-f]{32}")
_IDENTITY: Final = re.compile(r"(sa|user):[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")


class UnauthenticatedError(SvsyncError):
    """Nobody vouches for the caller."""

    code = "unauthenticated"


class ForbiddenError(SvsyncError):
    """The caller is known and may not do this."""

    code = "forbidden"


class TenantShreddedError(ForbiddenError):
    """The caller's tenant was shredded."""

    code = "tenant_shredded"

    def __init__(self, tenant: str = "the tenant") -> None:
        super().__init__(
            f"{tenant} was shredded: its keys were destroyed, and nothing of it can be read or"
            " written any more"
        )


def shut(status: str) -> ForbiddenError:
    """What is told of a tenant that is not active, once its caller is known."""
    if status == SHREDDED:
        return TenantShreddedError()
    return ForbiddenError(f"the tenant is {status}", code="tenant_shut")


class Scope(StrEnum):
    """What a token is good for. `admin` stands for every scope within its tenant."""

    SECRETS_READ = "secrets:read"
    SECRETS_WRITE = "secrets:write"
    FEDERATION_READ = "federation:read"
    FEDERATION_WRITE = "federation:write"
    POLICIES_WRITE = "policies:write"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


class IdentityType(StrEnum):
    """`feed`: a change feed that arrives over HTTP, which may do nothing else. `operator`:
    whoever runs a command on the store itself; no token is theirs."""

    SERVICE_ACCOUNT = "service_account"
    USER = "user"
    FEED = "feed"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who is named in policies and in the audit log: `sa:billing`, `user:ada`."""

    type: IdentityType
    id: str

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """Raises UsageError for a text that names neither kind."""
        named = _IDENTITY.fullmatch(text)
        if named is None:
            raise UsageError(
                "an identity is sa:NAME or user:NAME, the name of letters, digits and . _ @ + -"
                " and at most 128 characters long"
            )
        kind = IdentityType.SERVICE_ACCOUNT if named[1] == "sa" else IdentityType.USER
        return cls(kind, text)


@dataclass(frozen=True, slots=True)
class Caller:
    """An identity as a verified token vouches for it, in the one tenant that it speaks for.

    Attributes:
        groups: names as bindings have them, in order.
        epoch: of the tenant's rights when it was verified.
        expires_at: when the token ends; None: when it is revoked.
    """

    tenant: TenantId
    slug: str
    identity: Identity
    token_id: str
    scopes: frozenset[Scope]
    groups: tuple[str, ...] = ()
    epoch: int = 0
    expires_at: datetime | None = None

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """Raises ForbiddenError where the token lacks a scope."""
        if not self.has(scope):
            raise ForbiddenError(f"this needs a token with the scope {scope}")

    def has(self, scope: Scope) -> bool:
        return scope in self.scopes or self.is_admin


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a token came from, as the audit log tells of it; None: in no request."""

    request_id: str | None = None
    source_ip: str | None = None


NOWHERE: Final = Origin()


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a caller, as the audit log tells of it. `source_ip` None: made on the
    store itself."""

    caller: Caller
    request_id: str
    source_ip: str | None

    @property
    def tenant(self) -> TenantId:
        return self.caller.tenant

    def entry(
        self,
        action: str,
        decision: Decision,
        *,
        path: str | None = None,
        version: int | None = None,
        backend: str | None = None,
        detail: str | None = None,
    ) -> Entry:
        """Its row of the audit log; `detail` is JSON text."""
        identity = self.caller.identity
        return Entry(
            self.caller.tenant,
            identity.type,
            identity.id,
            action,
            decision,
            path,
            version,
            backend,
            self.request_id,
            self.source_ip,
            detail,
        )


def token_text(tenant: TenantId, token_id: str, secret: bytes) -> str:
    """The text that the holder keeps."""
    return f"svt_{tenant}_{token_id.removeprefix('tok_')}_{secret.hex()}"


def token_name(text: str) -> tuple[TenantId, str] | None:
    """The tenant and the id that a token's text names; None: it is no token's text."""
    named = _TEXT.fullmatch(text)
    if named is None or int(named[1]) > _MAX_TENANT:
        return None
    return TenantId(int(named[1])), f"tok_{named[2]}"


def is_token_id(text: str) -> bool:
    return _TOKEN_ID.fullmatch(text) is not None


def token_hash(text: str) -> bytes:
    """What is stored of a token. No slow hash: 256 random bits cannot be guessed."""
    return hashlib.sha256(text.encode()).digest()
