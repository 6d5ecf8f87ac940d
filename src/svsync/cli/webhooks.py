"""Webhooks as an operator looks after them: endpoints, their secrets, their deliveries."""

import argparse
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import acting_user, add_command, add_group
from svsync.cli.output import Output
from svsync.domain.errors import UsageError

if TYPE_CHECKING:
    from svsync.domain.ids import TenantId
    from svsync.services.webhooks import Webhooks

_SHOWN: Final = 20
_ID: Final = re.compile(r"whk_[0-9a-f]{32}")


def add_commands(subparsers: Any) -> None:
    webhooks = add_group(subparsers, "webhooks", "where events are told, and what became of them")
    add_command(webhooks, "list", "every endpoint, in a line each", list_endpoints)
    added = add_command(webhooks, "add", "make an endpoint and show its secret, this once", add)
    added.add_argument("url", metavar="URL", help="an https URL that takes POST")
    added.add_argument(
        "--type",
        metavar="TYPE",
        nargs="+",
        action="extend",
        default=[],
        help="an event type, such as federation.sync.failed (default: all)",
    )
    added.add_argument(
        "--path",
        metavar="GLOB",
        nargs="+",
        action="extend",
        default=[],
        help="local paths; of events that name paths only these are told (default: all)",
    )
    added.add_argument(
        "--only-if-changed",
        action="store_true",
        help="of completed cycles only those that changed something",
    )
    tried = add_command(webhooks, "test", "send one message now, and say what came of it", test)
    shown = add_command(webhooks, "deliveries", "what was sent, newest first", deliveries)
    shown.add_argument(
        "--state", metavar="STATE", choices=("due", "delivered", "dead"), help="these only"
    )
    shown.add_argument(
        "--limit", metavar="N", type=int, default=_SHOWN, help=f"how many (default: {_SHOWN})"
    )
    shown.add_argument("--cursor", metavar="EVENT", help="go on below the page that ended so")
    turned = add_command(webhooks, "rotate", "make a new secret and show it, this once", rotate)
    turned.add_argument(
        "--at-once",
        action="store_true",
        help="the secret before it signs no more; else it does so for a day",
    )
    again = add_command(webhooks, "replay", "send again what is dead", replay)
    again.add_argument(
        "--event", metavar="EVENT", help="this one, also where it was delivered (default: all dead)"
    )
    removed = add_command(webhooks, "remove", "let go of an endpoint and its deliveries", remove)
    for parser in (tried, shown, turned, again, removed):
        parser.add_argument("endpoint", metavar="ID", help="whk_…, as `webhooks list` shows it")


@asynccontextmanager
async def _opened(
    args: argparse.Namespace, action: str | None = None, **about: object
) -> AsyncIterator[tuple["Webhooks", "TenantId"]]:
    """With what the audit log is to tell of before it is done; None: it changes nothing."""
    from svsync.app import open_webhooks
    from svsync.cli.opening import opened, record

    given = getattr(args, "endpoint", "")
    if _ID.fullmatch(given):  # what is no id may be the endpoint's own secret
        about["webhook"] = given
    async with opened(args) as (app, tenant), open_webhooks(app) as (webhooks, _):
        if action is not None:
            await record(app, tenant, action, about=about)
        yield webhooks, tenant


async def list_endpoints(args: argparse.Namespace) -> int:
    async with _opened(args) as (webhooks, tenant):
        found: list[dict[str, Any]] = await webhooks.list_endpoints(tenant)
    tell_endpoints(args, found)
    return 0


def tell_endpoints(args: argparse.Namespace, found: Sequence[Mapping[str, Any]]) -> None:
    """Endpoints, in a line each."""
    out: Output = args.out
    if out.json:
        out.document({"webhooks": found})
        return
    if not found:
        out.line("There are no webhooks: `svsync webhooks add URL` makes one.")
        return
    out.table(
        ("id", "url", "types", "paths", "state", "due", "failing since"),
        [
            (
                e["id"],
                e["url"],
                "\n".join(e["types"]) or "all",
                "\n".join(e["path_patterns"]) or "all",
                "failing" if e["failing_since"] and e["state"] == "active" else e["state"],
                e["due"],
                e["failing_since"],
            )
            for e in found
        ],
    )


