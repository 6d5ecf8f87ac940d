"""What goes wrong in a call to Azure, in svsync's own words.

No message holds text of Azure or of its SDK, which may quote a name, an id or a token.
Azure's own words for a refusal are kept where they are some of those that are known here.
"""

import re
from typing import Any, Final

import aiohttp
from azure.core.exceptions import (
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)

from svsync.clients.azure.answers import Answer
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    LoginError,
    ProtocolError,
    ThrottledError,
)
from svsync.network import AddressRefusedError

FIREWALL: Final = frozenset({"ForbiddenByFirewall", "ForbiddenByConnection"})
"""Inner codes of a 403 that speak of where the call came from [Azure Key Vault REST API
error codes, general/rest-error-codes]."""
REASONS: Final = frozenset(
    {
        "BadParameter",
        "Conflict",
        "ObjectIsBeingDeleted",
        "ObjectIsBeingRecovered",
        "ObjectIsDeletedButRecoverable",
        "SecretDisabled",
        "SecretNotFound",
    }
)
_AADSTS: Final = re.compile(r"AADSTS([0-9]{4,7})\b")
_NO_SUCH_CLIENT: Final = frozenset({"700016", "90002", "900023", "7000112", "500011"})
"""No such application, no such directory, switched off [Microsoft Entra authentication and
authorization error codes, identity-platform/reference-error-codes]."""
_TOO_LATE: Final = frozenset({"700024"})
"""The assertion is not within its time: a certificate signs one by our clock."""
_EXPIRED: Final = frozenset({"7000222"})


class TooLargeError(Exception):
    """An answer is larger than svsync reads."""


class AzureRefusedError(BackendError):
    """Key Vault understood the request and does not do it; nothing was done.

    `reason` is Key Vault's word for why, where it is one of REASONS; else empty.
    """

    def __init__(self, message: str, *, reason: str, **about: Any) -> None:
        super().__init__(message, **about)
        self.reason = reason


class TokenRefusedError(LoginError):
    """The token of this one request is no longer good; nothing was done."""


class AddressDeniedError(DeniedError):
    """The vault's firewall lets nobody in from here."""


def of_answer(answer: Answer, operation: str, shown: str | None) -> BackendError:
    """What an answer that is an error means."""
    status, words = answer.status, answer.code.split("/")
    where = f"{operation} of {shown}" if shown else operation
    about: dict[str, Any] = {"operation": operation, "path": shown, "status": status}
    if status == 401:
        return TokenRefusedError("Key Vault refuses the token", sent=False, **about)
    if status == 429:
        return ThrottledError(
            f"Key Vault asks to slow down ({where})",
            retry_after=answer.retry_after,
            sent=False,
            **about,
        )
    if status >= 500:
        return BackendUnreachableError(f"Key Vault failed ({status}, {where})", **about)
    if status < 400:
        return ProtocolError(
            "the vault redirects elsewhere: set config.vault_url to the vault's own address",
            **about,
        )
    if not words[0]:
        return no_answer(operation, shown, status=status)
    if status == 403 and "SecretDisabled" not in words:
        if not FIREWALL.isdisjoint(words):
            return AddressDeniedError(
                f"the vault's firewall denies {where}: let this machine's address in, or call it"
                " by a private endpoint",
                sent=False,
                **about,
            )
        by = " by a policy" if "ForbiddenByPolicy" in words else ""
        return DeniedError(f"Key Vault denies {where}{by}", sent=False, **about)
    reason = next((word for word in reversed(words) if word in REASONS), "")
    return AzureRefusedError(
        f"Key Vault refuses {where} with status {status}", reason=reason, sent=False, **about
    )


def no_answer(operation: str, shown: str | None, **about: Any) -> ProtocolError:
    return ProtocolError(
        f"the vault answers {operation} with something that is no answer of Key Vault: check"
        " config.vault_url",
        operation=operation,
        path=shown,
        **about,
    )


