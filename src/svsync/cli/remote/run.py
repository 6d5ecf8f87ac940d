"""Reports of past runs, by a service."""

import argparse
from typing import Final

from svsync.cli import run as here
from svsync.cli.remote.federation import id_of
from svsync.cli.remote.opening import asked
from svsync.client import Client
from svsync.client import SvsyncError as Answered
from svsync.client.records import Run, RunInBrief
from svsync.domain.errors import NotFoundError

_PAGE: Final = 1000


async def list_runs(args: argparse.Namespace) -> int:
    limit = max(1, args.limit)
    runs: list[RunInBrief] = []
    async with asked(args) as client:
        backend = await id_of(client, args.backend)
        cursor = None
        while len(runs) < limit:
            page = await client.federation.runs(
                backend, limit=min(_PAGE, limit - len(runs)), cursor=cursor
            )
            runs += page["runs"]
            if (cursor := page["next_cursor"]) is None:
                break
    here.tell_runs(args, runs)
    return 0


async def show_run(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        run = await _found(client, args.run)
    here.tell_run(args, run)
    return 0


async def _found(client: Client, run: str) -> Run:
    """A run by its id alone: the API has it under its backend, so each is asked for it.

    Raises NotFoundError: none has it.
    """
    for backend in await client.federation.backends.list():
        try:
            return await client.federation.run(backend["id"], run)
        except Answered as error:
            if error.status != 404:
                raise
    raise NotFoundError(f"no backend has a run {run!r}", code="run_not_found")
