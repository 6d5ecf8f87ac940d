"""Tenants as an operator has them: made, listed, and shredded for good."""

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import add_command, add_group
from svsync.cli.output import Output, say
from svsync.domain.errors import UsageError
from svsync.domain.tenants import SHREDDED, parse_slug

if TYPE_CHECKING:
    from svsync.services.tenants import Shredded

_CLEARED: Final = "secrets cleared away"


def add_commands(subparsers: Any) -> None:
    tenants = add_group(subparsers, "tenants", "the tenants, which share nothing but this store")
    add_command(tenants, "list", "every tenant, whatever its state", list_tenants)
    made = add_command(tenants, "create", "make a tenant, with its first keys", create)
    gone = add_command(
        tenants, "shred", "destroy the keys of a tenant, and so all its secrets, for good", shred
    )
    for parser in (made, gone):
        parser.add_argument("slug", metavar="SLUG", help="a-z, 0-9 and -, at most 63")
    gone.add_argument(
        "--confirm",
        metavar="SLUG",
        help="the slug once more; without it, it is asked for, on a terminal alone",
    )


async def list_tenants(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened_store

    out: Output = args.out
    async with opened_store(args) as app:
        found = await app.tenants.list_all()
    if out.json:
        out.document({"tenants": found})
        return 0
    out.table(
        ("tenant", "state", "backends", "made (UTC)"),
        [(t["slug"], t["status"], t["backends"], t["created_at"][:19]) for t in found],
    )
    return 0


async def create(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened_store, record

    out: Output = args.out
    slug = parse_slug(args.slug)
    async with opened_store(args) as app:
        tenant = await app.tenants.begin(slug)
        await record(app, tenant, "tenant.create")
        await app.tenants.open(tenant, slug)
    if out.json:
        out.document({"tenant": slug, "status": "active"})
    else:
        out.line(f"The tenant {slug} is there: `svsync tokens create --tenant {slug}` lets callers")
        out.line("in; backends of the file that name it come with the next start or reload.")
    return 0


async def shred(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened_store, record

    out: Output = args.out
    slug = parse_slug(args.slug)
    if args.confirm is not None and args.confirm != slug:
        raise UsageError("--confirm is not the slug of the tenant: nothing was done")
    async with opened_store(args) as app:
        tenant, status = await app.tenants.find(slug)
        if args.confirm is None and status != SHREDDED:
            await _ask(slug)
        await record(app, tenant, "tenant.shred")
        signed: bool | None = None
        if status != SHREDDED:
            # The last that its key signs covers that it is done, and by whom.
            signed = await app.checkpoints.cover(tenant)
            await app.checkpoints.run()
        with out.counting(f"{slug}: {_CLEARED}") as tell:
            done = await app.tenants.shred(tenant, slug, tell)
    if out.json:
        out.document({**_told(slug, done), "last_checkpoint_signed": signed})
        return 0
    _tell(out, slug, done)
    if signed is False:
        out.line("No last checkpoint was signed: the end of its log rests on its chains alone.")
    return 0


async def _ask(slug: str) -> None:
    """Raises UsageError where nobody confirms it."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"this cannot be undone, and nobody can be asked: add --confirm {slug} to mean it"
        )
    say(
        f"this destroys every secret of the tenant {slug} for good, and nobody can bring them"
        f" back; type {slug} to go on"
    )
    typed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, typed.set)  # so that Ctrl-C is heard meanwhile
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin)
    if sys.stdin.readline().strip() != slug:
        raise UsageError("that is not the slug of the tenant: nothing was done")


def _told(slug: str, done: "Shredded") -> dict[str, object]:
    return {
        "tenant": slug,
        "status": SHREDDED,
        "shredded_before": done.before,
        "keys_destroyed": done.keys,
        "keys_erased": done.keys_erased,
        "backends_paused": done.backends,
        "runs_withdrawn": done.runs,
        "pushes_withdrawn": done.pushes,
        "secrets_removed": done.secrets,
        "rows_removed": done.rows,
    }


def _tell(out: Output, slug: str, done: "Shredded") -> None:
    if done.before:
        out.line(f"The tenant {slug} was shredded before; what was left of it is cleared away.")
    else:
        out.line(f"The tenant {slug} is shredded: {done.keys:,} keys were destroyed for good.")
    out.facts(
        [
            ("backends paused", done.backends),
            ("waiting runs withdrawn", done.runs),
            ("writes to backends given up", done.pushes),
            ("secrets cleared away", done.secrets),
        ]
    )
    if not done.keys_erased:
        out.line(
            "The files of the database hold its keys still, wrapped: the table `data_keys` is in"
            " use, or svsync's role does not own it; the service tries again, or run this again."
        )
    out.line(
        "Backups and WAL of before hold its keys, wrapped: let them expire. Those of after may hold"
        " what the keys sealed, until vacuumed: nothing opens it."
    )
