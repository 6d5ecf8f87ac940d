"""Commands whose answer a service gives, at `--url`, in place of the store on this machine.

A module here has the name of the one in `svsync.cli` that has the command, and a function
the name of that one's. Arguments, words, JSON and exit codes are the same: what is told of
an answer is told by the functions there. A command that has no function here has no
counterpart in the API, and says so.
"""

import argparse
from importlib import import_module
from typing import Final

from svsync.cli.arguments import Command, by_itself
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
        "inventory",
        "lifecycle",
        "policies",
        "run",
        "secrets",
        "status",
        "tokens",
        "verify",
        "webhooks",
    }
)
_NEEDS_NO_STORE: Final = ("serve", "healthcheck", "demo", "config", "map", "completion", "schema")
"""First words of commands that have nothing to do with the store that a service has."""
_ON_THE_STORE: Final = "run it on the machine of the store"
_HERE: Final = "it is done here, without a store"
WHY: Final = {
    "serve": "it is the service",
    "healthcheck": "it finds the service of this machine by its configuration",
    "backends apply": "it brings in the file of the machine of the store, as a reload of the"
    " service does; `backends add` adds one over --url",
    "map lint": f"it reads rules from a configuration file; {_HERE}",
    "retire plan": "it asks each source how its secrets are deleted, with logins that a service"
    f" lends to nobody; {_ON_THE_STORE}",
    "groups": "whoever runs the store says who belongs to what, where tokens do not;"
    f" {_ON_THE_STORE}",
    "audit verify": "a service cannot vouch for its own log; it reads the rows themselves,"
    f" {_ON_THE_STORE}",
    "audit key": "the key is to be had where no service could forge it; " + _ON_THE_STORE,
    "keys": "keys belong to whoever runs the store (`GET /v1/keys` tells their ages);"
    f" {_ON_THE_STORE}",
    "tenants": f"a token is of one tenant; {_ON_THE_STORE}",
    "migrate": f"it changes the database itself; {_ON_THE_STORE}",
    "config": f"it reads the configuration file; {_HERE}",
    "retention run": "the service does that by itself once an hour; to have it done now,"
    f" {_ON_THE_STORE}",
    "completion": f"it writes a script for this shell; {_HERE}",
    "schema": f"it is part of this program; {_HERE}",
    "doctor": f"it looks at the store's machine and what it may do; {_ON_THE_STORE}",
    "demo": "it starts servers of its own",
}
"""Commands that ask no service, or the first words of several, and why; what to do instead."""


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
    raise UsageError(f"`{args.words}` asks no service, {by_itself(args)}: {why(args.words)}")


def why(words: str) -> str:
    """Why the command `svsync …` asks no service, and what to do instead.

    Raises KeyError: it asks one.
    """
    verb, *further = words.removeprefix("svsync ").split()
    return WHY.get(" ".join((verb, *further))) or WHY[verb]


def of(command: Command) -> Command | None:
    """The function here that answers for a command; None: there is none."""
    module = command.__module__.rpartition(".")[2]
    if module not in _MODULES:
        return None
    there = f"{__name__}.{module}"
    found: Command | None = getattr(import_module(there), command.__name__, None)
    # A name that a module only imports is not a command of its own.
    return found if found is not None and found.__module__ == there else None
