"""`svsync doctor`: what works, what is wrong, and what to do."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from svsync.cli.arguments import add_command
from svsync.cli.output import Output
from svsync.domain.errors import ConfigError

if TYPE_CHECKING:
    from svsync.services.findings import Finding


def add_commands(subparsers: Any) -> None:
    add_command(subparsers, "doctor", "look at the whole, and say what is wrong with it", doctor)


async def doctor(args: argparse.Namespace) -> int:
    """Exit 0 where nothing is wrong, warnings or not; else 1, also for the configuration."""
    from svsync.services.findings import State

    found = await _examine(args)
    count = {state: sum(f.state is state for f in found) for state in State}
    out: Output = args.out
    if out.json:
        out.document(
            {
                "ok": not count[State.WRONG],
                "warnings": count[State.WARNING],
                "wrong": count[State.WRONG],
                "findings": [asdict(finding) for finding in found],
            }
        )
    else:
        out.table(("check", "state", "what"), [(f.check, f.state, _words(f)) for f in found])
        out.line()
        summary = f"{count[State.WRONG]} wrong, {count[State.WARNING]} to think about."
        out.heading(summary, "wrong" if count[State.WRONG] else "ok")
    return 1 if count[State.WRONG] else 0


async def _examine(args: argparse.Namespace) -> "list[Finding]":
    from svsync.app import make_doctor
    from svsync.cli.opening import compiled, settings_of
    from svsync.services.findings import ok, wrong

    try:
        settings = settings_of(args)
    except ConfigError as problem:
        return [wrong("configuration", problem.message)]
    found = []
    source = settings.source or "the environment alone"
    try:
        backends = compiled(settings)
        found.append(ok("configuration", f"{source}; backends: {len(backends)}"))
    except ConfigError as problem:
        found.append(wrong("configuration", problem.message))
    return found + [finding async for finding in make_doctor(settings).examine()]


def _words(finding: "Finding") -> str:
    return f"{finding.says}; {finding.advice}" if finding.advice else finding.says
