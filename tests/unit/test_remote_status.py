"""Which answers of a service end a watch, and which pass?"""

from typing import Any

import pytest

from svsync.cli.remote.status import _look
from svsync.cli.status_view import ServiceAwayError
from svsync.client import SvsyncError


class Service:
    """A client whose service answers so."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self.federation = self

    async def overview(self) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (None, "service_unreachable"),
        (502, "not_svsync"),
        (500, "internal"),
        (503, "unavailable"),
        (429, "rate_limited"),
    ],
)
async def test_what_may_be_over_at_the_next_look_ends_nothing(
    status: int | None, code: str
) -> None:
    service: Any = Service(SvsyncError("away", code=code, status=status))
    with pytest.raises(ServiceAwayError) as told:
        await _look(service)
    assert told.value.code == code


@pytest.mark.parametrize(
    ("status", "code"),
    [(None, "invalid_argument"), (401, "unauthenticated"), (403, "forbidden"), (404, "not_found")],
)
async def test_what_the_next_look_would_be_told_again_ends_it(
    status: int | None, code: str
) -> None:
    service: Any = Service(SvsyncError("no", code=code, status=status))
    with pytest.raises(SvsyncError, match="no"):
        await _look(service)


async def test_a_service_that_takes_long_is_away() -> None:
    service: Any = Service(TimeoutError())
    with pytest.raises(ServiceAwayError, match="in time"):
        await _look(service)
