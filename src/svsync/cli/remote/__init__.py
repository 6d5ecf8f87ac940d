"""Commands whose answer a service gives, at `--url`, in place of the store on this machine.

A module here has the name of the one in `svsync.cli` that has the command, and a function
the name of that one's. Arguments, words, JSON and exit codes are the same: what is told of
an answer is told by the functions there. A command that has no function here has no
counterpart in the API, and says so.
"""

import argparse
from importlib import import_module
from typing import Final

from svsync.cli.arguments import Command
from svsync.domain.errors import UsageError

_MODULES: Final = frozenset(
    {
        "audit",
        "auth",
        "conflicts",
        "copy",
        "federation",
        "feeds",
        "imports",
        "lifecycle",
        "policies",
        "run",
        "secrets",
        "status",
        "verify",
        "webhooks",
    }
)
_NEEDS_NO_STORE: Final = ("serve", "healthcheck", "demo", "config", "map", "completion")
"""First words of commands that have nothing to do with the store that a service has."""


def counterpart(args: argparse.Namespace) -> Command:
    """The same command, by a service.

    Raises UsageError: the API has no such thing.
    """
    here: Command = args.command
    found = of(here)
    if found is not None:
        return found
    _, verb, *_ = args.words.split()
    if args.service is None and verb in _NEEDS_NO_STORE:
        return here
    given = "unset SVSYNC_URL" if args.service is None else "leave --url out"
    raise UsageError(
        f"`{args.words}` asks no service: {given}, and run it on the machine of the store"
    )


def of(command: Command) -> Command | None:
    """The function here that answers for a command; None: there is none."""
    module = command.__module__.rpartition(".")[2]
    if module not in _MODULES:
        return None
    there = f"{__name__}.{module}"
    found: Command | None = getattr(import_module(there), command.__name__, None)
    # A name that a module only imports is not a command of its own.
    return found if found is not None and found.__module__ == there else None
