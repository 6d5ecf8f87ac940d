"""What goes wrong in a call to AWS, in svsync's own words.

No message holds text of AWS or of its SDK, which may quote a name, a key or a value.
AWS's own word for a refusal is kept where it is one of those that are known here.
"""

from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    LoginError,
    ProtocolError,
    ThrottledError,
)
from svsync.network import AddressRefusedError

DENIED: Final = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"})
THROTTLED: Final = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "SlowDown",
    }
)
KEYS_REFUSED: Final = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""The request was turned away for its keys, before anything was done."""
CLOCK: Final = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
_CLOCK_WORDS: Final = ("Signature expired", "Signature not yet current")
_REGION_WORDS: Final = "scoped to a valid region"
"""By which a wrong clock and a wrong region are told from wrong keys: AWS gives all three
one code (IAM User Guide, "Troubleshoot signed requests for AWS APIs")."""
FAILED: Final = frozenset({"InternalFailure", "InternalServiceError", "ServiceUnavailable"})
REASONS: Final = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "DecryptionFailure",
        "DisabledException",
        "EncryptionFailure",
        "IDPCommunicationError",
        "IncorrectKeyException",
        "InvalidCiphertextException",
        "InvalidKeyUsageException",
        "InvalidAddress",
        "InvalidNextTokenException",
        "InvalidParameterException",
        "InvalidRequestException",
        "KMS.AccessDeniedException",
        "KmsAccessDenied",
        "KMSInvalidStateException",
        "LimitExceededException",
        "NotFoundException",
        "PreconditionNotMetException",
        "QueueDoesNotExist",
        "ResourceExistsException",
        "ResourceNotFoundException",
    }
)


class TooLargeError(Exception):
    """An answer is larger than svsync reads."""


class RedirectError(Exception):
    """The endpoint sends us elsewhere."""


class AwsRefusedError(BackendError):
    """AWS understood the request and does not do it; nothing was done.

    `reason` is AWS's word for why, where it is one of REASONS; else empty.
    """

    def __init__(self, message: str, *, reason: str, **about: Any) -> None:
        super().__init__(message, **about)
        self.reason = reason


class KeysRefusedError(LoginError):
    """The keys of this one request are no longer good; nothing was done."""


class WrongRegionError(LoginError):
    """The request was signed for another region than that of whoever answers."""


def of_answer(error: ClientError, operation: str, shown: str | None) -> BackendError:
    """What an answer of AWS that is an error means."""
    told = error.response.get("Error", {})
    code, text = str(told.get("Code", "")), str(told.get("Message", ""))
    metadata: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode")
    where = f"{operation} of {shown}" if shown else operation
    about: dict[str, Any] = {"operation": operation, "path": shown, "status": status}
    if code in CLOCK or (code in KEYS_REFUSED and any(word in text for word in _CLOCK_WORDS)):
        return LoginError(
            "this machine's clock and that of AWS are too far apart: set the clock, by NTP",
            code="clock_skew",
            sent=False,
            **about,
        )
    if code in KEYS_REFUSED and _REGION_WORDS in text.lower():
        return WrongRegionError(
            "the endpoint is of another region than config.region: make the two agree",
            sent=False,
            **about,
        )
    if code in KEYS_REFUSED:
        return KeysRefusedError("AWS refuses the keys of this request", sent=False, **about)
    if code in THROTTLED or status == 429:
        return ThrottledError(
            f"AWS asks to slow down ({where})",
            retry_after=_seconds(metadata.get("HTTPHeaders", {}).get("retry-after")),
            sent=False,
            **about,
        )
    if code in DENIED or status == 403:
        return DeniedError(f"AWS denies {where}", sent=False, **about)
    if code in FAILED or (isinstance(status, int) and status >= 500):
        return BackendUnreachableError(f"AWS failed ({status}, {where})", **about)
    if isinstance(status, int) and (status < 400 or code == str(status)):
        return no_answer(operation, shown, status=status)
    reason = code if code in REASONS else ""
    return AwsRefusedError(
        f"AWS refuses {where} with status {status}", reason=reason, sent=False, **about
    )


def no_answer(operation: str, shown: str | None, **about: Any) -> ProtocolError:
    return ProtocolError(
        f"the endpoint answers {operation} with something that is no answer of AWS",
        operation=operation,
        path=shown,
        **about,
    )


def of_failure(error: Exception, operation: str, shown: str | None) -> BackendError:
    """What it means that no answer came, or none that can be read."""
    about: dict[str, Any] = {"operation": operation, "path": shown}
    inner = getattr(error, "kwargs", {}).get("error")
    if isinstance(inner, aiohttp.ClientConnectorError) and isinstance(
        inner.os_error, AddressRefusedError
    ):
        return BackendError(
            f"the endpoint {inner.os_error}", code="endpoint_refused", sent=False, **about
        )
    if isinstance(inner, RedirectError):
        return ProtocolError("the endpoint redirects elsewhere: set endpoint_url to it", **about)
    if isinstance(inner, TooLargeError):
        return ProtocolError(
            f"the answer to {operation} is larger than svsync reads",
            code="value_too_large",
            **about,
        )
    if isinstance(error, ResponseParserError):
        return no_answer(operation, shown)
    if isinstance(inner, aiohttp.ClientConnectorCertificateError):
        return BackendUnreachableError(
            "the endpoint's certificate is not trusted: set AWS_CA_BUNDLE to its authority",
            sent=False,
            **about,
        )
    if isinstance(inner, aiohttp.ClientConnectorDNSError):
        return BackendUnreachableError(
            "the endpoint's name cannot be resolved: check config.region and config.endpoint_url",
            sent=False,
            **about,
        )
    if isinstance(error, ReadTimeoutError | ConnectTimeoutError | TimeoutError):
        connecting = isinstance(error, ConnectTimeoutError)
        return BackendUnreachableError(
            f"the endpoint did not answer {operation} in time", sent=not connecting, **about
        )
    if isinstance(error, SSLError):
        return BackendUnreachableError(
            "the endpoint and svsync agree on no TLS connection", sent=False, **about
        )
    if isinstance(error, EndpointConnectionError):
        sent = not isinstance(inner, aiohttp.ClientConnectorError)
        return BackendUnreachableError("the endpoint takes no connection", sent=sent, **about)
    if isinstance(error, HTTPClientError):
        return BackendUnreachableError(f"the connection broke during {operation}", **about)
    return BackendError(f"the SDK of AWS cannot make the call {operation}", **about)


def of_identity() -> LoginError:
    """The identity of this process could not be had."""
    return LoginError(
        "the identity of this machine (environment, container, instance or web identity) gives"
        " no keys for AWS: set config.credentials_path, or look at what the machine is given",
        operation="login",
        sent=False,
    )


def _seconds(text: object) -> float | None:
    if isinstance(text, str) and text.isascii() and text.isdigit():
        return float(text)
    return None
