"""The grammar of the command line: common options, groups, and what an error says."""

import argparse
import difflib
import os
import pwd
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn

from svsync.cli import examples
from svsync.cli.output import say
from svsync.domain.errors import SvsyncError, UsageError

if TYPE_CHECKING:
    from svsync.domain.ids import LocalPath

Command = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]
"""What a command's parser names with `set_defaults(command=…)`; it gives the exit code."""

URL: Final = "SVSYNC_URL"
TOKEN: Final = "SVSYNC_TOKEN"
"""A token in the environment is seen by nobody who lists processes."""


class _Help(argparse.HelpFormatter):
    """Folds all but examples, which are to be typed as they stand."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(examples.HEAD):
            return "".join(f"{indent}{line}\n" for line in text.splitlines())
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A parser whose every command takes the common options, before and after its name, and
    ends its help with examples.

    A common option has no default here, so that a command does not undo what was given
    before it; the defaults are those of the whole program's parser.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)
        self.epilog = self.epilog or examples.of(self.prog.removeprefix("svsync "))
        common = self.add_argument_group("common options")
        for flag, words, kind in (
            ("--config", "the configuration file", {"metavar": "FILE"}),
            (
                "--tenant",
                "whose secrets (default: default)",
                {"metavar": "SLUG", "action": _NamedTenant},
            ),
            (
                "--url",
                f"ask the service there, in place of the store itself (default: {URL})",
                {"metavar": "URL", "dest": "service"},
            ),
            (
                "--token",
                f"for --url: env:NAME, file:/PATH or the token itself (default: {TOKEN})",
                {"metavar": "TOKEN"},
            ),
            ("--ca", "for --url: CA certificates in place of the system's", {"metavar": "FILE"}),
            ("--json", "one JSON object, for programs", {"action": "store_true"}),
            ("--no-migrate", "refuse a database of an older schema", {"action": "store_true"}),
        ):
            options = {"default": argparse.SUPPRESS, "help": words, **kind}
            common.add_argument(flag, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever, but for two things. Words after an option join those before it, where
        the command names the list (`rest`). What is not understood is told by its name
        alone, for the rest of it may be a value."""
        found, left = self.parse_known_args(args, namespace)
        if found.rest and not any(word.startswith("-") for word in left):
            getattr(found, found.rest).extend(left)
        elif left:
            flags = [word.partition("=")[0] for word in left if word.startswith("-")]
            self.error(f"there is no option {flags[0]}" if flags else "there is a word too many")
        return found

    def error(self, message: str) -> NoReturn:
        say(f"{message}; `{self.prog} --help` shows what there is")
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            near = difflib.get_close_matches(str(value), known, n=1)
            meant = f"the nearest is {near[0]}" if near else f"there are {', '.join(known)}"
            raise argparse.ArgumentError(None, f"there is no {value!r}, {meant}")


class _NamedTenant(argparse.Action):
    """A service's tenant is that of the token, so who names one is told where it is another."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        namespace.tenant = values
        namespace.tenant_named = True


def add_command(subparsers: Any, name: str, words: str, command: Command) -> Parser:
    """A command's parser, to which its own options are added."""
    parser: Parser = subparsers.add_parser(name, help=words, description=f"{words.capitalize()}.")
    parser.set_defaults(command=command, words=parser.prog)
    return parser


def add_group(subparsers: Any, name: str, words: str) -> Any:
    """A command that is a noun; its verbs are added to what this gives."""
    parser: Parser = subparsers.add_parser(name, help=words, description=f"{words.capitalize()}.")
    return parser.add_subparsers(metavar="COMMAND", required=True, title="commands")


def add_group_with_command(
    subparsers: Any, name: str, words: str, command: Command
) -> tuple[Parser, Any]:
    """A command that is also a noun: its own parser, and what its verbs are added to."""
    parser = add_command(subparsers, name, words, command)
    return parser, parser.add_subparsers(metavar="COMMAND", title="commands")


def backend_option(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--backend", metavar="ID", required=required, help="a backend's id or name")


def local_path(text: str) -> "LocalPath":
    """A path given as an argument. Raises UsageError for one that cannot be a path."""
    from svsync.domain.paths import parse_local

    try:
        return parse_local(text)
    except SvsyncError as error:
        raise UsageError(f"the path cannot be one: {error.message}") from None


def by_itself(args: argparse.Namespace) -> str:
    """What to do so that no service is asked: its address may be in the environment alone."""
    return f"unset {URL}" if args.service is None else "leave --url out"


def token_of(args: argparse.Namespace) -> str | None:
    """The token of `--token`, or of the environment; None: there is neither.

    Raises:
        UsageError: it refers to what is no token.
        ConfigError: the variable or file cannot be used.
    """
    given: str | None = args.token or os.environ.get(TOKEN)
    if given is None or not given.startswith(("env:", "file:")):
        return given
    from svsync.config.references import Reference, resolve
    from svsync.domain.errors import ConfigError

    try:
        reference = Reference.parse(given)
    except ConfigError:
        raise UsageError("--token takes env:NAME, file:/PATH or the token itself") from None
    return resolve(reference, environ=os.environ, allowed_file_roots=None).reveal().strip()


def acting_user() -> str:
    """Who runs this program, for what is recorded of a change."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
