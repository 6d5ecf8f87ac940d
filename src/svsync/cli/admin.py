"""What keeps svsync itself in order: schema, configuration, retention, shell completion."""

import argparse
from typing import Any, Final

from svsync.cli.arguments import add_command, add_group
from svsync.cli.output import Output

_SHELLS: Final = ("bash", "zsh", "tcsh")


def add_commands(subparsers: Any) -> None:
    migrated = add_command(subparsers, "migrate", "bring the database's schema up to date", migrate)
    migrated.add_argument(
        "--after-restore",
        action="store_true",
        help="the database comes from a backup: make it safe to go on",
    )
    config = add_group(subparsers, "config", "the configuration file")
    add_command(config, "check", "say what is wrong with it, contacting nobody", check)
    add_command(config, "schema", "its JSON Schema, for editors", schema)
    kept = add_group(subparsers, "retention", "what is removed once its time is over")
    add_command(kept, "run", "remove what is due now, and say how much that was", retain)
    shell = add_command(subparsers, "completion", "completion for a shell", completion)
    shell.add_argument("shell", choices=_SHELLS)


async def migrate(args: argparse.Namespace) -> int:
    from svsync.app import migrate_only
    from svsync.cli.opening import operator, settings_of

    restored: bool = args.after_restore
    applied, done = await migrate_only(settings_of(args), restored=restored, by=operator())
    out: Output = args.out
    if out.json:
        document: dict[str, object] = {
            "applied": [{"number": m.number, "name": m.name} for m in applied]
        }
        if done is not None:
            document["restored"] = {
                "fences_raised": done.fences,
                "runs_ended": done.runs,
                "pushes_to_ask_about": done.pushes,
            }
        out.document(document)
        return 0
    if applied:
        out.table(("number", "applied"), [(f"{m.number:04d}", m.name) for m in applied])
    else:
        out.line("The schema is up to date.")
    if done is not None:
        out.line(
            f"Safe to go on after the restore: {done.fences} fences raised, {done.runs} runs"
            f" ended, {done.pushes} pushes to be asked about."
        )
    return 0


async def check(args: argparse.Namespace) -> int:
    """Each backend is checked by its own type too; no credential is read."""
    from svsync.cli.opening import compiled, settings_of

    settings = settings_of(args)
    backends = compiled(settings)
    out: Output = args.out
    if out.json:
        out.document({"file": settings.source, "backends": [spec.id for spec, _ in backends]})
        return 0
    out.line(f"{settings.source or 'The environment alone'}: nothing is wrong with it.")
    rows = [(s.id, s.name, s.type, str(s.mode), len(r.rules)) for s, r in backends]
    if rows:
        out.table(("backend", "name", "type", "mode", "rules"), rows)
    return 0


async def schema(args: argparse.Namespace) -> int:
    from svsync.config.schema import schema_text

    args.out.raw_document(schema_text().rstrip("\n").encode())
    return 0


_REMOVED: Final = {
    "versions": "versions beyond those that are kept",
    "tombstone_values": "values of deleted secrets",
    "tombstones": "deleted secrets, but for their version numbers",
    "conflicts": "closed conflicts",
    "runs": "reports of runs",
    "pushes": "records of writes to backends",
    "detached_pairs": "bases of paths that left a mapping",
    "hidden_copies": "copies of what is read through its backend now",
    "deliveries": "deliveries of events",
    "events": "events that everybody was told of",
    "tokens": "tokens that expired or were revoked",
    "request_keys": "keys of requests of more than a day ago",
    "data_keys": "old data keys that seal nothing any more",
}


async def retain(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from svsync.cli.opening import opened, operator, record

    async with opened(args) as (app, tenant):
        await record(app, tenant, "retention.run")
        removed = asdict(await app.retention.run(tenant, by=operator()))
    out: Output = args.out
    if out.json:
        out.document({"removed": removed})
    else:
        out.table(("what", "removed"), [(_REMOVED[kind], n) for kind, n in removed.items()])
    return 0


async def completion(args: argparse.Namespace) -> int:
    import shtab

    from svsync.cli.main import build_parser

    parser = build_parser()
    _complete_files(parser)
    script = shtab.complete(parser, shell=args.shell)
    out: Output = args.out
    if out.json:
        out.document({"shell": args.shell, "script": script})
    else:
        out.raw(script.encode() + b"\n")
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Let the shell offer file names where a file is meant, also below each command."""
    import shtab

    for action in parser._actions:
        if action.metavar in ("FILE", "DIR"):
            offered = shtab.FILE if action.metavar == "FILE" else shtab.DIRECTORY
            action.complete = offered  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_files(below)
