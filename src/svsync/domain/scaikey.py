"""Tokens of ScaiKey (JWTs): what one must say, and whom it speaks for.

A token is read in two steps. Its header says by which of the issuer's keys it claims to be
signed; nothing else in the header is looked at, so a key or an address that it names itself
is never used. Its claims are read once the signature was found to be good: until then
whoever sent it is told nothing but that it does not count.

Whom it speaks for:

    sub "sa:billing", "user:ada"     that identity
    sub "0190…", client_id the same  sa:0190…, a service account (RFC 9068, 2.2)
    sub "0190…"                      user:0190…

The part behind the colon is made of letters, digits and . _ @ + - alone.
"""

import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from svsync.domain.access import Identity, Scope, UnauthenticatedError
from svsync.domain.bindings import group_name
from svsync.domain.errors import UsageError
from svsync.domain.tenants import SLUG

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""Signatures that count. No other is ever made or looked at: no `none`, no shared secret."""
LEEWAY_S: Final = 60
"""Seconds by which the issuer's clock may differ from ours."""
MAX_LIFETIME_S: Final = 24 * 3600
"""Seconds from a token's beginning to its end, at most."""
MAX_TEXT: Final = 8192
"""Characters of a token."""
MAX_GROUPS: Final = 500
"""Of one identity."""
DEFAULT_TENANT: Final = "default"
"""Whose super_admin the bootstrap makes."""

