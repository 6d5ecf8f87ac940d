"""What goes wrong in a call to Google Cloud, in svsync's own words.

No message holds text of Google or of its SDK, which may quote a name or a value. The
status is a word of gRPC's closed list (google.rpc.Code), and so is the reason beside it
one of Google's (google.api.ErrorReason); both are compared, the reason is never shown.
"""

from typing import Any, Final

from google.api_core.exceptions import GoogleAPICallError
from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode

from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    LoginError,
    ProtocolError,
    ThrottledError,
)

NOT_FOUND: Final = StatusCode.NOT_FOUND.name
FAILED_PRECONDITION: Final = StatusCode.FAILED_PRECONDITION.name
ALREADY_EXISTS: Final = StatusCode.ALREADY_EXISTS.name

_REFUSED: Final = {
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.OUT_OF_RANGE: 400,
}
"""Google understood the request and does not do it, each with its HTTP status."""
_FAILED: Final = (
    StatusCode.UNKNOWN,
    StatusCode.INTERNAL,
    StatusCode.DATA_LOSS,
    StatusCode.CANCELLED,
)
_NO_PROJECT: Final = frozenset(
    {
        "BILLING_DISABLED",
        "CONSUMER_INVALID",
        "CONSUMER_SUSPENDED",
        "SERVICE_DISABLED",
        "USER_PROJECT_DENIED",
    }
)
"""Denied not for want of a role: the project as a whole is not to be used."""
_NOT_CONNECTED: Final = ("failed to connect to all addresses", "Name or service not known")
_CERTIFICATE: Final = "CERTIFICATE_VERIFY_FAILED"
_TOO_LARGE: Final = "Received message larger than max"
"""Words of gRPC on this side, by which what was never sent is told from what was."""


class GcpRefusedError(BackendError):
    """Google understood the request and does not do it; nothing was done.

    `reason` is the status, such as NOT_FOUND.
    """

    def __init__(self, message: str, *, reason: str, **about: Any) -> None:
        super().__init__(message, **about)
        self.reason = reason


class OutOfTimeError(BackendUnreachableError):
    """No answer came within the call's time."""


class TokenRefusedError(LoginError):
    """The token of this one request is no longer good; nothing was done."""


def of_call(
    error: GoogleAPICallError, operation: str, shown: str | None, *, connected: bool
) -> BackendError:
    """What a call that ended in an error means.

    Args:
        connected: there is a connection, so that words of a failed connect are somebody
            else's, told by the other side.
    """
    code, text = error.grpc_status_code, str(error.message)
    where = f"{operation} of {shown}" if shown else operation
    about: dict[str, Any] = {"operation": operation, "path": shown}
    if code is StatusCode.UNAUTHENTICATED:
        return TokenRefusedError(
            "Google refuses the token of this request", status=401, sent=False, **about
        )
    if code is StatusCode.PERMISSION_DENIED:
        if error.reason in _NO_PROJECT:
            return LoginError(
                "Google does not serve this project to this identity: check config.project_id,"
                " and that its Secret Manager API and its billing are enabled",
                status=403,
                sent=False,
                **about,
            )
        return DeniedError(f"Google denies {where}", status=403, sent=False, **about)
    if code is StatusCode.RESOURCE_EXHAUSTED:
        if _TOO_LARGE in text:
            return ProtocolError(
                f"the answer to {operation} is larger than svsync reads",
                code="value_too_large",
                **about,
            )
        return ThrottledError(
            f"Google asks to slow down ({where})",
            status=429,
            retry_after=_pause(error),
            sent=False,
            **about,
        )
    if code is not None and code in _REFUSED:
        return GcpRefusedError(
            f"Google refuses {where} ({code.name})",
            reason=code.name,
            status=_REFUSED[code],
            sent=False,
            **about,
        )
    if code is StatusCode.ABORTED:
        return BackendUnreachableError(
            f"Google gave up {where} for another request's sake", sent=False, **about
        )
    if code is StatusCode.DEADLINE_EXCEEDED:
        return OutOfTimeError(f"the endpoint did not answer {operation} in time", **about)
    if code is StatusCode.UNAVAILABLE:
        return _unavailable("" if connected else text, operation, about)
    if code in _FAILED:
        return BackendUnreachableError(f"Google failed ({code.name}, {where})", **about)
    return no_answer(operation, shown)


def _unavailable(text: str, operation: str, about: dict[str, Any]) -> BackendError:
    if _CERTIFICATE in text:
        return BackendUnreachableError(
            "the endpoint's certificate is not trusted: set GRPC_DEFAULT_SSL_ROOTS_FILE_PATH to"
            " a file with its authority",
            sent=False,
            **about,
        )
    if any(words in text for words in _NOT_CONNECTED):
        return BackendUnreachableError("the endpoint takes no connection", sent=False, **about)
    return BackendUnreachableError(f"the endpoint is not available for {operation}", **about)


def no_answer(operation: str, shown: str | None) -> ProtocolError:
    return ProtocolError(
        f"the endpoint answers {operation} with something that is no answer of Google",
        operation=operation,
        path=shown,
    )


def closed() -> BackendUnreachableError:
    return BackendUnreachableError("the session is closed", operation="connect", sent=False)


def _pause(error: GoogleAPICallError) -> float | None:
    """Seconds that Google asks to wait (google.rpc.RetryInfo), where it does."""
    for detail in error.details:
        if isinstance(detail, RetryInfo):
            delay = detail.retry_delay
            return float(delay.seconds + delay.nanos / 1e9)
    return None
