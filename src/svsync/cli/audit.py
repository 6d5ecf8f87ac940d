"""The audit log: who did what, whether it fits together, and the key that its checkpoints
are signed with."""

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import acting_user, add_command, add_group
from svsync.cli.output import Output, say
from svsync.domain.errors import UsageError
from svsync.domain.ids import KeyId
from svsync.domain.tenants import SHREDDED

if TYPE_CHECKING:
    from svsync.ports import ReadableAnchor
    from svsync.services.signing import PublicKey

_LIMIT: Final = 100
_MOST: Final = 10_000
_S3: Final = "s3:"
_LINE: Final = 64 * 1024
"""Characters of one line of an anchor; what is longer is no checkpoint."""


def add_commands(subparsers: Any) -> None:
    audit = add_group(subparsers, "audit", "who did what, and whether the log fits together")
    asked = add_command(audit, "query", "accesses, allowed and denied, newest first", query)
    asked.add_argument("--identity-id", metavar="ID", help="whose, as sa:billing")
    asked.add_argument(
        "--secret-path", metavar="PATH", help="to which secret; PATH/** is whatever is below"
    )
    asked.add_argument("--action", metavar="ACTION", help="which, as secret.read")
    asked.add_argument("--decision", choices=("allow", "deny"), help="how they ended")
    asked.add_argument(
        "--start", metavar="TIME", help="from when on: 2026-11-23T10:00:00Z, or '1 hour ago'"
    )
    asked.add_argument("--end", metavar="TIME", help="before when, likewise")
    asked.add_argument(
        "--limit", metavar="N", type=int, default=_LIMIT,
        help=f"how many at most (default: {_LIMIT})",
    )  # fmt: skip
    asked.add_argument("--cursor", metavar="CURSOR", help="the next_cursor of the page before")
    checked = add_command(audit, "verify", "compute every chain and signature anew", verify)
    checked.add_argument(
        "--anchor", metavar="PLACE", action="append", default=[],
        help="what a place outside has kept: a file of lines, or s3:… as audit_anchors makes it;"
        " may be given several times",
    )  # fmt: skip
    checked.add_argument(
        "--since", metavar="TIME", help="believe what is older: a time as for --start"
    )
    checked.add_argument(
        "--key", metavar="FILE", action="append", default=[], dest="keys",
        help="what `svsync audit key --json` printed before: of a tenant that was shredded nothing"
        " else checks signatures",
    )  # fmt: skip
    add_command(audit, "key", "the public key that checkpoints are signed with", key)


