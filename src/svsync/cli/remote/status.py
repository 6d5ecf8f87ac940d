"""How backends are, by a service.

Each is asked for by itself. What no tenant is told, whether all runs are stopped and which
processes are up, is left out.
"""

import argparse
import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from svsync.cli.output import Output
from svsync.cli.remote.federation import id_of
from svsync.cli.remote.opening import asked
from svsync.cli.standing import show
from svsync.client import Client
from svsync.domain.errors import UsageError

_AT_ONCE: Final = 8


async def status(args: argparse.Namespace) -> int:
    if args.watch:
        raise UsageError(
            "--watch looks at the store itself: leave --url out on its machine, or look again"
        )
    out: Output = args.out
    async with asked(args) as client:
        named = args.backend and await id_of(client, args.backend)
        turn = asyncio.Semaphore(_AT_ONCE)
        backends = await asyncio.gather(
            *(
                _look(client, turn, backend)
                for backend in await client.federation.backends.list()
                if named in (None, backend["id"])
            )
        )
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    if not out.json:
        show(out, {"at": at, "stopped": None, "backends": backends}, one=bool(named))
    elif named:
        out.document(backends[0])
    else:
        out.document({"at": at, "backends": backends})
    return 0


async def _look(
    client: Client, turn: asyncio.Semaphore, backend: Mapping[str, Any]
) -> dict[str, Any]:
    async with turn:
        status = await client.federation.status(backend["id"])
        config = (await client.federation.backends.get(backend["id"]))["config"]
    named = {name: backend[name] for name in ("name", "type", "state")}
    return {**named, **status, "tls_verify": config.get("tls_verify") is not False}
