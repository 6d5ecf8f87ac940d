"""The page `docs/reference/cli.md`, made from the parser: `python -m tests.docs.cli_page`."""

import argparse
import sys
from collections.abc import Iterator

from svsync.cli.examples import EXAMPLES
from svsync.cli.main import build_parser
from svsync.cli.remote import _NEEDS_NO_STORE, WHY, of

_HEAD = """\
# Command line

Made from the parser: `python -m tests.docs.cli_page > docs/reference/cli.md`. So is the man page, `svsync.1` beside it: `python -m svsync.cli.manual`. Exit codes are in the [README](../../README.md#exit-codes).

## Asking a service

```sh
export SVSYNC_URL=https://svsync.internal:8443 SVSYNC_TOKEN=svt_…
svsync secrets get apps/billing/db --field password
```

With `--url`, or `SVSYNC_URL`, the commands that say so below ask a running service, and no store, key or configuration of this machine: as whoever its token vouches for, with the same words, `--json` and exit codes. A token in `SVSYNC_TOKEN` or in a file (`--token file:/run/secrets/svsync`, mode 0600) is seen by nobody who lists processes; one that is written out is. The tenant is the token's; where `--tenant` names another, nothing is done. Plain HTTP goes to loopback alone. `--ca` names the certificates of a private CA.

A service that cannot be reached is exit code 1, `service_unreachable`: 3 says that a backend is, and nobody was told. A write whose answer was lost is `outcome_unknown`: look before you repeat it. `status` does not tell whether all runs are stopped. `run-once` lets the service work the run, and waits for it: who leaves leaves the run at work. `backends pause --all`, `verify --backend`, `inventory` of a backend, and what reads files of a Vault's audit device are for the machine that has these.

These ask no service; to them `--url` is a wrong use (2):

| command | why, and what to do |
| --- | --- |
@WHY@
Where only `SVSYNC_URL` is set, commands that need no store (@NO_STORE@, and `inventory` of a store that is not configured) do what they always do; `map test` asks a service only by `--url`.
"""  # noqa: E501

_COMMON = "common options"


def page() -> str:
    """The whole page."""
    parser = build_parser()
    reasons = "".join(f"| `{words}` | {why} |\n" for words, why in WHY.items())
    no_store = ", ".join(f"`{word}`" for word in _NEEDS_NO_STORE)
    head = _HEAD.replace("@WHY@", reasons).replace("@NO_STORE@", no_store)
    parts = [head, "\n## Everywhere\n\nBefore and after the command.\n\n"]
    parts += _table(_actions(parser, common=True))
    for words, words_parser, about in commands(parser):
        parts.append(f"\n## svsync {' '.join(words)}\n\n{about[:1].upper()}{about[1:]}.\n")
        if of(words_parser.get_default("command")) is not None:
            parts.append("\nWith `--url` a service is asked.\n")
        actions = list(_actions(words_parser, common=False))
        if actions:
            parts.append("\n")
            parts += _table(iter(actions))
        lines = "\n".join(EXAMPLES.get(" ".join(words), ()))
        parts.append(f"\n```sh\n{lines}\n```\n")
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
            if not below or inner.get_default("command") is not None:
                yield (*above, name), inner, helps.get(name, "")
            yield from below


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
