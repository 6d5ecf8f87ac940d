"""How backends are, by a service: once, or as they change.

What no tenant is told, whether all runs are stopped and which processes are up, is left out.
"""

import argparse
import asyncio
from typing import Any

from svsync.cli.rates import Rates
from svsync.cli.remote.federation import id_of
from svsync.cli.remote.opening import asked, told
from svsync.cli.standing import of_backend, show
from svsync.client import Client
from svsync.client import SvsyncError as Answered


async def status(args: argparse.Namespace) -> int:
    if args.watch:
        return await _watch(args)
    async with asked(args) as client:
        named = args.backend and await id_of(client, args.backend)
        look = await client.federation.overview()
    show(args.out, of_backend(look, named), one=bool(named))
    return 0


async def _watch(args: argparse.Namespace) -> int:
    """Until Ctrl-C. A service that is away is looked at again; what it refuses ends this."""
    from svsync.cli.status_view import keep_showing, on_interrupt

    stop = on_interrupt()
    async with asked(args) as client:
        tenant = (await client.auth.whoami())["tenant"]
        named = args.backend and await id_of(client, args.backend)
        rates = Rates()

        async def look() -> dict[str, Any]:
            return rates.told(of_backend(await _look(client), named))

        await keep_showing(args, look, stop, tenant)
    return 0


async def _look(client: Client) -> Any:
    """Raises ServiceAwayError where the next look may find it; SvsyncError of the client."""
    from svsync.cli.status_view import PATIENCE_S, ServiceAwayError

    try:
        async with asyncio.timeout(PATIENCE_S):
            return await client.federation.overview()
    except TimeoutError:
        raise ServiceAwayError("it has not answered in time", code="service_unreachable") from None
    except Answered as error:
        if not _passes(error):
            raise
        problem = told(error)
        raise ServiceAwayError(problem.message, code=problem.code) from None


def _passes(error: Answered) -> bool:
    """Nobody answered, or the service is not well, or asks for fewer calls."""
    if error.status is None:
        return error.code == "service_unreachable"
    return error.status >= 500 or error.status == 429