async def add(args: argparse.Namespace) -> int:
    from svsync.domain.webhooks import Subscription

    wants = Subscription(tuple(args.type), tuple(args.path), args.only_if_changed)
    asked = {"types": args.type, "path_patterns": args.path}
    async with _opened(args, "webhook.create", **asked) as (webhooks, tenant):
        made = await webhooks.create(tenant, args.url, wants, by=f"cli:{acting_user()}")
    tell_made(args, made)
    return 0


def tell_made(args: argparse.Namespace, made: Mapping[str, Any]) -> None:
    """An endpoint that is new, with its secret."""
    out: Output = args.out
    if out.json:
        out.document(made)
        return
    out.facts([("id", made["id"]), ("url", made["url"]), ("secret", made["secret"])])
    out.line("Keep the secret now: it is shown this once.")


async def test(args: argparse.Namespace) -> int:
    """Exit 1 where it did not arrive."""
    async with _opened(args, "webhook.test") as (webhooks, tenant):
        told = await webhooks.send_test(tenant, args.endpoint)
    return tell_tried(args, told)


def tell_tried(args: argparse.Namespace, told: Mapping[str, Any]) -> int:
    """What came of a message; the exit code that says it too."""
    out: Output = args.out
    if out.json:
        out.document(told)
    elif told["delivered"]:
        out.line(f"It arrived in {told['duration_ms']} ms: status {told['status_code']}.")
    else:
        status = f", status {told['status_code']}" if told["status_code"] else ""
        out.line(f"It did not arrive: {told['error_code']}{status}.")
    return 0 if told["delivered"] else 1


async def deliveries(args: argparse.Namespace) -> int:
    refuse_no_limit(args)
    async with _opened(args) as (webhooks, tenant):
        page: dict[str, Any] = await webhooks.deliveries(
            tenant, args.endpoint, state=args.state, limit=args.limit, cursor=args.cursor
        )
    tell_deliveries(args, page)
    return 0


def refuse_no_limit(args: argparse.Namespace) -> None:
    if args.limit < 1:
        raise UsageError("--limit is a number from 1 on")


def tell_deliveries(args: argparse.Namespace, page: Mapping[str, Any]) -> None:
    """A page of deliveries."""
    out: Output = args.out
    if out.json:
        out.document(page)
        return
    out.table(
        ("event", "type", "backend", "number", "state", "tries", "status", "error", "next"),
        [
            (
                d["event_id"],
                d["type"],
                d["backend_id"],
                d["sequence"],
                d["state"],
                d["attempts"],
                d["status_code"],
                d["error_code"],
                d["next_at"],
            )
            for d in page["deliveries"]
        ],
    )
    if page["next_cursor"]:
        out.line(f"There are more: --cursor {page['next_cursor']}")


async def rotate(args: argparse.Namespace) -> int:
    async with _opened(args, "webhook.rotate", at_once=args.at_once) as (webhooks, tenant):
        made = await webhooks.rotate_secret(tenant, args.endpoint, at_once=args.at_once)
    tell_rotated(args, made)
    return 0


def tell_rotated(args: argparse.Namespace, made: Mapping[str, Any]) -> None:
    """A new secret."""
    out: Output = args.out
    if out.json:
        out.document(made)
        return
    until = made["previous_valid_until"]
    out.facts([("secret", made["secret"]), ("the one before signs until", until)])
    out.line("Keep the secret now: it is shown this once.")


async def replay(args: argparse.Namespace) -> int:
    async with _opened(args, "webhook.replay") as (webhooks, tenant):
        many = await webhooks.replay(tenant, args.endpoint, event=args.event)
    tell_replayed(args, many)
    return 0


def tell_replayed(args: argparse.Namespace, many: int) -> None:
    """How many deliveries are due again."""
    out: Output = args.out
    if out.json:
        out.document({"id": args.endpoint, "replayed": many})
    else:
        out.line(f"Due again: {many}.")


async def remove(args: argparse.Namespace) -> int:
    async with _opened(args, "webhook.delete") as (webhooks, tenant):
        await webhooks.delete(tenant, args.endpoint)
    tell_removed(args)
    return 0


def tell_removed(args: argparse.Namespace) -> None:
    """An endpoint that is gone."""
    out: Output = args.out
    if out.json:
        out.document({"id": args.endpoint, "removed": True})
    else:
        out.line(f"{args.endpoint} is removed.")