async def query(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened_log
    from svsync.domain.audit import Decision, Entry
    from svsync.services.audit import QUERY, Asked

    refuse_unusable(args)
    asked = Asked(
        identity_id=args.identity_id,
        secret_path=args.secret_path,
        action=args.action,
        decision=args.decision,
        begin=args.start,
        end=args.end,
        limit=args.limit,
        cursor=args.cursor,
    )
    async with opened_log(args) as (app, tenant):
        by = f"cli:{acting_user()}"
        await app.recorder.record(Entry(tenant, "operator", by, QUERY, Decision.ALLOW))
        try:
            page = await app.audit.logs(tenant, asked)
        except ValueError:
            raise UsageError("--cursor is the next_cursor that a page before ended with") from None
    tell_logs(args, page)
    return 0


def refuse_unusable(args: argparse.Namespace) -> None:
    """Raises UsageError for what no log can be asked."""
    from svsync.domain.errors import SvsyncError
    from svsync.domain.paths import parse_local

    if not 1 <= args.limit <= _MOST:
        raise UsageError(f"--limit is a whole number from 1 to {_MOST:,}")
    for flag, given in (("--start", args.start), ("--end", args.end)):
        _moment(flag, given)
    if args.secret_path is not None:
        try:
            parse_local(args.secret_path.removesuffix("/**"))
        except SvsyncError as error:
            raise UsageError(f"--secret-path cannot be one: {error.message}") from None


def tell_logs(args: argparse.Namespace, page: Mapping[str, Any]) -> None:
    """A page of the log."""
    out: Output = args.out
    if out.json:
        out.document(page)
        return
    if not page["logs"]:
        out.line("Nothing was recorded that fits.")
        return
    out.table(
        ("time", "identity", "action", "decision", "path", "version", "from"),
        [
            (
                row["timestamp"][:19] + "Z",
                row["identity_id"],
                row["action"],
                row["decision"],
                row["secret_path"] or row["backend_id"] or "",
                row["version"] or "",
                row["source_ip"] or "",
            )
            for row in page["logs"]
        ],
    )
    if page["next_cursor"]:
        out.line(f"There is more: --cursor {page['next_cursor']}, or a greater --limit.")


async def verify(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened_log

    out: Output = args.out
    since = _moment("--since", args.since)
    keys = {one.id: one for name in args.keys for one in _keys(name)}
    with ExitStack() as stack:
        lines = [_lines(stack, name) for name in args.anchor if not name.startswith(_S3)]
        async with opened_log(args) as (app, tenant):
            _, status = await app.tenants.find(args.tenant)
            if status == SHREDDED and not keys:
                raise UsageError(
                    "the key that signed was destroyed with the tenant: name what `svsync audit key"
                    " --json` printed before by --key FILE"
                )
            readable = app.checkpoints.readable
            places = [_place(readable, name) for name in args.anchor if name.startswith(_S3)]
            report = await app.verification.verify(
                tenant, lines, places=places, since=since, keys=keys
            )
    if out.json:
        out.document(report.as_json())
        return 0 if report.fits else 1
    _show(out, report.as_json())
    return 0 if report.fits else 1


def _keys(name: str) -> "Iterator[PublicKey]":
    """The public keys of a file. Raises UsageError."""
    from svsync.services.signing import PublicKey

    try:
        for one in json.loads(Path(name).read_text("utf-8"))["keys"]:
            public = bytes.fromhex(one["public_key"])
            if len(public) != 32:
                raise ValueError
            yield PublicKey(KeyId(int(one["key_id"])), public, one["state"], one["created_at"])
    except OSError:
        raise UsageError(f"--key {name} cannot be read") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"--key {name} is not what `svsync audit key --json` prints") from None


async def key(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened

    out: Output = args.out
    async with opened(args) as (app, tenant):
        await app.signing.signer(tenant)
        keys = (await app.signing.public_keys(tenant)).values()
    if out.json:
        out.document(
            {
                "keys": [
                    {
                        "key_id": one.id,
                        "algorithm": "Ed25519",
                        "public_key": one.key.hex(),
                        "state": one.state,
                        "created_at": one.created_at,
                    }
                    for one in keys
                ]
            }
        )
        return 0
    out.table(
        ("id", "public key (Ed25519)", "state", "created"),
        [(one.id, one.key.hex(), one.state, one.created_at[:10]) for one in keys],
    )
    return 0


def _show(out: Output, report: dict[str, Any]) -> None:
    """The report, for people."""
    out.facts(
        [
            ("chains", report["chains"]),
            ("rows", report["rows"]),
            ("checkpoints", report["checkpoints"]),
            ("lines of anchors", report["anchored"]),
            ("anchored until", report["anchored_until"] or "nothing is, as far as was given"),
            ("signed until", report["signed_until"] or "nothing is yet"),
            ("removed by retention", _before(report["trimmed_before"])),
        ]
    )
    alone = report["on_chain_only"]
    if alone["rows"]:
        out.line(
            f"What was recorded from {alone['from']} on rests on its chains alone (rows:"
            f" {alone['rows']:,}): no checkpoint covers it yet, and the end could be cut off."
        )
    first = report["first_misfit"]
    if first is None:
        out.line("Everything fits.")
        return
    out.line()
    out.table(
        ("kind", "where", "time", "what"),
        [(one["kind"], _where(one), one["at"] or "", one["message"]) for one in report["misfits"]],
    )
    if report["more_misfits"]:
        out.line(f"And {report['more_misfits']:,} more.")
    say(f"the audit log does not fit: first {_where(first)}: {first['message']}")


def _where(misfit: dict[str, Any]) -> str:
    if misfit["seq"] is not None:
        return f"chain {misfit['chain']} row {misfit['seq']}"
    if misfit["kind"] == "anchor":
        line = f"line {misfit['line']}, " if misfit["line"] else ""
        return f"{line}checkpoint {misfit['checkpoint'] or 'unknown'}"
    if misfit["kind"] == "checkpoint":
        return f"checkpoint {misfit['checkpoint']}"
    return f"chain {misfit['chain']}"


def _before(moment: str | None) -> str:
    return "nothing" if moment is None else f"what was before {moment}"


def _moment(flag: str, given: str | None) -> datetime | None:
    from svsync.domain.moments import WORDS, parse_moment

    if given is None:
        return None
    try:
        return parse_moment(given, datetime.now(UTC))
    except ValueError:
        raise UsageError(f"{flag} is {WORDS}") from None


def _place(readable: Mapping[str, "ReadableAnchor"], name: str) -> "ReadableAnchor":
    """A place that the configuration names. Raises UsageError where it names none such."""
    found = readable.get(name)
    if found is None:
        known = f"it has {', '.join(sorted(readable))}" if readable else "it has none of these"
        raise UsageError(f"--anchor {name} is not in audit_anchors: {known}")
    return found


def _lines(stack: ExitStack, name: str) -> Iterator[str]:
    """The lines of a file, one at a time. Raises UsageError where it cannot be opened."""
    try:
        file = stack.enter_context(Path(name).open(encoding="utf-8", errors="replace"))  # noqa: SIM115 - it closes it
    except (OSError, ValueError):
        raise UsageError(f"--anchor {name} cannot be read") from None
    return iter(lambda: file.readline(_LINE), "")
