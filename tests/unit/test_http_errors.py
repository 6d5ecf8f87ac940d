"""Which status does each error have?"""

from collections.abc import Iterator

import pytest

from svsync.domain import errors
from svsync.domain.access import ForbiddenError, UnauthenticatedError
from svsync.domain.errors import ConfigError, SvsyncError
from svsync.http.body import RequestError
from svsync.http.identity import TooManyFailuresError
from svsync.http.server import status_of


def kinds(of: type[SvsyncError]) -> Iterator[type[SvsyncError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def made(kind: type[SvsyncError]) -> SvsyncError:
    """One of that class, whatever its constructor asks for."""
    error = kind.__new__(kind)
    error.message = "m"
    if isinstance(error, RequestError):
        error.status = 418
    return error


def test_what_may_reach_a_caller_is_no_mistake_of_ours() -> None:
    """Refused statements are one; and a run that was handed over ends in its worker, as a
    checkpoint that found no place outside does in its task."""
    tree = [kind for kind in kinds(SvsyncError) if kind.__module__ == errors.__name__]
    assert len(tree) > 20
    unnamed = {kind.__name__ for kind in tree if status_of(made(kind)) == 500}
    assert unnamed <= {"StoreError", "HandedOverError", "AnchorError"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnauthenticatedError("m"), 401),
        (ForbiddenError("m"), 403),
        (errors.NotFoundError("m"), 404),
        (ConfigError("m"), 422),
        (ConfigError("m", code="managed_by_file"), 409),
        (ConfigError("m", code="backend_paused"), 409),
        (errors.MappingError("m", code="mapping_overlap"), 409),
        (RequestError(413, "m", code="body_too_large"), 413),
        (TooManyFailuresError(3), 429),
        (errors.BackendUnreachableError("m", operation="read"), 502),
        (errors.DeniedError("m", operation="read"), 502),
        (errors.WriteOutcomeUnknownError("m", push_id="p"), 504),
        (errors.StoreUnavailableError("m"), 503),
        (errors.KeyServiceError("m"), 503),
        (errors.KeyServiceError("m", code="value_unreadable"), 500),
        (errors.StoreError("m"), 500),
        (SvsyncError("m"), 500),
    ],
)
def test_an_error_has_its_status(error: SvsyncError, status: int) -> None:
    assert status_of(error) == status