def of_failure(
    error: Exception, operation: str, shown: str | None, *, what: str = "vault"
) -> BackendError:
    """What it means that no answer came, or none that can be read.

    Args:
        what: who did not answer: the vault, or the service that signs in.
    """
    about: dict[str, Any] = {"operation": operation, "path": shown}
    inner = getattr(error, "inner_exception", None)
    if isinstance(inner, aiohttp.ClientConnectorError) and isinstance(
        inner.os_error, AddressRefusedError
    ):
        return BackendError(
            f"the {what} {inner.os_error}", code="endpoint_refused", sent=False, **about
        )
    if isinstance(error, TooLargeError):
        return ProtocolError(
            f"the answer to {operation} is larger than svsync reads",
            code="value_too_large",
            **about,
        )
    if isinstance(inner, aiohttp.ClientConnectorCertificateError):
        return BackendUnreachableError(
            f"the certificate of the {what} is not trusted: set config.tls_verify to its authority",
            sent=False,
            **about,
        )
    if isinstance(inner, aiohttp.ClientConnectorDNSError):
        hint = ": check config.vault_url" if what == "vault" else ""
        return BackendUnreachableError(
            f"the name of the {what} cannot be resolved{hint}", sent=False, **about
        )
    if isinstance(error, ServiceRequestTimeoutError):
        return BackendUnreachableError(
            f"the {what} takes no connection in time", sent=False, **about
        )
    if isinstance(error, ServiceResponseTimeoutError | TimeoutError):
        return BackendUnreachableError(f"the {what} did not answer {operation} in time", **about)
    if isinstance(inner, aiohttp.ClientConnectorError):
        return BackendUnreachableError(f"the {what} takes no connection", sent=False, **about)
    if isinstance(inner, aiohttp.ClientError):
        return BackendUnreachableError(f"the connection broke during {operation}", **about)
    return BackendError(f"the SDK of Azure cannot make the call {operation}", **about)


def of_challenge(operation: str, shown: str | None) -> ProtocolError:
    """The SDK compares for what the vault wants a token with the vault's own address."""
    return ProtocolError(
        "what answers asks for a token of something else: check config.vault_url",
        operation=operation,
        path=shown,
        sent=False,
    )


def of_login(error: Exception, method: str, where: str) -> BackendError:
    """No token was had.

    Args:
        method: the `auth_method`.
        where: the credential, or whose identity it is, for a person.
    """
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    about: dict[str, Any] = {"operation": "login", "status": status, "sent": False}
    if isinstance(error, ServiceRequestError | ServiceResponseError | TimeoutError | TooLargeError):
        failure = of_failure(error, "login", None, what="service that signs in")
        failure.sent = False
        return failure
    if status == 429:
        retry = _seconds(getattr(response, "headers", {}).get("Retry-After"))
        return ThrottledError("Entra asks to slow down", retry_after=retry, **about)
    if isinstance(status, int) and status >= 500:
        return BackendUnreachableError(f"Entra failed ({status}, login)", **about)
    codes = set(_AADSTS.findall(str(error)))
    if codes & _TOO_LATE and method == "certificate":
        return LoginError(
            "this machine's clock and that of Entra are too far apart: set the clock, by NTP",
            code="clock_skew",
            **about,
        )
    if codes & _TOO_LATE:
        why = "its token has expired, and nobody renews the file that it stands in"
    elif codes & _EXPIRED:
        why = "it has expired; store a new one"
    elif codes & _NO_SUCH_CLIENT:
        why = "Entra knows no such application in that directory; check tenant_id and client_id"
    elif isinstance(error, OSError):
        why = "the file with its token cannot be read"
    elif method == "managed_identity":
        why = "the machine has none, or not the one that config.client_id names; assign it"
    else:
        why = "check it, and that it belongs to the application that client_id names"
    return LoginError(f"Entra does not sign svsync in by {where}: {why}", **about)


def _seconds(text: object) -> float | None:
    return float(text) if isinstance(text, str) and text.isascii() and text.isdigit() else None
