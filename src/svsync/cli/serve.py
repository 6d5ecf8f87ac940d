"""`svsync serve`: the daemon."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import add_command
from svsync.cli.output import say
from svsync.domain.errors import UsageError
from svsync.domain.roles import Role

if TYPE_CHECKING:
    from svsync.app import App
    from svsync.config.model import Settings
    from svsync.daemon.service import Place


_MOST: Final = 64


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "serve", "run the service until it is told to stop", serve)
    parser.add_argument(
        "--role",
        metavar="ROLES",
        default=",".join(Role),
        help="what this process does, of api, worker, scheduler (default: all)",
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=int,
        default=1,
        help="so many processes that answer at one port; the first does what else there is to do"
        " (default: 1)",
    )
    parser.set_defaults(loop=choose_loop)


def choose_loop(args: argparse.Namespace) -> "Callable[[], asyncio.AbstractEventLoop] | None":
    """What makes the event loop, as it is configured."""
    from svsync.cli.opening import read_settings
    from svsync.daemon.loops import loop_factory

    return loop_factory(read_settings(args))


async def serve(args: argparse.Namespace) -> int:
    """Everything that runs for ever; 0 when it was told to stop."""
    from svsync.cli.opening import compiled, read_settings, settings_of
    from svsync.daemon import processes, service
    from svsync.daemon.beside import Beside

    roles = _roles(args.role)
    if not 1 <= args.processes <= _MOST:
        raise UsageError(f"--processes is a whole number from 1 to {_MOST}")
    if args.processes > 1 and Role.API not in roles:
        raise UsageError("--processes is for those that answer: give them the role api")
    settings = settings_of(args)
    compiled(settings)

    def load() -> "Settings":
        wanted = read_settings(args)
        compiled(wanted)
        return wanted

    if args.processes > 1:
        return await processes.serve_processes(
            settings,
            load,
            many=args.processes,
            roles=roles,
            argv=lambda theirs: _argv(args, theirs),
            told=lambda address: _say(address, f"{args.processes} processes"),
        )
    beside = Beside.read(os.environ)
    if beside is not None:
        beside.end_with_parent()
    await service.serve(
        settings,
        load,
        roles=roles,
        beside=beside,
        told=lambda app, place: _tell(app, place, alone=beside is None),
    )
    return 0


def _argv(args: argparse.Namespace, roles: Collection[Role]) -> list[str]:
    """The command line of one process of several."""
    argv = [sys.executable, "-m", "svsync", "serve", "--role", ",".join(roles)]
    if args.config is not None:
        argv += ["--config", args.config]
    return [*argv, "--no-migrate"] if args.no_migrate else argv


def _roles(text: str) -> list[Role]:
    named = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in named if word not in set(Role)]
    if unknown or not named:
        wrong = f" {unknown[0]!r}" if unknown else ""
        raise UsageError(f"--role: there is no role{wrong}: use some of {', '.join(Role)}")
    return [Role(word) for word in named]


def _tell(app: "App", place: "Place", *, alone: bool) -> None:
    """For the log; and for the person at the terminal, where nobody else tells."""
    from svsync.observe.logs import get_logger

    store = "an embedded PostgreSQL" if app.embedded else "DATABASE_URL"
    get_logger().info("serving", address=place.api, endpoint=place.metrics, detail=f"on {store}")
    if alone:
        _say(place.api, f"on {store}")


def _say(address: str | None, how: str) -> None:
    if sys.stderr.isatty():
        say(f"serving{f' at {address}' if address else ''}, {how}; Ctrl-C stops it")
