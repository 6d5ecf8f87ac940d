"""What may be deleted at its source, now that it is read here; nothing is deleted by it."""

import argparse
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from svsync.cli.arguments import add_command, add_group
from svsync.cli.inventory import audit_log_option
from svsync.cli.output import Output, quoted
from svsync.domain.errors import ConfigError, UsageError


def add_commands(subparsers: Any) -> None:
    retire = add_group(subparsers, "retire", "deleting secrets where they came from")
    planned = add_command(
        retire, "plan", "what is equal on both sides, read here, and no longer read there", plan
    )
    planned.add_argument(
        "pattern", metavar="PATTERN", help="local paths, as external/vault/apps/billing/**"
    )
    planned.add_argument(
        "--idle", metavar="TIME", required=True,
        help="how long nobody may have read it at its source, as 7d",
    )  # fmt: skip
    planned.add_argument("--backend", metavar="ID", help="only of this backend (id or name)")
    audit_log_option(planned)
    planned.add_argument(
        "--ours", metavar="NAME", action="append", default=[],
        help="the role by which the log names svsync itself, or the display name of a login without"
        " role and entity, where the backend does not tell it; may be given several times",
    )  # fmt: skip
    planned.add_argument(
        "--trust-broken-lines", action="store_true",
        help="take lines of the log that cannot be read for no reads",
    )  # fmt: skip


async def plan(args: argparse.Namespace) -> int:
    """Exit 0 also where nothing is ready; no command of the plan is run."""
    from svsync.cli.opening import opened, record
    from svsync.domain.globs import Glob
    from svsync.registry import access_log
    from svsync.services.retirement import Asked, Retirement

    try:
        pattern = Glob(args.pattern)
    except UsageError as error:
        raise UsageError(error.message.replace("--path", "PATTERN", 1)) from None
    if not all(name.strip() for name in args.ours):
        raise UsageError("--ours is a display name or role as the log names svsync: it is empty")
    asked = Asked(
        pattern, _idle(args.idle), args.backend, args.ours, trusts_broken=args.trust_broken_lines
    )
    log = access_log(args.audit_log) if args.audit_log else None
    async with opened(args) as (app, tenant):
        about = {"pattern": args.pattern, "idle": args.idle}
        await record(app, tenant, "retirement.plan", backend=args.backend, about=about)
        found = await Retirement(app.db, app.registry).plan(tenant, asked, log)
    tell_plan(args.out, found)
    return 0


def _idle(text: str) -> timedelta:
    from svsync.config.document import Node, resolve_plain
    from svsync.config.kinds import duration

    try:
        seconds: int = duration(60, 3650 * 86_400).read(Node(resolve_plain(text)))
    except ConfigError as error:
        raise UsageError(f"--idle {error.message}") from None
    return timedelta(seconds=seconds)


def tell_plan(out: Output, found: Mapping[str, Any]) -> None:
    """What may be retired, with its commands, and why the rest may not."""
    if out.json:
        out.document(found)
        return
    ready, held = found["ready"], found["held"]
    if held:
        out.table(
            ("path", "because"),
            [
                (quoted(row["path"]), "; ".join(one["why"] for one in row["reasons"]))
                for row in held
            ],
        )
        out.line()
        counted = Counter(one["reason"] for row in held for one in row["reasons"])
        out.line(", ".join(f"{reason}: {many:,}" for reason, many in counted.most_common()))
    for local in found["read_through"]:
        out.line(
            f"{local} is read through, so that nothing of it is kept here: set mode: sync, let a"
            " run complete, and plan again."
        )
    if found["audit_log"] and found["audit_log"]["end"]:
        end = found["audit_log"]["end"]
        out.line(f"The audit log tells of reads until {end[:10]} {end[11:16]}Z.")
    if not ready:
        out.line("Nothing is ready to be retired." if held else "No synced secret fits.")
        return
    out.line()
    out.table(
        ("path", "remote path", "last read here"),
        [
            (quoted(row["path"]), quoted(row["remote_path"]), _here(row["last_read_here"]))
            for row in ready
        ],
    )
    out.line()
    out.heading(f"{len(ready):,} ready. These commands retire them there; none was run:")
    out.line()
    for row in ready:
        if not row["recoverable"]:
            out.line("# for good: what is deleted there cannot be had back")
        out.line(row["command_line"])


def _here(read: Mapping[str, Any]) -> str:
    return f"{read['at'][:10]} {read['at'][11:16]}Z by {read['identity_id']}"
