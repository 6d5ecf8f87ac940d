"""What a call raises."""

from collections.abc import Mapping
from typing import Any

from svsync.domain import errors


class SvsyncError(errors.SvsyncError):
    """The API answered with an error, or nothing that it could answer came back.

    No value and no token is in it.

    Attributes:
        message: one sentence for people.
        code: one of the API's, such as `secret_not_found`, or one of the client's own:
            `service_unreachable` (no answer, and nothing can have changed),
            `outcome_unknown` (a change was sent, and its answer did not come),
            `not_svsync` (what answers is not this API), `redirected` (it answers with a
            redirect, which is never followed), `invalid_argument` (the call was not made),
            `client_closed`.
        status: the HTTP status; None where there was no answer of the API.
        request_id: under which the service's log and audit log tell of it; None likewise.
        field: what was sent and cannot be used, where one is meant.
        push_id: the write to a backend of which nobody knows yet whether it was made, with
            `write_outcome_unknown`.
        conflict: how the conflict stands now, with `conflict_changed`.
        retry_after: seconds that the service asks to wait, where it does.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int | None = None,
        request_id: str | None = None,
        field: str | None = None,
        push_id: str | None = None,
        conflict: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.request_id = request_id
        self.field = field
        self.push_id = push_id
        self.conflict = conflict
        self.retry_after = retry_after

    def __str__(self) -> str:
        where = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.code}: {self.message}{where}"


def unusable(message: str) -> SvsyncError:
    """A call that was not made, since it cannot mean anything."""
    return SvsyncError(message, code="invalid_argument")
