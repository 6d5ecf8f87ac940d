"""What a store holds that is to be moved off, and who still reads it there."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import add_command, add_group_with_command
from svsync.cli.output import Output, quoted
from svsync.domain.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from svsync.domain.federation import BackendSpec

_DEPTH: Final = 8
_MOST: Final = 100_000
_LIMIT: Final = 10_000
_GIVEN_BY: Final = {
    "config.endpoint": "--vault-addr",
    "config.namespace": "VAULT_NAMESPACE",
    "config.tls_verify": "VAULT_CACERT",
    "config.region": "--aws-region",
    "config.endpoint_url": "AWS_ENDPOINT_URL",
}
"""Where a person gave what a backend has as a setting."""
_SENTENCES: Final = {
    "federate": "federate",
    "copy": "copy",
    "recreate": "re-create",
    "leave": "leave",
}


def add_commands(subparsers: Any) -> None:
    taken, verbs = add_group_with_command(
        subparsers, "inventory", "what a store holds, and what to do with it", inventory
    )
    source = taken.add_mutually_exclusive_group()
    source.add_argument("--backend", metavar="ID", help="a backend's id or name")
    source.add_argument(
        "--vault-addr", metavar="URL",
        help="a Vault or OpenBao that is not configured; signs in with VAULT_TOKEN or"
        " ~/.vault-token, and takes VAULT_NAMESPACE and VAULT_CACERT",
    )  # fmt: skip
    source.add_argument(
        "--aws-region", metavar="REGION",
        help="a region of AWS Secrets Manager that is not configured; signs in as the AWS tools do",
    )  # fmt: skip
    taken.add_argument(
        "--depth", metavar="N", type=int, default=1,
        help="how many segments of a path make a line (default: 1)",
    )  # fmt: skip
    read = add_command(
        verbs, "readers", "who reads which path: here, or in a Vault by its audit file", readers
    )
    audit_log_option(read)
    read.add_argument("--prefix", metavar="PATH", default="", help="only paths that begin so")
    read.add_argument(
        "--start", metavar="TIME",
        help="only reads from then on: 2026-11-23T10:00:00Z, or '7 days ago'",
    )  # fmt: skip
    read.add_argument(
        "--limit", metavar="N", type=int, default=_LIMIT,
        help=f"how many lines at most (default: {_LIMIT})",
    )  # fmt: skip


def audit_log_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audit-log", metavar="FILE", action="append", default=[],
        help="what a Vault's file audit device writes; its rotated files beside it are read too,"
        " packed by gzip or not; may be given several times",
    )  # fmt: skip


# --- inventory ------------------------------------------------------------------------


async def inventory(args: argparse.Namespace) -> int:
    """Exit 1 where the login may list nothing at all; what it may not list is told."""
    if not 0 <= args.depth <= _DEPTH:
        raise UsageError(f"--depth is a whole number from 0 to {_DEPTH}")
    if args.backend is not None:
        found = await _of_backend(args)
    elif args.vault_addr is not None:
        found = await _of_source(args, _vault(args.vault_addr, os.environ))
    elif args.aws_region is not None:
        found = await _of_source(args, _aws(args.aws_region, os.environ))
    else:
        raise UsageError(
            "name what to look at: --backend ID, --vault-addr URL or --aws-region REGION"
        )
    tell_inventory(args, found)
    return 0


async def _of_backend(args: argparse.Namespace) -> dict[str, Any]:
    from svsync.cli.opening import opened, record
    from svsync.services.inventory import Inventories

    async with opened(args) as (app, tenant):
        await record(app, tenant, "federation.inventory", backend=args.backend)
        inventories = Inventories(app.db, app.registry)
        return await inventories.of_backend(tenant, args.backend, depth=args.depth)


async def _of_source(args: argparse.Namespace, spec: "BackendSpec") -> dict[str, Any]:
    from svsync.app import survey_source
    from svsync.cli.opening import settings_of

    settings = settings_of(args)
    try:
        return await survey_source(settings, spec, depth=args.depth)
    except ConfigError as error:
        given = _GIVEN_BY.get(error.where)
        if given is None:
            raise
        raise UsageError(f"{given} {error.message.removeprefix(f'{error.where}: ')}") from None


def _vault(address: str, environ: Mapping[str, str]) -> "BackendSpec":
    """A Vault as its own tools find it. Raises ConfigError: there is no token."""
    kept = Path(environ.get("HOME", "/"), ".vault-token")
    if environ.get("VAULT_TOKEN"):
        _refuse_unprintable(environ["VAULT_TOKEN"])
        credential = "env:VAULT_TOKEN"
    elif kept.is_file():
        credential = f"file:{kept.absolute()}"
    else:
        raise ConfigError("--vault-addr needs a token: export VAULT_TOKEN, or run `vault login`")
    config: dict[str, object] = {
        "endpoint": address.rstrip("/"),
        "auth_method": "token",
        "auth_config_path": credential,
    }
    if environ.get("VAULT_NAMESPACE"):
        config["namespace"] = environ["VAULT_NAMESPACE"].strip("/")
    if environ.get("VAULT_CACERT"):
        config["tls_verify"] = environ["VAULT_CACERT"]
    return _source("hashicorp-vault", config)


def _refuse_unprintable(token: str) -> None:
    """What no header can carry is no token. Nothing of it is in the error."""
    if not (token.strip().isascii() and token.strip().isprintable()):
        raise UsageError(
            "VAULT_TOKEN holds a character that no token has, as a line break: export it anew"
        )


def _aws(region: str, environ: Mapping[str, str]) -> "BackendSpec":
    config: dict[str, object] = {"region": region}
    for name in ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"):
        if environ.get(name):
            config.setdefault("endpoint_url", environ[name])
    return _source("aws-secrets-manager", config)


def _source(kind: str, config: Mapping[str, object]) -> "BackendSpec":
    from svsync.domain.federation import BackendSpec
    from svsync.domain.ids import BackendId

    return BackendSpec(BackendId("source"), "source", kind, (), config)


def tell_inventory(args: argparse.Namespace, found: Mapping[str, Any]) -> None:
    out: Output = args.out
    if out.json:
        out.document(found)
        return
    if found["engines"]:
        out.table(
            ("mount", "engine", "do", "because"),
            [
                (quoted(e["path"]), e["kind"], _SENTENCES[e["advice"]], e["why"])
                for e in found["engines"]
            ],
        )
        out.line()
    if found["folders"]:
        out.table(
            ("below", "secrets", "federated", *_SENTENCES.values()),
            [
                (
                    quoted(folder["prefix"]) or "/",
                    folder["secrets"],
                    folder["federated"],
                    *(folder["advice"][advice] for advice in _SENTENCES),
                )
                for folder in found["folders"]
            ],
        )
    else:
        out.line("It holds no secrets that this login may list.")
    if found["notable"]:
        out.line()
        out.table(
            ("path", "do", "because"),
            [(quoted(n["path"]), _SENTENCES[n["advice"]], n["why"]) for n in found["notable"]],
        )
        if found["notable_more"]:
            out.line(f"And {found['notable_more']:,} more.")
    if found["not_listed"]:
        out.line()
        out.table(
            ("not listed below", "outcome", "because"),
            [(quoted(s["prefix"]) or "/", s["outcome"], s["reason"]) for s in found["not_listed"]],
        )
        if found["not_listed_more"]:
            out.line(f"And {found['not_listed_more']:,} more.")
    out.line()
    total = ", ".join(f"{_SENTENCES[a]} {n:,}" for a, n in found["advice"].items())
    out.heading(f"Secrets: {found['secrets']:,}; {total}.")
    if found["simple"]:
        out.line(
            "KV v2 alone, and few secrets: where one team owns them, they may be copied at once."
        )


# --- readers --------------------------------------------------------------------------


async def readers(args: argparse.Namespace) -> int:
    from svsync.domain.readers import Readers
    from svsync.registry import access_log
    from svsync.services.inventory import tell_readers

    since = asked_since(args)
    prefix: str = args.prefix
    if not args.audit_log:
        tell_readers_here(args, await _readers_here(args, since))
        return 0
    counted = Readers(lambda path: path.startswith(prefix), since)
    found = await tell_readers(access_log(args.audit_log), counted, most=args.limit)
    _tell_readers(args.out, found)
    return 0


def asked_since(args: argparse.Namespace) -> "datetime | None":
    """From when on reads are meant. Raises UsageError, for what no log can be asked too."""
    from datetime import UTC, datetime

    from svsync.domain.moments import WORDS, parse_moment

    if args.backend or args.vault_addr or args.aws_region:
        raise UsageError("`inventory readers` looks at logs alone: leave the store's name out")
    if not 1 <= args.limit <= _MOST:
        raise UsageError(f"--limit is a whole number from 1 to {_MOST:,}")
    try:
        return parse_moment(args.start, datetime.now(UTC)) if args.start else None
    except ValueError:
        raise UsageError(f"--start is {WORDS}") from None


async def _readers_here(args: argparse.Namespace, since: "datetime | None") -> dict[str, Any]:
    from svsync.cli.opening import opened, record
    from svsync.services.audit import QUERY
    from svsync.services.inventory import Inventories

    async with opened(args) as (app, tenant):
        await record(app, tenant, QUERY)
        inventories = Inventories(app.db, app.registry)
        return await inventories.readers(tenant, args.prefix, since, most=args.limit)


def tell_readers_here(args: argparse.Namespace, found: Mapping[str, Any]) -> None:
    """Readers by our own audit log."""
    out: Output = args.out
    if out.json:
        out.document(found)
        return
    if not found["readers"]:
        out.line("No application read a secret here that fits.")
        return
    out.table(
        ("path", "reader", "reads", "last read"),
        [
            (quoted(row["path"]), row["reader"], row["reads"], _minute(row["last_read_at"]))
            for row in found["readers"]
        ],
    )
    if found["truncated"]:
        out.line("There are more: narrow it by --prefix, or raise --limit.")


def _tell_readers(out: Output, found: Mapping[str, Any]) -> None:
    if out.json:
        out.document(found)
        return
    if found["readers"]:
        columns = ("path", "reader", "reads", "last read", "from where")
        out.table(columns, [_reader_row(row) for row in found["readers"]])
    else:
        out.line("No secret that fits was read.")
    if found["readers_more"]:
        out.line(f"And {found['readers_more']:,} more: narrow it by --prefix, or raise --limit.")
    out.line()
    begin, end = (_minute(found[name]) for name in ("begin", "end"))
    out.line(f"Entries of the log: {found['entries']:,}, from {begin} to {end}.")
    if found["broken_lines"]:
        out.line(f"Lines that cannot be read: {found['broken_lines']:,}; each may be a read.")
    if found["reads_left_off"]:
        out.line(f"Reads by further readers: {found['reads_left_off']:,}; use --prefix.")


def _reader_row(row: Mapping[str, Any]) -> Sequence[object]:
    where = f"{row['namespace']}/" if row["namespace"] else ""
    who = row["reader"] + (f" ({row['role']})" if row["role"] else "")
    last = _minute(row["last_read_at"])
    return quoted(where + row["path"]), who, row["reads"], last, row["last_address"] or ""


def _minute(moment: str | None) -> str:
    return "-" if moment is None else f"{moment[:10]} {moment[11:16]}Z"
