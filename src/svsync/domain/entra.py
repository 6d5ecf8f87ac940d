"""Tokens of Microsoft Entra ID by which Event Grid delivers: what one must say.

Event Grid signs in as an application of Microsoft's, and asks for a token of the directory and
the audience that its subscription names [Deliver events to Microsoft Entra protected endpoints,
event-grid/secure-webhook-delivery]. Which version of token that is, the application decides
that stands for the audience: both count, and they differ in their issuer and in the claim that
names who signed in [Access token claims reference,
identity-platform/access-token-claims-reference].

How long one lasts is Entra's to choose [Configurable token lifetimes,
identity-platform/configurable-token-lifetimes], so that is not looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from svsync.domain.access import UnauthenticatedError
from svsync.domain.scaikey import object_of, times_of

ALGORITHM: Final = "RS256"
"""The one by which Entra signs; no other is looked at."""
AUTHORITY: Final = "https://login.microsoftonline.com"
"""Where the directories of the public cloud are."""
_ISSUERS: Final = (
    ("https://sts.windows.net/{}/", "appid"),
    (AUTHORITY + "/{}/v2.0", "azp"),
)
"""Of each version: the issuer, by directory, and the claim that names who signed in."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Whose tokens open a feed.

    Attributes:
        directory: the id of the Entra tenant that issues them.
        audience: the application that they are for.
        application: that they were given to; None: any of the directory.
    """

    directory: str
    audience: str
    application: str | None = None


def pin_of(entry: Mapping[str, object]) -> Pin | None:
    """What one entry of a backend's `events` pins; None: nothing."""
    directory, audience = entry.get("entra_tenant_id"), entry.get("entra_audience")
    application = entry.get("entra_app_id")
    if directory is None or audience is None:
        return None
    return Pin(str(directory), str(audience), None if application is None else str(application))


def check_claims(payload: bytes, pin: Pin, now: float) -> None:
    """Hold the claims of a token whose signature is the directory's against a pin; `now` in
    seconds since 1970.

    Raises UnauthenticatedError, which names the claim that does not fit and nothing of it.
    """
    said = object_of(payload)
    by = {issuer.format(pin.directory): claim for issuer, claim in _ISSUERS}
    issuer = said.get("iss")
    if not isinstance(issuer, str) or issuer not in by:
        _refuse("iss", "entra_tenant_id")
    if said.get("tid") != pin.directory:
        _refuse("tid", "entra_tenant_id")
    if said.get("aud") != pin.audience:
        _refuse("aud", "entra_audience")
    times_of(said, now)
    if pin.application is not None and said.get(by[issuer]) != pin.application:
        _refuse(by[issuer], "entra_app_id")


def _refuse(claim: str, key: str) -> NoReturn:
    raise UnauthenticatedError(f"the claim {claim} is not as {key} says")