_PART: Final = re.compile(r"[A-Za-z0-9_-]+")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_SCOPES: Final = {str(scope): scope for scope in Scope}
_LAST_MOMENT: Final = 253_402_300_799  # the last second of the year 9999


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token must say here.

    Attributes:
        issuer: the `iss` it has; a slash at its end makes no difference.
        audience: one of its `aud`.
        tenant: the claim that names the tenant's slug.
        groups: the claim with names of groups.
        scopes: the claim with scopes; None: `scope`, or `scp` where that is missing.
    """

    issuer: str
    audience: str
    tenant: str = "tenant"
    groups: str = "groups"
    scopes: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """By which of the issuer's keys a token claims to be signed."""

    algorithm: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says whose signature is good.

    Attributes:
        tenant: the slug that it names; whether there is such a tenant is not known yet.
        groups: names in order; None: it says nothing of groups.
        issued_at: when it was made.
        expires_at: its end, without any leeway.
        email: an address that the issuer has verified; None: it names none.
    """

    tenant: str
    identity: Identity
    scopes: frozenset[Scope]
    groups: tuple[str, ...] | None
    issued_at: datetime
    expires_at: datetime
    email: str | None = None


class IssuerUnavailableError(UnauthenticatedError):
    """Nobody can tell whether a token counts: the keys of its issuer cannot be had now."""

    code = "issuer_unavailable"

    def __init__(self) -> None:
        super().__init__("ScaiKey does not answer, so its tokens cannot be checked: try again")


def not_valid() -> UnauthenticatedError:
    """What is said of a token that was signed by nobody known."""
    return UnauthenticatedError("the token is not valid here")


def header_of(text: str) -> Header:
    """What a token's header says.

    Raises UnauthenticatedError: it is no such token, or names no algorithm that counts.
    """
    parts = text.split(".")
    if len(text) > MAX_TEXT or len(parts) != 3 or not all(map(_PART.fullmatch, parts)):
        raise not_valid()
    header = object_of(_decoded(parts[0]))
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS or not isinstance(key_id, str) or not key_id:
        raise not_valid()
    # An extension that must be understood is understood by nobody here.
    if "crit" in header or str(header.get("typ", "JWT")).lower() not in _TYPES:
        raise not_valid()
    return Header(str(algorithm), key_id)


def claims_of(payload: bytes, terms: Terms, now: float) -> Claims:
    """The claims of a token whose signature is good; `now` in seconds since 1970.

    Raises UnauthenticatedError, which names the claim that does not fit.
    """
    said = object_of(payload)
    issuer = said.get("iss")
    if not isinstance(issuer, str) or issuer.removesuffix("/") != terms.issuer.removesuffix("/"):
        raise _refused("iss", "names another issuer")
    audiences = said.get("aud")
    if terms.audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise _refused("aud", f"does not name {terms.audience}")
    begins, issued, ends = times_of(said, now)
    if ends - min(begins, issued) > MAX_LIFETIME_S:
        raise _refused("exp", "is more than 24 hours after its beginning")
    tenant = said.get(terms.tenant)
    if not isinstance(tenant, str) or not SLUG.fullmatch(tenant):
        raise _refused(terms.tenant, "names no tenant")
    return Claims(
        tenant=tenant,
        identity=_identity(said),
        scopes=_scopes(said, terms),
        groups=_groups(said, terms.groups),
        issued_at=datetime.fromtimestamp(issued, UTC),
        expires_at=datetime.fromtimestamp(ends, UTC),
        email=_verified_email(said),
    )


def times_of(said: dict[str, Any], now: float) -> tuple[float, float, float]:
    """When a token begins to count, was made, and ends; all and `now` in seconds since 1970.

    Raises UnauthenticatedError: it does not count now, or does not say when it does.
    """
    begins, ends = _moment(said, "nbf"), _moment(said, "exp")
    issued = _moment(said, "iat") if "iat" in said else begins
    if ends <= now - LEEWAY_S:
        raise UnauthenticatedError("the token has expired: sign in again")
    if max(begins, issued) > now + LEEWAY_S:
        raise UnauthenticatedError("the token does not count yet: its time has not begun")
    return begins, issued, ends


def object_of(data: bytes) -> dict[str, Any]:
    """A JSON object that every reader reads alike. Raises UnauthenticatedError: it is none."""
    try:
        found = json.loads(
            data.decode(), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise not_valid() from None
    if not isinstance(found, dict):
        raise not_valid()
    return found


def is_same_address(one: str, other: str) -> bool:
    """Whether two e-mail addresses are one. Only A to Z are like a to z: other letters that
    fold to the same, as the sign for kelvin does to k, would let a stranger in."""
    if one.isascii() and other.isascii():
        return one.lower() == other.lower()
    return one == other


def _identity(said: dict[str, Any]) -> Identity:
    subject = said.get("sub")
    if not isinstance(subject, str):
        raise _refused("sub", "names nobody")
    if not subject.startswith(("sa:", "user:")):
        subject = f"{'sa' if said.get('client_id') == subject else 'user'}:{subject}"
    try:
        return Identity.parse(subject)
    except UsageError:
        raise _refused(
            "sub", "names nobody: it is made of letters, digits and . _ @ + - alone"
        ) from None


def _scopes(said: dict[str, Any], terms: Terms) -> frozenset[Scope]:
    claim = terms.scopes or ("scope" if "scope" in said else "scp")
    given = said.get(claim, [])
    words = given.split(" ") if isinstance(given, str) else given
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _refused(claim, "is neither text nor a list of scopes")
    # Scopes of other services may stand there too.
    return frozenset(_SCOPES[word] for word in words if word in _SCOPES)


def _groups(said: dict[str, Any], claim: str) -> tuple[str, ...] | None:
    if claim not in said:
        return None
    given = said[claim]
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise _refused(claim, "is no list of names")
    # A name that no binding can have gives no right, so it is left out.
    names = sorted({name for name in given if _may_be_bound(name)})
    if len(names) > MAX_GROUPS:
        raise _refused(claim, f"names more than {MAX_GROUPS} groups")
    return tuple(names)


def _may_be_bound(name: str) -> bool:
    try:
        return group_name(name) == name
    except UsageError:
        return False


def _verified_email(said: dict[str, Any]) -> str | None:
    address = said.get("email")
    verified = said.get("email_verified") is True
    return address if verified and isinstance(address, str) and address else None


def _moment(said: dict[str, Any], claim: str) -> float:
    moment = said.get(claim)
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        raise _refused(claim, "is no moment")
    if not 0 <= moment <= _LAST_MOMENT:
        raise _refused(claim, "is no moment")
    return float(moment)


def _refused(claim: str, why: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"the token is not valid here: its claim {claim} {why}")


def _decoded(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise not_valid() from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("two equal keys")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
