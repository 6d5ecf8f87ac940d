"""The man page, made from the parser: `python -m svsync.cli.manual > svsync.1`."""

import argparse
import sys
from collections.abc import Iterator
from typing import Final

from svsync.cli.arguments import TOKEN, URL
from svsync.cli.examples import EXAMPLES
from svsync.cli.main import build_parser

_ENVIRONMENT: Final = {
    URL: "the address of a service: commands ask it, in place of the store itself, as with --url",
    TOKEN: "the token for it; nobody sees it who lists processes",
    "SVSYNC_DEBUG": "1: where an unexpected error happened is told",
}
"""What the command line itself reads; the settings are another page."""


def page() -> str:
    """The whole page, in the macros of man(7); ASCII."""
    parser = build_parser()
    lines = ['.TH SVSYNC 1 "" svsync "svsync"', ".SH NAME"]
    lines.append(rf"svsync \- {_text(parser.description or '')}")
    lines += [".SH SYNOPSIS", r".B svsync", r".I COMMAND", r"[\fIOPTION\fR ...]"]
    lines += [".SH COMMON OPTIONS", "Before and after the command."]
    lines += _options(parser, common=True)
    lines.append(".SH COMMANDS")
    for words, below in _commands(parser):
        named = f"svsync {words}"
        lines += [f'.SS "{_text(named)}"', _text(below.description or "")]
        lines += _options(below, common=False)
        lines += [".PP", ".nf", *(rf"    {_text(line)}" for line in EXAMPLES.get(words, ())), ".fi"]
    lines += [".SH EXIT STATUS", _text((parser.epilog or "").removeprefix("Exit codes: "))]
    lines.append(".SH ENVIRONMENT")
    for name, about in _ENVIRONMENT.items():
        lines += [".TP", rf"\fB{_text(name)}\fR", _text(about)]
    lines += [".SH SEE ALSO", _text("svsync COMMAND --help; docs/reference/cli.md")]
    return "\n".join(lines) + "\n"


def _commands(
    parser: argparse.ArgumentParser, above: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, by its words."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                words = f"{above} {name}".strip()
                if below.get_default("command") is not None:
                    yield words, below
                yield from _commands(below, words)


def _options(parser: argparse.ArgumentParser, *, common: bool) -> Iterator[str]:
    for group in parser._action_groups:
        if (group.title == "common options") is not common:
            continue
        for action in group._group_actions:
            if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
                yield ".TP"
                yield _named(action)
                yield _text(_about(action))


def _named(action: argparse.Action) -> str:
    metavar = action.metavar
    if metavar is None:
        chosen = "|".join(map(str, action.choices or ()))
        metavar = chosen or action.dest.upper()
    takes = "" if action.nargs == 0 else rf"\fI{_text(str(metavar))}\fR"
    flags = ", ".join(rf"\fB{_text(flag)}\fR" for flag in action.option_strings)
    more = " ..." if action.nargs in ("*", "+") else ""
    return " ".join(filter(None, (flags, takes))) + more


def _about(action: argparse.Action) -> str:
    needed = "; required" if action.required and action.option_strings else ""
    return f"{action.help or ''}{needed}" or "one of these"


def _text(text: str) -> str:
    """Text that means itself to troff."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    plain = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in plain)
    return rf"\&{plain}" if plain.startswith((".", "'")) else plain


if __name__ == "__main__":
    sys.stdout.write(page())
