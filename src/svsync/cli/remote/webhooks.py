"""Webhooks, by a service."""

import argparse
from typing import Final

from svsync.cli import webhooks as here
from svsync.cli.remote.opening import asked
from svsync.client.records import DeliveryPage

_PAGE: Final = 1000


async def list_endpoints(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        found = await client.webhooks.list()
    here.tell_endpoints(args, found)
    return 0


async def add(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        made = await client.webhooks.create(
            args.url,
            types=args.type,
            path_patterns=args.path,
            only_if_changed=args.only_if_changed,
        )
    here.tell_made(args, made)
    return 0


async def test(args: argparse.Namespace) -> int:
    """Exit 1 where it did not arrive."""
    async with asked(args) as client:
        told = await client.webhooks.test(args.endpoint)
    return here.tell_tried(args, told)


async def deliveries(args: argparse.Namespace) -> int:
    here.refuse_no_limit(args)
    found: DeliveryPage = {"deliveries": [], "next_cursor": args.cursor}
    async with asked(args) as client:
        while True:
            page = await client.webhooks.deliveries(
                args.endpoint,
                state=args.state,
                limit=min(_PAGE, args.limit - len(found["deliveries"])),
                cursor=found["next_cursor"],
            )
            found["deliveries"] += page["deliveries"]
            found["next_cursor"] = page["next_cursor"]
            if page["next_cursor"] is None or len(found["deliveries"]) >= args.limit:
                break
    here.tell_deliveries(args, found)
    return 0


async def rotate(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        made = await client.webhooks.rotate(args.endpoint, at_once=args.at_once)
    here.tell_rotated(args, made)
    return 0


async def replay(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        done = await client.webhooks.replay(args.endpoint, event=args.event)
    here.tell_replayed(args, done["replayed"])
    return 0


async def remove(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        await client.webhooks.delete(args.endpoint)
    here.tell_removed(args)
    return 0
