"""Answers that a replica of the database may give say how old they are."""

import math
from collections.abc import Sequence

from aiohttp import web

from svsync.http.identity import Handler
from svsync.observe.replica_lag import told_of_lag

_LAG = "X-SVSync-Replica-Lag-Ms"


def aged(handler: Handler) -> Handler:
    """A handler whose answer says how old what it was made of may be, where a replica gave it."""

    async def told(request: web.Request) -> web.StreamResponse:
        with told_of_lag() as lags:
            answer = await handler(request)
        answer.headers.update(age_of(lags))
        return answer

    return told


def age_of(lags: Sequence[float]) -> dict[str, str]:
    """The header for some looks at a replica, each by the seconds that it is old at most."""
    return {_LAG: str(math.ceil(max(lags) * 1000))} if lags else {}
