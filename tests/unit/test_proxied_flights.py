"""One call of a backend, and those who come and go while it is under way."""

import asyncio
from typing import Any, cast

from svsync.domain.changes import RemoteGone
from svsync.domain.ids import LocalPath, TenantId
from svsync.services.proxied_flights import ProxiedFlights
from svsync.services.proxied_paths import Through

_WAY = cast(Through, type("Way", (), {"backend": "one"}))


async def test_who_goes_in_the_moment_of_the_answer_is_told_nothing() -> None:
    """Nor does the loop tell of a mistake."""
    go, problems = asyncio.Event(), list[dict[str, Any]]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, problem: problems.append(problem))

    async def call(*_: object) -> RemoteGone:
        await go.wait()
        return RemoteGone()

    flights = ProxiedFlights(call, patience=20.0)
    both = [
        asyncio.create_task(flights.share(TenantId(1), LocalPath("a"), _WAY, 1)) for _ in range(2)
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    assert (flights.waiting, flights.under_way) == (2, 1)
    go.set()
    await asyncio.sleep(0)  # the call has ended, and nobody was told yet
    both[0].cancel()
    gone, there = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(gone, asyncio.CancelledError)
    assert isinstance(there, RemoteGone)
    assert (flights.waiting, flights.under_way, problems) == (0, 0, [])
