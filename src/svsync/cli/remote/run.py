"""Runs that a service works, and the reports of past ones."""

import argparse
import asyncio
from datetime import datetime
from typing import Final, Literal

from svsync.cli import run as here
from svsync.cli.arguments import by_itself
from svsync.cli.output import Output, say
from svsync.cli.remote.federation import id_of
from svsync.cli.remote.opening import asked, told
from svsync.client import Client
from svsync.client import SvsyncError as Answered
from svsync.client.records import Run, RunInBrief
from svsync.domain.errors import BackendBusyError, NotFoundError, SvsyncError, UsageError

_PAGE: Final = 1000
_PLANNING_S: Final = 60.0
_POLL_S: Final = 0.5
_PATIENCE: Final = 20
"""Looks at a run that has not begun, until whoever waits is told that it has not."""
_UNDER_WAY: Final = ("queued", "running")

Allow = Literal["mass_delete", "mass_overwrite", "mass_regression"]


async def run_once(args: argparse.Namespace) -> int:
    """One cycle, which the service works; who asks for it only waits, and may leave."""
    if args.dry_run:
        raise UsageError(
            f"--dry-run asks no service: `svsync plan` does, or {by_itself(args)} and run it on the"
            " machine of the store"
        )
    out: Output = args.out
    async with asked(args) as client:
        backend = await id_of(client, args.backend)
        if not args.wait:
            await _refuse_busy(client, backend)
        made = await client.federation.sync(backend, paths=args.path, allow=_allowed(args))
        args.failure = {"run_id": made["run_id"]}
        try:
            run = await _ended(client, backend, made["run_id"])
        except asyncio.CancelledError:
            say(f"the run goes on without us: `svsync runs show {made['run_id']}` tells of it")
            raise
        status = await client.federation.status(backend)
    if out.json:
        out.document(run)
    else:
        here.show_report(out, run)
    _raise_failure(run)
    if run["state"] == "superseded":
        raise SvsyncError(
            "the run came to nothing, for the backend was changed meanwhile: run it again",
            code="superseded",
        )
    return here.exit_code(args, run, status["conflicts_open"])


def _allowed(args: argparse.Namespace) -> list[Allow]:
    given: tuple[tuple[bool, Allow], ...] = (
        (args.allow_mass_delete, "mass_delete"),
        (args.allow_mass_overwrite, "mass_overwrite"),
        (args.allow_regression, "mass_regression"),
    )
    return [guard for passed, guard in given if passed]


async def _refuse_busy(client: Client, backend: str) -> None:
    """Raises BackendBusyError: somebody runs it now, and what is asked for would wait."""
    lease = (await client.federation.status(backend))["lease"]
    if lease is not None:
        until = datetime.fromisoformat(lease["expires_at"])
        raise BackendBusyError(
            f"{lease['holder']} is running {backend}: wait for it, or give --wait",
            holder=lease["holder"],
            expires_at=until,
        )


def _raise_failure(run: RunInBrief) -> None:
    if run["error"] is not None:
        raise told(Answered(run["error"]["message"], code=run["error"]["code"]))


async def _ended(client: Client, backend: str, run_id: str) -> Run:
    looks = 0
    while (run := await client.federation.run(backend, run_id))["state"] in _UNDER_WAY:
        looks += 1
        if looks == _PATIENCE and run["state"] == "queued":
            say(f"{run_id} has not begun yet: it does once a worker of the service takes it up")
        await asyncio.sleep(_POLL_S)
    return run


async def plan(args: argparse.Namespace) -> int:
    """The exit code is that of the run that would be stopped."""
    out: Output = args.out
    async with asked(args, timeout=_PLANNING_S) as client:
        found = await client.federation.plan(await id_of(client, args.backend), paths=args.path)
    if out.json:
        out.document(found)
    else:
        here.show_report(out, found)
        if more := found["planned"] - len(found["plan"]) - found["hidden"]:
            out.line(f"The service tells no more of it, but that it is {more:,} more.")
        if found["hidden"]:
            out.line(f"And {found['hidden']:,} at paths that the token may not list.")
    _raise_failure(found)
    return 0


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
