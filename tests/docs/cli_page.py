"""The page `docs/reference/cli.md`, made from the parser: `python -m tests.docs.cli_page`."""

import argparse
import sys
from collections.abc import Iterator

from svsync.cli.main import build_parser

_HEAD = """\
# Command line

Made from the parser: `python -m tests.docs.cli_page > docs/reference/cli.md`. Exit codes are in the [README](../../README.md#exit-codes).
"""  # noqa: E501

_COMMON = "common options"


def page() -> str:
    """The whole page."""
    parser = build_parser()
    parts = [_HEAD, "\n## Everywhere\n\nBefore and after the command.\n\n"]
    parts += _table(_actions(parser, common=True))
    for words, words_parser, about in commands(parser):
        parts.append(f"\n## svsync {' '.join(words)}\n\n{about[:1].upper()}{about[1:]}.\n")
        actions = list(_actions(words_parser, common=False))
        if actions:
            parts.append("\n")
            parts += _table(iter(actions))
    return "".join(parts)


def commands(
    parser: argparse.ArgumentParser, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser, str]]:
    """Every command that does something: its words, its parser, its help."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, inner in action.choices.items():
            below = list(commands(inner, (*above, name)))
            yield from below or [((*above, name), inner, helps.get(name, ""))]


def _actions(parser: argparse.ArgumentParser, *, common: bool) -> Iterator[argparse.Action]:
    for group in parser._action_groups:
        if (group.title == _COMMON) is common:
            for action in group._group_actions:
                if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
                    yield action


def _table(actions: Iterator[argparse.Action]) -> Iterator[str]:
    yield "| option | what |\n| --- | --- |\n"
    for action in actions:
        name = action.option_strings[-1] if action.option_strings else ""
        metavar = action.metavar or (
            "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
        )
        takes = "" if action.nargs == 0 else str(metavar)
        shown = " ".join(filter(None, (name, takes))).replace("|", "\\|")
        if action.nargs == "*":
            shown += " …"
        needed = "; required" if action.required and action.option_strings else ""
        yield f"| `{shown}` | {(action.help or '').replace('|', chr(92) + '|')}{needed} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
