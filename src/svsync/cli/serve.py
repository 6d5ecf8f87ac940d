"""`svsync serve`: the daemon."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from svsync.cli.arguments import add_command
from svsync.cli.output import say
from svsync.domain.errors import UsageError
from svsync.domain.roles import Role

if TYPE_CHECKING:
    from svsync.app import App
    from svsync.config.model import Settings
    from svsync.daemon.service import Place


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "serve", "run the service until it is told to stop", serve)
    parser.add_argument(
        "--role",
        metavar="ROLES",
        default=",".join(Role),
        help="what this process does, of api, worker, scheduler (default: all)",
    )


async def serve(args: argparse.Namespace) -> int:
    """Everything that runs for ever; 0 when it was told to stop."""
    from svsync.cli.opening import compiled, read_settings, settings_of
    from svsync.daemon import service

    roles = _roles(args.role)
    settings = settings_of(args)
    compiled(settings)

    def load() -> "Settings":
        wanted = read_settings(args)
        compiled(wanted)
        return wanted

    await service.serve(settings, load, roles=roles, told=_tell)
    return 0


def _roles(text: str) -> list[Role]:
    named = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in named if word not in set(Role)]
    if unknown or not named:
        wrong = f" {unknown[0]!r}" if unknown else ""
        raise UsageError(f"--role: there is no role{wrong}: use some of {', '.join(Role)}")
    return [Role(word) for word in named]


def _tell(app: "App", place: "Place") -> None:
    """For the person at the terminal; a log line says the same."""
    from svsync.observe.logs import get_logger

    store = "an embedded PostgreSQL" if app.embedded else "DATABASE_URL"
    get_logger().info("serving", address=place.api, endpoint=place.metrics, detail=f"on {store}")
    if sys.stderr.isatty():
        say(f"serving{f' at {place.api}' if place.api else ''}, on {store}; Ctrl-C stops it")
