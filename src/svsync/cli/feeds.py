"""Secrets of change feeds that arrive over HTTP: shown once, listed, revoked."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from svsync.cli.arguments import acting_user, add_command, add_group, backend_option
from svsync.cli.output import Output
from svsync.domain.feeds import HTTP_FEEDS, is_secret_id


def add_commands(subparsers: Any) -> None:
    feeds = add_group(subparsers, "feeds", "secrets with which senders tell of changes over HTTP")
    made = add_command(feeds, "add", "make a feed's secret and show it, this once", add)
    backend_option(made)
    made.add_argument(
        "--feed",
        metavar="FEED",
        choices=HTTP_FEEDS,
        default=HTTP_FEEDS[0],
        help=f"{' or '.join(HTTP_FEEDS)}, as the backend names it under events"
        f" (default: {HTTP_FEEDS[0]})",
    )
    listed = add_command(feeds, "list", "every secret, without its text", list_secrets)
    backend_option(listed, required=False)
    gone = add_command(feeds, "revoke", "let a secret count no more", revoke)
    gone.add_argument("secret_id", metavar="ID", help="fds_…, as `feeds list` shows it")


async def add(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    async with opened(args) as (app, tenant):
        asked = {"feed": args.feed, "backend": args.backend}
        await record(app, tenant, "feed_secret.create", about=asked)
        made: dict[str, Any] = await app.feed_secrets.create(
            tenant, args.backend, args.feed, by=f"cli:{acting_user()}"
        )
    tell_made(args, made)
    return 0


def tell_made(args: argparse.Namespace, made: Mapping[str, Any]) -> None:
    """A secret that is new, with its text."""
    out: Output = args.out
    if out.json:
        out.document(made)
        return
    out.line(made["secret"])  # on a line of its own, which no table folds
    out.line()
    out.facts([("id", made["id"]), ("good for", f"POST {made['path']}")])
    out.line("Keep the secret now: it is shown this once.")


async def list_secrets(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened

    async with opened(args) as (app, tenant):
        found: list[dict[str, Any]] = await app.feed_secrets.list_secrets(tenant, args.backend)
    tell_secrets(args, found)
    return 0


def tell_secrets(args: argparse.Namespace, found: Sequence[Mapping[str, Any]]) -> None:
    """Secrets of feeds, without their text."""
    out: Output = args.out
    if out.json:
        out.document({"feed_secrets": found})
        return
    if not found:
        out.line("There are no secrets of feeds: `svsync feeds add --backend ID` makes one.")
        return
    out.table(
        ("id", "backend", "feed", "made", "last used"),
        [
            (one["id"], one["backend_id"], one["feed"], one["created_at"][:10],
             one["last_used_on"] or "never")
            for one in found
        ],
    )  # fmt: skip


async def revoke(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    # What is no id may be the secret's own text.
    named = {"feed_secret": args.secret_id} if is_secret_id(args.secret_id) else None
    async with opened(args) as (app, tenant):
        await record(app, tenant, "feed_secret.revoke", about=named)
        await app.feed_secrets.revoke(tenant, args.secret_id)
    tell_revoked(args)
    return 0


def tell_revoked(args: argparse.Namespace) -> None:
    """A secret that counts no more."""
    out: Output = args.out
    if out.json:
        out.document({"id": args.secret_id, "state": "revoked"})
    else:
        out.line(f"{args.secret_id} is revoked.")
