"""The program `svsync`: arguments in, one exit code out.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration, 3 the backend is
unreachable, 4 conflicts wait for a person (asked for by `--fail-on-conflicts`), 5
something was skipped (`--fail-on-partial`), 75 somebody else runs this backend now,
130 and 143 for SIGINT and SIGTERM.

Nothing heavy is imported before a command runs, so that help and completion are quick.
"""

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from svsync import __version__
from svsync.cli.arguments import URL, Command, Parser
from svsync.cli.output import Output, say
from svsync.domain.errors import (
    BackendBusyError,
    BackendError,
    BackendUnreachableError,
    ConfigError,
    ConflictChangedError,
    SvsyncError,
    UsageError,
    WriteOutcomeUnknownError,
)

_COMMANDS = (
    "serve",
    "healthcheck",
    "run",
    "federation",
    "status",
    "conflicts",
    "secrets",
    "copy",
    "verify",
    "imports",
    "inventory",
    "retire",
    "tokens",
    "policies",
    "groups",
    "auth",
    "webhooks",
    "feeds",
    "audit",
    "keys",
    "tenants",
    "admin",
    "schema",
    "doctor",
    "demo",
)
"""Modules of this package; each adds its commands with `add_commands(subparsers)`."""

_PR_SET_DUMPABLE = 4


def run() -> NoReturn:
    """The console entry point."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    _have_standard_streams()
    try:
        args = build_parser().parse_args(argv)
        _keep_memory_private()
        args.out = Output(json=args.json)
        return _execute(args)
    except SystemExit as leaving:  # argparse: help, version, wrong usage
        return leaving.code if isinstance(leaving.code, int) else 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()


def exit_code(error: SvsyncError) -> int:
    """The one place where errors become exit codes."""
    match error:
        case UsageError() | ConfigError():
            return 2
        case BackendBusyError():
            return 75
        case BackendUnreachableError():
            return 3
        case _:
            return 1


def _execute(args: argparse.Namespace) -> int:
    try:
        command = _command(args)
        factory = args.loop(args) if args.loop else None
        return _until_a_signal(command(args), factory)
    except _Interrupted as interrupted:
        error, code = SvsyncError("interrupted", code="interrupted"), 128 + interrupted.signal
    except SvsyncError as known:
        error, code = known, exit_code(known)
    except Exception as unexpected:  # noqa: BLE001 - no foreign text reaches anybody
        error, code = _unexpected(unexpected), 1
    try:
        _failed(args, error)
    except SvsyncError as second:  # the answer could not be written either
        say(second.message)
    return code


def _command(args: argparse.Namespace) -> Command:
    """What is to be done, on the store itself or by asking a service.

    Raises UsageError: this command asks no service.
    """
    if args.service is None and not os.environ.get(URL):
        if args.token is not None and args.words != "svsync auth whoami":
            raise UsageError("--token is for --url, the service that it is good for: give both")
        here: Command = args.command
        return here
    from svsync.cli.remote import counterpart

    return counterpart(args)


def _unexpected(error: Exception) -> SvsyncError:
    """What is told of a mistake in this program; where it happened, for those who ask."""
    from svsync.observe.failures import class_name, describe

    if os.environ.get("SVSYNC_DEBUG"):
        stack = describe(error).get("stack")
        for place in stack if isinstance(stack, list) else ():
            say(f"  at {place}")
    return SvsyncError(
        f"an unexpected {class_name(error)} ended this command; please report it with what"
        " SVSYNC_DEBUG=1 shows"
    )


def _failed(args: argparse.Namespace, error: SvsyncError) -> None:
    """One sentence for people and, where none was given yet, one object for programs."""
    say(_sentence(args, error))
    out: Output = args.out
    if not out.json or out.answered or exit_code(error) == 2:
        return
    told: dict[str, object] = {"code": error.code, "message": error.message}
    if isinstance(error, BackendBusyError):
        until = error.expires_at
        told = {
            "code": error.code,
            "holder": error.holder,
            "expires_at": until and until.isoformat().replace("+00:00", "Z"),
        }
    if isinstance(error, ConflictChangedError):
        told["conflict"] = error.conflict
    if isinstance(error, WriteOutcomeUnknownError):
        told["push_id"] = error.push_id
    out.document({**args.failure, "error": told})


def _sentence(args: argparse.Namespace, error: SvsyncError) -> str:
    """The error's own sentence, with the backend that it is about."""
    about = f"{args.backend}: " if args.backend else ""
    match error:
        case BackendUnreachableError():
            advice = "check config.endpoint, and the network on the way there"
            return f"{about}{error.message}; {advice}"
        case BackendError():
            return f"{about}{error.message}"
        case _:
            return error.message


# --- signals --------------------------------------------------------------------------


class _Interrupted(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


def _until_a_signal(
    command: Coroutine[Any, Any, int], factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> int:
    """Run the command. The first SIGINT or SIGTERM cancels it: it cleans up behind
    itself. The second ends the process where it stands.

    Raises:
        _Interrupted: the command ended because of a signal.
    """
    received: list[int] = []

    async def supervise() -> int:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            if received:
                os._exit(128 + number)
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        return await command

    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(supervise())
    except asyncio.CancelledError:
        if not received:
            raise
        raise _Interrupted(received[0]) from None


# --- arguments ------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """All commands. Building it loads none of what they need."""
    parser = Parser(
        prog="svsync",
        description="Federates the secret stores you have into one sealed, audited store.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 backend"
        " unreachable, 4 conflicts wait, 5 partial, 75 somebody else runs this backend now.",
    )
    parser.add_argument("--version", action="version", version=f"svsync {__version__}")
    parser.set_defaults(
        config=None,
        tenant="default",
        tenant_named=False,
        service=None,
        token=None,
        ca=None,
        json=False,
        no_migrate=False,
        failure={},
        rest=None,
        backend=None,
        loop=None,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for name in _COMMANDS:
        import_module(f"svsync.cli.{name}").add_commands(commands)
    return parser


# --- the process ----------------------------------------------------------------------


def _have_standard_streams() -> None:
    """Three open streams, so that nothing else gets their numbers, and no text breaks them."""
    try:
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
    except OSError:
        pass
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _keep_memory_private() -> None:
    """No core dump holds a value, and no other process of this user reads our memory."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
